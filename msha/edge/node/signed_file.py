"""The file in which an operator may give a running node a signed snapshot, with or without a console."""

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from msha.steering.breakglass import InvalidKey, Signed, key_name, opened, public_key
from msha.steering.errors import MshaError, Terminal

#: In the state directory, unless --breakglass-file says otherwise.
NAME = "breakglass.json"
#: A file is noticed within a second.
LOOK_EVERY_S = 0.5
#: No snapshot is larger.
SIZE_LIMIT = 64 * 1024 * 1024

log = structlog.get_logger("msha.edge.agent")

#: What tells one state of the file from another.
_Look = tuple[int, int, int, int]


@dataclass(eq=False)
class UnusableKey(Terminal):
    """A file that was given as a public key and is none."""

    path: Path
    problem: str

    def __str__(self) -> str:
        return f"The break-glass key {self.path} cannot be used: {self.problem}"


def read_keys(paths: Sequence[Path]) -> tuple[Ed25519PublicKey, ...]:
    """The keys whose signatures the node obeys.

    Raises:
        UnusableKey: one of the files holds none.
    """
    keys = []
    for path in paths:
        try:
            keys.append(public_key(path.read_bytes()))
        except OSError as error:
            raise UnusableKey(path, f"{error.strerror}.") from error
        except InvalidKey as error:
            raise UnusableKey(path, str(error)) from error
    return tuple(keys)


class SignedFile:
    """Looks at one path; each state of the file is read, and complained of, once."""

    def __init__(self, path: Path, keys: Sequence[Ed25519PublicKey]) -> None:
        self.path = path
        self._keys = keys
        self._seen: _Look | None = None

    @property
    def key_names(self) -> list[str]:
        """What people call the keys."""
        return [key_name(key) for key in self._keys]

    async def news(self) -> Signed | None:
        """What is in the file if it is new and signed by a key; None otherwise, and the log says why."""
        try:
            found = _look(self.path)
            if found == self._seen:
                return None
            self._seen = found
            if found is None:
                return None
            return await asyncio.to_thread(self._opened)
        except OSError as error:
            self.refuse(f"It cannot be read: {error.strerror}.")
        except MshaError as error:
            self.refuse(str(error))
        except Exception as error:  # whatever is in the file: the node goes on with what it has
            log.exception("breakglass_failed", path=str(self.path))
            self.refuse(f"This edge failed on it: {error!r}")
        return None

    def refuse(self, reason: str) -> None:
        """The file is not obeyed; what was in force still is."""
        log.error("breakglass_refused", path=str(self.path), reason=reason)

    def _opened(self) -> Signed:
        with self.path.open("rb") as file:
            raw = file.read(SIZE_LIMIT + 1)
        if len(raw) > SIZE_LIMIT:
            raise Terminal(f"It is larger than {SIZE_LIMIT // 1024 // 1024} MiB.")
        return opened(raw, self._keys)


def _look(path: Path) -> _Look | None:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size
