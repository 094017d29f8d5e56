"""Reading the routerId of a handshake: ordered sources, transforms, strict parsing.

The first source that carries a value wins; two different values in one source are an error, and so is
everything but ASCII digits after the transforms.

The bytes of a source are read as UTF-8, and those that are none are kept (``surrogateescape``): from the text
they can all be told again, so that the same bytes are the same routerId whatever source carries them.
"""

import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple
from urllib.parse import unquote, unquote_plus

from msha.steering.errors import InvalidRouterId, InvalidSource
from msha.steering.ranges import KeySpace

#: A routerId is never longer than this before the transforms; protects ``int()`` and the logs.
VALUE_LENGTH_LIMIT = 128

#: So long it can be percent-encoded: four bytes of UTF-8 for a character, three characters for a byte.
_ENCODED_LIMIT = 12 * VALUE_LENGTH_LIMIT

#: In one query, the same routerId may be encoded differently so often.
_SPELLINGS_LIMIT = 8

Headers = Sequence[tuple[bytes, bytes]]

#: What :attr:`Request.repeated` is for nearly every request.
NONE_REPEATED: Mapping[bytes, Sequence[bytes]] = {}


class Indexed:
    """A head whose header fields are found by name.

    Attributes:
        fields: the first value of each header, by lower-case name.
        repeated: every value of those headers that came more than once.
    """

    __slots__ = ("fields", "repeated")

    fields: dict[bytes, bytes]
    repeated: Mapping[bytes, Sequence[bytes]]

    def values(self, name: bytes) -> Sequence[bytes]:
        """Every value of a header, in the order they came."""
        if name in self.repeated:
            return self.repeated[name]
        value = self.fields.get(name)
        return () if value is None else (value,)


class Request(Indexed):
    """What a decision needs of a handshake; not to be changed once made.

    Args:
        headers: ``(lower-case name, value)`` pairs in the order they came, as in an ASGI scope.

    Attributes:
        host: the Host header as sent; case and port do not matter.
        path: the path of the target as sent, still percent-encoded.
        query: what follows the first ``?`` of the target, without it.
        secure: whether the client came by TLS, to us or to a load balancer that we trust; the one attribute
            that may be set later.
    """

    __slots__ = ("host", "path", "query", "secure")

    def __init__(self, host: str, path: str = "/", query: str = "", headers: Headers = ()) -> None:
        self.host = host
        self.path = path
        self.query = query
        self.fields, self.repeated = indexed(headers)
        self.secure = False

    @classmethod
    def of(cls, host: str, target: str = "/", headers: Mapping[str, str] | None = None) -> "Request":
        """A request from readable parts, for testers, probes and prechecks; fields go as UTF-8."""
        path, _, query = target.partition("?")
        pairs = [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()]
        return cls(host, path, query, pairs)


def indexed(headers: Headers) -> tuple[dict[bytes, bytes], Mapping[bytes, Sequence[bytes]]]:
    """First values by name, and all values of the names that are there more than once."""
    fields = dict(reversed(headers))
    if len(fields) == len(headers):
        return dict(headers), NONE_REPEATED
    values: dict[bytes, list[bytes]] = {}
    for name, value in headers:
        values.setdefault(name, []).append(value)
    return fields, {name: found for name, found in values.items() if len(found) > 1}


class SourceKind(StrEnum):
    """Where a routerId can be read from."""

    HEADER = "header"
    QUERY = "query"
    COOKIE = "cookie"
    PATH = "path"


@dataclass(frozen=True, slots=True)
class Source:
    """One place to look for the routerId.

    Attributes:
        name: the header, parameter or cookie; for ``path`` the number of the segment, from 1.
    """

    kind: SourceKind
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


class TransformKind(StrEnum):
    """What can be done to the text of a routerId before it is read as a number."""

    MODULO = "modulo"
    TRUNCATE = "truncate"
    HASH = "hash"


@dataclass(frozen=True, slots=True)
class Transform:
    """One step from the text found to the routerId.

    ``modulo N``: the remainder; ``truncate N``: the last N characters; ``hash crc32``: CRC-32 of the bytes
    that the request carries, after percent-decoding where the source has it.
    """

    kind: TransformKind
    argument: int | str


class RouterId(NamedTuple):
    """A routerId, where it was found, and the text that stood there."""

    value: int
    source: Source
    text: str


