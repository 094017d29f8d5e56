"""What holds for every answer of a back-source, and for what the client gets of it."""

import re
from collections.abc import Callable, Iterator, Sequence

from msha.edge.wire import handshake
from msha.edge.wire.handshake import AnswerReader, InvalidAnswer, ResponseHead
from tests.edge.fuzz.heads import ACCEPT, KEY
from tests.edge.fuzz.mutation import pieces
from tests.edge.fuzz.reference import AnswerReading, Field, read_answer, switches

_HEAD_LIMIT_BYTES = 16_384
_BODY_LIMIT_BYTES = 65_536


def read(data: bytes) -> tuple[str, ResponseHead | None, bytes]:
    """The edge's verdict, the head if there is one, and what is behind it.

    The verdict is ``switch``, the status of an answer that is passed on or waited behind, ``more``, or
    ``refused`` with the reason.
    """
    end = data.find(b"\r\n\r\n") + 4
    if end == 3:
        return ("more" if len(data) <= _HEAD_LIMIT_BYTES else "refused: too long"), None, data
    if end > _HEAD_LIMIT_BYTES:
        return "refused: too long", None, data
    try:
        head = handshake.parse_response(data[:end])
        if head.status == 101:
            handshake.check_switch(head, KEY.encode())
    except InvalidAnswer as error:
        return f"refused: {error.problem}", None, b""
    return ("switch" if head.status == 101 else str(head.status)), head, data[end:]


def verdict(data: bytes) -> str:
    """In a few words, for the table of the corpus."""
    said, head, _ = read(data)
    if head is None or head.status < 200:
        return said.partition(":")[0]
    body, complete = _body([data])
    return f"{said}, {len(body)} bytes{'' if complete else ', to the end'}"


# Where we are stricter than h11, and why.


def _head(data: bytes) -> bytes:
    end = data.find(b"\r\n\r\n")
    return data[: end + 4] if end >= 0 else data


def _lines(data: bytes, reading: AnswerReading) -> bool:
    """Bare LF, folded lines, control characters: RFC 9112 2.2 and 5.2, RFC 9110 5.5."""
    head = _head(data)
    return (
        re.search(rb"(?<!\r)\n", head) is not None
        or re.search(rb"\n[ \t]", head) is not None
        or any(re.search(rb"[\x00-\x08\x0a-\x1f\x7f]", value) for _, value in reading.fields)
        or re.search(rb"[\x00-\x08\x0a-\x1f\x7f]", reading.phrase) is not None
    )


def _framing(data: bytes, reading: AnswerReading) -> bool:
    """Two statements about one body, or one that is not plain, even where both agree (RFC 9112 6.3)."""
    head = _head(data)
    lengths = re.findall(rb"(?i)\ncontent-length:[ \t]*([^\r\n]*?)[ \t]*\r", head)
    codings = reading.values(b"transfer-encoding")
    return len(lengths) + len(codings) > 1 or any(
        not re.fullmatch(rb"[0-9]{1,19}", length) for length in lengths
    )


def _status(_: bytes, reading: AnswerReading) -> bool:
    """HTTP/1.0 and 1.1, and the statuses that these have (RFC 9110 15)."""
    return reading.version not in ("1.0", "1.1") or not 100 <= reading.status <= 599


def _size(data: bytes, reading: AnswerReading) -> bool:
    """DESIGN 7: 16 KiB, 100 fields."""
    return len(_head(data)) > _HEAD_LIMIT_BYTES or len(reading.fields) > 100


def _switch(_: bytes, reading: AnswerReading) -> bool:
    """RFC 6455 4.1: HTTP/1.1, the upgrade, and the one right Accept."""

    def names(name: bytes, token: bytes) -> bool:
        return any(
            token == item.strip().lower() for value in reading.values(name) for item in value.split(b",")
        )

    return reading.status == 101 and (
        reading.version != "1.1"
        or not names(b"upgrade", b"websocket")
        or not names(b"connection", b"upgrade")
        or reading.values(b"sec-websocket-accept") != [ACCEPT.encode()]
    )


STRICTER: tuple[Callable[[bytes, AnswerReading], bool], ...] = (_lines, _framing, _status, _size, _switch)


#: What a 101 cannot have; the edge does not read these there, but h11 does.
_OF_A_BODY = (b"content-length", b"transfer-encoding")


def _reference(data: bytes, head: ResponseHead) -> AnswerReading | None:
    """What h11 reads, of a 101 without its phrase and fields about a body: the edge passes none on.

    Lengths without leading zeros: h11 counts digits, and takes 20.
    """
    if head.status != 101:
        return read_answer(re.sub(rb"(?i)(\ncontent-length:[ \t]*)0+(?=[0-9])", rb"\1", data))
    end = data.find(b"\r\n\r\n")
    first, *lines = data[:end].split(b"\r\n")
    kept = [line for line in lines if line.partition(b":")[0].lower() not in _OF_A_BODY]
    return read_answer(b"\r\n".join((first[:12], *kept)) + data[end:])


def _plain(fields: Sequence[Field]) -> Iterator[Field]:
    """As h11 writes them: names and codings in lower case, and lengths without leading zeros."""
    for name, value in fields:
        lower = name.lower()
        if lower == b"transfer-encoding":
            yield lower, value.lower()
        else:
            yield lower, (value.lstrip(b"0") or b"0") if lower == b"content-length" else value


