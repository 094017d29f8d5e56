"""Publishing: the only place that makes a version, the only way anything reaches an edge (PROTOCOL 2)."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import structlog
from django.db import transaction
from django.utils.translation import gettext

from msha.steering import snapshot as steering
from units import audit, stopped
from units.errors import PublishingStopped, Refused, VersionConflict
from units.in_use import refuse_removal_if_used
from units.models import Namespace, Snapshot
from units.nudge import nudge_namespace
from units.removals import removed
from units.signals import announce, published

Document = dict[str, Any]

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Change:
    """The part that a new version replaces; the other is copied. The first version needs both."""

    config: Document | None = None
    rule: Document | None = None


#: Computes the change inside the publishing transaction, from the locked namespace and the newest document
#: (None before the first). What it raises undoes the transaction, what it writes is committed with the
#: version: the place for a cutover's conditional UPDATE.
Compute = Callable[[Namespace, Document | None], Change]


def newest(namespace: Namespace | int) -> Snapshot | None:
    """The newest published version, or None before the first."""
    pk = namespace if isinstance(namespace, int) else namespace.pk
    return Snapshot.objects.filter(namespace_id=pk).order_by("-version").first()


def in_effect(namespace: Namespace | int) -> Document | None:
    """The document of the newest published version, or None before the first."""
    snapshot = newest(namespace)
    return None if snapshot is None else json.loads(snapshot.body)


def locked(namespace_pk: int) -> Namespace:
    """The namespace's row, locked to the end of the present transaction against publishing and enrolment.

    On SQLite the transaction itself is the lock: it began IMMEDIATE. ``no_key``, so that rows which merely
    refer to the namespace can still be written meanwhile.
    """
    assert transaction.get_connection().in_atomic_block
    return Namespace.objects.select_for_update(no_key=True).get(pk=namespace_pk)


def publish(
    namespace_pk: int,
    *,
    config: Document | None = None,
    rule: Document | None = None,
    author: object,
    comment: str = "",
    expected_version: int | None = None,
    compute: Compute | None = None,
) -> Snapshot:
    """The new version, stored; the edges are nudged once it is committed.

    One transaction, locked on the namespace, compare-and-set on its version (PROTOCOL P1). Exactly one part
    is replaced, the other is copied byte for byte.

    Args:
        config, rule: the new part, if it was computed from the document of ``expected_version``.
        compute: computes it under the lock; the way to go whenever it depends on stored data.
        expected_version: the version the caller looked at; another one now refuses.

    Raises:
        VersionConflict, PublishingStopped, InUse, msha.steering.errors.InvalidSnapshot.
    """
    if compute is None and expected_version is None:
        raise TypeError("a part computed outside the transaction needs expected_version")
    with transaction.atomic():
        namespace = locked(namespace_pk)
        if namespace.publishing_stopped:
            raise PublishingStopped(namespace.name, stopped.why(namespace))
        if expected_version is not None and namespace.version != expected_version:
            raise VersionConflict(namespace.name, expected_version, namespace.version)
        before = newest(namespace)
        document = None if before is None else json.loads(before.body)
        change = Change(config, rule) if compute is None else compute(namespace, document)
        # What computed the change may have made it out of the document it was given.
        _check(namespace, None if before is None else json.loads(before.body), change)
        return append(namespace, before, change, author=author, comment=comment)


def append(
    namespace: Namespace,
    before: Snapshot | None,
    change: Change,
    *,
    author: object,
    comment: str,
    version: int | None = None,
) -> Snapshot:
    """The next (or the given, higher) version, stored under the caller's lock; nudges follow the commit."""
    document = {} if before is None else json.loads(before.body)
    built = steering.build(
        str(namespace.uuid),
        namespace.name,
        namespace.version + 1 if version is None else version,
        document["config"] if change.config is None else change.config,
        document["rule"] if change.rule is None else change.rule,
    )
    _assert_copied(document, built.document, change)
    epoch = built.document["rule"]["epoch"]
    kind = Snapshot.Kind.RULE if change.config is None else Snapshot.Kind.CONFIG
    snapshot = Snapshot.objects.create(
        namespace=namespace,
        version=built.version,
        digest=built.digest,
        epoch=epoch,
        body=built.body.decode(),
        kind=kind,
        author=str(author)[:150],
        comment=comment,
    )
    row = Namespace.objects.filter(pk=namespace.pk, version=namespace.version, epoch=namespace.epoch)
    if row.update(version=built.version, epoch=epoch) != 1:
        raise VersionConflict(namespace.name, namespace.version, built.version)
    audit.record(
        author,
        "snapshot.publish",
        f"{namespace.name} v{built.version}",
        namespace=namespace,
        before={"version": namespace.version, "digest": "" if before is None else before.digest},
        after={"version": built.version, "digest": built.digest, "kind": str(kind), "epoch": epoch},
        reason=comment,
    )
    namespace.version, namespace.epoch = built.version, epoch
    log.info("published", namespace=namespace.name, version=built.version, epoch=epoch, kind=str(kind))
    transaction.on_commit(partial(_spread, namespace.pk, built.version, epoch, str(kind)), robust=True)
    return snapshot


def _spread(namespace_pk: int, version: int, epoch: int, kind: str) -> None:
    nudge_namespace(namespace_pk)
    announce(published, Snapshot, namespace_id=namespace_pk, version=version, epoch=epoch, kind=kind)


def _check(namespace: Namespace, document: Document | None, change: Change) -> None:
    """The change is one that may follow the newest document."""
    if document is None:
        if change.config is None or change.rule is None:
            raise Refused(
                gettext("Nothing has been published in namespace %(name)s yet: put it into effect first.")
                % {"name": namespace.name}
            )
        return
    if (change.config is None) == (change.rule is None):
        raise TypeError("exactly one part of a published namespace is replaced at a time")
    if change.rule is not None and change.rule.get("epoch") != namespace.epoch + 1:
        raise TypeError(f"the rule part after epoch {namespace.epoch} has epoch {change.rule.get('epoch')}")
    if change.config is not None:
        steering.check_config(change.config)
        refuse_removal_if_used(namespace, *removed(document["config"], change.config))


def _assert_copied(before: Document, after: Document, change: Change) -> None:
    """The part that was not replaced has the bytes it had (P1): whatever it holds is never composed anew."""
    for part, replaced in (("config", change.config), ("rule", change.rule)):
        if replaced is None:
            assert steering.canonical(after[part]) == steering.canonical(before[part]), part
