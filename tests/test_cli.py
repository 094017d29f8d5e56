"""`mshactl` as a process, against a real console on both databases."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from msha.demo.ports import free_ports
from msha.steering import snapshot
from tests.support.live_console import LiveConsole, live_console
from tests.support.servers import another_database
from tests.support.topologies import WALK_THROUGH


@pytest.fixture(scope="module")
def console(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveConsole]:
    directory = tmp_path_factory.mktemp("console")
    with live_console(f"sqlite:///{directory / 'console.sqlite3'}", directory) as started:
        yield started


@pytest.fixture(scope="module")
def postgres_console(tmp_path_factory: pytest.TempPathFactory, postgres_url: str) -> Iterator[LiveConsole]:
    with live_console(another_database(postgres_url), tmp_path_factory.mktemp("postgres")) as started:
        yield started


@pytest.fixture(params=["console", "postgres_console"])
def either_console(request: pytest.FixtureRequest) -> LiveConsole:
    """One test, both databases: where locks or types of columns matter."""
    started: LiveConsole = request.getfixturevalue(request.param)
    return started


def topology_of(namespace: str) -> str:
    """The walk-through's topology under another name, so that tests of one console do not meet."""
    return WALK_THROUGH.replace("namespace: demo", f"namespace: {namespace}").replace(
        "websocket.msha.tech", f"{namespace}.msha.tech"
    )


@pytest.fixture
def space(console: LiveConsole, request: pytest.FixtureRequest) -> str:
    """A namespace of this test's own, in effect."""
    name = f"ns{abs(hash(request.node.nodeid)) % 10**8}"
    done = console.mshactl("apply", "-f", "-", "--yes", stdin=topology_of(name))
    assert done.returncode == 0, done.stderr
    return name


def test_apply_saves_and_puts_into_effect_and_a_second_time_changes_nothing(
    either_console: LiveConsole,
) -> None:
    console = either_console
    text = topology_of("twice")
    done = console.mshactl("apply", "-f", "-", "--yes", "-o", "json", stdin=text)
    assert done.returncode == 0, done.stderr
    applied = json.loads(done.stdout)
    assert (applied["version"], applied["published"], applied["drafts"]) == (1, True, [])
    assert "+ domain twice.msha.tech" in done.stderr

    again = console.mshactl("apply", "-f", "-", "-o", "json", stdin=text)
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["differences"] == []
    assert json.loads(again.stdout)["version"] == 1


def test_applying_the_export_changes_nothing(console: LiveConsole, space: str) -> None:
    exported = console.mshactl("export", "-n", space)
    assert exported.returncode == 0, exported.stderr
    diff = console.mshactl("diff", "-f", "-", "-o", "json", stdin=exported.stdout)
    assert json.loads(diff.stdout)["differences"] == []
    value = json.loads(console.mshactl("export", "-n", space, "-o", "json").stdout)
    assert value["namespace"] == space


def test_diff_shows_what_would_change_and_changes_nothing(console: LiveConsole, space: str) -> None:
    changed = topology_of(space).replace("9201", "9202")
    diff = console.mshactl("diff", "-f", "-", stdin=changed)
    assert diff.returncode == 0
    assert diff.stdout == (
        f"~ domain {space}.msha.tech\n"
        "    uris./.back_sources.unbj: 127.0.0.1:9201 → 127.0.0.1:9202\n"
    )  # fmt: skip
    assert diff.stderr == ""
    assert "9201" in console.mshactl("export", "-n", space).stdout


def test_a_change_of_ownership_becomes_a_draft_and_apply_says_so(console: LiveConsole, space: str) -> None:
    moved = topology_of(space).replace("0~5997", "0~6380").replace("5998~", "6381~")
    done = console.mshactl("apply", "-f", "-", "--yes", stdin=moved)
    assert done.returncode == 0, done.stderr
    assert "becomes the draft of a cutover" in done.stderr
    assert "moves 383 ids: 5998~6380 unbj→center" in done.stdout
    assert "draft #1 is prepared" in done.stdout
    routed = json.loads(console.mshactl("route", "6249", "-n", space, "-o", "json").stdout)
    assert (routed["unit"], routed["version"]) == ("unbj", 1)
    again = console.mshactl("apply", "-f", "-", "--yes", "-o", "json", stdin=moved)
    assert [draft["number"] for draft in json.loads(again.stdout)["drafts"]] == [1]


