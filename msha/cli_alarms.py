"""``mshactl alarm``: what is wrong now, and whether those who have to know are reached."""

from typing import Any
from urllib.parse import quote

import click

from msha.remote import Call, Refusal, common_options, table


@click.group()
def alarm() -> None:
    """Look at alarms, and test whom webhooks tell of them."""


@alarm.command("list")
@click.option("--all", "everything", is_flag=True, help="Also those that are over.")
@common_options
def list_(call: Call, everything: bool) -> None:
    """Print the alarms of the namespace, the newest first."""
    found = call.console.get(call.path("alarms"), raised="false" if everything else "true")
    call.show(found, lambda: _alarms_text(found))


@alarm.command()
@click.argument("target", required=False)
@common_options
def test(call: Call, target: str | None) -> None:
    """Send a test to a TARGET, or to all that are told of the namespace's alarms.

    The exit code is 1 when one of them did not take it.
    """
    if target is not None:
        names = [target]
    else:
        known = call.console.get("alarm-targets", namespace=call.namespace)["targets"]
        names = [str(entry["name"]) for entry in known if entry["enabled"]]
    if not names:
        raise Refusal("Nobody is told of alarms: add an alarm target in the console first.")
    tested = [call.console.post(f"alarm-targets/{quote(name, safe='')}/test") for name in names]
    call.show({"tests": tested}, "\n".join(map(_test_text, tested)))
    if not all(outcome["delivered"] for outcome in tested):
        raise SystemExit(1)


def _alarms_text(found: dict[str, Any]) -> str:
    if not found["alarms"]:
        return f"No alarm in namespace {found['namespace']}."
    rows = [
        [entry["raised_at"][:19], entry["cleared_at"][:19] if entry["cleared_at"] else "-", entry["sentence"]]
        for entry in found["alarms"]
    ]
    return table(rows, ["RAISED (UTC)", "CLEARED (UTC)", "ALARM"])


def _test_text(outcome: dict[str, Any]) -> str:
    verb = "took" if outcome["delivered"] else "did not take"
    return f"{outcome['target']} {verb} the test: it {outcome['answer']}."
