"""``mshactl cutover``: draft, preview, check, start, watch and undo a cutover.

The last word on stdout is the cutover's state (or the preview); everything on the way goes to stderr.
"""

import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import click

from msha.cli_emergency import COMMANDS as EMERGENCY_COMMANDS
from msha.cli_emergency import switch
from msha.cli_kinds import shift_option, to_zero_option
from msha.cli_pacing import pacing_of, pacing_options
from msha.cli_practice import practice_text
from msha.cli_report import report_text
from msha.remote import Call, Refusal, common_options, confirm, say, table
from msha.steering.errors import InvalidRule
from msha.steering.rule_text import parse_exact, parse_ranges

#: How often a running cutover or running checks are asked for.
POLL_S = 0.2
#: Checks ask nodes with a deadline of a few seconds; longer means that nobody runs them.
CHECKS_WITHIN_S = 60.0
#: A practice run asks nodes several times, and calls every hook.
PRACTISED_WITHIN_S = 150.0
#: Clients come back within their own retry time; the figures settle within seconds of the end.
SETTLES_WITHIN_S = 5.0

Status = dict[str, Any]

RUNNING = ("starting", "prepare", "freeze", "activate", "release", "aborting")
OPEN = ("draft", "previewed", "checking", "checked")


def _reader(parse: Callable[[str], Any]) -> Callable[..., Any]:
    def read(_context: click.Context, _parameter: click.Parameter, value: str | None) -> Any:
        try:
            return None if value is None else parse(value)
        except InvalidRule as error:
            raise click.BadParameter(str(error)) from error

    return read


_ranges = click.option(
    "--ranges",
    callback=_reader(parse_ranges),
    metavar="RULE",
    help="The new rule, as center=0~6380,unbj=6381~9999; several ranges of a unit are joined with +.",
)
_exact = click.option(
    "--exact",
    callback=_reader(parse_exact),
    metavar="IDS",
    help="The new exact ids, as unbj=42+43; '' for none. Default: those in effect.",
)
_reason = click.option("--reason", default="", metavar="TEXT", help="Why; kept in the audit trail.")
_number = click.argument("number", required=False, default=None, metavar="[NUMBER]")
_yes = click.option("--yes", is_flag=True, help="Ask no question.")
_wait = click.option("--wait", is_flag=True, help="Wait for the end; exit code 0 only if it is done.")


@click.group("cutover")
def cutover() -> None:
    """Move routerIds between units."""


@cutover.command("preview")
@_ranges
@_exact
@shift_option
@to_zero_option
@pacing_options
@_reason
@_number
@common_options
def preview(call: Call, number: str | None, reason: str, **asked: Any) -> None:
    """Show what a new rule would move; NUMBER previews an existing draft instead. Nothing changes."""
    pacing = pacing_of(asked)
    draft = _paced(call, _draft(call, number, asked, reason), number, pacing)
    shown = _previewed(call, draft)
    call.show(shown, lambda: _preview_text(shown))
    if draft["pacing"]:
        say(draft["pacing_said"])
    for line in findings_lines(shown["findings"]):
        say(line)
    again = f"mshactl cutover start -n {call.namespace} {draft['number']}"
    say(f"Draft #{draft['number']} is kept; start it with: {again}")


@cutover.command("start")
@_ranges
@_exact
@shift_option
@to_zero_option
@pacing_options
@_reason
@_yes
@_wait
@click.option(
    "--emergency", is_flag=True, help="The losing unit is gone; give a --reason. Needs the permission for it."
)
@click.option(
    "--skip",
    "skips",
    multiple=True,
    metavar="CHECK=REASON",
    help="Skip this check if it fails; needs the permission to skip. May be given several times.",
)
@click.option(
    "--override",
    "overrides",
    multiple=True,
    metavar="RULE",
    help="Override this safety rule for the --reason, or all of them; needs the permission to override.",
)
@_number
@common_options
def start(
    call: Call,
    number: str | None,
    reason: str,
    yes: bool,
    wait: bool,
    emergency: bool,
    skips: tuple[str, ...],
    overrides: tuple[str, ...],
    **asked: Any,
) -> None:
    """Preview, check and start a cutover to a new rule; NUMBER starts an existing draft instead."""
    reasons, pacing = _skip_reasons(skips), pacing_of(asked)
    if emergency and not reason:
        raise click.UsageError("--emergency needs a --reason.")
    draft = _paced(call, _draft(call, number, asked, reason), number, pacing)
    if emergency and draft["mode"] != "emergency":
        say(draft["consequences"]["emergency"])
        draft = switch(call, draft, "emergency", reason)
    shown = _previewed(call, draft)
    _say_what_it_does(draft, shown)
    confirm(f"Start cutover #{draft['number']} of {call.namespace}?", yes)
    _override(call, draft["number"], shown["findings"], overrides, reason)
    _check(call, draft["number"], reasons)
    status = call.console.post(_path(call, draft["number"], "start"), {"namespace": call.namespace})
    say(f"Cutover #{status['number']} started.")
    _conclude(call, status, wait)


