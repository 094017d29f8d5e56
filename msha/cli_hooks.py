"""``mshactl hook``: the HTTP addresses that cutovers call."""

from typing import Any

import click

from msha.remote import Call, Refusal, common_options, confirm, say, table


@click.group()
def hook() -> None:
    """See and try out the hooks that cutovers call."""


@hook.command("list")
@common_options
def list_(call: Call) -> None:
    """Show the hooks of the namespace."""
    hooks = call.console.get(call.path("hooks"))
    call.show(hooks, lambda: _hooks_text(hooks))


@hook.command()
@click.argument("name")
@common_options
def test(call: Call, name: str) -> None:
    """Call a hook once, marked as practice, and show the answer.

    The exit code is 1 unless it said yes, or not yet.
    """
    tried = call.console.post(call.path("hooks", name, "test"))
    call.show(tried, lambda: f"{tried['hook']}: {tried['sentence']}")
    if not tried["ok"]:
        raise Refusal(f"Hook {name} would fail: {tried['sentence']}.", "hook_failed")


@click.command("skip-hook")
@click.argument("name")
@click.argument("number", required=False, default=None, metavar="[NUMBER]")
@click.option("--reason", required=True, metavar="TEXT", help="Why; kept in the audit trail.")
@click.option("--yes", is_flag=True, help="Ask no question.")
@common_options
def skip_hook(call: Call, name: str, number: str | None, reason: str, yes: bool) -> None:
    """Wait no longer for the open calls of hook NAME, by default in the running or last cutover."""
    target = number or call.console.get(call.path("cutovers", "current"))["number"]
    calls = call.console.get(call.path("cutovers", target, "hooks"))["calls"]
    for one in calls:
        if one["name"] == name and one["skippable"]:
            say(f"{one['moment_title']}, batch {one['batch']}: {one['sentence']}")
            say(f"If it is skipped: {one['skip_means']}")
    confirm(f"Skip hook {name} in cutover #{target} of {call.namespace}?", yes)
    status = call.console.post(call.path("cutovers", target, "hooks", name, "skip"), {"reason": reason})
    call.show(status, f"Hook {name} is not waited for any more; cutover #{target}: {status['phase']}.")


def _hooks_text(hooks: dict[str, Any]) -> str:
    if not hooks["hooks"]:
        return f"Namespace {hooks['namespace']} has no hook."
    rows = [
        [
            one["name"],
            one["moment"],
            "must succeed" if one["must_succeed"] else "may fail",
            f"{one['timeout_s']} s / {one['deadline_s']} s",
            "" if one["enabled"] else "not in use",
            one["url"],
        ]
        for one in hooks["hooks"]
    ]
    return table(rows, ["NAME", "MOMENT", "A FAILURE", "CALL / ALL", "", "ADDRESS"])
