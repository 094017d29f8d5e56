"""The logs of many processes on one stream, for somebody who watches."""

import json
import os
from typing import Any, TextIO

from msha.demo.processes import Child
from msha.demo.visible import visible

COLOURS = (36, 32, 33, 35, 34, 96, 92, 93, 95, 94)
LINE_LIMIT = 300
TEDIOUS = (
    # Once a second for ever.
    "cutover.tasks.reconcile",
    "Scheduler: Sending due task reconcile",
    # True, and nothing that somebody who tries a demo should do anything about.
    "Memory overcommit must be enabled",
)
HANDSHAKE_EVENTS = frozenset({"handshake", "session_end"})


class LogView:
    """New lines of every child's log file appear on a stream, each behind the child's name.

    The files keep everything; what repeats for ever is left out here, and edges' events become short lines.

    Attributes:
        every_handshake: show each handshake and each end of a session, too. Off while 200 clients connect at
        once.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.coloured = stream.isatty() and not os.environ.get("NO_COLOR")
        self.every_handshake = False
        self._position: dict[str, int] = {}
        self._partial: dict[str, bytes] = {}
        self._started: dict[str, float] = {}

    def say(self, line: str) -> None:
        self._print("demo", line, 1)

    def show_news(self, children: list[Child]) -> None:
        for number, child in enumerate(children):
            self._show_news_of(child, COLOURS[number % len(COLOURS)])

    def _show_news_of(self, child: Child, colour: int) -> None:
        if not child.started_at:
            return  # its log is of an earlier run
        if self._started.get(child.name) != child.started_at:  # its log began anew
            self._started[child.name] = child.started_at
            self._position[child.name], self._partial[child.name] = 0, b""
        try:
            with open(child.log, "rb") as log:
                log.seek(self._position[child.name])
                data = log.read()
        except FileNotFoundError:
            return
        self._position[child.name] += len(data)
        *lines, self._partial[child.name] = (self._partial[child.name] + data).split(b"\n")
        for line in lines:
            text = self._readable(line.decode(errors="replace").rstrip())
            if text:
                self._print(child.name, text, colour)

    def _readable(self, line: str) -> str:
        """The line for a person; "" when it is not worth one's time."""
        if any(word in line for word in TEDIOUS):
            return ""
        event = _event(line)
        if event is None:
            return line
        if event["event"] in HANDSHAKE_EVENTS and not self.every_handshake:
            return ""
        return short(event)

    def _print(self, name: str, text: str, colour: int) -> None:
        label = f"{name:<15} |"
        if self.coloured:
            label = f"\x1b[{colour}m{label}\x1b[0m"
        # A client chooses some of it: nothing in there may begin a line of its own, or move the cursor.
        text = visible(text[: LINE_LIMIT + 1])
        if len(text) > LINE_LIMIT:
            text = text[:LINE_LIMIT] + "..."
        print(label, text, file=self.stream, flush=True)


def _event(line: str) -> dict[str, Any] | None:
    """The event of a line of JSON."""
    if not line.startswith("{"):
        return None
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) and "event" in value else None


def short(event: dict[str, Any]) -> str:
    """One event of an edge in a short line."""
    who = f"id {event.get('router_id')}" if event.get("router_id") is not None else "no id"
    match event["event"]:
        case "handshake":
            target = f" -> {event['back_source']}" if event.get("back_source") else ""
            asked = f"{event.get('host')}{event.get('path')}"
            return (
                f"{event.get('status')} {event.get('decision')} ({event.get('reason')}) {who} {asked}{target}"
            )
        case "session_end":
            reason = f" ({event['reason']})" if event.get("reason") else ""
            return f"end of {who} by {event.get('ended_by')}{reason} after {event.get('seconds')} s"
    rest = " ".join(
        f"{key}={value}" for key, value in event.items() if key not in ("event", "level", "timestamp")
    )
    level = event.get("level", "info")
    return f"{'' if level == 'info' else f'[{level}] '}{event['event']} {rest}".rstrip()
