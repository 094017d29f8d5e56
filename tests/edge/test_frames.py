"""The frame tracker against frames cut in every way, and how a Close looks."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msha.edge.wire.frames import FrameTracker, close_frame, close_payload, masked_close_frame, text_frame
from tests.edge.fuzz.frames import steps
from tests.support.websocket_wire import Frame, Wire, frame

MASKS = st.one_of(st.none(), st.binary(min_size=4, max_size=4))
DATA = st.builds(
    lambda size, opcode, fin, mask: (frame(b"x" * size, opcode, fin=fin, mask=mask), opcode, fin),
    st.sampled_from([0, 1, 2, 100, 124, 125, 126, 127, 128, 200, 65535, 65536]),
    st.sampled_from([0, 1, 2]),
    st.booleans(),
    MASKS,
)
CONTROL = st.builds(
    lambda size, mask: (frame(b"p" * size, 9, mask=mask), 9, True), st.integers(0, 125), MASKS
)
STREAMS = st.lists(st.one_of(DATA, CONTROL), min_size=1, max_size=6)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[start:end] for start, end in pairwise(edges)]


@given(STREAMS, st.lists(st.integers(0, 200_000), max_size=12))
def test_boundaries_are_found_however_the_stream_is_cut(
    stream: list[tuple[bytes, int, bool]], cuts: list[int]
) -> None:
    boundaries, position, fragmented_at, fragmented = {0}, 0, {0: False}, False
    for data, opcode, fin in stream:
        position += len(data)
        boundaries.add(position)
        if opcode < 8:
            fragmented = not fin
        fragmented_at[position] = fragmented
    tracker, position = FrameTracker(), 0
    for piece in pieces(b"".join(data for data, _, _ in stream), cuts):
        tracker.feed(piece)
        position += len(piece)
        assert tracker.between == (position in boundaries)
        if tracker.between:
            assert tracker.fragmented == fragmented_at[position]
            assert tracker.idle == (not tracker.fragmented)


#: What heads are made of, so that random bytes are frames of every kind, and lengths that lie.
HEAD_BYTES = st.sampled_from(b"\x00\x01\x02\x05\x7e\x7f\x80\x81\x82\x89\xc1\xfe\xff\x88")


@given(st.lists(HEAD_BYTES, max_size=400).map(bytes))
def test_a_chunk_of_many_frames_is_followed_as_byte_by_byte(data: bytes) -> None:
    at_once, slowly = FrameTracker(), FrameTracker()
    at_once.feed(memoryview(data))
    for index in range(len(data)):
        slowly.feed(data[index : index + 1])
    for name in FrameTracker.__slots__:
        assert getattr(at_once, name) == getattr(slowly, name)


def test_thousands_of_frames_in_a_chunk_take_the_short_way_and_are_told() -> None:
    chunk = frame(b"", 9, mask=b"abcd") * 13_000
    assert 12_900 < FrameTracker().feed(chunk) <= 13_000
    assert steps(chunk, len(chunk)) < 13 * 13_000
    assert FrameTracker().feed(frame(b"x" * 65_536, 2, mask=b"abcd")) == 0


@given(STREAMS, st.integers(0, 200_000), st.lists(st.integers(0, 200_000), max_size=6))
def test_a_cut_ends_where_the_frame_under_way_ends(
    stream: list[tuple[bytes, int, bool]], start: int, cuts: list[int]
) -> None:
    data = b"".join(part for part, _, _ in stream)
    start %= len(data) + 1
    boundaries = [0]
    for part, _, _ in stream:
        boundaries.append(boundaries[-1] + len(part))
    expected = min(boundary for boundary in boundaries if boundary >= start)
    tracker = FrameTracker()
    tracker.feed(data[:start])
    passed = start
    for piece in pieces(data[start:], cuts):
        if tracker.between:
            break
        taken = tracker.cut(piece)
        assert taken == len(piece) or tracker.between
        passed += taken
    assert passed == expected


@given(STREAMS, st.booleans(), st.integers(0, 400_000), st.lists(st.integers(0, 200_000), max_size=6))
def test_a_cut_of_messages_ends_where_a_message_ends_or_goes_on_to_the_end(
    stream: list[tuple[bytes, int, bool]], says_close: bool, start: int, cuts: list[int]
) -> None:
    if says_close:
        stream = [*stream, (frame(b"\x03\xe8", 8), 8, True), (frame(b"behind it"), 1, True)]
    data = b"".join(part for part, _, _ in stream)
    start %= len(data) + 1
    places, position, fragmented, closed = [0], 0, False, False
    for part, opcode, fin in stream:
        position += len(part)
        closed = closed or opcode == 8
        if opcode < 8:
            fragmented = not fin
        if not fragmented and not closed:
            places.append(position)
    expected = min((place for place in places if place >= start), default=len(data))
    tracker = FrameTracker()
    tracker.feed(data[:start])
    passed = start
    for piece in pieces(data[start:], cuts):
        if tracker.idle:
            break
        passed += tracker.cut_message(piece)
    assert passed == expected
    assert tracker.idle == (expected in places)


@pytest.mark.parametrize("size", [1, 125, 126, 16_384, 65_535])
def test_a_text_of_ours_is_one_whole_unmasked_frame(size: int) -> None:
    assert parsed(text_frame(b"x" * size)) == Frame(1, b"x" * size, fin=True)
    assert text_frame(b"x" * size) == frame(b"x" * size)


def test_one_byte_at_a_time_is_followed_too() -> None:
    tracker = FrameTracker()
    stream = frame(b"a" * 70000) + frame(b"", 9) + frame(b"b", fin=False)
    between = []
    for index in range(len(stream)):
        tracker.feed(stream[index : index + 1])
        if tracker.between:
            between.append(index + 1)
    assert between == [70010, 70012, 70015]
    assert tracker.fragmented
    assert not tracker.idle


def test_a_cut_ends_behind_an_empty_frame_of_which_the_first_byte_was_there() -> None:
    tracker = FrameTracker()
    tracker.feed(frame(b"")[:1])
    assert tracker.cut(frame(b"")[1:] + frame(b"too late")) == 1
    assert tracker.between


def test_a_close_of_the_peer_is_noticed() -> None:
    tracker = FrameTracker()
    tracker.feed(frame(b"\x03\xe8", 8)[:1])
    assert not tracker.closed
    tracker.feed(frame(b"\x03\xe8", 8)[1:])
    assert tracker.closed
    assert tracker.between
    assert not tracker.idle


def parsed(data: bytes) -> Frame:
    """Read by other code than ours."""
    wire = Wire.__new__(Wire)
    wire.buffer = data
    return wire.read_frame()


def test_a_close_says_code_and_reason() -> None:
    payload = close_payload(1012, "moved to center")
    for data in (close_frame(payload), masked_close_frame(payload)):
        read = parsed(data)
        assert (read.close_code, read.close_reason) == (1012, "moved to center")
    assert close_frame(payload)[1] < 0x80 <= masked_close_frame(payload)[1]


@pytest.mark.parametrize("reason", ["x" * 300, "搬" * 60])
def test_a_long_reason_is_cut_between_characters(reason: str) -> None:
    read = parsed(close_frame(close_payload(1012, reason)))
    assert len(read.payload) <= 125
    assert reason.startswith(read.close_reason)
    assert len(read.close_reason) > 20
