"""What ``mshactl cutover`` can be asked for beside a rule: a share of a unit's ids, or a unit cut to zero."""

from typing import Any

import click


def parse_shift(text: str) -> dict[str, Any]:
    """``unbj:center:10%`` (of the ids of unbj), ``unbj:center:10%-of-all`` or ``unbj:center:400`` (ids)."""
    parts = [part.strip() for part in text.split(":")]
    if len(parts) != 3 or not all(parts):
        raise click.BadParameter(f"{text!r} is not of the form FROM:TO:AMOUNT, as unbj:center:10%.")
    losing, gaining, amount = parts
    shift: dict[str, Any] = {"losing": losing, "gaining": gaining}
    if amount.isascii() and amount.isdigit():
        return {**shift, "ids": int(amount)}
    number, sign, of = amount.partition("%")
    if not sign or of not in ("", "-of-all"):
        raise click.BadParameter(f"{amount!r} is neither a number of ids nor 10% nor 10%-of-all.")
    try:
        percent = float(number)
    except ValueError as error:
        raise click.BadParameter(f"{amount!r} is not a percentage; write it as 10% or 2.5%.") from error
    return {**shift, "percent": percent, "of_all": bool(of)}


def parse_to_zero(text: str) -> dict[str, str]:
    """``unbj``, whose ids go to the others in proportion, or ``unbj:center``, whose go to that one."""
    unit, _colon, to = (part.strip() for part in text.partition(":"))
    if not unit or ":" in to:
        raise click.BadParameter(f"{text!r} is not of the form UNIT or UNIT:TO, as unbj:center.")
    return {"unit": unit, "to": to}


def _shifts(_context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> Any:
    return [parse_shift(value) for value in values] or None


def _to_zero(_context: click.Context, _parameter: click.Parameter, value: str | None) -> Any:
    return None if value is None else parse_to_zero(value)


shift_option = click.option(
    "--shift",
    multiple=True,
    callback=_shifts,
    metavar="FROM:TO:AMOUNT",
    help="Move ids from unit to unit: 10% of those that FROM owns, 10%-of-all, or a number. Repeatable.",
)
to_zero_option = click.option(
    "--to-zero",
    callback=_to_zero,
    metavar="UNIT[:TO]",
    help="Take everything from the unit, for TO or for the others in proportion to their shares.",
)
