import hashlib
import hmac
import socket
import time
from collections.abc import Iterator

import pytest

from tests.support.receiver import Receiver, answer, drip, hang_up, receiving
from units import webhooks
from units.webhooks import CallFailed

SECRET = "a secret that both know"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as running:
        yield running


def called(url: str, timeout_s: float = 5.0) -> webhooks.Answer:
    return webhooks.call(url, SECRET, {"kind": "test"}, delivery="d-1", timeout_s=timeout_s)


def test_a_call_carries_its_payload_its_name_and_a_signature_of_its_time_and_body(receiver: Receiver) -> None:
    receiver.lasting = answer(200, b"fine,\n thank you")

    said = called(receiver.url)

    (received,) = receiver.received
    stamp = received.headers["X-Msha-Timestamp"]
    expected = hmac.new(SECRET.encode(), stamp.encode() + b"." + received.body, hashlib.sha256).hexdigest()
    assert received.headers["X-Msha-Signature"] == f"sha256={expected}"
    assert abs(int(stamp) - time.time()) < 5
    assert received.headers["X-Msha-Delivery"] == "d-1"
    assert received.payload == {"kind": "test"}
    assert said.ok
    assert str(said) == "answered 200: fine, thank you"


@pytest.mark.parametrize(("status", "ok"), [(200, True), (204, True), (404, False), (503, False)])
def test_only_2xx_accepts_a_call(receiver: Receiver, status: int, ok: bool) -> None:
    receiver.lasting = answer(status)

    assert called(receiver.url).ok is ok


def test_a_redirect_is_not_followed(receiver: Receiver) -> None:
    receiver.lasting = answer(307, Location=receiver.url)

    said = called(receiver.url)

    assert not said.ok
    assert "redirects are not followed" in str(said)
    assert len(receiver.received) == 1


def test_an_answer_that_comes_byte_by_byte_ends_with_the_time_allowed(receiver: Receiver) -> None:
    receiver.lasting = drip(b"x")
    began = time.monotonic()

    with pytest.raises(CallFailed, match=r"did not answer within 0\.5 s"):
        called(receiver.url, timeout_s=0.5)

    assert time.monotonic() - began < 2


def test_a_server_that_takes_the_connection_and_is_silent_ends_with_the_time_allowed() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        pytest.raises(CallFailed, match="did not answer within"),
    ):
        called(f"http://127.0.0.1:{silent.getsockname()[1]}/", timeout_s=0.3)


def test_an_answer_above_the_limit_has_failed(receiver: Receiver) -> None:
    receiver.lasting = answer(200, b"x" * (webhooks.ANSWER_LIMIT + 1))

    with pytest.raises(CallFailed, match="more than 64 KiB"):
        called(receiver.url)


def test_a_closed_port_a_hang_up_and_an_address_that_is_none_are_failures_with_a_reason(
    receiver: Receiver,
) -> None:
    receiver.lasting = hang_up
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    for url in (receiver.url, f"http://127.0.0.1:{port}/", "ftp://127.0.0.1/", "http://", "http://a..b/"):
        with pytest.raises(CallFailed, match=r"cannot be reached: \S"):
            called(url)
