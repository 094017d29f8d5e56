"""``mshactl cutover emergency`` and ``declare-dead``: when the losing unit is gone."""

from typing import Any

import click

from msha.remote import Call, Refusal, common_options, confirm, say

_reason = click.option("--reason", required=True, metavar="TEXT", help="Why; kept in the audit trail.")
_number = click.argument("number", required=False, default=None, metavar="[NUMBER]")
_yes = click.option("--yes", is_flag=True, help="Ask no question.")


def _path(call: Call, *parts: str | int) -> str:
    return call.path("cutovers", *parts)


def _the(call: Call, number: str | None) -> dict[str, Any]:
    return dict(call.console.get(_path(call, number or "running")))


def switch(call: Call, status: dict[str, Any], mode: str, reason: str) -> dict[str, Any]:
    """The cutover is in this mode; its status then."""
    body = {"mode": mode, "reason": reason, "namespace": call.namespace}
    return dict(call.console.put(_path(call, status["number"], "mode"), body))


@click.command("emergency")
@click.option("--back", is_flag=True, help="Back to planned instead.")
@_reason
@_yes
@_number
@common_options
def emergency(call: Call, number: str | None, back: bool, reason: str, yes: bool) -> None:
    """Switch a cutover, by default the running one, to emergency: its losing unit is gone.

    Nothing undoes itself then; the silent nodes of the losing unit may be declared dead in one act.
    """
    status = _the(call, number)
    mode = "planned" if back else "emergency"
    say(status["consequences"].get(mode, ""))
    confirm(f"Switch cutover #{status['number']} of {call.namespace} to {mode}?", yes)
    changed = switch(call, status, mode, reason)
    call.show(changed, lambda: f"cutover #{changed['number']} is {changed['phase']}, mode {changed['mode']}")


@click.command("declare-dead")
@click.argument("unit")
@_number
@_reason
@click.option(
    "--fenced",
    required=True,
    metavar="TEXT",
    help="How it was made sure that none of them starts again: power, SLB, disk.",
)
@click.option("--yes", is_flag=True, help="Do not ask for the code of the unit.")
@common_options
def declare_dead(call: Call, unit: str, number: str | None, reason: str, fenced: str, yes: bool) -> None:
    """Declare the silent nodes of a losing UNIT dead, in an emergency; nodes that can be heard drain.

    The promise that no id is served twice rests on --fenced being true.
    """
    status = _the(call, number)
    if status["mode"] != "emergency":
        raise Refusal(
            f"Cutover #{status['number']} is not an emergency. Switch it first:"
            f" mshactl cutover emergency -n {call.namespace} {status['number']} --reason …",
            "not_emergency",
        )
    silent = [name for losing in status["losing"] if losing["unit"] == unit for name in losing["silent"]]
    say(f"Silent nodes of {unit}: {', '.join(silent) or 'none'}")
    say(status["consequences"].get("declare_dead", ""))
    typed = unit if yes else click.prompt(f"Type the code of the unit, {unit}, to go on", err=True)
    body = {"unit": unit, "typed": typed, "reason": reason, "fencing": fenced, "nodes": silent}
    done = dict(call.console.post(_path(call, status["number"], "declare-dead"), body))
    call.show(done, lambda: f"declared dead: {', '.join(done['declared'])}")


COMMANDS = (emergency, declare_dead)
