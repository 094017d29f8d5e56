"""After a restore the database may have forgotten versions that the fleet obeys (PROTOCOL P4).

The numbers that were given away are never used again, and what the fleet knows of the rule is adopted, never
undone: ids that were frozen or had moved stay where the edges have them.
"""

import json
from dataclasses import dataclass
from typing import Any

import structlog
from django.db import transaction
from django.utils.translation import gettext

from msha.steering import snapshot as steering
from units import audit
from units.alarms import clear_alarm
from units.errors import Refused
from units.fleet import AHEAD
from units.models import EdgeNode, Namespace, Snapshot
from units.nudge import nudge_namespace
from units.publishing import Change, append, locked, newest
from units.signals import rule_adopted
from units.stopped import RESTORED

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Resumed:
    """Publishing goes on.

    Attributes:
        snapshot: the version that was put above all others, or None when the database had forgotten nothing.
    """

    version: int
    epoch: int
    snapshot: Snapshot | None


def stop(namespace: Namespace) -> None:
    """Nothing is published in the namespace until `resume` has succeeded."""
    Namespace.objects.filter(pk=namespace.pk, publishing_stopped="").update(publishing_stopped=RESTORED)


def resume(namespace: Namespace, *, actor: object, body: bytes | None = None) -> Resumed:
    """Publishing goes on above the fleet's highest version.

    Args:
        body: the ``snapshot.json`` of the node that is furthest ahead; needed when its rule part is.

    Raises:
        Refused: an enrolled node has not reported, or the body is needed, or is not the right one.
    """
    with transaction.atomic():
        row = locked(namespace.pk)
        nodes = list(EdgeNode.objects.filter(namespace=row, state=EdgeNode.State.ENROLLED))
        _check_reports(row, nodes)
        before = newest(row)
        snapshot = None
        if body is not None or any(_forgotten(row, node) for node in nodes):
            snapshot = _raise(row, before, nodes, body, actor)
        Namespace.objects.filter(pk=row.pk).update(publishing_stopped="")
        clear_alarm(row.pk, AHEAD)
        audit.record(
            actor,
            "namespace.after_restore",
            row.name,
            namespace=row,
            before={"version": 0 if before is None else before.version, "stopped": row.publishing_stopped},
            after={"version": row.version, "epoch": row.epoch, "adopted": body is not None},
        )
        transaction.on_commit(lambda: nudge_namespace(row.pk), robust=True)
    log.info("publishing_resumed", namespace=row.name, version=row.version, epoch=row.epoch)
    return Resumed(row.version, row.epoch, snapshot)


def _check_reports(namespace: Namespace, nodes: list[EdgeNode]) -> None:
    silent = [node.name for node in nodes if not node.live]
    if silent:
        raise Refused(
            gettext(
                "Namespace %(namespace)s: these enrolled nodes have not reported: %(nodes)s. Start the"
                " consoles and the nodes and run this again, or declare a node dead if it never comes back."
            )
            % {"namespace": namespace.name, "nodes": ", ".join(silent)}
        )


def _forgotten(namespace: Namespace, node: EdgeNode) -> bool:
    """Whether the node has a version or content that the database does not know."""
    if node.reported_version == 0:
        return False
    known = Snapshot.objects.filter(
        namespace=namespace, version=node.reported_version, digest=node.reported_digest
    )
    return not known.exists()


def _raise(
    namespace: Namespace, before: Snapshot | None, nodes: list[EdgeNode], body: bytes | None, actor: object
) -> Snapshot:
    ahead = max(nodes, key=lambda node: (node.reported_epoch, node.reported_version), default=None)
    highest = max((node.reported_version for node in nodes), default=0)
    epoch = 0 if ahead is None else ahead.reported_epoch
    if body is None:
        if ahead is not None and (before is None or epoch > namespace.epoch):
            raise Refused(
                gettext(
                    "Namespace %(namespace)s: node %(node)s obeys a rule of epoch %(epoch)d that this"
                    " database never saw. Copy snapshot.json from the state directory of %(node)s"
                    " and give it with --snapshot FILE."
                )
                % {"namespace": namespace.name, "node": ahead.name, "epoch": epoch}
            )
        assert before is not None
        document = json.loads(before.body)
    else:
        document = _checked(namespace, body, epoch)
        highest = max(highest, document["version"])
        rule_adopted.send(Namespace, namespace=namespace, rule=document["rule"])
    return append(
        namespace,
        before,
        Change(document["config"], document["rule"]),
        author=actor,
        comment=gettext("After a restore of the database"),
        version=max(highest, namespace.version) + 1,
    )


def _checked(namespace: Namespace, body: bytes, epoch: int) -> dict[str, Any]:
    snapshot = steering.load(body)
    if snapshot.namespace_id != str(namespace.uuid):
        raise Refused(
            gettext("This snapshot is of namespace %(found)s, not of %(wanted)s.")
            % {"found": snapshot.namespace, "wanted": namespace.name}
        )
    if snapshot.epoch < max(epoch, namespace.epoch):
        raise Refused(
            gettext(
                "This snapshot has a rule of epoch %(found)d, but %(wanted)d is known:"
                " take the file of the node that is furthest ahead."
            )
            % {"found": snapshot.epoch, "wanted": max(epoch, namespace.epoch)}
        )
    return snapshot.document
