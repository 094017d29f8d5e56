"""``mshactl node``: edge nodes are made known to the console."""

import os
from pathlib import Path

import click

from msha.remote import Call, Refusal, common_options, say


@click.group()
def node() -> None:
    """Make edge nodes known to the console."""


@node.command()
@click.argument("name")
@click.option("--unit", required=True, metavar="CODE", help="The unit that the node will serve, for ever.")
@click.option(
    "--cluster",
    default="",
    metavar="NAME",
    help="The unit's cluster that it belongs to; without one no cutover counts on it.",
)
@click.option(
    "--token-file", type=click.Path(path_type=Path, dir_okay=False), required=True,
    help="Where the node's token goes; the file must not exist.",
)  # fmt: skip
@common_options
def add(call: Call, name: str, unit: str, cluster: str, token_file: Path) -> None:
    """Register an edge node and store its token, which the console shows this once.

    The node joins with: python -m msha.edge run --token-file FILE ...
    """
    try:
        descriptor = os.open(token_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise Refusal(f"{token_file} cannot be made: {error.strerror}. Nothing was registered.") from error
    registered = None
    try:
        body = {"name": name, "unit": unit, "cluster": cluster}
        registered = call.console.post(call.path("nodes"), body)
        with open(descriptor, "w", encoding="ascii", closefd=False) as file:
            file.write(f"{registered.pop('token')}\n")
    except OSError as error:
        raise Refusal(
            f"Node {name} is registered, but {token_file} cannot be written: {error.strerror}. Replace its"
            " token on its page."
        ) from error
    finally:
        os.close(descriptor)
        if registered is None:
            token_file.unlink()
    if not cluster:
        say(f"Node {name} belongs to no cluster, so no cutover counts on it. Choose its cluster on its page.")
    call.show(
        {**registered, "token_file": str(token_file)},
        f"Node {name} of unit {unit} is registered; {token_file} has its token.",
    )
