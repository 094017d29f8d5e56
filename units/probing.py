"""Asking edge nodes something over their control streams, all at once, with one deadline."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from django.db import transaction
from django.utils import timezone

from units import probes
from units.models import EdgeNode, Probe
from units.nudge import nudge_namespace

#: How often the answers are looked for; a control round trip takes a few milliseconds.
POLL_S = 0.02
#: A node that has not answered by then does not answer; a back-source's handshake is inside it.
DEADLINE_S = 4.0


@dataclass(frozen=True, slots=True)
class Question:
    """What to ask which node; `kind` is one of `Probe.Kind`."""

    node: EdgeNode
    kind: str
    params: dict[str, Any] = field(default_factory=dict)


Answer = dict[str, Any]
"""What the node said: ``ok``, ``ms`` and what the kind adds; and ``round_trip_ms`` on the console's clock."""


@dataclass
class Asked:
    """Questions that are on their way."""

    probes: list[Probe]
    deadline: float

    def answers(self) -> list[Answer | None]:
        """The answers in the order of the questions; None where none came in time.

        Blocks until the deadline at most; must run outside a transaction, because others answer.
        """
        waiting = {probe.pk for probe in self.probes}
        answers: dict[int, Answer] = {}
        while waiting:
            for probe in Probe.objects.filter(pk__in=waiting, state=Probe.State.DONE):
                answers[probe.pk] = {**(probe.result or {}), "round_trip_ms": _ms(probe)}
                waiting.discard(probe.pk)
            if not waiting or time.monotonic() >= self.deadline:
                break
            time.sleep(POLL_S)
        late = Probe.objects.filter(pk__in=waiting, state__in=(Probe.State.PENDING, Probe.State.SENT))
        late.update(state=Probe.State.EXPIRED, finished=timezone.now())
        return [answers.get(probe.pk) for probe in self.probes]


def ask(questions: Sequence[Question], deadline_s: float | None = None) -> Asked:
    """The questions are on their way; they may be answered within `deadline_s` (`DEADLINE_S`)."""
    probes.expire()  # here, because nothing else makes rows: no sweep of its own is needed
    deadline = time.monotonic() + (DEADLINE_S if deadline_s is None else deadline_s)
    asked = Probe.objects.bulk_create(
        [Probe(node=question.node, kind=question.kind, params=question.params) for question in questions]
    )
    for namespace_id in {question.node.namespace_id for question in questions}:
        transaction.on_commit(partial(nudge_namespace, namespace_id), robust=True)
    return Asked(asked, deadline)


def _ms(probe: Probe) -> float:
    return (probe.finished - probe.created).total_seconds() * 1000 if probe.finished else 0.0
