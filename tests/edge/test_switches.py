"""101s that are remembered are what they would be if each were read."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msha.edge.wire import handshake
from msha.edge.wire.handshake import InvalidAnswer
from msha.edge.wire.switches import Switch, Switches

KEYS = st.binary(min_size=16, max_size=16).map(base64.b64encode)

#: Fields in whose values ``@`` is the proof of the key.
FIELDS = st.lists(
    st.sampled_from(
        [
            "Upgrade: websocket",
            "upgrade: WebSocket",
            "Connection: Upgrade",
            "Connection: keep-alive, Upgrade",
            "Connection: X-A",
            "Sec-WebSocket-Accept: @",
            "sec-websocket-accept:@ ",
            "Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=",
            "X-A: @",
            "X-A: b",
            "Sec-WebSocket-Extensions: permessage-deflate",
            "Sec-WebSocket-Extensions: x-other",
            "Content-Length: 0",
            "Date: Sat, 21 Nov 2026 12:00:00 GMT",
        ]
    ),
    min_size=3,
    max_size=7,
)


def answer(fields: list[str], key: bytes) -> bytes:
    proof = handshake.accept_for(key).decode()
    lines = ["HTTP/1.1 101 Switching Protocols", *(field.replace("@", proof) for field in fields)]
    return "".join(f"{line}\r\n" for line in [*lines, ""]).encode()


def read(switches: Switches, data: bytes, key: bytes) -> Switch | str:
    """As an edge does it; what is wrong with the answer if it is refused."""
    known = switches.recall(data, key)
    if known is not None:
        return known
    try:
        head = handshake.parse_response(data)
        return switches.learn(data, key, head)
    except InvalidAnswer as error:
        return error.problem


@given(fields=FIELDS, keys=st.lists(KEYS, min_size=2, max_size=4), other=KEYS)
def test_a_remembered_101_is_what_reading_it_would_give(
    fields: list[str], keys: list[bytes], other: bytes
) -> None:
    switches = Switches()
    for key in keys:
        for given_key in (key, other):  # the second time with a proof of another key, mostly
            data = answer(fields, key)
            assert read(switches, data, given_key) == read(Switches(), data, given_key)


def test_the_same_101_is_read_once() -> None:
    switches = Switches()
    fields = ["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Accept: @"]
    first, second = (base64.b64encode(bytes([number] * 16)) for number in (1, 2))
    learnt = read(switches, answer(fields, first), first)
    recalled = switches.recall(answer(fields, second), second)
    assert isinstance(learnt, Switch)
    assert recalled is not None
    assert recalled.head == learnt.head.replace(handshake.accept_for(first), handshake.accept_for(second))


def test_the_proof_of_another_key_is_not_taken_for_the_right_one() -> None:
    switches = Switches()
    fields = ["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Accept: @"]
    first, second = (base64.b64encode(bytes([number] * 16)) for number in (1, 2))
    read(switches, answer(fields, first), first)
    assert switches.recall(answer(fields, first), second) is None
    with pytest.raises(InvalidAnswer, match="wrong Sec-WebSocket-Accept"):
        switches.learn(answer(fields, first), second, handshake.parse_response(answer(fields, first)))


def test_no_more_are_remembered_than_there_is_room_for() -> None:
    switches = Switches()
    key = base64.b64encode(bytes(16))
    for number in range(1000):
        fields = ["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Accept: @", f"X-N: {number}"]
        assert isinstance(read(switches, answer(fields, key), key), Switch)
    assert len(switches._known) <= 64
