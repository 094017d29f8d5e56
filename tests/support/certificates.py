"""Certificates made for a test: an authority of its own, and what it signs."""

import datetime
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_PEM = serialization.Encoding.PEM
_HOUR = datetime.timedelta(hours=1)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


class Authority:
    """Signs certificates; whoever trusts it finds them valid."""

    def __init__(self, directory: Path) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._subject = _name("an authority of the tests")
        now = datetime.datetime.now(datetime.UTC)
        builder = self._builder(self._subject, self._key, now, now + datetime.timedelta(days=1))
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(
            x509.KeyUsage(
                digital_signature=True,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                key_cert_sign=True,
                crl_sign=True,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
        self._certificate = builder.sign(self._key, hashes.SHA256())
        self.file = directory / "authority.crt"
        self.file.write_bytes(self._certificate.public_bytes(_PEM))

    def pem(self, *names: str, lasts: datetime.timedelta = _HOUR, serial: int = 0) -> bytes:
        """A certificate for these host names and its private key, as the edge reads them."""
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.datetime.now(datetime.UTC)
        begin = min(now, now + lasts) - _HOUR
        builder = self._builder(_name(names[0]), key, begin, now + lasts, serial)
        alternatives = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
        builder = builder.add_extension(alternatives, critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        return certificate.public_bytes(_PEM) + key.private_bytes(
            _PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def locked(self, name: str) -> bytes:
        """The same with a private key that needs a password."""
        certificate, mark, key = self.pem(name).partition(b"-----BEGIN PRIVATE KEY-----")
        return certificate + serialization.load_pem_private_key(mark + key, None).private_bytes(
            _PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"secret")
        )

    def client(self) -> ssl.SSLContext:
        """What a client that trusts this authority speaks TLS with."""
        context = ssl.create_default_context(cafile=str(self.file))
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        return context

    def _builder(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        begin: datetime.datetime,
        end: datetime.datetime,
        serial: int = 0,
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._subject)
            .public_key(key.public_key())
            .serial_number(serial or x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(end)
        )