def parse_sources(entries: object, place: str = "sources") -> tuple[Source, ...]:
    """The sources of ``[{"header": "routerId"}, {"path": 2}]``.

    Raises:
        InvalidSource: no source at all, an unknown kind, or a name that cannot occur in a request.
    """
    if not isinstance(entries, Sequence) or isinstance(entries, str) or not entries:
        raise InvalidSource(place, "name at least one source, for example header routerId")
    sources = []
    for index, entry in enumerate(entries):
        where = f"{place}[{index}]"
        kind, name = _single_pair(entry, where)
        if kind not in set(SourceKind):
            raise InvalidSource(where, f"{kind!r} is not a source; use header, query, cookie or path")
        name = str(name)
        if kind == SourceKind.PATH:
            if not (name.isascii() and name.isdigit() and 1 <= int(name) <= 32):
                raise InvalidSource(where, f"{name!r} is not the number of a path segment, from 1 to 32")
        elif not name or len(name) > 64 or not name.isascii() or set(name) & set(" \t\r\n;,=&?#:\"'\\"):
            raise InvalidSource(where, f"{name!r} is not a name of a {kind}")
        source = Source(SourceKind(kind), name)
        if source in sources:
            raise InvalidSource(where, f"{source} is named twice")
        sources.append(source)
    return tuple(sources)


def parse_transforms(entries: object, place: str = "transform") -> tuple[Transform, ...]:
    """The transforms of ``[{"truncate": 6}, {"modulo": 10000}, {"hash": "crc32"}]``, in order.

    Raises:
        InvalidSource: an unknown transform or an argument that makes no sense.
    """
    if not isinstance(entries, Sequence) or isinstance(entries, str):
        raise InvalidSource(place, "must be a list such as [{modulo: 10000}]")
    transforms = []
    for index, entry in enumerate(entries):
        where = f"{place}[{index}]"
        kind, argument = _single_pair(entry, where)
        if kind == TransformKind.HASH:
            if argument != "crc32":
                raise InvalidSource(where, f"{argument!r} is not a hash; use crc32")
            transforms.append(Transform(TransformKind.HASH, "crc32"))
        elif kind in (TransformKind.MODULO, TransformKind.TRUNCATE):
            if isinstance(argument, bool) or not isinstance(argument, int) or argument < 1:
                raise InvalidSource(where, f"{kind} takes a whole number from 1, not {argument!r}")
            transforms.append(Transform(TransformKind(kind), argument))
        else:
            raise InvalidSource(where, f"{kind!r} is not a transform; use modulo, truncate or hash")
    return tuple(transforms)


def _single_pair(entry: object, place: str) -> tuple[str, object]:
    if not isinstance(entry, Mapping) or len(entry) != 1:
        raise InvalidSource(place, "must be one pair such as {header: routerId}")
    kind, value = next(iter(entry.items()))
    return str(kind), value


@dataclass(frozen=True)
class RouterIdReader:
    """Reads the routerId of requests, after sources and transforms were compiled once."""

    sources: tuple[Source, ...]
    transforms: tuple[Transform, ...]
    key_space: KeySpace
    _finders: tuple[tuple[Source, "Finder"], ...] = field(init=False, repr=False, compare=False)
    _steps: tuple["Step", ...] = field(init=False, repr=False, compare=False)
    #: Of the one modulo that is all there is to do; 0 if there is nothing to do, None if there is more.
    _divisor: int | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        finders = tuple((source, _FINDERS[source.kind](source.name)) for source in self.sources)
        object.__setattr__(self, "_finders", finders)
        object.__setattr__(self, "_steps", tuple(map(_step, self.transforms)))
        object.__setattr__(self, "_divisor", _only_divisor(self.transforms))

    def read(self, request: Request) -> RouterId | None:
        """The routerId, or None for untagged traffic.

        Raises:
            InvalidRouterId: two different values in the winning source, or one that is not a usable id.
        """
        for source, find in self._finders:
            try:
                text = find(request)
                if text is not None:
                    return RouterId(self._number(text), source, text)
            except Unusable as error:
                raise InvalidRouterId(str(source), error.problem) from None
        return None

    def _number(self, text: str) -> int:
        if len(text) > VALUE_LENGTH_LIMIT:
            raise _too_long()
        if text.isascii() and text.isdigit() and self._divisor is not None:
            number = int(text) % self._divisor if self._divisor else int(text)
        else:
            number = self._transformed(text)
        key_space = self.key_space
        if not key_space.min <= number <= key_space.max:
            raise Unusable(f"{number} leaves the key space {key_space}")
        return number

    def _transformed(self, text: str) -> int:
        value: str | int = text
        for step in self._steps:
            value = step(value)
        return _digits(value)