def test_save_only_leaves_what_is_in_effect_and_put_into_effect_publishes_it(
    console: LiveConsole, space: str
) -> None:
    changed = topology_of(space).replace("9201", "9202")
    saved = console.mshactl("apply", "-f", "-", "--yes", "--save-only", "-o", "json", stdin=changed)
    assert (json.loads(saved.stdout)["published"], json.loads(saved.stdout)["version"]) == (False, 1)
    unasked = console.mshactl("apply", "-f", "-", stdin=changed)
    assert unasked.returncode == 2
    assert "pass --yes" in unasked.stderr
    done = console.mshactl("put-into-effect", "-n", space, "--yes")
    assert (done.returncode, done.stdout) == (0, "Version 2 is in effect.\n")
    assert '"127.0.0.1:9202"' in done.stderr.replace("'", '"')


def test_without_a_terminal_apply_wants_yes(console: LiveConsole) -> None:
    done = console.mshactl("apply", "-f", "-", stdin=topology_of("unasked"))
    assert done.returncode == 2
    assert done.stderr.endswith("Nobody is there to ask: pass --yes to go ahead without a question.\n")
    assert done.stdout == ""
    assert "unasked" not in console.mshactl("export", "-n", "unasked").stdout


def test_route_says_unit_decision_reason_and_version(console: LiveConsole, space: str) -> None:
    routed = json.loads(console.mshactl("route", "1111", "-n", space, "-o", "json").stdout)
    assert {key: routed[key] for key in ("unit", "decision", "reason", "version")} == {
        "unit": "center",
        "decision": "tunnel",
        "reason": "owned",
        "version": 1,
    }
    text = console.mshactl("route", "1111", "-n", space, "--unit-type", "unit_type").stdout
    assert text.startswith("1111: unit center; tunnel (owned), version 1, unit_type,")
    assert f"http://center.{space}.msha.tech/" in text
    other = console.mshactl("route", "1111", "-n", space, "--unit-type", "nope")
    assert other.returncode == 1
    assert "nope is not a unit type in effect; there is unit_type." in other.stderr


@pytest.mark.parametrize(
    ("arguments", "head"),
    [
        (("abc",), "abc: no unit; refuse (invalid_router_id)"),
        (("1", "--host", "foo.bar"), "1: no unit; refuse (unknown_host)"),
    ],
)
def test_a_route_that_every_unit_refuses_is_a_failure(
    console: LiveConsole, space: str, arguments: tuple[str, ...], head: str
) -> None:
    done = console.mshactl("route", *arguments, "-n", space)
    assert done.returncode == 1
    assert done.stdout.startswith(head)
    assert done.stderr == ""
    routed = console.mshactl("route", *arguments, "-n", space, "-o", "json")
    assert (routed.returncode, json.loads(routed.stdout)["unit"]) == (1, "")


def test_sessions_are_counted(console: LiveConsole, space: str) -> None:
    counted = json.loads(console.mshactl("sessions", "-n", space, "-o", "json").stdout)
    assert (counted["total"], [unit["unit"] for unit in counted["units"]]) == (0, ["center", "unbj"])
    assert "center" in console.mshactl("sessions", "-n", space).stdout


def test_a_viewer_may_look_and_not_change(console: LiveConsole, space: str) -> None:
    assert console.mshactl("export", "-n", space, user="victor").returncode == 0
    changed = topology_of(space).replace("9201", "9202")
    refused = console.mshactl("apply", "-f", "-", "--yes", stdin=changed, user="victor")
    assert refused.returncode == 1
    assert "victor may not do this: the permission units.publish is missing." in refused.stderr
    assert refused.stdout == ""


