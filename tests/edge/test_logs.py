"""The log of a process whose standard error is read late, by halves, or never."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.websocket_wire import TIMEOUT_S

#: Logs what the first argument says, then waits for a line, then logs once more.
_PROGRAM = """
import os, sys, structlog
from msha.edge.logs import complain, log_to_stderr
log_to_stderr()
log = structlog.get_logger("msha.edge")
for number in range(int(sys.argv[1])):
    log.warning("line", number=number, text="x" * 9000)
    if sys.argv[2:]:
        os.write(2, b"{}\\n")
print("written", flush=True)
sys.stdin.readline()
log.warning("last")
complain("the end")
"""


def start(stderr: int, *arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", _PROGRAM, *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr)


def ends(process: subprocess.Popen[bytes]) -> None:
    """It has ended by itself after it was let go on."""
    process.communicate(b"\n", timeout=TIMEOUT_S)
    assert process.returncode == 0


def is_written(process: subprocess.Popen[bytes]) -> None:
    """It has logged all, read or not."""
    assert process.stdout is not None
    os.set_blocking(process.stdout.fileno(), True)
    assert process.stdout.readline() == b"written\n"


@pytest.mark.parametrize("kind", ["pipe", "socket"])
@pytest.mark.timeout(20)
def test_a_reader_that_does_not_read_costs_lines_and_nothing_else(kind: str) -> None:
    if kind == "pipe":
        ours, theirs = os.pipe()
    else:
        ours, theirs = (sock.detach() for sock in socket.socketpair())
    process = start(theirs, "200")
    os.close(theirs)
    try:
        is_written(process)
        os.set_blocking(ours, False)
        read = b""
        while True:
            try:
                read += os.read(ours, 1 << 16)
            except BlockingIOError:
                break
        ends(process)
        while more := os.read(ours, 1 << 16):
            read += more
    finally:
        process.kill()
        os.close(ours)
    *lines, sentence = read.splitlines()
    numbers = [json.loads(line).get("number") for line in lines]  # none of them is torn
    assert numbers[:-1] == list(range(len(numbers) - 1))
    assert len(numbers) < 200
    assert json.loads(lines[-1])["event"] == "last"
    assert sentence == b"the end"


def test_a_reader_that_is_gone_costs_lines_and_nothing_else() -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    process = start(theirs, "3")
    os.close(theirs)
    is_written(process)
    ends(process)


def test_a_file_keeps_what_others_write_to_it(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("wb") as file:
        process = start(file.fileno(), "3", "and something else")
    ends(process)
    lines = path.read_bytes().splitlines()
    assert lines[1::2] == [b"{}", b"{}", b"{}", b"the end"]
    assert [json.loads(line).get("number") for line in lines[:-1:2]] == [0, 1, 2, None]
