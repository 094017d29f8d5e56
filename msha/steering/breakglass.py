"""Break-glass: a snapshot that an operator signs where there is no console, and an edge takes from a file.

The signature says who made the file. What it may do to a fleet is said inside, in a statement that is signed
with it: which rule it follows, and which units are *fenced*, that is, will not serve the ids they lose,
whatever becomes of the file on their side. Nothing here can know whether that is true. Two units serve one id
where it is not (PROTOCOL, the promise's one exception).
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from msha.steering.errors import Terminal
from msha.steering.ranges import diff
from msha.steering.snapshot import Document, Snapshot, UnitTypeRule, canonical, load

FORMAT = 1

#: What is signed begins so: a signature made for anything else never fits.
_PURPOSE = b"msha signed snapshot 1\n"


@dataclass(eq=False)
class InvalidKey(Terminal):
    """Not the key that is needed."""

    problem: str

    def __str__(self) -> str:
        return self.problem


@dataclass(eq=False)
class InvalidSigned(Terminal):
    """A signed snapshot that no edge takes."""

    problem: str

    def __str__(self) -> str:
        return self.problem


@dataclass(frozen=True, slots=True)
class Base:
    """The snapshot that a signed one follows."""

    version: int
    digest: str
    epoch: int


@dataclass(frozen=True, slots=True)
class Statement:
    """What the signer states about a snapshot.

    Attributes:
        after: what he believed the fleet to obey; None if he did not know.
        fenced: the units that, on his word, serve none of the ids they lose.
        by: who he says he is.
        at: when, in UTC; for people.
    """

    namespace: str
    namespace_id: str
    version: int
    digest: str
    epoch: int
    after: Base | None
    fenced: tuple[str, ...]
    by: str
    at: str

    def document(self) -> Document:
        """As it stands in the file."""
        return {**asdict(self), "fenced": list(self.fenced)}


@dataclass(frozen=True, slots=True)
class Signed:
    """A snapshot whose signature was found to be that of a known key."""

    statement: Statement
    snapshot: Snapshot
    body: bytes
    key: str


# -- keys ----------------------------------------------------------------------------------------------------


def new_key() -> tuple[bytes, bytes]:
    """A new private key and its public one, as PEM files have them."""
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return private, public


def private_key(pem: bytes) -> Ed25519PrivateKey:
    """The key of a PEM file.

    Raises:
        InvalidKey: it holds something else.
    """
    try:
        key = load_pem_private_key(pem, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise InvalidKey("This is not an unencrypted private key; mshactl key new makes one.") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise InvalidKey("This private key is not of Ed25519; mshactl key new makes one.")
    return key


def public_key(pem: bytes) -> Ed25519PublicKey:
    """The key of a PEM file.

    Raises:
        InvalidKey: it holds something else.
    """
    try:
        key = load_pem_public_key(pem)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise InvalidKey(
            "This is not a public key; mshactl key new makes one with the private one."
        ) from error
    if not isinstance(key, Ed25519PublicKey):
        raise InvalidKey("This public key is not of Ed25519; mshactl key new makes one.")
    return key


def key_name(key: Ed25519PublicKey) -> str:
    """What people call the key: the first half of its SHA-256, in hex."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:16]


# -- signing -------------------------------------------------------------------------------------------------


def sign(
    body: bytes,
    key: Ed25519PrivateKey,
    *,
    after: Snapshot | None,
    fenced: Iterable[str],
    by: str,
    at: str,
) -> bytes:
    """The file that an edge takes.

    Args:
        after: what the fleet obeys, as the newest of its nodes has it; None if that is not to be had. Then
            every node looks for itself what it gives to others.

    Raises:
        InvalidSnapshot: the body is none that an edge may obey.
        InvalidSigned: it must not follow `after`, or takes ids from units that are not fenced.
    """
    snapshot = load(body)
    named, base = tuple(sorted(set(fenced))), None
    unknown = [unit for unit in named if unit not in snapshot.units and not (after and unit in after.units)]
    if unknown:
        raise InvalidSigned(f"There is no unit {', '.join(unknown)} that could be fenced.")
    if after is not None:
        base = Base(after.version, after.digest, after.epoch)
        check_newer(after, snapshot)
        check_fenced(after, snapshot, named)
    statement = Statement(
        snapshot.namespace, snapshot.namespace_id, snapshot.version, snapshot.digest, snapshot.epoch,
        base, named, by, at,
    )  # fmt: skip
    said = statement.document()
    document = {
        "msha_signed_snapshot": FORMAT,
        "statement": said,
        "body": body.decode(),
        "key": key_name(key.public_key()),
        "signature": base64.b64encode(key.sign(_PURPOSE + canonical(said))).decode(),
    }
    return json.dumps(document, ensure_ascii=False, indent=1).encode() + b"\n"


