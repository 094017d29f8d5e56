"""The agent's eye on the certificates: it says what has changed, is broken or expires, and tells the workers.

They read the files themselves, so that no private key travels. The agent reads them, too, because one process
should complain, not every worker, and before it starts.
"""

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import structlog

from msha.edge.port.certificates import DEFAULT, Certificates, Changes, open_to_all

#: How often the directory is looked at without being asked to.
LOOK_EVERY_S = 10.0
#: Of a certificate that expires within the longer time is warned, each time the shorter one has passed.
EXPIRES_SOON_S = 14 * 86_400.0
WARN_EVERY_S = 86_400.0

log = structlog.get_logger("msha.edge.agent")


@dataclass(frozen=True, slots=True)
class Validity:
    """What a certificate in use says of itself.

    Attributes:
        begins_at, expires_at: seconds since the epoch.
        names: host names, maybe with a ``*`` as the first label.
    """

    begins_at: float
    expires_at: float
    names: frozenset[str]

    def covers(self, name: str) -> bool:
        """Whether a client that asked for the name accepts the certificate (RFC 6125 6.4)."""
        return name in self.names or f"*.{name.partition('.')[2]}" in self.names


@dataclass(frozen=True, slots=True)
class CertificateFigures:
    """What metrics tell.

    Attributes:
        expiries: seconds since the epoch, by name.
        refused: how many files cannot be used.
    """

    expiries: dict[str, float]
    refused: int


class CertificateWatch:
    """From the first look, which must find certificates, to the end of the process."""

    def __init__(self, certificates: Certificates) -> None:
        self._certificates = certificates
        self._validities: dict[str, Validity] = {}
        self._warned_at: dict[str, float] = {}
        self._asked = asyncio.Event()

    def begin(self) -> None:
        """The certificates are known.

        Raises:
            UnusableCertificate: the first that is not one; an edge does not start with that.
        """
        changes = self._look()
        for problem in changes.refused.values():
            raise problem
        self._tell(changes)

    def ask(self) -> None:
        """Somebody has changed files and wants them used now."""
        self._asked.set()

    async def run(self, tell_workers: Callable[[], None]) -> None:
        """Look now and then, and when asked; never ends.

        Args:
            tell_workers: to look for themselves. They are told each time: one may have been starting.
        """
        while True:
            try:
                async with asyncio.timeout(LOOK_EVERY_S):
                    await self._asked.wait()
            except TimeoutError:
                pass
            asked = self._asked.is_set()
            self._asked.clear()
            changes = await asyncio.to_thread(self._look)
            tell_workers()
            self._tell(changes)
            if asked and not changes:
                log.info("certificates_unchanged", directory=str(self._certificates.directory))

    def figures(self) -> CertificateFigures:
        """As of the last look."""
        certificates = self._certificates
        refused = len(certificates.refused) + (certificates.unreadable is not None)
        return CertificateFigures(
            {name: validity.expires_at for name, validity in self._validities.items()}, refused
        )

    def _look(self) -> Changes:
        certificates = self._certificates
        changes = certificates.look()
        for name in changes.gone:
            self._validities.pop(name, None)
        for name in changes.read:
            try:
                content = certificates.path(name).read_bytes()
                self._validities[name] = _validity(content)
            except (OSError, ValueError) as error:  # replaced in this very moment: the next look finds it
                log.warning("certificate_not_looked_into", name=name, reason=str(error))
        return changes

    def _tell(self, changes: Changes) -> None:
        certificates = self._certificates
        for name, problem in changes.refused.items():
            serves = bool(name) and name in certificates.names
            log.error("certificate_refused", name=name, reason=str(problem), serves_the_former=serves)
        for name in changes.gone:
            log.warning("certificate_gone", name=name)
        for name in changes.read:
            self._tell_read(name)
        self._warn(self._validities)

    def _tell_read(self, name: str) -> None:
        path, validity = self._certificates.path(name), self._validities.get(name)
        self._warned_at.pop(name, None)
        if open_to_all(path):
            log.warning("private_key_open_to_all", path=str(path), remedy="chmod o= it")
        if validity is None:
            return
        log.info("certificate_read", name=name, expires=_day(validity.expires_at))
        if name != DEFAULT and not validity.covers(name):
            log.warning("certificate_of_another_name", name=name, names=sorted(validity.names))
        if validity.begins_at > time.time():
            log.warning("certificate_not_valid_yet", name=name, begins=_day(validity.begins_at))

    def _warn(self, names: Iterable[str]) -> None:
        now = time.time()
        for name in names:
            expires_at = self._validities[name].expires_at
            if expires_at - now < EXPIRES_SOON_S and now - self._warned_at.get(name, 0.0) >= WARN_EVERY_S:
                self._warned_at[name] = now
                event = "certificate_expires_soon" if expires_at > now else "certificate_expired"
                log.warning(event, name=name, expires=_day(expires_at))


def _validity(pem: bytes) -> Validity:
    """What the first certificate says of itself.

    Raises:
        ValueError: there is none.
    """
    from cryptography import x509  # 10 MB, which an agent without TLS does not need

    certificate = x509.load_pem_x509_certificate(pem)
    try:
        alternatives = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        names = frozenset(name.lower() for name in alternatives.get_values_for_type(x509.DNSName))
    except (x509.ExtensionNotFound, ValueError):
        names = frozenset()
    return Validity(
        certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp(), names
    )


def _day(at: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))
