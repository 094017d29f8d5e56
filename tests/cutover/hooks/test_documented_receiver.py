"""The receiver that docs/hooks.md prints works as it stands there."""

import re
import threading
from collections.abc import Iterator
from http.server import HTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from cutover.hooks import calling
from cutover.hooks.answers import Verdict
from cutover.models import Hook
from units import webhooks

SECRET = "the same as in the console"


@pytest.fixture
def receiver(repository: Path) -> Iterator[dict[str, Any]]:
    """The names of the printed program, and the URL at which it runs."""
    text = (repository / "docs" / "hooks.md").read_text()
    (program,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names: dict[str, Any] = {"__name__": "receiver"}
    exec(compile(program, "docs/hooks.md", "exec"), names)
    server = HTTPServer(("127.0.0.1", 0), names["Receiver"])
    names["Receiver"].log_message = lambda *_: None
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield {**names, "url": f"http://127.0.0.1:{server.server_address[1]}/"}
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def called(receiver: dict[str, Any], secret: str = SECRET, **body: Any) -> Verdict:
    hook = Hook(name="h", moment="at_freeze", url=receiver["url"], secret=secret, timeout_s=5)
    moved = [{"losing": "unbj", "gaining": "center", "ranges": [[5998, 6380]]}]
    whole = {"namespace": "shop", "epoch": 7, "practice": False, "moved": moved, **body}
    return calling.made(hook, whole, "1")[0]


def test_it_takes_our_calls_and_nobody_else_s(receiver: dict[str, Any]) -> None:
    assert called(receiver) is Verdict.YES
    assert called(receiver, secret="somebody else's secret") is Verdict.NO
    assert httpx.post(receiver["url"], json={}).status_code == 401


def test_it_refuses_a_call_that_was_recorded_long_ago(receiver: dict[str, Any]) -> None:
    body, timestamp = b"{}", 1_000_000_000
    headers = {
        webhooks.TIMESTAMP: str(timestamp),
        webhooks.SIGNATURE: webhooks.sign(SECRET, timestamp, body),
    }
    assert httpx.post(receiver["url"], content=body, headers=headers).status_code == 401


def test_it_obeys_no_straggler_and_no_practice(receiver: dict[str, Any]) -> None:
    assert called(receiver, epoch=7) is Verdict.YES
    assert called(receiver, epoch=5) is Verdict.YES
    assert called(receiver, epoch=9, practice=True) is Verdict.YES
    assert receiver["newest"] == {"shop": 7}