@cutover.command("status")
@_number
@common_options
def status_(call: Call, number: str | None) -> None:
    """Show a cutover, by default the running one, or the last that ran."""
    status = _get(call, number or "current")
    call.show(status, lambda: _status_text(status))


@cutover.command("watch")
@_number
@common_options
def watch(call: Call, number: str | None) -> None:
    """Follow a cutover, by default the running one, to its end; exit code 0 only if it is done."""
    _conclude(call, _get(call, number or "current"), wait=True)


@cutover.command("report")
@click.option("--ask", is_flag=True, help="Ask the nodes first who has not come back.")
@_number
@common_options
def report(call: Call, number: str | None, ask: bool) -> None:
    """Show who did what when in a cutover, by default the last that ran; -o json is everything, to keep."""
    if ask:
        found = dict(call.console.post(_path(call, number or "current", "stragglers")))
    else:
        found = dict(call.console.get(_path(call, number or "current", "report")))
    call.show(found, lambda: report_text(found))


@cutover.command("practise")
@_number
@common_options
def practise(call: Call, number: str | None) -> None:
    """Rehearse a draft that has a preview, by default the newest: checks, hooks, drain; nobody is moved.

    The exit code is 1 when something would have stopped the cutover.
    """
    target = _get(call, number or "draft")["number"]
    practice = call.console.post(_path(call, target, "practice"))
    deadline = time.monotonic() + PRACTISED_WITHIN_S
    while practice["state"] == "running" and time.monotonic() < deadline:
        time.sleep(POLL_S)
        practice = call.console.get(_path(call, target, "practice"))[0]
    call.show(practice, lambda: practice_text(practice))
    if practice["state"] != "done":
        raise SystemExit(1)


@cutover.command("rollback")
@_reason
@_yes
@_wait
@_number
@common_options
def rollback(call: Call, number: str | None, reason: str, yes: bool, wait: bool) -> None:
    """Give the ids of a cutover back: of one that is done by another through the same gate.

    Without a NUMBER it is the running one, or the last that ran. A cutover that runs brings back what it
    has moved itself, the last batch first; give a --reason then.
    """
    status = _get(call, number or "current")
    if status["phase"] in RUNNING:
        _obeyed(call, status, "roll-back", reason, yes, wait)
        return
    target = status["number"]
    draft = call.console.post(_path(call, target, "rollback"))
    shown = _previewed(call, draft)
    say(shown["impact"])
    confirm(f"Roll back cutover #{target} of {call.namespace}?", yes)
    _check(call, draft["number"], {})
    status = call.console.post(_path(call, draft["number"], "start"), {"namespace": call.namespace})
    say(f"Cutover #{status['number']} started; it rolls #{target} back.")
    _conclude(call, status, wait)


@cutover.command("discard")
@_number
@common_options
def discard(call: Call, number: str | None) -> None:
    """Put a draft aside, by default the newest."""
    target = _get(call, number or "draft")["number"]
    status = call.console.post(_path(call, target, "discard"))
    call.show(status, lambda: _status_text(status))


def _act(name: str, help_text: str, path: str = "") -> None:
    """Adds the command of an operator's act on a running cutover."""

    @cutover.command(name, help=help_text)
    @click.option("--reason", required=True, metavar="TEXT", help="Why; kept in the audit trail.")
    @_yes
    @_wait
    @_number
    @common_options
    def act(call: Call, number: str | None, reason: str, yes: bool, wait: bool) -> None:
        _obeyed(call, _get(call, number or "running"), path or name, reason, yes, wait)