def test_bad_input_is_refused_with_line_and_place(console: LiveConsole, space: str) -> None:
    changed = topology_of(space).replace("9201", "92010")
    refused = console.mshactl("apply", "-f", "-", "--yes", stdin=changed)
    assert refused.returncode == 1
    assert "Error: line 28: domains[0].uris[0].back_sources.unbj: " in refused.stderr
    assert "port '92010' is not a number from 1 to 65535" in refused.stderr


def test_with_several_namespaces_one_must_be_named(console: LiveConsole, space: str) -> None:
    console.mshactl("apply", "-f", "-", "--yes", stdin=topology_of("second"))
    unnamed = console.mshactl("sessions")
    assert unnamed.returncode == 2
    assert "Name the namespace with -n; there are" in unnamed.stderr


def test_a_node_is_registered_and_its_token_stored_for_its_owner_alone(
    console: LiveConsole, space: str, tmp_path: Path
) -> None:
    file = tmp_path / "node.token"
    words = ["node", "add", "edge-7", "-n", space, "--cluster", "ws-hz-2", "--token-file", str(file)]
    refused = console.mshactl(*words, "--unit", "nowhere")
    assert (refused.returncode, file.exists()) == (1, False)
    assert f"Namespace {space} has no unit nowhere" in refused.stderr
    done = console.mshactl(*words, "--unit", "center", "-o", "json")
    assert done.returncode == 0, done.stderr
    assert (json.loads(done.stdout)["name"], "msha_node_" in done.stdout) == ("edge-7", False)
    assert (file.read_text()[:10], file.stat().st_mode & 0o777) == ("msha_node_", 0o600)
    again = console.mshactl(*words, "--unit", "center")
    assert (again.returncode, "Nothing was registered" in again.stderr) == (1, True)
    file.unlink()
    taken = console.mshactl(*words, "--unit", "center")
    assert (taken.returncode, file.exists()) == (1, False)
    assert "already has one with this name" in taken.stderr


def test_a_node_without_a_cluster_is_registered_with_a_warning(
    console: LiveConsole, space: str, tmp_path: Path
) -> None:
    words = [
        "node",
        "add",
        "edge-8",
        "-n",
        space,
        "--unit",
        "center",
        "--token-file",
        str(tmp_path / "token"),
    ]
    done = console.mshactl(*words)
    assert done.returncode == 0
    assert "edge-8 belongs to no cluster, so no cutover counts on it." in done.stderr


def test_a_file_that_is_not_there_is_misuse(console: LiveConsole, tmp_path: Path) -> None:
    missing = console.mshactl("apply", "-f", str(tmp_path / "none.yaml"))
    assert missing.returncode == 2
    (tmp_path / "latin.yaml").write_bytes(b"namespace: \xff\n")
    garbled = console.mshactl("diff", "-f", str(tmp_path / "latin.yaml"))
    assert garbled.returncode == 1
    assert "cannot be read" in garbled.stderr


def test_a_revoked_token_says_what_to_send(console: LiveConsole) -> None:
    done = console.mshactl("export", MSHA_TOKEN="msha_api_" + "x" * 43)
    assert done.returncode == 1
    assert (
        done.stderr == "Error: Send an API token that is not revoked, as Authorization: Bearer msha_api_….\n"
    )


def test_concurrent_applies_publish_whole_versions_one_after_the_other(
    either_console: LiveConsole,
) -> None:
    console, space = either_console, "racing"
    assert console.mshactl("apply", "-f", "-", "--yes", stdin=topology_of(space)).returncode == 0
    ports = range(9301, 9309)

    def apply(port: int) -> subprocess.CompletedProcess[str]:
        text = topology_of(space).replace("9201", str(port))
        return console.mshactl("apply", "-f", "-", "--yes", "-o", "json", stdin=text)

    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(apply, ports))
    good = [json.loads(one.stdout) for one in done if one.returncode == 0]
    lost = [one.stderr for one in done if one.returncode != 0]
    assert all("Something was saved in namespace" in sentence for sentence in lost), lost
    assert sorted(one["version"] for one in good) == list(range(2, 2 + len(good)))
    routed = json.loads(console.mshactl("route", "9999", "-n", space, "-o", "json").stdout)
    newest = next(d for d in routed["decisions"] if d["unit"] == "unbj")["servers"]
    assert f":{newest[0].split(':')[1]}" in console.mshactl("export", "-n", space).stdout