def opened(raw: bytes, keys: Sequence[Ed25519PublicKey]) -> Signed:
    """The snapshot of a signed file, compiled.

    Raises:
        InvalidSigned: it is no such file, or none of the keys has signed it as it is.
        InvalidSnapshot: it was signed, but no edge may obey it.
    """
    try:
        document = json.loads(raw)
        if document["msha_signed_snapshot"] != FORMAT:
            raise InvalidSigned(f"The file has format {document['msha_signed_snapshot']!r}, not {FORMAT}.")
        said, body = document["statement"], document["body"].encode()
        signature = base64.b64decode(document["signature"], validate=True)
        key = str(document["key"])
        signed = _PURPOSE + canonical(said)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, binascii.Error) as error:
        raise InvalidSigned("The file is not a whole signed snapshot; mshactl sign makes one.") from error
    if not any(_fits(known, signature, signed) for known in keys):
        raise InvalidSigned(
            f"The signature is none of a key that this node was given: it says key {key[:16]!r}, and the node"
            f" has {', '.join(map(key_name, keys))}."
        )
    statement = _statement(said)
    snapshot = load(body, statement.digest)
    found = (snapshot.namespace, snapshot.namespace_id, snapshot.version, snapshot.epoch)
    if found != (statement.namespace, statement.namespace_id, statement.version, statement.epoch):
        raise InvalidSigned("The statement that was signed is about another snapshot than the file has.")
    return Signed(statement, snapshot, body, key)


def _fits(key: Ed25519PublicKey, signature: bytes, signed: bytes) -> bool:
    try:
        key.verify(signature, signed)
    except InvalidSignature:
        return False
    return True


def _statement(said: Any) -> Statement:
    try:
        after = said["after"]
        base = None if after is None else Base(**after)
        return Statement(**{**said, "after": base, "fenced": tuple(map(str, said["fenced"]))})
    except (TypeError, KeyError) as error:
        raise InvalidSigned(
            "The statement that was signed lacks something, or has something more."
        ) from error


# -- what may follow what ------------------------------------------------------------------------------------


def check_follows(applied: Snapshot, signed: Signed) -> None:
    """Nothing, if a node that obeys the one may go on with the other.

    Raises:
        InvalidSigned: as for `check_newer` and `check_fenced`.
    """
    check_newer(applied, signed.snapshot)
    base = signed.statement.after
    if base is None or base.epoch <= applied.epoch:
        check_fenced(applied, signed.snapshot, signed.statement.fenced)
    # Otherwise this node has missed a step that the signer knew of, and against which he had to state it.


def check_newer(before: Snapshot, after: Snapshot) -> None:
    """Nothing, if versions and epochs of the fleet still only rise.

    Raises:
        InvalidSigned: it is of another namespace or older, or has another rule under the same epoch.
    """
    if after.namespace_id != before.namespace_id:
        raise InvalidSigned(
            f"It is of namespace {after.namespace} ({after.namespace_id}), not of {before.namespace}"
            f" ({before.namespace_id})."
        )
    if after.version <= before.version:
        raise InvalidSigned(
            f"It has version {after.version}; one above {before.version}, which is in force, is needed."
        )
    same = canonical(after.document["rule"]) == canonical(before.document["rule"])
    if after.epoch <= before.epoch and not same:
        raise InvalidSigned(
            f"It has another rule than epoch {before.epoch}, which is in force, but only epoch {after.epoch}."
        )


def check_fenced(before: Snapshot, after: Snapshot, fenced: Iterable[str]) -> None:
    """Nothing, if every unit that may still serve ids of another one is stated to be fenced.

    Raises:
        InvalidSigned: one is not.
    """
    unfenced = sorted(may_serve_still(before, after) - set(fenced))
    if unfenced:
        raise InvalidSigned(
            f"It takes ids from {', '.join(unfenced)}, and nobody has stated that these units are fenced:"
            " two units would serve the same ids until every edge of them has it. Stop every edge there for"
            " good, or give them the file first, and state it with --i-have-fenced."
        )


def may_serve_still(before: Snapshot, after: Snapshot) -> frozenset[str]:
    """The units that may serve ids which the new snapshot gives to another one.

    Those that the old table gives them to, and, where a cutover was running, both its sides: the part of the
    fleet that has heard of its next step cannot be seen from here.
    """
    found: set[str] = set()
    for name, old in before.unit_types.items():
        new = after.unit_types.get(name)
        if new is None or _reads_differently(old, new):
            return frozenset(before.units)  # any client may be taken for another id: everything moves
        found |= diff(old.table, new.table).losing_units
    running = before.cutover
    if running is not None and canonical(before.document["rule"]) != canonical(after.document["rule"]):
        segments = list(after.unit_types[running.unit_type].table.segments())
        for move in running.moved:
            owners = {unit for start, end, unit in segments if start < move.end and move.start < end}
            found |= {unit for unit in (move.losing, move.gaining) if owners != {unit}}
    return frozenset(found)


def _reads_differently(old: UnitTypeRule, new: UnitTypeRule) -> bool:
    return old.table.key_space != new.table.key_space or old.reader != new.reader
