"""The rules of the control stream that need no process: in sync, addresses, tokens, waits."""

import socket
from itertools import islice
from pathlib import Path

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

from msha.edge.node.control import (
    LONGEST_DELAY_S,
    InvalidControl,
    Synchrony,
    Unreachable,
    control_url,
    delays,
    dial,
    read_token,
)
from msha.edge.node.parking import must_park
from msha.steering.snapshot import load
from msha.steering.wire import IN_SYNC_S, Confirm
from tests.support.console import token_file
from tests.support.snapshots import snapshot


def test_a_confirmation_counts_from_when_its_status_was_sent() -> None:
    synchrony = Synchrony()
    synchrony.sent(1, at=100.0)
    assert synchrony.confirmed(Confirm(1, 5, "abc"), 5, "abc")
    assert synchrony.until == 100.0 + IN_SYNC_S


def test_a_confirmation_of_another_version_or_content_does_not_count() -> None:
    synchrony = Synchrony()
    synchrony.sent(1, at=100.0)
    synchrony.sent(2, at=101.0)
    assert not synchrony.confirmed(Confirm(1, 6, "abc"), 5, "abc")
    assert not synchrony.confirmed(Confirm(2, 5, "abd"), 5, "abc")
    assert synchrony.until == 0.0


def test_a_confirmation_of_a_status_that_was_not_sent_here_does_not_count() -> None:
    synchrony = Synchrony()
    synchrony.sent(1, at=100.0)
    assert not synchrony.confirmed(Confirm(9, 5, "abc"), 5, "abc")


def test_a_confirmation_counts_once() -> None:
    synchrony = Synchrony()
    synchrony.sent(1, at=100.0)
    assert synchrony.confirmed(Confirm(1, 5, "abc"), 5, "abc")
    assert not synchrony.confirmed(Confirm(1, 5, "abc"), 5, "abc")


def test_an_earlier_status_that_is_confirmed_later_takes_nothing_away() -> None:
    synchrony = Synchrony()
    synchrony.sent(1, at=100.0)
    synchrony.sent(2, at=101.0)
    assert synchrony.confirmed(Confirm(2, 5, "abc"), 5, "abc")
    assert synchrony.confirmed(Confirm(1, 5, "abc"), 5, "abc")
    assert synchrony.until == 101.0 + IN_SYNC_S


def test_what_was_sent_before_a_refusal_does_not_count_after_it() -> None:
    synchrony = Synchrony()
    synchrony.sent(1, at=100.0)
    synchrony.clear()
    assert not synchrony.confirmed(Confirm(1, 5, "abc"), 5, "abc")
    assert synchrony.until == 0.0


def test_unanswered_statuses_do_not_pile_up() -> None:
    synchrony = Synchrony()
    for seq in range(1000):
        synchrony.sent(seq, at=float(seq))
    assert len(synchrony._sent) == Synchrony.REMEMBERED


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("127.0.0.1:8000", "ws://127.0.0.1:8000/control/"),
        ("ws://console.example:8000", "ws://console.example:8000/control/"),
        ("http://console.example/", "ws://console.example/control/"),
        ("https://console.example", "wss://console.example/control/"),
        ("wss://console.example/msha/control/", "wss://console.example/msha/control/"),
    ],
)
def test_the_console_may_be_named_in_several_ways(text: str, url: str) -> None:
    assert control_url(text) == url


@pytest.mark.parametrize("text", ["ftp://console", "ws://", "ws://host:99999/", "ws://host/?token=1", ""])
def test_what_names_no_console_is_refused(text: str) -> None:
    with pytest.raises(InvalidControl, match="is not the address of a console"):
        control_url(text)


@pytest.mark.parametrize("text", ["", "\n", "two words", "ключ"])
def test_a_file_without_a_token_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(InvalidControl, match="token"):
        read_token(token_file(tmp_path, text))


def test_waits_are_short_at_first_and_never_long() -> None:
    waits = list(islice(delays(), 50))
    assert waits[0] <= 0.1
    assert max(waits) <= LONGEST_DELAY_S
    assert min(waits[-10:]) >= LONGEST_DELAY_S / 2
    assert len(set(waits)) == len(waits)


async def test_a_redirect_of_the_console_is_not_followed_and_gets_no_token(tmp_path: Path) -> None:
    seen: list[str | None] = []

    async def nothing(_: ServerConnection) -> None: ...

    def remember(connection: ServerConnection, request: Request) -> Response:
        seen.append(request.headers.get("Authorization"))
        return connection.respond(500, "no")

    async with serve(nothing, "127.0.0.1", 0, process_request=remember) as thief:
        elsewhere = f"ws://127.0.0.1:{thief.sockets[0].getsockname()[1]}/"

        def send_there(connection: ServerConnection, request: Request) -> Response:
            response = connection.respond(302, "")
            response.headers["Location"] = elsewhere
            return response

        async with serve(nothing, "127.0.0.1", 0, process_request=send_there) as console:
            url = f"ws://127.0.0.1:{console.sockets[0].getsockname()[1]}/control/"
            with pytest.raises(Unreachable, match="302"):
                await dial(url, token_file(tmp_path))
    assert seen == []


async def test_a_console_that_is_not_there_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    with pytest.raises(Unreachable, match=f"127.0.0.1:{port}"):
        await dial(f"ws://127.0.0.1:{port}/control/", token_file(tmp_path))


# -- parking -------------------------------------------------------------------------------------------------

FREEZE = load(snapshot(3, epoch=3, phase="freeze").body)
ACTIVATE = snapshot(4, epoch=4, phase="activate", new=True).body.decode()


def test_a_gaining_node_parks_on_refusing_activate_and_a_losing_one_does_not() -> None:
    assert must_park(FREEZE, "center", ACTIVATE)
    assert not must_park(FREEZE, "unbj", ACTIVATE)
    assert not must_park(FREEZE, "elsewhere", ACTIVATE)


def test_a_gaining_node_that_missed_the_steps_before_parks_too() -> None:
    assert must_park(load(snapshot(1).body), "center", ACTIVATE)


@pytest.mark.parametrize("phase", ["prepare", "freeze"])
def test_no_node_parks_on_refusing_what_aborts_by_itself(phase: str) -> None:
    refused = snapshot(4, epoch=4, phase=phase).body.decode()
    assert not must_park(FREEZE, "center", refused)
    assert not must_park(FREEZE, "unbj", refused)


def test_no_node_parks_on_refusing_an_ordinary_publish() -> None:
    activated = load(snapshot(4, epoch=4, phase="activate", new=True).body)
    refused = snapshot(5, epoch=4, phase="activate", new=True, comment="config").body.decode()
    assert not must_park(activated, "center", refused)
    assert not must_park(activated, "center", snapshot(6, epoch=5, new=True).body.decode())


@pytest.mark.parametrize("refused", ["", "{", "[]", '{"rule": 1}', '{"rule": {"epoch": 4}}'])
def test_where_nothing_can_be_read_a_gaining_node_under_freeze_parks(refused: str) -> None:
    assert must_park(FREEZE, "center", refused)
    assert not must_park(FREEZE, "unbj", refused)
    assert not must_park(load(snapshot(1).body), "center", refused)