def _obeyed(call: Call, status: Status, act: str, reason: str, yes: bool, wait: bool) -> None:
    """The act was done; at a terminal its consequence is confirmed first, elsewhere it is only said."""
    said = status["consequences"]
    ways = (act.replace("-", "_"), *(("abort", "turn_around") if act == "roll-back" else ()))  # in one batch
    consequence = next((said[way] for way in ways if way in said), "")
    if consequence:
        say(consequence)
    if sys.stdin.isatty():
        confirm(f"{act} cutover #{status['number']} of {call.namespace}?", yes)
    status = call.console.post(_path(call, status["number"], act), {"reason": reason})
    if wait:
        status = _followed(call, status)
    call.show(status, lambda: _status_text(status))


_act("abort", "Undo a running cutover, as long as nothing has moved.")
_act("turn-around", "Bring the ids back after they have begun to move.")
_act("pause", "Begin no further batch until the cutover is resumed.")
_act("resume", "Let the next batch begin.")
_act("stop", "End between two batches: what has moved stays, the rest never moves.", "stop-here")
_act("roll-back", "Bring back everything that a running cutover has moved, the last batch first.")
_act("finish", "End the last step without the nodes that do not answer.")
for _command in EMERGENCY_COMMANDS:
    cutover.add_command(_command)


# -- steps ---------------------------------------------------------------------------------------------------


def _path(call: Call, *parts: str | int) -> str:
    return call.path("cutovers", *parts)


def _get(call: Call, number: str | int) -> Status:
    return dict(call.console.get(_path(call, number)))


def _draft(call: Call, number: str | None, asked: dict[str, Any], reason: str) -> Status:
    """The draft that is named, or one for what is asked for."""
    if (number is None) == all(not value and value != {} for value in asked.values()):
        raise click.UsageError(
            "Give either what is to move (--ranges, --exact, --shift or --to-zero) or the NUMBER of a draft."
        )
    if number is not None:
        return _get(call, number)
    body = {"unit_type": call.unit_type or "", **asked, "reason": reason}
    return dict(call.console.post(_path(call), body))


def _say_what_it_does(draft: Status, shown: Status) -> None:
    """The consequence, and what the safety rules have to say about it."""
    if draft["asked"]:
        say(f"{draft['asked']}.")
    say(shown["impact"])
    if draft["pacing"]:
        say(draft["pacing_said"])
    for line in findings_lines(shown["findings"]):
        say(line)


def findings_lines(findings: list[dict[str, Any]]) -> Iterator[str]:
    """One line for each thing that a safety rule says."""
    for one in findings:
        head = "OVERRIDDEN" if one["overridden_by"] else "WARNING" if not one["blocks"] else "FORBIDDEN"
        by = f" (by {one['overridden_by']}: {one['override_reason']})" if one["overridden_by"] else ""
        yield f"{head:>10}  {one['rule']}: {one['sentence']}{by}"


def _override(
    call: Call, number: int, findings: list[dict[str, Any]], overrides: tuple[str, ...], reason: str
) -> None:
    """What is to be overridden is, as far as it stands in the way."""
    blocking = [one["rule"] for one in findings if one["blocks"]]
    wanted = blocking if "all" in overrides else [one for one in overrides if one in blocking]
    if wanted:
        call.console.post(_path(call, number, "override"), {"rules": wanted, "reason": reason})
        say(f"Overridden: {', '.join(wanted)}.")


def _paced(call: Call, draft: Status, number: str | None, pacing: Status) -> Status:
    """The draft is divided as asked; one that was named keeps its pacing unless another is asked for."""
    if not pacing and (number is not None or not draft["pacing"]):
        return draft
    return dict(call.console.put(_path(call, draft["number"], "pacing"), pacing))


def _previewed(call: Call, draft: Status) -> Status:
    return dict(call.console.post(_path(call, draft["number"], "preview")))


def _skip_reasons(skips: tuple[str, ...]) -> dict[str, str]:
    reasons = {}
    for skip in skips:
        key, separator, reason = skip.partition("=")
        if not separator or not key.strip() or not reason.strip():
            raise click.BadParameter(f"--skip {skip!r} is not of the form CHECK=REASON.")
        reasons[key.strip()] = reason.strip()
    return reasons


