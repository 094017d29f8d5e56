"""``mshactl send``: a text to open sessions."""

from typing import Any

import click

from msha.remote import Call, Misuse, common_options, say


@click.command("send")
@click.option(
    "--id", "ids", type=click.IntRange(min=0), multiple=True, metavar="ID", help="May be given several times."
)
@click.option("--ranges", metavar="RANGES", help="As 0~99; several are joined with +, as 0~99+500.")
@click.option("--all", "everybody", is_flag=True, help="Every session of the unit type.")
@click.argument("text")
@common_options
def send(call: Call, text: str, ids: tuple[int, ...], ranges: str | None, everybody: bool) -> None:
    """Send TEXT to the open sessions of ids, of ranges, or to all, as one text message each.

    IDs are those of the rule, after the unit type's transforms. Nothing is sent twice, and a session that
    opens later does not get it. The exit code is 1 when a node could not be reached: its sessions may not
    have got it.
    """
    if bool(ids) + (ranges is not None) + everybody != 1:
        raise Misuse("Say whom it is for: either --id, or --ranges, or --all.")
    body = {
        "text": text,
        "unit_type": call.unit_type or "",
        "ids": list(ids),
        "ranges": [part for part in (ranges or "").split("+") if ranges is not None],
        "all": everybody,
    }
    sent = call.console.post(call.path("messages"), body)
    call.show(sent, lambda: _sent_text(sent))
    missed = [node for node in sent["nodes"] if not node["reached"]]
    for node in missed:
        say(f"Node {node['node']} of unit {node['unit']}: {node['problem']}")
    if missed:
        raise SystemExit(1)


def _sent_text(sent: dict[str, Any]) -> str:
    having = sum(1 for node in sent["nodes"] if node["delivered"] + node["queued"])
    words = [
        f"{_sessions(sent['delivered'] + sent['queued'])} on {having} of {_nodes(len(sent['nodes']))} got it"
    ]
    if sent["queued"]:
        words.append(f"{sent['queued']} of them as soon as there is room")
    if sent["skipped"]:
        reasons = ", ".join(f"{count} {why}" for why, count in sorted(sent["skipped"].items()))
        words.append(f"skipped: {reasons}")
    return f"To {sent['to']}: {'; '.join(words)}."


def _sessions(number: int) -> str:
    return f"{number} session" if number == 1 else f"{number} sessions"


def _nodes(number: int) -> str:
    return f"{number} node" if number == 1 else f"{number} nodes"
