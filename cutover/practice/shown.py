"""Practice runs as JSON values and sentences, for pages, API and `mshactl`."""

from typing import Any

from django.utils.translation import get_language, gettext

from cutover.models import Cutover, Practice

Shown = dict[str, Any]


def practices(cutover: Cutover) -> list[Shown]:
    """Every practice run of the cutover, the newest first."""
    return [practice(row) for row in cutover.practices.order_by("-started")]


def practice(row: Practice) -> Shown:
    """One run: what was measured, and the sentence about it."""
    findings = row.findings
    return {
        "id": row.pk,
        "state": row.state,
        "state_title": str(row.get_state_display()),
        "by": row.by,
        "started": row.started.isoformat(),
        "finished": row.finished.isoformat() if row.finished else None,
        "sentence": sentence(row),
        "checks": [_said(check) for check in findings.get("checks", [])],
        "hooks": findings.get("hooks", []),
        "drain": findings.get("drain"),
        "recovery": findings.get("recovery", []),
        "error": findings.get("error", ""),
    }


def sentence(row: Practice) -> str:
    """What a practice run has shown, in one or two sentences."""
    findings = row.findings
    if row.state == Practice.State.RUNNING:
        return gettext("The practice run is under way; nobody is moved.")
    if findings.get("error"):
        return gettext("The practice run did not come to its end: %(error)s") % {"error": findings["error"]}
    drain = findings["drain"]
    measured = gettext(
        "%(sessions)d sessions would be closed, ids be frozen for about %(ms)s ms on the slowest node."
    ) % {"sessions": drain["sessions"], "ms": drain["freeze_ms"] if drain["freeze_ms"] is not None else "?"}
    back = "; ".join(_back(unit) for unit in findings["recovery"])
    if findings["obstacles"]:
        head = gettext("%(count)d things would stop this cutover.") % {"count": findings["obstacles"]}
        return f"{head} {measured} {back}".strip()
    return f"{measured} {back}".strip()


def _back(unit: Shown) -> str:
    words = {"unit": unit["unit"], "rate": unit["accepts_per_s"], "ms": unit["handshake_ms"] or "?"}
    if unit["all_back_s"] is None:
        return gettext("%(unit)s could not measure how many handshakes it accepts.") % words
    return gettext(
        "%(unit)s accepts %(rate)d handshakes a second, %(ms)s ms each: all would be back in %(seconds)s s,"
        " beside their own retry time."
    ) % {**words, "seconds": unit["all_back_s"]}


def _said(check: Shown) -> Shown:
    reason = check["reasons"].get(get_language() or "", check["reason"])
    return {**{name: check[name] for name in ("key", "title", "passed", "skipped")}, "reason": reason}
