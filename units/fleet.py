"""Whether the fleet knows of versions that the database has forgotten (PROTOCOL P4)."""

from typing import Any

import structlog
from django.db import transaction
from django.utils import translation
from django.utils.translation import gettext

from units.alarms import raise_alarm, register_sayer
from units.models import Alarm, EdgeNode, Namespace, Snapshot

#: The kind of the alarm.
AHEAD = "node_ahead"

log = structlog.get_logger(__name__)


def notice(node_id: int, version: int, digest: str, enrolment: int | None = None) -> bool:
    """Whether the node knows a version, a content or an enrolment that the database does not.

    Then publishing has stopped, with an alarm, until ``manage.py after_restore`` has put the version above
    the fleet's highest: a second content under a known number would never reach the node, and no gate would
    wait for a node whose enrolment is forgotten.

    Args:
        enrolment: the one that the node remembers and has not ended.
    """
    if version <= 0:
        return False
    with transaction.atomic():
        node = EdgeNode.objects.select_related("namespace").get(pk=node_id)
        forgotten = enrolment is not None and enrolment > node.enrolment
        known = version <= node.namespace.version and not _other_content(node, version, digest)
        if known and not forgotten:
            return False
        facts = _facts(node, version)
        with translation.override("en"):
            sentence = _sentence(facts)
        Namespace.objects.filter(pk=node.namespace_id, publishing_stopped="").update(
            publishing_stopped=sentence
        )
        raise_alarm(node.namespace_id, AHEAD, sentence, subject=node.name, facts=facts)
        if enrolment is not None:  # it was enrolled by what the database has forgotten, and counts
            EdgeNode.objects.filter(pk=node_id, enrolment__lt=enrolment).exclude(
                state=EdgeNode.State.DEAD
            ).update(enrolment=enrolment, state=EdgeNode.State.ENROLLED)
    log.error("node_ahead_of_database", node=node.name, version=version, known=node.namespace.version)
    return True


def _other_content(node: EdgeNode, version: int, digest: str) -> bool:
    stored = Snapshot.objects.filter(namespace_id=node.namespace_id, version=version).values_list(
        "digest", flat=True
    )
    return stored.first() != digest


def _facts(node: EdgeNode, version: int) -> dict[str, Any]:
    return {"node": node.name, "version": version, "known": node.namespace.version}


def _sentence(facts: dict[str, Any]) -> str:
    if facts["version"] <= facts["known"]:
        return (
            gettext(
                "Node %(node)s has a version %(version)d or an enrolment that this database (at version"
                " %(known)d) does not know: it was restored from an older backup, or the node obeys a"
                " break-glass file. Run: manage.py after_restore"
            )
            % facts
        )
    return (
        gettext(
            "Node %(node)s has version %(version)d, which this database (at version %(known)d) never"
            " published: it was restored from an older backup, or the node obeys a break-glass file."
            " Run: manage.py after_restore"
        )
        % facts
    )


def _said(alarm: Alarm) -> str:
    return _sentence(alarm.facts) if alarm.facts else alarm.sentence


register_sayer(AHEAD, _said)
