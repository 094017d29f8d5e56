"""The certificates of a directory, by the names they are for; read again while they are in use.

``websocket.example.pem`` holds the chain and the private key for ``websocket.example`` and for every name one
label longer, as the unit sub-domains are; ``default.pem`` is for all other names and for clients that ask for
none. A file that cannot be used changes nothing: what was read from it before stays in force.
"""

import re
import ssl
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from msha.edge.port.tls import server_context
from msha.steering.errors import Terminal

DEFAULT = "default"
SUFFIX = ".pem"

_NAME = re.compile(r"(?:[a-z0-9_](?:[a-z0-9_-]{0,62})\.)*[a-z0-9_](?:[a-z0-9_-]{0,62})")

#: Which content of a file was read: time of change, size, inode.
_Stamp = tuple[int, int, int]


@dataclass(eq=False)
class UnusableCertificate(Terminal):
    """A file, or the directory itself, from which no certificate can be had."""

    path: Path
    problem: str

    def __str__(self) -> str:
        return f"{self.path} {self.problem}."


@dataclass(frozen=True, slots=True)
class Changes:
    """What a look at the directory has found that was not so at the last one.

    Attributes:
        read: names whose certificates are new.
        gone: names that have no file any more.
        refused: why a name keeps the certificate that it had, or has none.
    """

    read: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()
    refused: Mapping[str, UnusableCertificate] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.read or self.gone or self.refused)


class Certificates:
    """What a directory holds.

    Attributes:
        refused: names whose files cannot be used, as of the last look.
        unreadable: why the directory itself could not be read at the last look; None: it could.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.refused: Mapping[str, UnusableCertificate] = {}
        self.unreadable: UnusableCertificate | None = None
        self._contexts: Mapping[str, ssl.SSLContext] = {}
        self._stamps: Mapping[str, _Stamp] = {}

    @property
    def names(self) -> list[str]:
        """The names for which there is a certificate."""
        return sorted(self._contexts)

    def path(self, name: str) -> Path:
        """The file of a name."""
        return self.directory / f"{name}{SUFFIX}"

    def pick(self, name: str | None) -> ssl.SSLContext | None:
        """The context for a name that a client asks for, or for none; None where there is no certificate."""
        contexts = self._contexts
        if name:
            name = name.rstrip(".").lower()
            found = contexts.get(name) or contexts.get(name.partition(".")[2])
            if found is not None:
                return found
        return contexts.get(DEFAULT)

    def look(self) -> Changes:
        """What was changed in the directory is in force, as far as it can be used.

        Files are read, so this may be called in a thread; not in two at once.
        """
        try:
            stamps = self._present()
        except UnusableCertificate as error:
            if self.unreadable is not None:
                return Changes()
            self.unreadable = error
            return Changes(refused={"": error})
        self.unreadable = None
        contexts = {name: context for name, context in self._contexts.items() if name in stamps}
        changed = [name for name, stamp in stamps.items() if self._stamps.get(name) != stamp]
        refused = {}
        for name in changed:
            try:
                contexts[name] = _context(name, self.path(name))
            except UnusableCertificate as error:
                refused[name] = error
        before = {
            name: error for name, error in self.refused.items() if name in stamps and name not in changed
        }
        gone = tuple(name for name in self._contexts if name not in stamps)
        self._contexts, self._stamps, self.refused = contexts, stamps, before | refused
        return Changes(tuple(name for name in changed if name not in refused), gone, refused)

    def _present(self) -> dict[str, _Stamp]:
        """Every file of the directory that is meant for us.

        Raises:
            UnusableCertificate: the directory cannot be read, or has none; to serve none is never meant.
        """
        found = {}
        try:
            for path in sorted(self.directory.iterdir()):
                if path.suffix == SUFFIX and not path.name.startswith("."):
                    status = path.stat()
                    found[path.stem] = (status.st_mtime_ns, status.st_size, status.st_ino)
        except OSError as error:
            raise UnusableCertificate(
                Path(error.filename or self.directory), f"cannot be read: {error.strerror}"
            ) from error
        if not found:
            raise UnusableCertificate(self.directory, f"has no file such as {DEFAULT}{SUFFIX}")
        return found


def open_to_all(path: Path) -> bool:
    """Whether every user of the machine can read the file, and so the private key."""
    try:
        return bool(path.stat().st_mode & stat.S_IROTH)
    except OSError:
        return False


def _context(name: str, path: Path) -> ssl.SSLContext:
    if not _NAME.fullmatch(name):
        raise UnusableCertificate(path, "is not called after a host name in lower case, nor default.pem")
    context = server_context()
    try:
        # A key that needs a password would be asked for on the terminal.
        context.load_cert_chain(path, password="")
    except ssl.SSLError as error:
        raise UnusableCertificate(path, _problem(error, path)) from error
    except OSError as error:
        raise UnusableCertificate(path, f"cannot be read: {error.strerror}") from error
    return context


def _problem(error: ssl.SSLError, path: Path) -> str:
    if error.reason == "KEY_VALUES_MISMATCH":
        return "has a private key that does not belong to its first certificate"
    if b"ENCRYPTED" in path.read_bytes():
        return "has a private key that needs a password; store it without"
    reason = f" ({error.reason})" if error.reason else ""
    return f"does not hold a certificate chain and its private key in PEM{reason}"