# -- without a console ---------------------------------------------------------------------------------------


def alone(*arguments: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "msha.cli", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", **environment},
    )


@pytest.mark.parametrize(
    ("environment", "code", "sentence"),
    [
        ({}, 2, "MSHA_URL is not set. Set it to the console, as http://127.0.0.1:8000."),
        ({"MSHA_URL": "127.0.0.1:8000", "MSHA_TOKEN": "x"}, 2, "MSHA_URL is '127.0.0.1:8000'."),
        ({"MSHA_URL": "http://127.0.0.1:8000"}, 2, "MSHA_TOKEN is not set."),
        ({"MSHA_URL": "http://127.0.0.1:8000", "MSHA_TOKEN": "ü"}, 2, "MSHA_TOKEN is not an API token"),
    ],
)
def test_a_missing_or_wrong_variable_gives_one_sentence(
    environment: dict[str, str], code: int, sentence: str
) -> None:
    done = alone("sessions", "-n", "demo", **environment)
    assert done.returncode == code
    assert done.stderr.startswith(f"Error: {sentence}")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_an_unreachable_console_gives_one_sentence() -> None:
    (port,) = free_ports(1)
    done = alone("sessions", "-n", "demo", MSHA_URL=f"http://127.0.0.1:{port}", MSHA_TOKEN="x")
    assert done.returncode == 1
    assert done.stderr.startswith(f"Error: The console at http://127.0.0.1:{port} cannot be reached")
    assert done.stderr.count("\n") == 1


def test_help_needs_no_environment() -> None:
    for command in ([], ["apply"], ["compile"], ["cutover"]):
        assert alone(*command, "--help").returncode == 0


def test_compile_makes_a_snapshot_that_edges_load_without_loading_django(tmp_path: Path) -> None:
    file = tmp_path / "topology.yaml"
    file.write_text(WALK_THROUGH, encoding="utf-8")
    done = alone("compile", "-f", str(file), "-o", str(tmp_path / "snapshot.json"), "--version", "4")
    assert (done.returncode, done.stdout) == (0, "")
    loaded = snapshot.load((tmp_path / "snapshot.json").read_bytes())
    assert (loaded.namespace, loaded.version) == ("demo", 4)
    assert loaded.serves("unbj", "unit_type", 6249)
    to_stdout = alone("compile", "-f", str(file), "-o", "-", "--version", "4")
    assert to_stdout.stdout.encode() == (tmp_path / "snapshot.json").read_bytes()
    listed = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", "import msha.cli"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "django" not in listed.stderr


def test_compile_refuses_bad_files_and_other_namespaces(tmp_path: Path) -> None:
    done = alone("compile", "-f", "-", "-o", str(tmp_path / "s"), stdin=WALK_THROUGH.replace("9201", "0"))
    assert done.returncode == 1
    assert done.stderr.startswith("Error: <stdin>: line 28: domains[0].uris[0].back_sources.unbj: ")
    assert not (tmp_path / "s").exists()
    other = alone("compile", "-f", "-", "-o", str(tmp_path / "s"), "-n", "prod", stdin=WALK_THROUGH)
    assert (other.returncode, other.stderr) == (1, "Error: The file is about namespace demo, not prod.\n")
    nowhere = alone("compile", "-f", "-", "-o", str(tmp_path / "no" / "s"), stdin=WALK_THROUGH)
    assert nowhere.returncode == 1
    assert "cannot be written" in nowhere.stderr
