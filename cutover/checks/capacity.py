"""Whether the gaining units have room for the sessions that come to them."""

from collections import Counter

from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from cutover.checks.scene import Answered, Precheck, Scene, Verdict
from units.models import EdgeNode

#: A unit is not filled further than this: clients that are on their way and reconnects need room, too.
_FILLED_AT_MOST = 0.9


def _judge(scene: Scene, _answers: Answered) -> Verdict:
    coming = Counter[str]()
    for _losing, gaining, sessions in scene.cutover.impact.get("pairs", []):
        coming[gaining] += sessions
    short, roomy = [], []
    for unit in sorted(scene.moved.gaining_units):
        nodes = [node for node in scene.gaining if node.unit.code == unit and node.listening]
        taken, limit = sum(node.sessions for node in nodes), sum(map(_limit, nodes))
        words = {
            "unit": unit,
            "coming": coming[unit],
            "taken": taken,
            "limit": limit,
            "most": int(limit * _FILLED_AT_MOST),
        }
        if taken + coming[unit] > limit * _FILLED_AT_MOST:
            short.append(
                gettext(
                    "%(unit)s has %(taken)d sessions and gains %(coming)d, but its live nodes should take at"
                    " most %(most)d of the %(limit)d that they have room for."
                )
                % words
            )
        else:
            roomy.append(
                gettext("%(unit)s gains %(coming)d sessions and has %(taken)d of at most %(limit)d.") % words
            )
    if short:
        advice = gettext("Start more nodes there, or move fewer ids.")
        return Verdict(False, " ".join([*short, advice]))
    return Verdict(True, " ".join(roomy) or gettext("No unit gains ids."))


def _limit(node: EdgeNode) -> int:
    """How many clients the node takes, as it reports itself."""
    return int(node.counters.get("connections_limit", 0))


CAPACITY = Precheck("capacity", _("Gaining units have room"), _judge)
