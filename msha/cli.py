"""`mshactl`: what operators and scripts do with a namespace from a shell."""

from typing import IO, Any

import click
import yaml

from msha.cli_alarms import alarm
from msha.cli_cutover import cutover
from msha.cli_hooks import hook, skip_hook
from msha.cli_messages import send
from msha.cli_nodes import node
from msha.cli_offline import compile_, key, sign
from msha.cli_safety import COMMANDS as SAFETY_COMMANDS
from msha.cli_safety import safety
from msha.remote import Call, common_options, confirm, read_text, say, table


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def main() -> None:
    """Steer WebSocket traffic between data centres.

    Talks to the console at MSHA_URL with the API token in MSHA_TOKEN. Results go to stdout, progress to
    stderr. Exit codes: 0 done, 1 refused or failed, 2 usage.
    """


_file = click.option(
    "-f", "file", type=click.File(encoding="utf-8"), required=True, help="A topology file; - is stdin."
)


@main.command()
@_file
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--save-only", is_flag=True, help="Save, and leave what is in effect as it is.")
@click.option("--comment", default="", help="Why; kept with the version and the audit events.")
@common_options
def apply(call: Call, file: IO[str], yes: bool, save_only: bool, comment: str) -> None:
    """Make the namespace what the file says, and put it into effect.

    A change of the owner of any id becomes the draft of a cutover instead, and the answer says so.
    """
    text = read_text(file)
    plan = call.console.post("topology/diff", {"topology": text, "namespace": call.named or ""})
    say(_plan_text(plan))
    pending = [] if save_only else plan["unpublished"]
    if pending:
        say("Saved before, and put into effect with it: " + "; ".join(pending))
    if plan["differences"] or pending:
        act = "Save this" if save_only else "Save this and put it into effect"
        confirm(f"{act} in namespace {plan['namespace']}?", yes)
    body = {
        "topology": text,
        "namespace": call.named or "",
        "base": plan["base"],
        "put_into_effect": not save_only,
        "comment": comment,
    }
    applied = call.console.post("topology/apply", body)
    saved = f"Saved: {len(applied['differences'])} changes in namespace {applied['namespace']}."
    call.show(applied, "\n".join([saved, *applied["sentences"]]))


@main.command()
@_file
@common_options
def diff(call: Call, file: IO[str]) -> None:
    """Show what applying the file would change; nothing is changed."""
    body = {"topology": read_text(file), "namespace": call.named or ""}
    plan = call.console.post("topology/diff", body)
    call.show(plan, lambda: _plan_text(plan))


@main.command()
@common_options
def export(call: Call) -> None:
    """Print what is saved of the namespace as a topology file."""
    exported = call.console.get(call.path("topology"))
    if call.output == "json":
        call.show(exported["topology"], "")
    else:
        click.echo(exported["text"], nl=False)


@main.command("put-into-effect")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--comment", default="", help="Why; kept with the version.")
@common_options
def put_into_effect(call: Call, yes: bool, comment: str) -> None:
    """Publish what is saved; changes of ownership become drafts of cutovers."""
    changes = call.console.get(call.path("changes"))
    for line in changes["lines"]:
        if line[:1] in "+-":
            say(line)
    for sentence in changes["sentences"]:
        say(sentence)
    if changes["pending"]:
        confirm(f"Put this into effect in namespace {call.namespace}?", yes)
    body = {"comment": comment, "seen": changes["seen"]}
    outcome = call.console.post(call.path("put-into-effect"), body)
    call.show(outcome, "\n".join(outcome["sentences"]))


@main.command()
@click.argument("router_id", metavar="ID")
@click.option("--host", default="", help="A domain or unit sub-domain. Default: the first domain.")
@click.option("--path", default="", help="Path and query. Default: the first URI of the domain.")
@common_options
def route(call: Call, router_id: str, host: str, path: str) -> None:
    """Say which unit serves a client with this routerId, and what each unit's edges would answer.

    The exit code is 1 when every unit's edges refuse it.
    """
    routed = call.console.get(
        call.path("route"), router_id=router_id, unit_type=call.unit_type, host=host, path=path
    )
    call.show(routed, lambda: _route_text(routed))
    if routed["refused"]:
        raise SystemExit(1)


@main.command()
@common_options
def sessions(call: Call) -> None:
    """Count the open sessions by unit and edge node."""
    counted = call.console.get(call.path("sessions"))
    call.show(counted, lambda: _sessions_text(counted))


def _plan_text(plan: dict[str, Any]) -> str:
    if not plan["differences"]:
        return f"Namespace {plan['namespace']} is saved as the file says."
    signs = {"create": "+", "update": "~", "delete": "-"}
    lines = []
    for change in plan["differences"]:
        lines.append(f"{signs[change['act']]} {change['kind']} {change['name']}")
        lines += [f"    {detail}" for detail in change["details"]]
        if change["act"] == "create":
            lines += [f"    {line}" for line in _yaml(change["after"])]
    return "\n".join([*lines, *plan["sentences"]])


def _yaml(value: Any) -> list[str]:
    text: str = yaml.safe_dump(value, allow_unicode=True, sort_keys=False, default_flow_style=None, width=100)
    return text.splitlines()


def _route_text(routed: dict[str, Any]) -> str:
    nobody = "no unit" if routed["refused"] else "no single unit"
    served = f"unit {routed['unit']}" if routed["unit"] else nobody
    given = routed["given"] or "no routerId"
    number = routed["router_id"]
    read = f", read as {number}" if number is not None and str(number) != given else ""
    head = (
        f"{given}{read}: {served}; {routed['decision']} ({routed['reason']}),"
        f" version {routed['version']}, {routed['unit_type']}, {routed['host']}{routed['path']}"
    )
    rows = [
        [d["unit"], d["decision"], d["reason"], d["location"] or " ".join(d["servers"]) or d["sentence"]]
        for d in routed["decisions"]
    ]
    return f"{head}\n{table(rows, ['AT UNIT', 'DECISION', 'REASON', 'WHERE TO'])}"


def _sessions_text(counted: dict[str, Any]) -> str:
    rows = []
    for unit in counted["units"]:
        rows.append([unit["unit"], "", unit["sessions"], ""])
        rows += [
            ["", node["node"], node["sessions"], "" if node["live"] else "not live"] for node in unit["nodes"]
        ]
    return table([*rows, ["total", "", counted["total"], ""]], ["UNIT", "NODE", "SESSIONS", ""])


main.add_command(alarm)
cutover.add_command(skip_hook)
main.add_command(compile_)
main.add_command(cutover)
main.add_command(key)
main.add_command(hook)
main.add_command(safety)
for command in SAFETY_COMMANDS:
    cutover.add_command(command)
main.add_command(send)
main.add_command(node)
main.add_command(sign)

if __name__ == "__main__":
    main(prog_name="mshactl")