class Unusable(Exception):
    """What a source carries is not a routerId; :meth:`RouterIdReader.read` says in which source."""

    def __init__(self, problem: str) -> None:
        self.problem = problem


def _digits(value: str | int) -> int:
    if isinstance(value, int):
        return value
    if not (value.isascii() and value.isdigit()):
        raise Unusable(f"{value[:40]!r} is not a number in ASCII digits")
    return int(value)


#: One transform: from the text found, or the number so far, to the next text or number.
Step = Callable[[str | int], str | int]


def _step(transform: Transform) -> Step:
    match transform.kind, transform.argument:
        case TransformKind.MODULO, int(divisor):
            return lambda value: _digits(value) % divisor
        case TransformKind.TRUNCATE, int(length):
            return lambda value: str(value)[-length:]
        case _:
            return lambda value: zlib.crc32(str(value).encode("utf-8", "surrogateescape"))


def _only_divisor(transforms: tuple[Transform, ...]) -> int | None:
    match transforms:
        case ():
            return 0
        case (Transform(TransformKind.MODULO, int(divisor)),):
            return divisor
        case _:
            return None


#: The text in one source, or None if it carries none.
Finder = Callable[[Request], str | None]


def _one(texts: Iterable[str]) -> str | None:
    """The text that all are, or None if there is none."""
    found: str | None = None
    for text in texts:
        if found is not None and text != found:
            raise Unusable("has two different values")
        found = text
    return found


def _decoded(text: str, decode: Callable[[str, str, str], str]) -> str:
    if len(text) > _ENCODED_LIMIT:
        raise _too_long()
    return decode(text, "utf-8", "surrogateescape")


def _too_long() -> Unusable:
    return Unusable(f"is longer than {VALUE_LENGTH_LIMIT} characters")


class Parameter:
    """One parameter of a query: ``name=value`` between ampersands, both percent-encoded or not.

    A pattern finds it, because a query may be as long as a head, and to decode thousands of other names in
    it would stop a worker for longer than all the rest of the handshake takes.
    """

    __slots__ = ("_find", "_name")

    def __init__(self, name: str) -> None:
        spelled = "".join(f"(?:{re.escape(char)}|%(?i:{ord(char):02x}))" for char in name)
        self._name = name
        self._find = re.compile(f"&{spelled}(?:=([^&]*)|(?=&)|\\Z)").findall

    def values(self, query: str) -> Sequence[str]:
        """Every value that it has, as it stands there; empty where it stands without one."""
        if self._name not in query and "%" not in query:
            return ()
        found: list[str] = self._find(f"&{query}")
        return found


def _header_finder(name: str) -> Finder:
    wanted = name.lower().encode("latin-1")

    def find(request: Request) -> str | None:
        if wanted in request.repeated:
            values = request.repeated[wanted]
            return _one(value.decode("utf-8", "surrogateescape").strip(" \t") for value in values)
        value = request.fields.get(wanted)
        return None if value is None else value.decode("utf-8", "surrogateescape").strip(" \t")

    return find


def _query_finder(name: str) -> Finder:
    parameter = Parameter(name)

    def find(request: Request) -> str | None:
        values = parameter.values(request.query)
        if len(values) < 2:
            return _decoded(values[0], unquote_plus) if values else None
        different = tuple(dict.fromkeys(values))
        found = _one(_decoded(value, unquote_plus) for value in different[: _SPELLINGS_LIMIT + 1])
        if len(different) > _SPELLINGS_LIMIT:
            raise Unusable(f"is spelled in more than {_SPELLINGS_LIMIT} ways")
        return found

    return find


def _cookie_finder(name: str) -> Finder:
    values = re.compile(f"(?:^|;)[ \\t]*{re.escape(name)}=([^;]*)").findall

    def texts(request: Request) -> Iterator[str]:
        for value in request.values(b"cookie"):
            for text in values(value.decode("utf-8", "surrogateescape")):
                yield text.rstrip(" \t").strip('"')

    def find(request: Request) -> str | None:
        return _one(texts(request)) if b"cookie" in request.fields else None

    return find


def _path_finder(name: str) -> Finder:
    index = int(name)

    def find(request: Request) -> str | None:
        segments = request.path.split("/", index + 1)
        if index >= len(segments) or not segments[index]:
            return None
        return _decoded(segments[index], unquote)

    return find


_FINDERS: Mapping[SourceKind, Callable[[str], Finder]] = {
    SourceKind.HEADER: _header_finder,
    SourceKind.QUERY: _query_finder,
    SourceKind.COOKIE: _cookie_finder,
    SourceKind.PATH: _path_finder,
}
