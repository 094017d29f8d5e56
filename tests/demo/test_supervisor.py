"""What the demo's supervisor shows, and what it starts again."""

import io
import json
import os
import socket
import sys
from pathlib import Path

import pytest

from msha.demo import plan, ports, supervisor
from msha.demo.fleet import Fleet
from msha.demo.log_view import LogView
from msha.demo.processes import Child, stop
from msha.demo.supervisor import Restarts


def make_child(tmp_path: Path, code: str, name: str = "child") -> Child:
    log = tmp_path / f"{name}.log"
    return Child(name, [sys.executable, "-c", code], log=log, env=dict(os.environ), cwd=tmp_path)


def test_each_line_of_a_log_is_shown_once_behind_its_name(tmp_path: Path) -> None:
    stream = io.StringIO()
    view = LogView(stream)
    child = make_child(tmp_path, "print('one'); print('two', end='', flush=True); input()").start()
    child.wait(20)  # input() finds no terminal
    view.show_news([child])
    view.show_news([child])
    lines = stream.getvalue().splitlines()
    assert lines[0].split("|") == ["child           ", " one"]
    assert sum("one" in line for line in lines) == 1


def test_what_repeats_every_second_is_not_shown(tmp_path: Path) -> None:
    stream = io.StringIO()
    child = make_child(
        tmp_path, "print('Task cutover.tasks.reconcile[1] received'); print('worth it')"
    ).start()
    child.wait(20)
    LogView(stream).show_news([child])
    assert stream.getvalue().count("\n") == 1
    assert "worth it" in stream.getvalue()


def test_a_log_that_begins_anew_is_shown_from_its_beginning(tmp_path: Path) -> None:
    stream = io.StringIO()
    view = LogView(stream)
    child = make_child(tmp_path, "print('hello')")
    for _ in range(2):
        child.start().wait(20)
        view.show_news([child])
    assert stream.getvalue().count("hello") == 2


def test_the_log_of_an_earlier_run_is_not_shown(tmp_path: Path) -> None:
    stream = io.StringIO()
    child = make_child(tmp_path, "print('new')")
    child.log.write_text("old\n")
    view = LogView(stream)
    view.show_news([child])
    child.start().wait(20)
    view.show_news([child])
    assert stream.getvalue().split("|")[1].strip() == "new"


def test_handshakes_are_short_lines_and_shown_only_when_wanted(tmp_path: Path) -> None:
    event = {"event": "handshake", "decision": "tunnel", "reason": "owned", "status": 101, "router_id": 25}
    event |= {"host": "chat.test:8101", "path": "/", "back_source": "127.0.0.1:9101", "timestamp": "2026"}
    child = make_child(tmp_path, f"print({json.dumps(event)!r})").start()
    child.wait(20)
    quiet, talkative = io.StringIO(), io.StringIO()
    LogView(quiet).show_news([child])
    view = LogView(talkative)
    view.every_handshake = True
    view.show_news([child])
    assert quiet.getvalue() == ""
    line = talkative.getvalue().partition("| ")[2].strip()
    assert line == "101 tunnel (owned) id 25 chat.test:8101/ -> 127.0.0.1:9101"


@pytest.mark.parametrize(
    "evil", ["\n", "\r", "\r\n", "\x1b[2K\x1b[1G", "\x85", "\x9b2K", "\u2028", "\u202e", "\u2066", "\ud800"]
)
def test_nothing_that_is_logged_can_begin_a_line_or_steer_the_terminal(tmp_path: Path, evil: str) -> None:
    event = {"event": "handshake", "decision": "invalid", "reason": "host", "status": 400, "host": ""}
    event["path"] = f"GET / HTTP/1.1{evil}ready: console http://evil.test/"
    child = make_child(tmp_path, f"print({json.dumps(event)!r})").start()
    child.wait(20)
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="utf-8", newline="")
    view = LogView(stream)
    view.every_handshake = True
    view.show_news([child])
    view.say(f"news{evil}ready: of ours")
    *lines, rest = raw.getvalue().decode().split("\n")
    assert rest == ""
    assert [line.partition(" ")[0] for line in lines] == ["child", "demo"]
    escaped = evil.encode("unicode_escape").decode()
    assert f"HTTP/1.1{escaped}ready: console" in lines[0]
    assert f"news{escaped}ready: of ours" in lines[1]
    assert all(line.isprintable() for line in lines)


