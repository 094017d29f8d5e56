"""``mshactl safety``, and the acts of ``mshactl cutover`` about safety rules and approvals."""

import re
from typing import Any

import click

from msha.cli_cutover import findings_lines
from msha.remote import Call, common_options, confirm, say, table

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun", "daily")
_WINDOW = re.compile(r"(\w+)\s+(\d\d:\d\d)-(\d\d:\d\d)(?:\s+([\w/+-]+))?(?:\s+(.+))?")

_reason = click.option("--reason", required=True, metavar="TEXT", help="Why; kept in the audit trail.")
_comment = click.option("--comment", default="", metavar="TEXT", help="Kept in the audit trail.")
_number = click.argument("number", required=False, default="draft", metavar="[NUMBER]")


def parse_window(text: str) -> dict[str, Any]:
    """``fri 22:00-06:00 Asia/Shanghai weekly report`` as the API has it; the zone is UTC if left out."""
    found = _WINDOW.fullmatch(text.strip())
    if found is None or found[1].lower() not in _DAYS:
        raise click.BadParameter(
            f"{text!r} is not of the form DAY BEGIN-END [ZONE [NOTE]], as 'fri 22:00-06:00 Asia/Shanghai';"
            f" a day is one of {', '.join(_DAYS)}."
        )
    return {
        "day": _DAYS.index(found[1].lower()),
        "begins": found[2],
        "ends": found[3],
        "time_zone": found[4] or "UTC",
        "note": found[5] or "",
    }


def _windows(_context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> Any:
    if not values:
        return None
    return [] if values == ("none",) else [parse_window(value) for value in values]


def _limit(_context: click.Context, parameter: click.Parameter, value: str | None) -> Any:
    if value is None:
        return None
    if value == "none":
        return "none"
    if not (value.isascii() and value.isdigit()):
        raise click.BadParameter(f"{value!r} is neither a number nor none.")
    return int(value)


def _limit_option(name: str, help_text: str) -> Any:
    return click.option(name, callback=_limit, metavar="N|none", help=help_text)


@click.group()
def safety() -> None:
    """See and change what a namespace forbids its cutovers."""


@safety.command()
@common_options
def show(call: Call) -> None:
    """Show the safety rules."""
    rules = call.console.get(call.path("safety"))
    call.show(rules, lambda: _rules_text(rules))


@safety.command("set")
@_limit_option("--min-share-percent", "A unit that loses ids keeps at least this share of all ids.")
@_limit_option("--max-ids", "Ids that one cutover may move.")
@_limit_option("--max-sessions", "Live sessions that one cutover may close.")
@_limit_option("--quiet-s", "Seconds after a cutover in which no other one begins.")
@click.option("--approval/--no-approval", default=None, help="Whether somebody else approves before a start.")
@click.option(
    "--block",
    "blocked_windows",
    multiple=True,
    callback=_windows,
    metavar="WINDOW",
    help="No cutover starts then, as 'fri 22:00-06:00 Asia/Shanghai NOTE' or 'daily 08:00-09:00'; replaces"
    " all windows, may be given several times, none for no window.",
)
@click.option("--reason", default="", metavar="TEXT", help="Why; kept in the audit trail.")
@common_options
def set_(call: Call, reason: str, **asked: Any) -> None:
    """Change those safety rules that are given; the others stay."""
    given = {name: None if value == "none" else value for name, value in asked.items() if value is not None}
    if not given:
        raise click.UsageError("Give at least one rule to change.")
    rules = call.console.put(call.path("safety"), {**given, "reason": reason})
    call.show(rules, lambda: _rules_text(rules))


@click.command()
@click.argument("rules", nargs=-1, required=True, metavar="RULE...")
@click.option("--number", default="draft", metavar="NUMBER", help="Default: the newest draft.")
@_reason
@common_options
def override(call: Call, rules: tuple[str, ...], number: str, reason: str) -> None:
    """Let a cutover start against safety rules, or against all that stand in its way.

    It holds for this draft and what the rules say now.
    """
    target = call.console.get(call.path("cutovers", number))["number"]
    body = {"rules": list(rules), "reason": reason}
    status = call.console.post(call.path("cutovers", target, "override"), body)
    call.show(status, lambda: _safety_text(status))


@click.command("request-approval")
@_comment
@_number
@common_options
def request_approval(call: Call, number: str, comment: str) -> None:
    """Ask those who may approve to look at a draft, by default the newest."""
    target = call.console.get(call.path("cutovers", number))["number"]
    status = call.console.post(call.path("cutovers", target, "request-approval"), {"comment": comment})
    call.show(status, lambda: _safety_text(status))


@click.command()
@_comment
@click.option("--yes", is_flag=True, help="Ask no question.")
@_number
@common_options
def approve(call: Call, number: str, comment: str, yes: bool) -> None:
    """Approve the draft of somebody else, by default the newest, as it is now."""
    seen = call.console.get(call.path("cutovers", number))
    say(f"{seen['moved_ids']} ids: {seen['moved_text']}" if seen["moved_ids"] else "No id moves.")
    say(_safety_text(seen))
    confirm(f"Approve cutover #{seen['number']} of {call.namespace}?", yes)
    body = {"comment": comment, "seen": seen["approval"]["digest"]}
    status = call.console.post(call.path("cutovers", seen["number"], "approve"), body)
    call.show(status, lambda: _safety_text(status))


@click.command("withdraw-approval")
@_reason
@_number
@common_options
def withdraw_approval(call: Call, number: str, reason: str) -> None:
    """Take the approval of a draft back, by default of the newest."""
    target = call.console.get(call.path("cutovers", number))["number"]
    status = call.console.post(call.path("cutovers", target, "withdraw-approval"), {"reason": reason})
    call.show(status, lambda: _safety_text(status))


#: Acts on a cutover.
COMMANDS = (override, request_approval, approve, withdraw_approval)


def _safety_text(status: dict[str, Any]) -> str:
    """What stands between a draft and its start, as far as rules and approvals go."""
    given = status["approval"]
    approval = {
        "not_needed": "no approval is needed",
        "missing": f"needs an approval by somebody other than {given['requested_by']}",
        "requested": f"waits for an approval by somebody other than {given['requested_by']}",
        "approved": f"approved by {given['approved_by']}",
        "void": given["obstacle"],
    }[given["state"]]
    lines = [f"cutover #{status['number']}: {approval}", *findings_lines(status["findings"])]
    return "\n".join(lines)


def _rules_text(rules: dict[str, Any]) -> str:
    limits = {
        "least share of a unit": ("min_share_percent", " %"),
        "most ids of a cutover": ("max_ids", ""),
        "most sessions of a cutover": ("max_sessions", ""),
        "quiet period": ("quiet_s", " s"),
    }
    lines = [f"safety rules of {rules['namespace']}"]
    for title, (name, unit) in limits.items():
        value = rules[name]
        lines.append(f"{title:<28}{'-' if value is None else f'{value}{unit}'}")
    lines.append(f"{'approval':<28}{'needed' if rules['approval'] else '-'}")
    windows = [
        [_DAYS[one["day"]], f"{one['begins']}-{one['ends']}", one["time_zone"], one["note"]]
        for one in rules["blocked_windows"]
    ]
    if windows:
        lines += ["", table(windows, ["BLOCKED", "TIME", "ZONE", "NOTE"])]
    return "\n".join(lines)
