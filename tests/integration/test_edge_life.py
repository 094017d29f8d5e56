"""A real edge and a real console through the life of a node: crash, torn file, lost console, leave, death."""

import json
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from typing import Any

from msha.demo.fleet import REPOSITORY, Fleet

DEADLINE_S = 30.0


def node(fleet: Fleet, name: str = "edge-center") -> dict[str, Any]:
    """What the console knows of the node."""
    request = urllib.request.Request(
        f"{fleet.console_url}/api/v1/namespaces/demo/nodes",
        headers={"Authorization": f"Bearer {fleet.api_token}"},
    )
    with urllib.request.urlopen(request, timeout=10) as response:
        nodes = json.load(response)["nodes"]
    (found,) = [entry for entry in nodes if entry["name"] == name]
    return dict(found)


def eventually(
    fleet: Fleet, fits: Callable[[dict[str, Any]], bool], name: str = "edge-center"
) -> dict[str, Any]:
    """The node, once it fits."""
    deadline = time.monotonic() + DEADLINE_S
    while not fits(known := node(fleet, name)):
        assert time.monotonic() < deadline, known
        time.sleep(0.1)
    return known


def serving(known: dict[str, Any]) -> bool:
    return bool(known["live"] and known["listening"] and known["in_sync"])


def ended(fleet: Fleet, unit: str = "center") -> int:
    """The exit code of the unit's edge."""
    return fleet.edge(unit).child.wait(DEADLINE_S)


def test_an_edge_that_was_killed_comes_back_in_the_same_enrolment(fleet: Fleet) -> None:
    before = eventually(fleet, serving)
    fleet.kill("edge-center", signal.SIGKILL)
    fleet.start("edge-center")
    after = eventually(fleet, serving)
    assert (after["enrolment"], after["state"]) == (before["enrolment"], "enrolled")


def test_an_edge_whose_file_is_torn_gets_the_snapshot_again(fleet: Fleet) -> None:
    body = fleet.edge("center").state_dir / "snapshot.json"
    fleet.kill("edge-center", signal.SIGKILL)
    whole = body.read_bytes()
    body.write_bytes(whole[: len(whole) // 2])
    fleet.start("edge-center")
    eventually(fleet, serving)
    assert body.read_bytes() == whole


def test_an_edge_starts_without_the_console_and_is_found_by_it_later(fleet: Fleet) -> None:
    fleet.kill("console", signal.SIGKILL)
    fleet.kill("edge-center", signal.SIGKILL)
    fleet.start("edge-center")
    assert "starting_from_file" in fleet.logs("edge-center")
    fleet.start("console")
    eventually(fleet, serving)


def test_an_edge_that_leaves_counts_no_more_and_is_enrolled_anew_when_it_comes_back(fleet: Fleet) -> None:
    before = eventually(fleet, serving)
    directory = str(fleet.edge("center").state_dir)
    left = subprocess.run(
        [sys.executable, "-m", "msha.edge", "leave", "--state-dir", directory],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (left.returncode, left.stdout) == (0, "left\n"), left.stderr
    assert node(fleet)["state"] == "left"
    assert ended(fleet) == 0
    fleet.start("edge-center")
    assert eventually(fleet, serving)["enrolment"] == before["enrolment"] + 1


def test_an_edge_that_is_declared_dead_stops_and_keeps_a_tombstone(fleet: Fleet) -> None:
    eventually(fleet, serving, "edge-unbj")
    fleet.manage(
        "shell",
        "-c",
        "from units.models import EdgeNode; from units import enrolment;"
        "enrolment.declare_dead(EdgeNode.objects.get(name='edge-unbj'), actor='a test',"
        " typed_name='edge-unbj', reason='its power supply burns')",
    )
    assert ended(fleet, "unbj") == 3
    assert "its power supply burns" in fleet.logs("edge-unbj")
    assert node(fleet, "edge-unbj")["state"] == "dead"
    tombstone = json.loads((fleet.edge("unbj").state_dir / "tombstone").read_text())
    assert tombstone["reason"] == "revoked"
