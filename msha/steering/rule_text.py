"""A rule as it is typed in a shell: ``center=0~6380,unbj=6381~9999``."""

from msha.steering.errors import InvalidRule


def parse_ranges(text: str) -> dict[str, list[str]]:
    """``center=0~6380,unbj=6381~9999`` as ``{"center": ["0~6380"], ...}``; ``+`` joins several of a unit.

    Raises:
        InvalidRule: a part does not name a unit.
    """
    parsed: dict[str, list[str]] = {}
    for part in text.split(","):
        unit, separator, ranges = part.partition("=")
        unit = unit.strip()
        if not separator or not unit:
            raise InvalidRule("", f"{part!r} is not of the form UNIT=RANGES, as center=0~6380.")
        parsed.setdefault(unit, []).extend(one.strip() for one in ranges.split("+") if one.strip())
    return parsed


def parse_exact(text: str) -> dict[str, list[int]]:
    """``unbj=42+43`` as ``{"unbj": [42, 43]}``; empty text is no exact id at all.

    Raises:
        InvalidRule: a part does not name a unit, or something is no id.
    """
    if not text.strip():
        return {}
    exact = {}
    for unit, ids in parse_ranges(text).items():
        if not all(one.isascii() and one.isdigit() for one in ids):
            raise InvalidRule("", f"{'+'.join(ids)!r} are not ids; write them as {unit}=42+43.")
        exact[unit] = [int(one) for one in ids]
    return exact
