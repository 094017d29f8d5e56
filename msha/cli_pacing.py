"""How ``mshactl cutover`` is told to divide a cutover, and to drain it no faster than asked."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

_F = TypeVar("_F", bound=Callable[..., Any])

_NAMES = ("batches", "ids_per_batch", "bake", "gate", "on_failure", "sessions_per_s", "interval_s")


def parse_batches(text: str) -> list[float]:
    """``1,10,50`` as ``[1, 10, 50]``."""
    try:
        return [int(one) if one.strip().isdigit() else float(one) for one in text.split(",")]
    except ValueError as error:
        raise click.BadParameter(f"{text!r} are not percents; write them as 1,10,50.") from error


def parse_gate(text: str) -> dict[str, float | int | None]:
    """``reconnect=0.9,refused=none`` as ``{"reconnect": 0.9, "refused": None}``."""
    gate: dict[str, float | int | None] = {}
    for part in text.split(","):
        name, sign, value = (one.strip() for one in part.partition("="))
        if not sign or not name:
            raise click.BadParameter(f"{part!r} is not of the form NAME=LIMIT, as reconnect=0.9.")
        try:
            gate[name] = None if value == "none" else int(value) if value.isdigit() else float(value)
        except ValueError as error:
            raise click.BadParameter(f"{value!r} is not a limit; write {name}=0.9 or {name}=none.") from error
    return gate


def _read(parse: Callable[[str], Any]) -> Callable[..., Any]:
    def read(_context: click.Context, _parameter: click.Parameter, value: str | None) -> Any:
        return None if value is None else parse(value)

    return read


def pacing_options(command: _F) -> _F:
    """Adds the options of pacing; :func:`pacing_of` takes them out of what the command was called with."""
    options = [
        click.option(
            "--batches",
            callback=_read(parse_batches),
            metavar="PERCENTS",
            help="Move in steps, as 1,10,50 (cumulative, in percent of the moved ids) and then the rest.",
        ),
        click.option("--ids-per-batch", type=click.IntRange(1), help="Move in steps of so many ids instead."),
        click.option("--bake", type=click.FloatRange(0), metavar="SECONDS", help="Wait between two steps."),
        click.option(
            "--gate",
            callback=_read(parse_gate),
            metavar="LIMITS",
            help="What the gaining units must keep, as reconnect=0.9,refused=0.01,back_source=0.05,"
            "stragglers=20; NAME=none is not looked at, retry_s=5 is a client's time to come back.",
        ),
        click.option(
            "--on-failure",
            type=click.Choice(["pause", "undo"]),
            help="What a failing gate does. Default: pause.",
        ),
        click.option(
            "--sessions-per-s",
            type=click.FloatRange(min=0, min_open=True),
            help="Close no more sessions of a losing unit per second, and no more than gaining ones accept.",
        ),
        click.option(
            "--interval-s", type=click.FloatRange(0.5), help="With a rate: the time a batch is sized for."
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def pacing_of(asked: dict[str, Any]) -> dict[str, Any]:
    """The pacing as the API takes it; the options are taken out of `asked`."""
    said = {name: asked.pop(name) for name in _NAMES}
    names = {"batches": "steps", "ids_per_batch": "ids", "bake": "bake_s"}
    return {names.get(name, name): value for name, value in said.items() if value is not None}
