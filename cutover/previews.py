"""Previews: what a cutover would change, said in tables, in text and in one sentence."""

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext, ngettext

from cutover import rules
from cutover.drafts import claim_editable
from cutover.errors import Refused
from cutover.models import Cutover, CutoverEvent
from cutover.pacing.asked import words_of
from cutover.rules import Change, Document, UnitTypeDict
from cutover.safety import approval, assessing
from msha.steering.diff import Row, rule_text, side_by_side
from msha.steering.phases import reads_differently, table_of
from msha.steering.ranges import MovedIds
from units import audit, probing, publishing
from units.models import EdgeNode, Probe, Unit

#: A node that does not count its sessions within this time is named in the preview instead.
COUNT_DEADLINE_S = 2.0


@dataclass(frozen=True, slots=True)
class UnitRow:
    """One unit before and after; shares are numbers of ids, exact ids included."""

    code: str
    name: str
    colour: int
    old_ranges: list[str]
    new_ranges: list[str]
    old_exact: list[int]
    new_exact: list[int]
    old_share: int
    new_share: int
    old_percent: float
    new_percent: float
    sessions_lost: int
    sessions_gained: int


@dataclass(frozen=True, slots=True)
class MoveRow:
    """The ids that go from one unit to another."""

    losing: str
    gaining: str
    losing_name: str
    gaining_name: str
    text: str
    ids: int
    sessions: int


@dataclass(frozen=True, slots=True)
class Preview:
    """What a cutover would do.

    Attributes:
        uncounted: names of nodes of losing units that did not count their sessions.
        stale: the rule in effect is not the one this was made against.
        command: the same act as a line for a shell; "" where `mshactl cutover` cannot say it.
        findings: what the safety rules say now, violations first; empty once it has started.
    """

    units: list[UnitRow]
    moves: list[MoveRow]
    moved_ids: int
    key_space_size: int
    sessions: int
    uncounted: list[str]
    old_text: str
    new_text: str
    rows: list[Row]
    impact: str
    command: str
    base_version: int
    stale: bool
    findings: list[assessing.Shown]


def preview(cutover: Cutover, actor: str) -> Preview:
    """The draft has a fresh preview against the rule now in effect, with its sessions counted.

    Raises:
        InvalidChange: nothing moves any more, or the rule no longer fits.
        Refused: the cutover has started or ended, or somebody changed it while sessions were counted.
    """
    if not cutover.editable:
        claim_editable(cutover)  # refuses, with the sentence
    document = rules.in_effect(cutover.namespace)
    moved = rules.change(document, cutover.unit_type, entry=cutover.new_rule).moved
    impact = count_sessions(cutover, moved)
    with transaction.atomic():
        publishing.locked(cutover.namespace_id)
        document = rules.in_effect(cutover.namespace)
        cutover.refresh_from_db()
        approved = approval.digest(cutover)
        change = rules.change(document, cutover.unit_type, entry=cutover.new_rule)
        if change.moved != moved:  # the sessions of other ids were counted
            raise Refused(
                gettext("Draft or rule in effect were changed just now. Generate the preview again.")
            )
        claim_editable(
            cutover,
            state=Cutover.State.PREVIEWED,
            old_rule=change.old,
            new_rule=change.new,
            moved=change.moved.as_lists(),
            base_version=document["version"],
            base_digest=rules.digest_of_tables(document["rule"]),
            impact=impact,
        )
        cutover.checks.all().delete()
        cutover.refresh_from_db()
        if approval.digest(cutover) != approved:  # the same wish moves other ids than before
            approval.unapprove(cutover, actor)
        CutoverEvent.objects.create(
            cutover=cutover,
            kind="previewed",
            data={"by": actor, "version": document["version"], "ids": change.moved.count},
        )
        audit.record(
            actor,
            "cutover.preview",
            cutover,
            namespace=cutover.namespace,
            after={"version": document["version"], "moved": change.moved.text()},
        )
    cutover.refresh_from_db()
    return _shown(cutover, document, change)