def check_same_reading(data: bytes, _: list[int]) -> None:
    """What the edge accepts of a back-source, h11 accepts, and reads the same."""
    verdict, head, rest = read(data)
    if head is None:
        return
    reading = _reference(data, head)
    assert reading is not None, f"the edge says {verdict}, h11 refuses"
    assert (head.status, head.version) == (reading.status, reading.version)
    assert head.status == 101 or head.phrase.rstrip(b" \t") == reading.phrase.rstrip(b" \t")
    assert [field for field in _plain(head.sent) if head.status != 101 or field[0] not in _OF_A_BODY] == [
        *_plain(reading.fields)
    ]
    if verdict == "switch":
        assert not _switch(data, reading)
        assert rest == reading.rest


def check_stricter_by_rule(data: bytes, _: list[int]) -> None:
    """What h11 accepts of a back-source, the edge accepts, unless one of its rules forbids it."""
    reading = read_answer(data)
    if reading is None:
        return
    verdict, head, _ = read(data)
    assert head is not None or any(rule(data, reading) for rule in STRICTER), (
        f"h11 accepts, the edge says {verdict}"
    )


def check_any_cut(data: bytes, cuts: list[int]) -> None:
    """However an answer is cut, its body is that of all at once, and never more than the bound."""
    _, head, _ = read(data)
    if head is None or head.status < 200:
        return
    whole, complete = _body([data])
    assert len(whole) <= _BODY_LIMIT_BYTES
    end = data.find(b"\r\n\r\n") + 4
    rest = data[end:]
    for parts in (pieces(rest, cuts), pieces(rest, [*range(min(len(rest), 200))])):
        assert _body([data[:end], *parts]) == (whole, complete)


def _body(parts: list[bytes]) -> tuple[bytes, bool]:
    reader = AnswerReader(parts[0])
    for part in parts[1:]:
        if reader.complete:
            break
        reader.feed(part)
    return reader.body, reader.complete


def check_body(data: bytes, _: list[int]) -> None:
    """The body is the one that h11 reads, up to the bound or to where its framing breaks."""
    _, head, _ = read(data)
    reading = read_answer(data)
    if head is None or reading is None or reading.body is None:
        return
    body, complete = _body([data])
    if reading.broken:
        assert reading.body.startswith(body) or body.startswith(reading.body)
    elif body != reading.body[:_BODY_LIMIT_BYTES]:
        # h11 forgives spaces and other bytes round a chunk's length; for us the body has ended there.
        assert reading.values(b"transfer-encoding") == [b"chunked"]
        assert re.search(rb"[\x00-\x20\x7f-\xff]\r\n|;[^\r]*\r\n", data[data.find(b"\r\n\r\n") :])
        assert complete
        assert reading.body.startswith(body)


#: As RFC 9110 7.6.1 has it, and what describes a body.
_ONE_HOP = {
    b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade",
    b"content-length", b"proxy-authorization", b"proxy-authenticate",
}  # fmt: skip


def _own(reading: AnswerReading) -> list[tuple[bytes, bytes]]:
    named = {token.strip().lower() for value in reading.values(b"connection") for token in value.split(b",")}
    return [
        (name, value)
        for name, value in reading.fields
        if name not in _ONE_HOP and (name not in named or name.startswith(b"sec-websocket-"))
    ]


def check_switched(data: bytes, _: list[int]) -> None:
    """The client gets exactly one 101, good in h11's and wsproto's eyes, with the server's own fields."""
    verdict, head, rest = read(data)
    if verdict != "switch" or head is None:
        return
    sent = _reference(data, head)
    assert sent is not None
    built = handshake.switching_protocols(head)
    reading = read_answer(built + rest)
    assert reading is not None
    assert (reading.status, reading.version, reading.rest) == (101, "1.1", rest)
    assert not _switch(built, reading)
    meant = [*_own(sent), (b"upgrade", b"websocket"), (b"connection", b"Upgrade")]
    assert sorted(reading.fields) == sorted(meant)
    if not any(
        name in (b"sec-websocket-protocol", b"sec-websocket-extensions") for name, _ in reading.fields
    ):
        assert switches(built, ACCEPT)


def check_passed_on(data: bytes, _: list[int]) -> None:
    """The client gets exactly one answer, whole, with the server's own fields and our framing."""
    _, head, _ = read(data)
    if head is None or head.status < 200:
        return
    sent = _reference(data, head)
    assert sent is not None
    body, _ = _body([data])
    built = handshake.passed_on(head, body)
    reading = read_answer(built)
    assert reading is not None, "h11 refuses what the edge passes on"
    assert (reading.status, reading.version, reading.body, reading.broken) == (
        head.status,
        "1.1",
        body,
        False,
    )
    assert reading.rest == b""
    kept = {b"proxy-authenticate"} | ({b"upgrade"} if head.status == 426 else set())
    meant = [*_own(sent), *((name, value) for name, value in sent.fields if name in kept)]
    upgrades = any(name == b"upgrade" for name, _ in meant)
    meant.append((b"connection", b"close, Upgrade" if upgrades else b"close"))
    if head.status != 204:
        meant.append((b"content-length", b"%d" % len(body)))
    assert sorted(reading.fields) == sorted(meant)
