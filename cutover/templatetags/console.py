"""What the templates of our own pages need: banners, times, unit names, range bars, copyable commands."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from django import template
from django.template import RequestContext
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext, ngettext

from cutover.pages import banners as all_banners
from cutover.pages.bars import Bar, Looks, looks_data, segments_data
from msha import navigation
from msha.steering.ranges import RangeTable

register = template.Library()


@register.inclusion_tag("console/_banners.html", takes_context=True)
def banners(context: RequestContext) -> dict[str, Any]:
    request = context.request
    shown = all_banners.banners_for(request) if request.user.is_authenticated else []
    return {"banners": shown, "request": request}


@register.filter
def navigation_group(link: str) -> str:
    """The group of the navigation in which the address stands, or ""."""
    return navigation.group_of(str(link))


@register.simple_tag
def when(moment: datetime | None, part: str = "full") -> SafeString | str:
    """The moment in UTC, marked so that the browser shows the operator's zone beside it."""
    if moment is None:
        return "–"
    utc = moment.astimezone(UTC)
    text = utc.strftime("%H:%M:%S.%f")[:-3] if part == "time" else utc.strftime("%Y-%m-%d %H:%M:%S")
    return format_html(
        '<time datetime="{}" data-when="{}" title="{} UTC">{} UTC</time>',
        utc.isoformat(timespec="milliseconds"),
        part,
        utc.strftime("%Y-%m-%d %H:%M:%S"),
        text,
    )


@register.simple_tag
def ago(moment: datetime | None) -> str:
    """How long ago, in the largest unit that says something."""
    if moment is None:
        return "–"
    seconds = max(0, int((timezone.now() - moment).total_seconds()))
    if seconds < 60:
        return ngettext("%(n)d s ago", "%(n)d s ago", seconds) % {"n": seconds}
    if seconds < 3600:
        return ngettext("%(n)d min ago", "%(n)d min ago", seconds // 60) % {"n": seconds // 60}
    if seconds < 86400:
        return ngettext("%(n)d h ago", "%(n)d h ago", seconds // 3600) % {"n": seconds // 3600}
    return ngettext("%(n)d day ago", "%(n)d days ago", seconds // 86400) % {"n": seconds // 86400}


@register.filter
def look(looks: Looks, code: str) -> Any:
    """The look of the unit with this code."""
    return looks.at(code)


@register.filter
def percent(value: float) -> str:
    """A share with two decimals, none where they would be noise."""
    return f"{value:.2f} %" if value % 1 else f"{value:.0f} %"


@register.filter
def moment(text: str | None) -> datetime | None:
    """The moment that stands in a JSON value, for `when`."""
    return datetime.fromisoformat(text) if text else None


@register.filter
def took(ms: object) -> str:
    """How long something took, in the largest unit that says something; a dash where nobody knows."""
    if not isinstance(ms, int | float):
        return "–"
    if ms < 1000:
        return gettext("%(n)d ms") % {"n": ms}
    if ms < 60_000:
        return gettext("%(seconds).1f s") % {"seconds": ms / 1000}
    return gettext("%(minutes)d min %(seconds)d s") % {"minutes": ms // 60_000, "seconds": ms // 1000 % 60}


@register.simple_tag
def delta(before: int, after: int) -> str:
    """The change with its sign; a true minus, as wide as a plus."""
    return f"+{after - before}" if after >= before else f"\u2212{before - after}"


@register.filter
def commas(values: Sequence[Any]) -> str:
    return ", ".join(str(value) for value in values) or "–"


@register.filter
def moved_short(moved: Sequence[Sequence[Any]]) -> str:
    """The moved ids of a cutover in one line: how many, and the first ranges."""
    count = sum(last - first + 1 for first, last, _losing, _gaining in moved)
    if not count:
        return gettext("no id moves")
    ids = ngettext("%(n)d id", "%(n)d ids", count) % {"n": count}
    shown = ", ".join(f"{first}~{last} {losing}→{gaining}" for first, last, losing, gaining in moved[:2])
    return f"{ids}: {shown}" + (", …" if len(moved) > 2 else "")


@register.inclusion_tag("console/_range_bar.html")
def range_bar(bar: Bar, label: str = "") -> dict[str, Any]:
    """The bar as a picture; complete without a script."""
    return {"bar": bar, "label": label}


@register.simple_tag
def bar_data(before: RangeTable, looks: Looks) -> str:
    """What the script of an editable bar needs, for a ``data-`` attribute."""
    return json.dumps({"before": segments_data(before), "units": looks_data(looks.values())})


@register.inclusion_tag("console/_same_act.html")
def same_act(command: str, open_: bool = False) -> dict[str, Any]:
    """The same act as a line for a shell; nothing where the command line cannot say it."""
    return {"command": command, "open": open_}
