"""Messages to sessions: one text to ids, to ranges of ids or to everybody, through every node.

Every enrolled node is asked, whatever its unit: which of them has a session of an id is known to the edges
alone. A message goes out at most once to each session. It is never sent again, because whoever got no answer
does not know whether it was, and twice may be worse than never.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from django.db import transaction
from django.utils.translation import gettext

from msha.steering import snapshot as steering
from msha.steering.ranges import KeySpace, format_range, parse_range
from msha.steering.wire import TEXT_LIMIT_BYTES
from units import audit, probing, publishing
from units.errors import Refused, Unsendable
from units.models import EdgeNode, Namespace, Probe

#: More ranges than this are a list that should be several messages.
RANGES_LIMIT = 1000


@dataclass(frozen=True, slots=True)
class Addressees:
    """Whom a message is for.

    Attributes:
        ranges: ``(first, last)``, ascending and disjoint; None is every session of the unit type, also those
            without a routerId.
    """

    unit_type: str
    ranges: tuple[tuple[int, int], ...] | None

    def __str__(self) -> str:
        if self.ranges is None:
            return f"all of {self.unit_type}"
        names = [
            str(first) if first == last else format_range(first, last + 1) for first, last in self.ranges
        ]
        return f"{'+'.join(names)} of {self.unit_type}"


@dataclass(frozen=True, slots=True)
class Told:
    """What one node did with a message, in numbers of sessions.

    Attributes:
        reached: whether it said what became of the message; if not, ``problem`` says why.
        delivered: all of the message is on its way in the kernel.
        queued: it waits for the end of another message, or for the client to read.
        skipped: by reason: ``closing``, ``full`` (the client does not read), ``extension``.
    """

    node: str
    unit: str
    reached: bool
    delivered: int = 0
    queued: int = 0
    skipped: dict[str, int] = field(default_factory=dict)
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of a message."""

    to: Addressees
    nodes: list[Told]

    @property
    def delivered(self) -> int:
        return sum(told.delivered for told in self.nodes)

    @property
    def queued(self) -> int:
        return sum(told.queued for told in self.nodes)

    @property
    def skipped(self) -> dict[str, int]:
        return dict(sum((Counter(told.skipped) for told in self.nodes), Counter()))


def addressees(
    namespace: Namespace, unit_type: str, *, ids: Sequence[int], ranges: Sequence[str], everybody: bool
) -> Addressees:
    """Whom an order names, judged by the rule in effect.

    Args:
        unit_type: "" is the namespace's default.
        ids, ranges: as the range table knows them, that is after the unit type's transforms.

    Raises:
        Refused: nothing is in effect yet.
        Unsendable, msha.steering.errors.InvalidRange: nobody, or somebody who cannot be, is named.
    """
    newest = publishing.newest(namespace)
    if newest is None:
        raise Refused(gettext("Nothing is in effect in this namespace yet, so there are no sessions."))
    rule = steering.load(newest.body.encode())
    name = unit_type or rule.default_unit_type
    if name not in rule.unit_types:
        known = ", ".join(rule.unit_types)
        raise Unsendable(
            gettext("%(name)s is not a unit type in effect; there is %(known)s.")
            % {"name": name, "known": known},
            "unit_type",
        )
    if bool(ids) + bool(ranges) + everybody != 1:
        raise Unsendable(gettext("Say whom it is for: either ids, or ranges, or all."), "ids")
    if everybody:
        return Addressees(name, None)
    if len(ids) + len(ranges) > RANGES_LIMIT:
        raise Unsendable(
            gettext("One message is for at most %(limit)d ids or ranges.") % {"limit": RANGES_LIMIT}, "ids"
        )
    named = [(number, number) for number in ids] + [parse_range(text, "ranges") for text in ranges]
    return Addressees(name, _joined(named, rule.unit_types[name].table.key_space, "ids" if ids else "ranges"))


def send(namespace: Namespace, to: Addressees, text: str, actor: object) -> Sent:
    """The message has been sent, and what each node said of it.

    The order is on the audit record before any node hears of it, without the text: who reads the record need
    not be who may read the message. Blocks until every live node has answered, or `probing.DEADLINE_S`.

    Raises:
        Unsendable: the text cannot be a message.
    """
    payload = _payload(text)
    nodes = list(
        EdgeNode.objects.filter(namespace=namespace, state=EdgeNode.State.ENROLLED).select_related("unit")
    )
    digest = hashlib.sha256(payload).hexdigest()
    described = {"to": str(to), "bytes": len(payload), "sha256": digest}
    params = {"unit_type": to.unit_type, "text": text, **_addressed(to)}
    with transaction.atomic():
        audit.record(actor, "message.send", to, namespace=namespace, after=described)
        asked = probing.ask([probing.Question(node, Probe.Kind.SEND, params) for node in nodes if node.live])
    answers = dict(zip((probe.node_id for probe in asked.probes), asked.answers(), strict=True))
    # The rows stay for a day; what was said need not.
    Probe.objects.filter(pk__in=[probe.pk for probe in asked.probes]).update(params=described)
    return Sent(to, [_told(node, answers.get(node.pk), node.pk in answers) for node in nodes])


def _payload(text: str) -> bytes:
    try:
        payload = text.encode()
    except UnicodeEncodeError:
        raise Unsendable(gettext("The text is not Unicode."), "text") from None
    if not 0 < len(payload) <= TEXT_LIMIT_BYTES:
        raise Unsendable(
            gettext("A text has 1 to %(limit)d bytes of UTF-8; this one has %(size)d.")
            % {"limit": TEXT_LIMIT_BYTES, "size": len(payload)},
            "text",
        )
    return payload


def _addressed(to: Addressees) -> dict[str, Any]:
    return {"all": True} if to.ranges is None else {"ranges": [list(pair) for pair in to.ranges]}


def _joined(named: Sequence[tuple[int, int]], key_space: KeySpace, place: str) -> tuple[tuple[int, int], ...]:
    """Ascending and disjoint, however they were named."""
    joined: list[tuple[int, int]] = []
    for first, last in sorted(named):
        if not (key_space.contains(first) and key_space.contains(last)):
            raise Unsendable(
                gettext("%(ids)s leaves the key space %(space)s.")
                % {"ids": format_range(first, last + 1), "space": key_space},
                place,
            )
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(joined[-1][1], last))
        else:
            joined.append((first, last))
    return tuple(joined)


def _told(node: EdgeNode, answer: probing.Answer | None, asked: bool) -> Told:
    """An answer that is there but incomplete still has the figures of those workers that said something."""
    name, unit = node.name, node.unit.code
    if answer is None:
        problem = (
            gettext("It did not say in time whether it sent the message.")
            if asked
            else gettext("It is not connected, so it was not asked.")
        )
        return Told(name, unit, reached=False, problem=problem)
    return Told(
        name,
        unit,
        reached=bool(answer.get("ok")),
        delivered=int(answer.get("delivered", 0)),
        queued=int(answer.get("queued", 0)),
        skipped={str(why): int(count) for why, count in (answer.get("skipped") or {}).items()},
        problem=str(answer.get("error", "")),
    )
