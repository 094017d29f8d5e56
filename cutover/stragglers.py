"""Whose session a cutover closed and who has not come back, by id: asked of the nodes, which remember it.

Half a minute after the end by itself, when clients have had their time; again whenever somebody asks. A list
is bounded: what nodes leave out is counted, and a node that cannot say is named.
"""

from collections.abc import Iterable, Sequence
from datetime import timedelta
from functools import partial
from typing import Any

import structlog
from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext

from cutover import jobs, plans, progress
from cutover.errors import Refused
from cutover.models import Cutover
from msha.steering import wire
from msha.steering.ranges import MovedIds
from units import probing, publishing
from units.models import EdgeNode, Probe

#: For each of the two questions: who is gone, who of them is back.
ASK_DEADLINE_S = 2.0
#: A cutover that ended longer ago is not asked about by itself any more: its nodes may remember another one.
ASKED_WITHIN = timedelta(minutes=10)
#: More ids are not asked about: the question has to fit into one message of the control stream.
IDS_LIMIT = 2000
#: The report names so many ranges; the rest of the ids is a number.
RANGES_LIMIT = 200

log = structlog.get_logger(__name__)

Found = dict[str, Any]


def find(cutover: Cutover) -> Cutover:
    """The cutover knows who has not come back by now.

    Asks nodes, so call it outside a transaction.

    Raises:
        Refused: it has not ended, or has closed no session.
    """
    cutover.refresh_from_db()
    if not cutover.ended or not cutover.figures.get("sessions_closed"):
        raise Refused(
            gettext("Cutover %(cutover)s has closed no session, or has not ended: nobody can be missing.")
            % {"cutover": cutover}
        )
    _note(cutover, _asked(cutover))
    cutover.refresh_from_db()
    return cutover


def look() -> None:
    """Cutovers whose clients have had their time are asked about, once."""
    now = timezone.now()
    rows = Cutover.objects.filter(
        state__in=(Cutover.State.DONE, Cutover.State.ABORTED),
        ended_at__gt=now - ASKED_WITHIN,
        ended_at__lt=now - progress.WATCHED_AFTER_END,
    )
    for cutover in rows.select_related("namespace"):
        unasked = cutover.figures.get("sessions_closed") and "stragglers" not in cutover.figures
        if unasked and _claim(cutover):
            jobs.in_background(partial(find, cutover))


def _claim(cutover: Cutover) -> bool:
    """Whether this process is the one that asks."""
    with transaction.atomic():
        publishing.locked(cutover.namespace_id)
        cutover.refresh_from_db()
        if "stragglers" in cutover.figures:
            return False
        Cutover.objects.filter(pk=cutover.pk).update(figures={**cutover.figures, "stragglers": None})
    return True


def _note(cutover: Cutover, found: Found) -> None:
    with transaction.atomic():
        publishing.locked(cutover.namespace_id)
        cutover.refresh_from_db()
        Cutover.objects.filter(pk=cutover.pk).update(figures={**cutover.figures, "stragglers": found})
    log.info("stragglers_asked", cutover=str(cutover), count=found["count"], silent=found["silent"])


def _asked(cutover: Cutover) -> Found:
    """Who is gone by one of the nodes, and back by none."""
    moved = MovedIds.from_lists(cutover.moved)
    units = moved.losing_units | moved.gaining_units
    nodes = [node for node in plans.enrolled_nodes(cutover.namespace_id) if node.unit.code in units]
    silent = {node.name for node in nodes if not node.live}
    live = [node for node in nodes if node.live]
    gone, left_out = _told(cutover, live, None, silent)
    if len(gone) > IDS_LIMIT:
        left_out += len(gone) - IDS_LIMIT
        gone = set(sorted(gone)[:IDS_LIMIT])
    back, _ = _told(cutover, live, _runs(gone), silent) if gone else (set(), 0)
    missing = sorted(gone - back)
    ranges = _runs(missing)
    named = ranges[:RANGES_LIMIT]
    unnamed = len(missing) - sum(last - first + 1 for first, last in named)
    return {
        "at": timezone.now().isoformat(),
        "count": len(missing),
        "ranges": [str(first) if first == last else f"{first}~{last}" for first, last in named],
        "left_out": left_out + unnamed,
        "silent": sorted(silent),
    }


def _told(
    cutover: Cutover, nodes: Sequence[EdgeNode], among: list[list[int]] | None, silent: set[str]
) -> tuple[set[int], int]:
    """The ids that the nodes name, and how many they left out; nodes without an answer become silent."""
    params = {"cutover": wire.progress_key(str(cutover.pk)), "among": among}
    questions = [probing.Question(node, Probe.Kind.RETURNS, params) for node in nodes]
    ids: set[int] = set()
    left_out = 0
    for question, answer in zip(questions, probing.ask(questions, ASK_DEADLINE_S).answers(), strict=True):
        if not answer or not answer.get("ok"):
            silent.add(question.node.name)
            continue
        for first, last in answer["ids"]:
            ids.update(range(int(first), int(last) + 1))
        left_out += int(answer["left_out"])
    return ids, left_out


def _runs(ids: Iterable[int]) -> list[list[int]]:
    """The ids as ``[[first, last], ...]``, ascending."""
    found: list[list[int]] = []
    for router_id in sorted(ids):
        if found and found[-1][1] == router_id - 1:
            found[-1][1] = router_id
        else:
            found.append([router_id, router_id])
    return found