def stored_preview(cutover: Cutover) -> Preview | None:
    """The preview as it was made, without asking any node again; None when there is none yet."""
    if not cutover.base_version:
        return None
    document = rules.in_effect(cutover.namespace)
    moved = MovedIds.from_lists(cutover.moved)
    return _shown(cutover, document, Change(cutover.old_rule, cutover.new_rule, moved))


def is_stale(cutover: Cutover, document: Document) -> bool:
    """Whether the tables in effect are other ones than those of the preview."""
    return rules.digest_of_tables(document["rule"]) != cutover.base_digest


def count_sessions(cutover: Cutover, moved: MovedIds) -> dict[str, Any]:
    """The live sessions of the moved ids: ``{"pairs": [[losing, gaining, n], ...], "uncounted": [...]}``."""
    nodes = EdgeNode.objects.filter(
        namespace=cutover.namespace_id,
        state=EdgeNode.State.ENROLLED,
        unit__code__in=moved.losing_units,
    ).select_related("unit")
    questions, silent = [], []
    for node in nodes:
        ranges = [[m.start, m.end - 1] for m in moved if m.losing == node.unit.code]
        params = {"unit_type": cutover.unit_type, "ranges": ranges}
        if node.live:
            questions.append(probing.Question(node, Probe.Kind.COUNT, params))
        else:
            silent.append(node.name)
    answers = probing.ask(questions, COUNT_DEADLINE_S).answers()
    pairs: Counter[tuple[str, str]] = Counter()
    for question, answer in zip(questions, answers, strict=True):
        unit = question.node.unit.code
        counts = (answer or {}).get("counts")
        moves = [move for move in moved if move.losing == unit]
        if not isinstance(counts, list) or len(counts) != len(moves):
            silent.append(question.node.name)
            continue
        for move, count in zip(moves, counts, strict=True):
            pairs[move.losing, move.gaining] += int(count)
    return {
        "pairs": [[losing, gaining, count] for (losing, gaining), count in sorted(pairs.items())],
        "uncounted": sorted(silent),
        "at": timezone.now().isoformat(),
    }


def _shown(cutover: Cutover, document: Document, change: Change) -> Preview:
    rule = document["rule"]
    key_space = rules.key_space_of(rule)
    sessions = {(losing, gaining): n for losing, gaining, n in cutover.impact.get("pairs", [])}
    units = {unit.code: unit for unit in Unit.objects.filter(namespace=cutover.namespace_id)}
    names = {code: unit.name or code for code, unit in units.items()}
    moves = _moves(change.moved, sessions, names)
    old_text = rule_text(cutover.namespace.name, rule["key_space"], change.old)
    new_text = rule_text(cutover.namespace.name, rule["key_space"], change.new)
    return Preview(
        units=_unit_rows(document, change, units, sessions),
        moves=moves,
        moved_ids=change.moved.count,
        key_space_size=key_space.size,
        sessions=sum(sessions.values()),
        uncounted=list(cutover.impact.get("uncounted", [])),
        old_text=old_text,
        new_text=new_text,
        rows=side_by_side(old_text, new_text),
        impact=_impact(change, moves, key_space.size, cutover.impact.get("uncounted", [])),
        command=command(cutover),
        base_version=cutover.base_version,
        stale=is_stale(cutover, document),
        findings=assessing.shown(cutover),
    )


def _moves(
    moved: MovedIds, sessions: Mapping[tuple[str, str], int], names: Mapping[str, str]
) -> list[MoveRow]:
    """One row per (losing, gaining); where the routerId is read anew, ids also go from a unit to itself."""
    pairs: dict[tuple[str, str], list[Any]] = {}
    for move in moved:
        pairs.setdefault((move.losing, move.gaining), []).append(move)
    return [
        MoveRow(
            losing=losing,
            gaining=gaining,
            losing_name=names.get(losing, losing),
            gaining_name=names.get(gaining, gaining),
            text=", ".join(_range_text(move.start, move.end) for move in ranges),
            ids=sum(move.end - move.start for move in ranges),
            sessions=sessions.get((losing, gaining), 0),
        )
        for (losing, gaining), ranges in pairs.items()
    ]


def _range_text(start: int, end: int) -> str:
    return str(start) if end == start + 1 else f"{start}~{end - 1}"


