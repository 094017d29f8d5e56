"""The state directory: what is found again after a crash, a full disk, a leave."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from msha.edge.node.state import (
    ControlAddress,
    Description,
    DirectoryInUse,
    OlderVersion,
    OtherDigest,
    StateDirectory,
    Stored,
    Tombstone,
    UnusableDirectory,
    holder,
)
from msha.steering.snapshot import digest_of

HOLDER = """
import sys, time
from pathlib import Path
from msha.edge.node.state import StateDirectory
directory = StateDirectory.open(Path(sys.argv[1]))
print("locked", flush=True)
sys.stdin.read()
"""

PARENT = """
import os, subprocess, sys
from pathlib import Path
from msha.edge.node.state import StateDirectory
directory = StateDirectory.open(Path(sys.argv[1]))
child = subprocess.Popen(["sleep", "60"], pass_fds=[directory.lock_fd], stdout=subprocess.DEVNULL)
print(child.pid, flush=True)
os.kill(os.getpid(), 9)
"""


def stored(version: int, *, enrolment: int = 1, text: str = "") -> Stored:
    body = json.dumps({"version": version, "text": text}).encode()
    return Stored(Description(version, digest_of(body), enrolment, "edge-1", "center", "ns"), body)


def reopened(directory: StateDirectory) -> StateDirectory:
    directory.close()
    return StateDirectory.open(directory.path)


@pytest.fixture
def directory(tmp_path: Path) -> StateDirectory:
    return StateDirectory.open(tmp_path / "state")


def test_a_new_directory_gets_an_instance_that_it_keeps(directory: StateDirectory) -> None:
    instance = directory.instance
    assert len(instance) == 36
    assert reopened(directory).instance == instance


def test_an_unreadable_instance_is_not_replaced_by_a_new_one(directory: StateDirectory) -> None:
    (directory.path / "instance").write_text("")
    with pytest.raises(UnusableDirectory, match="instance"):
        reopened(directory)


def test_a_stored_snapshot_is_found_again(directory: StateDirectory) -> None:
    directory.write_snapshot(stored(3))
    assert reopened(directory).stored == stored(3)


def test_an_older_version_is_refused(directory: StateDirectory) -> None:
    directory.write_snapshot(stored(3))
    with pytest.raises(OlderVersion, match="Version 2 is below version 3"):
        directory.write_snapshot(stored(2))
    assert reopened(directory).stored == stored(3)


def test_another_digest_for_the_same_version_is_refused(directory: StateDirectory) -> None:
    directory.write_snapshot(stored(3))
    with pytest.raises(OtherDigest, match="one digest for ever"):
        directory.write_snapshot(stored(3, text="other"))
    assert reopened(directory).stored == stored(3)


def test_the_same_snapshot_may_be_stored_again_under_a_new_enrolment(directory: StateDirectory) -> None:
    directory.write_snapshot(stored(3))
    directory.write_snapshot(stored(3, enrolment=2))
    found = reopened(directory).stored
    assert found is not None
    assert found.enrolment == 2


def test_a_torn_body_is_no_snapshot_but_its_version_stays_the_floor(directory: StateDirectory) -> None:
    directory.write_snapshot(stored(3))
    body = directory.path / "snapshot.json"
    body.write_bytes(body.read_bytes()[:-3])
    again = reopened(directory)
    assert again.stored is None
    assert "version 3" in again.torn
    with pytest.raises(OlderVersion):
        again.write_snapshot(stored(2))
    again.write_snapshot(stored(3))
    assert reopened(again).stored == stored(3)


def test_a_body_without_description_is_no_snapshot(directory: StateDirectory) -> None:
    directory.write_snapshot(stored(3))
    (directory.path / "snapshot.meta").unlink()
    again = reopened(directory)
    assert again.stored is None
    assert "snapshot.meta" in again.torn


def test_an_unreadable_description_is_no_snapshot(directory: StateDirectory) -> None:
    directory.write_snapshot(stored(3))
    (directory.path / "snapshot.meta").write_text('{"version": "3"}')
    again = reopened(directory)
    assert again.stored is None
    assert "unreadable" in again.torn


def test_a_crash_between_description_and_body_leaves_the_older_snapshot(directory: StateDirectory) -> None:
    directory.write_snapshot(stored(3))
    # The body cannot be written: not even root writes to a directory.
    (directory.path / ".snapshot.json.new").mkdir()
    with pytest.raises(IsADirectoryError):
        directory.write_snapshot(stored(4))
    (directory.path / ".snapshot.json.new").rmdir()
    again = reopened(directory)
    assert again.stored == stored(3)
    assert again.torn == ""
    again.write_snapshot(stored(4))
    assert reopened(again).stored == stored(4)


def test_a_failed_write_keeps_what_was_stored_in_force(directory: StateDirectory) -> None:
    directory.write_snapshot(stored(3))
    (directory.path / ".snapshot.meta.new").mkdir()
    with pytest.raises(IsADirectoryError):
        directory.write_snapshot(stored(4))
    assert directory.stored == stored(3)


def test_two_crashes_in_a_row_still_leave_the_older_snapshot(directory: StateDirectory) -> None:
    directory.write_snapshot(stored(3))
    (directory.path / ".snapshot.json.new").mkdir()
    for version in (4, 5):
        with pytest.raises(IsADirectoryError):
            directory.write_snapshot(stored(version))
        directory = reopened(directory)
    assert directory.stored == stored(3)


def test_a_tombstone_is_found_again(directory: StateDirectory) -> None:
    directory.write_snapshot(stored(3, enrolment=2))
    directory.write_tombstone(Tombstone.now(2, "left"))
    again = reopened(directory)
    assert again.tombstone is not None
    assert (again.tombstone.enrolment, again.tombstone.reason) == (2, "left")
    again.mark_told()
    told = reopened(again).tombstone
    assert told is not None
    assert told.told


def test_a_later_enrolment_removes_the_tombstone_and_the_same_one_does_not(directory: StateDirectory) -> None:
    directory.write_snapshot(stored(3, enrolment=2))
    directory.write_tombstone(Tombstone.now(2, "left"))
    directory.write_snapshot(stored(4, enrolment=2))
    directory = reopened(directory)
    assert directory.tombstone is not None
    directory.write_snapshot(stored(4, enrolment=3))
    assert reopened(directory).tombstone is None


def test_an_unreadable_tombstone_stays_in_force_until_a_later_enrolment(directory: StateDirectory) -> None:
    directory.write_snapshot(stored(3, enrolment=2))
    (directory.path / "tombstone").write_text("")
    again = reopened(directory)
    assert again.tombstone is not None
    again.write_snapshot(stored(3, enrolment=2))
    assert again.tombstone is not None
    again.write_snapshot(stored(3, enrolment=3))
    assert reopened(again).tombstone is None


def test_where_no_tombstone_can_be_written_the_snapshot_is_removed(directory: StateDirectory) -> None:
    directory.write_snapshot(stored(3))
    (directory.path / ".tombstone.new").mkdir()
    directory.write_tombstone(Tombstone.now(1, "revoked"))
    assert reopened(directory).stored is None


def test_the_console_is_remembered_without_the_token(directory: StateDirectory) -> None:
    address = ControlAddress("ws://127.0.0.1:8000/control/", "/etc/msha/token")
    directory.write_control(address)
    assert reopened(directory).read_control() == address


def test_a_second_agent_is_told_who_holds_the_directory(tmp_path: Path) -> None:
    path = tmp_path / "state"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        assert holder(path) == other.pid
        with pytest.raises(DirectoryInUse, match=f"in use by the agent with process id {other.pid}"):
            StateDirectory.open(path)
        other.communicate()
    assert holder(path) is None
    StateDirectory.open(path).close()


def test_a_child_that_inherited_the_lock_keeps_the_directory_after_its_agent_died(tmp_path: Path) -> None:
    path = tmp_path / "state"
    command = [sys.executable, "-c", PARENT, str(path)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    child = int(done.stdout)
    try:
        with pytest.raises(DirectoryInUse, match="worker of an agent that is gone"):
            StateDirectory.open(path, wait_s=0.1)
    finally:
        os.kill(child, 9)
    StateDirectory.open(path, wait_s=5).close()


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UnusableDirectory, match="file/state cannot be used"):
        StateDirectory.open(tmp_path / "file" / "state")


def test_a_description_of_another_enrolment_alone_replaces_no_body(directory: StateDirectory) -> None:
    directory.write_snapshot(stored(3))
    before = (directory.path / "snapshot.json").stat().st_ino
    directory.write_snapshot(replace(stored(3), description=replace(stored(3).description, enrolment=9)))
    assert (directory.path / "snapshot.json").stat().st_ino == before