def _check(call: Call, number: int, skips: dict[str, str]) -> None:
    """Every check has passed, or was skipped with its reason.

    Raises:
        Refusal: one has failed; the draft stays, and the sentence says how to go on.
    """
    status = dict(call.console.post(_path(call, number, "checks")))
    status = _until_checked(call, status)
    for check in [check for check in status["checks"] if check["state"] == "failed"]:
        if check["key"] in skips:
            say(f"Skipping {check['key']}: {skips[check['key']]}")
            call.console.post(
                _path(call, number, "checks", check["key"], "skip"), {"reason": skips[check["key"]]}
            )
    failed = [check for check in _get(call, number)["checks"] if check["state"] not in ("passed", "skipped")]
    if failed:
        named = ", ".join(check["key"] for check in failed)
        skippable = [check["key"] for check in failed if check["skippable"]]
        ways = [f"--skip {skippable[0]}=REASON if you may skip that check"] if skippable else []
        if "safety" in (check["key"] for check in failed):
            ways.append("--override all --reason TEXT if you may override safety rules")
        raise Refusal(
            f"Not started: {named} failed. Draft #{number} is kept: mend what failed, then run"
            f" `mshactl cutover start -n {call.namespace} {number}`"
            f"{''.join(f', with {way}' for way in ways)}.",
            "checks_failed",
        )


def _until_checked(call: Call, status: Status) -> Status:
    told: set[str] = set()
    deadline = time.monotonic() + CHECKS_WITHIN_S
    while True:
        for check in status["checks"]:
            if check["state"] in ("passed", "failed") and check["key"] not in told:
                told.add(check["key"])
                say(f"{check['state']:>7}  {check['title']}: {check['reason']}")
        if all(check["state"] in ("passed", "failed", "skipped") for check in status["checks"]):
            return status
        if time.monotonic() > deadline:
            raise Refusal(
                f"The checks of cutover #{status['number']} did not end within {CHECKS_WITHIN_S:.0f} s."
                " Is a console or a Celery worker running?",
                "checks_late",
            )
        time.sleep(POLL_S)
        status = _get(call, status["number"])


def _conclude(call: Call, status: Status, wait: bool) -> None:
    """The state is shown, after the end if that is waited for; an end that is not `done` is a failure."""
    if wait:
        status = _followed(call, status)
    call.show(status, lambda: _status_text(status))
    if wait and status["phase"] != "done":
        raise Refusal(status["outcome"] or f"Cutover #{status['number']} is {status['phase']}.", "not_done")


def _followed(call: Call, status: Status) -> Status:
    """The state after the end; each event is told as it comes."""
    if status["phase"] in OPEN:
        raise Refusal(
            f"Cutover #{status['number']} is {status['phase']}: it has not been started.", "not_started"
        )
    events = _news()
    settled_by = None
    while True:
        events(status)
        if status["phase"] not in RUNNING:
            settled_by = settled_by or time.monotonic() + SETTLES_WITHIN_S
            if status["settled"] or time.monotonic() > settled_by:
                return status
        time.sleep(POLL_S)
        status = _get(call, status["number"])


def _news() -> Callable[[Status], None]:
    """Says what has not been said before."""
    told = 0

    def tell(status: Status) -> None:
        nonlocal told
        for event in status["events"][told:]:
            say(f"{event['at'][11:23]}  {event['sentence']}")
        told = len(status["events"])

    return tell


# -- for people ----------------------------------------------------------------------------------------------


def _preview_text(shown: Status) -> str:
    rows = [
        [
            unit["code"],
            _rule(unit["old_ranges"], unit["old_exact"]),
            _rule(unit["new_ranges"], unit["new_exact"]),
            f"{unit['old_percent']:.2f} %",
            f"{unit['new_percent']:.2f} %",
            f"-{unit['sessions_lost']} +{unit['sessions_gained']}",
        ]
        for unit in shown["units"]
    ]
    head = ["UNIT", "BEFORE", "AFTER", "SHARE", "NEW SHARE", "SESSIONS"]
    return f"{shown['impact']}\n\n{table(rows, head)}"


def _rule(ranges: list[str], exact: list[int]) -> str:
    return "+".join([*ranges, *(str(one) for one in exact)]) or "-"


def _status_text(status: Status) -> str:
    return "\n".join(_status_lines(status))


def _status_lines(status: Status) -> Iterator[str]:
    yield f"cutover #{status['number']} of {status['namespace']} ({status['unit_type']}): {status['phase']}"
    yield f"moved ids         {status['moved_ids']}  {status['moved_text']}"
    yield f"sessions closed   {status['sessions_closed']}"
    left = status["sessions_remaining"]
    yield f"remaining         {'–' if left is None else left}"
    yield f"reconnected       {status['reconnected']}"
    if status["frozen_ms"] is not None:
        yield f"frozen at most    {status['frozen_ms']} ms"
    if status["waiting"]:
        yield status["waiting"]
    if status["alarm"]:
        yield f"ALARM: {status['alarm']}"
    if status["outcome"]:
        yield status["outcome"]