def _unit_rows(
    document: Document,
    change: Change,
    units: Mapping[str, Unit],
    sessions: Mapping[tuple[str, str], int],
) -> list[UnitRow]:
    key_space = rules.key_space_of(document["rule"])
    old, new = table_of(change.old, key_space), table_of(change.new, key_space)
    old_share, new_share = old.share(), new.share()
    rows = []
    for entry in document["config"]["units"]:
        code = entry["code"]
        before, after = old_share.get(code, 0), new_share.get(code, 0)
        rows.append(
            UnitRow(
                code=code,
                name=units[code].name or code if code in units else entry["name"],
                colour=units[code].colour if code in units else 0,
                old_ranges=change.old["ranges"].get(code, []),
                new_ranges=change.new["ranges"].get(code, []),
                old_exact=change.old["exact"].get(code, []),
                new_exact=change.new["exact"].get(code, []),
                old_share=before,
                new_share=after,
                old_percent=100 * before / key_space.size,
                new_percent=100 * after / key_space.size,
                sessions_lost=sum(n for (losing, _), n in sessions.items() if losing == code),
                sessions_gained=sum(n for (_, gaining), n in sessions.items() if gaining == code),
            )
        )
    return rows


def _impact(change: Change, moves: Sequence[MoveRow], size: int, uncounted: Sequence[str]) -> str:
    """The consequence in plain words, for the page, the confirmation and `mshactl`."""
    if not change.moved:
        return gettext(
            "No id moves and no session is closed;"
            " untagged handshakes are treated as %(policy)s from then on."
        ) % {"policy": change.new["untagged"]}
    total = sum(move.sessions for move in moves)
    ids = ngettext(
        "%(moved)d of %(size)d ids", "%(moved)d of %(size)d ids", change.moved.count
    ) % {"moved": change.moved.count, "size": size}  # fmt: skip
    sessions = ngettext("%(count)d live session", "%(count)d live sessions", total) % {"count": total}
    if reads_differently(change.old, change.new):
        sentence = gettext(
            "The routerId is read in another way: %(ids)s, %(sessions)s, are closed and decided anew."
        ) % {"ids": ids, "sessions": sessions}
    elif len(moves) == 1:
        move = moves[0]
        sentence = gettext(
            "%(ids)s (%(ranges)s), %(sessions)s, move from %(losing)s to %(gaining)s."
            " All others stay connected."
        ) % {
            "ids": ids,
            "ranges": move.text,
            "sessions": sessions,
            "losing": move.losing_name,
            "gaining": move.gaining_name,
        }
    else:
        each = "; ".join(
            gettext("%(ranges)s from %(losing)s to %(gaining)s (%(sessions)d)")
            % {
                "ranges": move.text,
                "losing": move.losing_name,
                "gaining": move.gaining_name,
                "sessions": move.sessions,
            }
            for move in moves
        )
        sentence = gettext("%(ids)s, %(sessions)s, move: %(each)s. All others stay connected.") % {
            "ids": ids,
            "sessions": sessions,
            "each": each,
        }
    if uncounted:
        sentence += " " + gettext("Sessions could not be counted on %(nodes)s.") % {
            "nodes": ", ".join(uncounted)
        }
    return sentence


def command(cutover: Cutover) -> str:
    """The ``mshactl`` line that starts the same cutover; "" where it cannot say it."""
    old, new = cutover.old_rule, cutover.new_rule
    if reads_differently(old, new) or old.get("untagged") != new.get("untagged"):
        return ""
    words = ["mshactl", "cutover", "start", "-n", cutover.namespace.name, "--unit-type", cutover.unit_type]
    words += ["--ranges", _joined(new["ranges"])]
    if new.get("exact", {}) != old.get("exact", {}):
        words += ["--exact", _joined(new["exact"])]
    words += words_of(cutover.pacing)
    if cutover.emergency:
        words += ["--emergency", "--reason", cutover.reason or "…"]
    return " ".join(shlex.quote(word) for word in words)


def _joined(parts: UnitTypeDict) -> str:
    return ",".join(f"{unit}={'+'.join(str(part) for part in some)}" for unit, some in parts.items() if some)
