"""Control-stream messages: they survive the wire, and what is not one is refused."""

from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msha.steering import wire
from msha.steering.errors import InvalidMessage


@given(
    st.one_of(
        *(
            st.from_type(cls)
            for cls in get_args(wire.FromNode | wire.FromConsole)
            if "Probe" not in cls.__name__
        )
    )
)
def test_a_message_reads_back_as_itself(message: Any) -> None:
    assert wire.decode(wire.encode(message)) == message


def test_a_probe_reads_back_as_itself() -> None:
    request = wire.ProbeRequest(3, "handshake", {"host": "h", "headers": {"routerId": "1"}}, 2.5)
    assert wire.decode(wire.encode(request)) == request


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "null", "{}", '{"type": "no"}', '{"type": "ack"}', "\ud800",
        '{"type": "ack", "enrolment": "1", "version": 1, "digest": "", "epoch": 1}',
        '{"type": "ack", "enrolment": true, "version": 1, "digest": "", "epoch": 1}',
        '{"type": "drained", "enrolment": 1.5, "epoch": 1}',
        '{"type": "left"}',
        '{"type": ["left"], "enrolment": 1}',
    ],
)  # fmt: skip
def test_what_is_not_a_message_is_refused(text: str) -> None:
    with pytest.raises(InvalidMessage):
        wire.decode(text)


def test_fields_of_a_newer_peer_are_ignored() -> None:
    assert wire.decode('{"type": "left", "enrolment": 4, "mood": "good"}') == wire.Left(4)