def test_a_plain_line_of_a_log_with_control_characters_is_one_visible_line(tmp_path: Path) -> None:
    stream = io.StringIO()
    code = "import sys; sys.stdout.buffer.write('Zürich \\r\\x1b[1Aready: no\\n'.encode())"
    child = make_child(tmp_path, code).start()
    child.wait(20)
    LogView(stream).show_news([child])
    assert stream.getvalue() == "child           | Zürich \\r\\x1b[1Aready: no\n"
    assert child.last_lines().splitlines()[-1] == "    \\x1b[1Aready: no"


def make_restarts(tmp_path: Path, stream: io.StringIO) -> Restarts:
    fleet = Fleet(plan.on_free_ports(tmp_path))
    return Restarts(fleet, LogView(stream))


def test_what_ends_with_an_error_is_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "RESTART_AFTER_S", 0.0)
    stream = io.StringIO()
    restarts = make_restarts(tmp_path, stream)
    child = make_child(tmp_path, "raise SystemExit(3)").start()
    child.wait(20)
    first = child.pid
    restarts.look_after(child)
    restarts.look_after(child)
    assert child.pid != first
    assert "child ended with 3; starting it again" in stream.getvalue()
    stop([child])


def test_what_keeps_ending_stays_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "RESTART_AFTER_S", 0.0)
    stream = io.StringIO()
    restarts = make_restarts(tmp_path, stream)
    child = make_child(tmp_path, "raise SystemExit(3)").start()
    for _ in range(2 * supervisor.RESTARTS + 3):
        child.wait(20)
        restarts.look_after(child)
    assert "child ended 5 times within a minute and stays down" in stream.getvalue()
    assert stream.getvalue().count("stays down") == 1


def test_what_ends_well_is_left_alone(tmp_path: Path) -> None:
    stream = io.StringIO()
    restarts = make_restarts(tmp_path, stream)
    child = make_child(tmp_path, "").start()
    child.wait(20)
    restarts.look_after(child)
    restarts.look_after(child)
    assert stream.getvalue().count("child ended by itself") == 1


def test_taken_ports_are_named_in_one_line_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet_plan = plan.on_free_ports(tmp_path / "demo")
    edge = fleet_plan.unit("unbj").edges[0]
    with socket.create_server((edge.host, edge.port)), pytest.raises(ports.PortsTaken) as caught:
        Fleet(fleet_plan).start_all()
    assert str(caught.value) == (
        f"Port {edge} (unbj edge) is taken. Stop the program that uses it, then try again."
    )
    assert not (tmp_path / "demo").exists()


def test_a_second_demo_of_one_directory_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with open(tmp_path / "lock", "a+") as lock:
        supervisor._take(lock, tmp_path)
        assert supervisor.run(plan.on_free_ports(tmp_path), io.StringIO()) == 1
    assert f"runs already, as process {os.getpid()}" in capsys.readouterr().err
    assert supervisor.reset(tmp_path) == 0
    assert not tmp_path.exists()


def test_a_fleet_spells_its_topology_as_the_file_that_mshactl_reads(tmp_path: Path) -> None:
    topology = plan.demo(tmp_path).topology()
    assert topology["unit_types"][0]["ranges"] == {"center": ["0~5997"], "unbj": ["5998~9999"]}
    (domain,) = topology["domains"]
    assert (domain["name"], domain["ports"]) == ("websocket.localhost", {"center": 8101, "unbj": 8102})
    assert domain["uris"][0]["back_sources"]["center"] == "127.0.0.1:9101,127.0.0.1:9102"
