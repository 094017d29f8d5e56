"""How an edge node stands, in one word and one sentence: for lists, pages and the API."""

from dataclasses import dataclass
from enum import StrEnum

from django.utils import timezone
from django.utils.translation import gettext, ngettext

from units.models import EdgeNode


class Level(StrEnum):
    """How much an operator should care; the names of the badges' colours."""

    GOOD = "good"
    WARN = "warn"
    BAD = "bad"
    INFO = "info"


@dataclass(frozen=True, slots=True)
class Standing:
    """Attributes:
    word: for a list.
    sentence: what it means and what to do.
    """

    level: Level
    word: str
    sentence: str


def standing(node: EdgeNode) -> Standing:
    """The most important thing there is to say of the node; its namespace must be loaded."""
    match node.state:
        case EdgeNode.State.REGISTERED:
            return Standing(
                Level.INFO,
                gettext("not started"),
                gettext("Run the join command on its machine; it is enrolled when it first connects."),
            )
        case EdgeNode.State.LEFT:
            return Standing(
                Level.INFO, gettext("left"), gettext("It has left for good; no cutover waits for it.")
            )
        case EdgeNode.State.DEAD:
            return Standing(
                Level.BAD,
                gettext("declared dead"),
                gettext("Its token only tells it so. Register a new node to replace it."),
            )
    return _enrolled(node)


def _enrolled(node: EdgeNode) -> Standing:
    newest = node.namespace.version
    if not node.live:
        silence = silent_s(node)
        if silence is None:
            said = gettext("It was enrolled and has said nothing since.")
        else:
            said = ngettext(
                "Its last status is %(n)d second old.", "Its last status is %(n)d seconds old.", silence
            ) % {"n": silence}
        return Standing(
            Level.BAD,
            gettext("disconnected"),
            gettext(
                "%(said)s It may serve on from its last snapshot, so every cutover that takes ids from"
                " its unit waits for it."
            )
            % {"said": said},
        )
    if node.nack_version > node.applied_version:
        return Standing(
            Level.BAD,
            gettext("refused version %(version)d") % {"version": node.nack_version},
            gettext("Reason: %(reason)s. Version %(version)d stays in force there.")
            % {"reason": node.nack_reason.rstrip("."), "version": node.applied_version},
        )
    if node.applied_version < newest:
        return Standing(
            Level.WARN,
            gettext("behind"),
            gettext("It has version %(has)d, the newest is %(newest)d.")
            % {"has": node.applied_version, "newest": newest},
        )
    if node.parked or node.draining or not node.listening:
        word = (
            gettext("parked") if node.parked else gettext("draining") if node.draining else gettext("closed")
        )
        return Standing(Level.WARN, word, gettext("It takes no new connections at present."))
    if not node.in_sync:
        return Standing(
            Level.WARN,
            gettext("not in sync"),
            gettext("No console confirmed within 3 s that its version is current."),
        )
    return Standing(
        Level.GOOD, gettext("in sync"), gettext("It serves with version %(v)d, the newest.") % {"v": newest}
    )


def silent_s(node: EdgeNode) -> int | None:
    """Seconds since the node's last status, or None when there was none."""
    if node.status_at is None:
        return None
    return max(0, int((timezone.now() - node.status_at).total_seconds()))
