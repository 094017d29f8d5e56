"""What holds for every stream of frames, and for every stream of bytes that is none."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from types import FrameType
from typing import Any

from hypothesis import strategies as st
from wsproto.frame_protocol import FrameDecoder, ParseFailed

from msha.edge.wire import frames
from msha.edge.wire.frames import FrameTracker
from tests.edge.fuzz.mutation import pieces


@dataclass(frozen=True)
class Boundary:
    """Between two frames: where, and what has been seen until there."""

    position: int
    fragmented: bool
    closed: bool


def boundaries(data: bytes) -> list[Boundary]:
    """By the letter of RFC 6455 5.2, from the first byte on, with nothing optimised."""
    found = [Boundary(0, False, False)]
    position, fragmented, closed = 0, False, False
    while position + 2 <= len(data):
        opcode, short = data[position] & 15, data[position + 1] & 127
        wide = {126: 2, 127: 8}.get(short, 0)
        head = 2 + wide + (4 if data[position + 1] >= 128 else 0)
        if position + head > len(data):
            break
        size = int.from_bytes(data[position + 2 : position + 2 + wide]) if wide else short
        position += head + size
        if opcode < 8:
            fragmented = data[position - head - size] < 128
        closed = closed or opcode == 8
        if position <= len(data):
            found.append(Boundary(position, fragmented, closed))
    return found


def check_boundaries(data: bytes, cuts: list[int]) -> None:
    """The tracker stands between two frames exactly where the naive reading does, and knows the same."""
    known = {boundary.position: boundary for boundary in boundaries(data)}
    for parts in (pieces(data, cuts), pieces(data, [*range(min(len(data), 600))])):
        tracker, position = FrameTracker(), 0
        for part in parts:
            tracker.feed(part)
            position += len(part)
            assert tracker.between == (position in known)
            if tracker.between:
                boundary = known[position]
                assert (tracker.fragmented, tracker.closed) == (boundary.fragmented, boundary.closed)
                assert tracker.idle == (not boundary.fragmented and not boundary.closed)
            else:
                assert not tracker.idle


def check_cut(data: bytes, cuts: list[int]) -> None:
    """A Close of ours lands exactly on the next boundary, wherever the stream stands when it is wanted."""
    known = [boundary.position for boundary in boundaries(data)]
    start = cuts[0] % (len(data) + 1) if cuts else 0
    expected = min((position for position in known if position >= start), default=len(data))
    tracker = FrameTracker()
    tracker.feed(data[:start])
    passed = start
    for part in pieces(data[start:], cuts[1:]):
        if tracker.between:
            break
        taken = tracker.cut(part)
        assert 0 < taken <= len(part)
        assert taken == len(part) or tracker.between
        passed += taken
    assert passed == expected
    assert tracker.between == (expected in known)


def check_message_cut(data: bytes, cuts: list[int]) -> None:
    """A message of ours lands exactly between two of theirs, and never behind a Close."""
    start = cuts[0] % (len(data) + 1) if cuts else 0
    good = [found.position for found in boundaries(data) if not found.fragmented and not found.closed]
    expected = min((position for position in good if position >= start), default=len(data))
    tracker = FrameTracker()
    tracker.feed(data[:start])
    passed = start
    for part in pieces(data[start:], cuts[1:]):
        if tracker.idle:
            break
        taken = tracker.cut_message(part)
        assert taken == len(part) or tracker.idle
        passed += taken
    assert passed == expected
    assert tracker.idle == (expected in good)


def check_against_wsproto(data: bytes, cuts: list[int]) -> None:
    """As far as wsproto takes the stream for frames, the tracker sees the same end at the same places."""
    masked = len(data) > 1 and data[1] >= 128
    decoder = FrameDecoder(client=not masked)
    decoder.receive_bytes(data)
    tracker, position = FrameTracker(), 0
    for end, opcode, fin in _decoded(decoder, data):
        for piece in pieces(data[position:end], cuts):
            tracker.feed(piece)
            position += len(piece)
            assert tracker.between == (position == end)
        if opcode < 8:
            assert tracker.fragmented == (not fin)
        assert tracker.closed == (opcode == 8)
        if tracker.closed:
            return


def _decoded(decoder: FrameDecoder, data: bytes) -> Iterator[tuple[int, int, bool]]:
    """End, opcode and FIN of the frames that are whole, until wsproto objects."""
    opcode = -1
    try:
        while (frame := decoder.process_buffer()) is not None:
            opcode = int(frame.opcode) if opcode < 0 else opcode
            if frame.frame_finished:
                yield len(data) - len(decoder.buffer), opcode, frame.message_finished
                opcode = -1
    except ParseFailed:
        return


def check_fast_path(data: bytes, _: list[int]) -> None:
    """A chunk that the tunnel does not show to an idle tracker would not have changed it."""
    size = len(data)
    if size < 2 or data[0] & 0x88 != 0x80:
        return
    down = 1 < size < 128 and data[1] == size - 2
    up = 5 < size < 132 and data[1] == size + 122
    if down or up:
        tracker = FrameTracker()
        tracker.feed(data)
        assert tracker.idle


def steps(data: bytes, part_bytes: int) -> int:
    """How many lines of Python the tracker runs for the data, in parts of so many bytes."""
    lines = count()

    def on_line(frame: FrameType, event: str, _: Any) -> Any:
        if event == "line":
            next(lines)
        return on_line

    def on_call(frame: FrameType, _: str, __: Any) -> Any:
        return on_line if frame.f_code.co_filename == frames.__file__ else None

    tracker = FrameTracker()
    before = sys.gettrace()
    sys.settrace(on_call)
    try:
        for start in range(0, len(data), part_bytes):
            tracker.feed(data[start : start + part_bytes])
    finally:
        sys.settrace(before)
    return next(lines)


# Streams

_SIZES = st.sampled_from((0, 0, 1, 1, 2, 2, 3, 3, 5, 5, 124, 125, 126, 127, 128, 200, 65_535, 65_536))
_LENGTHS = st.one_of(
    _SIZES, st.integers(0, 300), st.sampled_from((1 << 31, 1 << 32, (1 << 63) - 1, 1 << 63, (1 << 64) - 1))
)


def _frame(first: int, size: int, said: int | None, wide: int, mask: bytes) -> bytes:
    """A frame with ``size`` bytes of payload, a length field of ``wide`` bytes, which may lie."""
    length = size if said is None else said
    if not wide:
        wide = 0 if length < 126 else 2 if length < 65_536 else 8
    wide = wide if length < 1 << 8 * wide or wide == 8 or (not wide and length < 126) else 8
    marked = 0x80 if mask else 0
    short = {0: length, 2: 126, 8: 127}[wide]
    head = bytes((first, marked | short)) + (length.to_bytes(wide) if wide else b"")
    # What looks like frames itself; longer ones in a long payload: reading short ones takes its time.
    inner = b"\x81\x00" if size < 300 else b"\x82\x7e\x08\x00"
    return head + mask + (inner * (size // len(inner) + 1))[:size]


_MASKS = st.one_of(st.just(b""), st.binary(min_size=4, max_size=4))
_PROPER = st.builds(
    _frame,
    st.sampled_from((0x81, 0x82, 0x01, 0x00, 0x80, 0x89, 0x8A, 0x88, 0xC1)),
    _SIZES,
    st.none(),
    st.just(0),
    _MASKS,
)
_ANY = st.builds(
    _frame, st.integers(0, 255), _SIZES, st.one_of(st.none(), _LENGTHS), st.sampled_from((0, 0, 2, 8)), _MASKS
)


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """Frames, some as no implementation would send them, the last one perhaps cut off."""
    several = st.one_of(
        st.lists(_PROPER, max_size=6),
        st.lists(_ANY, max_size=4),
        st.lists(st.one_of(_PROPER, _ANY), max_size=5),
    )
    data = b"".join(draw(several))
    if draw(st.booleans()) and len(data) < 2000:
        data += draw(st.binary(max_size=20))
    return data
