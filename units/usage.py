"""Why something may not be removed or moved now. The apps above register what they use; this one asks.

`domains` and `cutover` register from their ``AppConfig.ready()``.
"""

from collections.abc import Callable, Iterable
from typing import Any

from django.db import models
from django.utils.translation import gettext

from units.errors import InUse

Document = dict[str, Any]

_refusals: list[Callable[[models.Model], Iterable[str]]] = []
_running: list[Callable[[int], Iterable[str]]] = []


def register_refusal(reasons: Callable[[models.Model], Iterable[str]]) -> None:
    """From now on, ``reasons(row)`` is asked for sentences that forbid deleting or moving a row."""
    if reasons not in _refusals:
        _refusals.append(reasons)


def register_running(units: Callable[[int], Iterable[str]]) -> None:
    """From now on, ``units(namespace_pk)`` is asked for the codes of the units a running cutover uses."""
    if units not in _running:
        _running.append(units)


def refusals(row: models.Model) -> list[str]:
    """The sentences that forbid deleting or moving the row; empty when nothing does."""
    return [str(sentence) for reasons in _refusals for sentence in reasons(row)]


def refuse_if_used(row: models.Model) -> None:
    """Nothing forbids deleting or moving the row.

    Raises:
        InUse: with every sentence that does.
    """
    if sentences := refusals(row):
        raise InUse(sentences)


def units_in_cutover(namespace_id: int, rule: Document | None) -> frozenset[str]:
    """Codes of the units whose ids a cutover is moving, by the apps' word and by the published rule part."""
    codes = {code for units in _running for code in units(namespace_id)}
    running = (rule or {}).get("cutover")
    if running is not None:
        codes.update(unit for _, _, losing, gaining in running["moved"] for unit in (losing, gaining))
    return frozenset(codes)


def taken_away(before: Document, after: Document, used: frozenset[str]) -> list[str]:
    """A sentence for everything in use that a new config part removes or moves (PROTOCOL P3).

    Args:
        before, after: the config parts of the newest version and of the one about to be published.
        used: codes of the units whose ids a running cutover moves.
    """
    return [*_units_and_clusters(before, after, used), *_domains(before, after, used)]


def _units_and_clusters(before: Document, after: Document, used: frozenset[str]) -> Iterable[str]:
    kept = {unit["code"] for unit in after["units"]}
    for code in sorted(used):
        if code not in kept:
            yield gettext("Unit %(name)s cannot be removed while a cutover moves its ids.") % {"name": code}
    home = {cluster["name"]: cluster["unit"] for cluster in after.get("clusters", [])}
    for cluster in before.get("clusters", []):
        if cluster["unit"] in used and home.get(cluster["name"]) != cluster["unit"]:
            yield gettext(
                "Cluster %(name)s cannot be removed or moved while a cutover moves ids of unit %(unit)s."
            ) % {"name": cluster["name"], "unit": cluster["unit"]}


def _domains(before: Document, after: Document, used: frozenset[str]) -> Iterable[str]:
    kept = {domain["name"]: domain for domain in after.get("domains", [])}
    for domain in before.get("domains", []) if used else []:
        new = kept.get(domain["name"])
        if new is None:
            yield gettext("Domain %(name)s cannot be removed while a cutover is running.") % {
                "name": domain["name"]
            }
            continue
        for unit in sorted(used & domain.get("clusters", {}).keys()):
            if new.get("clusters", {}).get(unit) != domain["clusters"][unit]:
                yield gettext(
                    "The effective cluster of domain %(name)s in unit %(unit)s"
                    " cannot change while a cutover moves ids of that unit."
                ) % {"name": domain["name"], "unit": unit}
        yield from _uris(domain, new, used)


def _uris(before: Document, after: Document, used: frozenset[str]) -> Iterable[str]:
    kept = {uri["path"]: uri for uri in after.get("uris", [])}
    for uri in before.get("uris", []):
        new = kept.get(uri["path"])
        if new is None:
            yield gettext("URI %(path)s of domain %(name)s cannot be removed while a cutover is running.") % {
                "path": uri["path"],
                "name": before["name"],
            }
            continue
        for unit in sorted(used & uri.get("back_sources", {}).keys()):
            gone = set(uri["back_sources"][unit]) - set(new.get("back_sources", {}).get(unit, ()))
            if gone:
                yield gettext(
                    "Back-source servers %(servers)s of %(name)s%(path)s"
                    " cannot be removed while a cutover moves ids of unit %(unit)s."
                ) % {
                    "servers": ", ".join(sorted(gone)),
                    "name": before["name"],
                    "path": uri["path"],
                    "unit": unit,
                }
