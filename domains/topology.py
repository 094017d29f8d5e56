"""A whole namespace from one file: what would change, and changing it in one transaction."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.db import transaction
from django.db.models import ProtectedError
from django.utils import timezone
from django.utils.translation import gettext

from domains import services
from domains.editing import refuse_removals, store_domain
from domains.errors import Misplaced, SavedMeanwhile
from domains.hosts import refuse_taken_hosts
from domains.models import Domain
from domains.saved import topology_of
from msha.steering import topology_file
from msha.steering.snapshot import canonical, digest_of
from msha.steering.topology import Act, Cluster, Difference, Topology, UnitType, differences, document_of
from units import audit, models, publishing
from units.models import Namespace

Document = dict[str, Any]

_FIXED = ("router_id", "default_unit_type")


@dataclass(frozen=True)
class Plan:
    """What applying a topology would do.

    Attributes:
        base: stands for what is saved now; `apply` refuses when it has changed since.
        sentences: what would not come into effect at once, and why; and what would be dropped.
        unpublished: what is saved already, not in effect, and not changed by the topology.
    """

    topology: Topology
    differences: Sequence[Difference]
    base: str
    sentences: Sequence[str] = ()
    unpublished: Sequence[str] = ()


@dataclass(frozen=True)
class Applied:
    """What applying a topology did.

    Attributes:
        outcome: of putting it into effect; None when it was only saved.
    """

    differences: Sequence[Difference]
    outcome: services.Outcome | None = None
    sentences: Sequence[str] = field(default_factory=list)


def parse(text: str) -> Topology:
    """The topology of a file's text.

    Raises:
        Misplaced: names line and place.
    """
    try:
        return topology_file.parse(text)
    except topology_file.InvalidTopology as error:
        raise Misplaced(error.problem, error.place, error.line) from error


def export(namespace: Namespace) -> Document:
    """What is saved of the namespace, as the value of a topology file."""
    return document_of(topology_of(namespace))


def export_text(namespace: Namespace) -> str:
    """What is saved of the namespace, as a topology file; applying it changes nothing."""
    return topology_file.to_yaml(topology_of(namespace))


def plan(wanted: Topology) -> Plan:
    """What applying the topology would do now; nothing is changed."""
    namespace = Namespace.objects.filter(name=wanted.namespace).first()
    if namespace is None:
        return Plan(wanted, differences(None, wanted), _base(None))
    saved = topology_of(namespace)
    changes = differences(saved, wanted)
    afterwards = services.unpublished_changes(namespace, wanted)
    kept: Sequence[str] = ()
    if not afterwards.first or services.has_unpublished_changes(namespace):
        kept = afterwards.changes_but({(change.kind, change.name) for change in changes})
    return Plan(wanted, changes, _base(saved), list(_rule_sentences(namespace, changes, afterwards)), kept)


def apply(
    wanted: Topology,
    actor: object,
    *,
    base: str | None = None,
    allow: Callable[[Difference], None] | None = None,
    effect: bool = False,
    comment: str = "",
) -> Applied:
    """What is saved is as the topology says; all of it or nothing.

    Args:
        base: of the plan that somebody agreed to; None applies whatever is saved now.
        allow: raises for a difference that the caller may not make.
        effect: also put it into effect, in the same transaction.

    Raises:
        SavedMeanwhile: something was saved since the plan was made.
        Refused, InUse, InvalidSnapshot: nothing has changed; the sentence says why.
    """
    with transaction.atomic():
        namespace = _locked(wanted)
        saved = topology_of(namespace) if namespace is not None else None
        if base is not None and base != _base(saved):
            raise SavedMeanwhile(wanted.namespace)
        changes = differences(saved, wanted)
        for change in changes:
            if allow is not None:
                allow(change)
        row = _change(namespace, saved, wanted, changes, actor, comment)
        outcome = services.put_into_effect(row, actor, comment) if effect else None
    sentences = outcome.sentences if outcome is not None else []
    return Applied(changes, outcome, sentences)


def _base(saved: Topology | None) -> str:
    return digest_of(canonical(None if saved is None else document_of(saved)))[:16]


def _locked(wanted: Topology) -> Namespace | None:
    pk = Namespace.objects.filter(name=wanted.namespace).values_list("pk", flat=True).first()
    return None if pk is None else publishing.locked(pk)


def _change(
    namespace: Namespace | None,
    saved: Topology | None,
    wanted: Topology,
    changes: Sequence[Difference],
    actor: object,
    comment: str,
) -> Namespace:
    if namespace is None:
        namespace = Namespace.objects.create(name=wanted.namespace)
    elif namespace.version:
        _refuse_fixed(changes)
    _Changer(namespace, wanted).make(changes)
    refuse_taken_hosts(namespace)
    if saved is not None:
        refuse_removals(namespace, saved)
    for change in changes:
        audit.record(
            actor,
            f"{change.kind.replace(' ', '_')}.{change.act}",
            change.name,
            namespace=namespace,
            before=change.before,
            after=change.after,
            reason=comment,
        )
    return namespace


def _refuse_fixed(changes: Iterable[Difference]) -> None:
    """Nothing that the first publish has fixed is changed.

    Raises:
        Misplaced: names it.
    """
    for change in changes:
        if change.kind == "namespace" and change.before and change.after:
            for key in _FIXED:
                if change.before[key] != change.after[key]:
                    raise Misplaced(
                        gettext(
                            "is %(now)s and cannot become %(wanted)s: it is fixed since the namespace was"
                            " first published. Set it back, or make a new namespace."
                        )
                        % {"now": change.before[key], "wanted": change.after[key]},
                        key,
                    )
        if change.kind == "unit type" and change.act is not Act.UPDATE:
            raise Misplaced(
                gettext(
                    "%(name)s cannot be added or removed: the unit types of a namespace are fixed since it"
                    " was first published."
                )
                % {"name": change.name},
                "unit_types",
            )


def _rule_sentences(
    namespace: Namespace, changes: Iterable[Difference], afterwards: services.Unpublished
) -> Iterator[str]:
    """What a plan says about rules that only a cutover brings into effect, and about saved ones it drops."""
    if afterwards.first:
        return
    wanting = {rule.name for rule in afterwards.rules}
    pending = {rule.name for rule in services.unpublished_changes(namespace).rules}
    for change in changes:
        if change.kind != "unit type":
            continue
        if change.name in wanting:
            yield gettext(
                "The rule of %(name)s becomes the draft of a cutover: owners change only by a cutover."
            ) % {"name": change.name}
        elif change.name in pending:
            yield gettext(
                "The saved change of the rule of %(name)s is dropped: the rule in effect stays, and nothing"
                " moves."
            ) % {"name": change.name}


class _Changer:
    """Writes the rows of a topology; validity was checked when the topology was read."""

    def __init__(self, namespace: Namespace, wanted: Topology) -> None:
        self.namespace = namespace
        self.wanted = wanted

    def make(self, changes: Sequence[Difference]) -> None:
        """The rows are as wanted: created and updated in order, then deleted in the opposite one."""
        names = {
            kind: [c.name for c in changes if c.kind == kind and c.act is not Act.DELETE]
            for kind in ("namespace", "unit", "cluster", "unit type", "domain")
        }
        if names["namespace"]:
            self._store_namespace()
        if names["unit"]:
            self._store_units(names["unit"])
        for cluster in self.wanted.clusters:
            if cluster.name in names["cluster"]:
                self._store_cluster(cluster)
        for unit_type in self.wanted.unit_types:
            if unit_type.name in names["unit type"]:
                self._store_unit_type(unit_type)
        rows = {row.name: row for row in Domain.objects.filter(namespace=self.namespace)}
        for domain in self.wanted.domains:
            if domain.name in names["domain"]:
                self._refuse_foreign_domain(domain.name)
                store_domain(self.namespace, domain, rows.get(domain.name))
        for change in changes:
            if change.act is Act.DELETE:
                self._delete(change)

    def _store_namespace(self) -> None:
        self.namespace.title = self.wanted.title
        self.namespace.key_min, self.namespace.key_max = self.wanted.key_min, self.wanted.key_max
        self.namespace.default_unit_type = self.wanted.default
        self.namespace.save(update_fields=["title", "key_min", "key_max", "default_unit_type", "updated"])

    def _store_units(self, changed: Sequence[str]) -> None:
        rows = models.Unit.objects.filter(namespace=self.namespace)
        center = next(unit.code for unit in self.wanted.units if unit.center)
        rows.exclude(code=center).filter(is_center=True).update(is_center=False)
        for position, unit in enumerate(self.wanted.units):
            if unit.code in changed:
                rows.update_or_create(
                    namespace=self.namespace,
                    code=unit.code,
                    defaults={"name": unit.name, "is_center": unit.center, "position": position},
                )

    def _store_cluster(self, cluster: Cluster) -> None:
        unit = models.Unit.objects.get(namespace=self.namespace, code=cluster.unit)
        row = models.Cluster.objects.filter(namespace=self.namespace, name=cluster.name).first()
        if row is not None and row.unit_id != unit.pk and (count := row.nodes.count()) > 0:
            raise Misplaced(
                gettext(
                    "Cluster %(name)s has %(count)d edge nodes in unit %(unit)s, and a node never changes"
                    " its unit. Make a new cluster instead."
                )
                % {"name": cluster.name, "count": count, "unit": row.unit.code},
                "clusters",
            )
        row = row or models.Cluster(name=cluster.name)
        row.unit, row.protocol = unit, cluster.protocol
        if cluster.joined != row.joined:
            row.joined_at = timezone.now() if cluster.joined else None
        row.save()
        self._attach_slbs(row, cluster)

    def _attach_slbs(self, row: models.Cluster, cluster: Cluster) -> None:
        row.slbs.exclude(name__in=cluster.slbs).update(cluster=None)
        picked = models.Slb.objects.filter(namespace=self.namespace, unit=row.unit, name__in=cluster.slbs)
        if missing := set(cluster.slbs) - set(picked.values_list("name", flat=True)):
            raise Misplaced(
                gettext("SLB %(name)s is not among those of unit %(unit)s. Pick it from the inventory first.")
                % {"name": min(missing), "unit": cluster.unit},
                "clusters",
            )
        picked.update(cluster=row)

    def _store_unit_type(self, unit_type: UnitType) -> None:
        entry = unit_type.entry()
        models.UnitType.objects.update_or_create(
            namespace=self.namespace, name=entry.pop("name"), defaults=entry
        )

    def _refuse_foreign_domain(self, name: str) -> None:
        other = Domain.objects.filter(name=name).exclude(namespace=self.namespace).first()
        if other is not None:
            raise Misplaced(
                gettext("%(name)s is a domain of namespace %(namespace)s already.")
                % {"name": name, "namespace": other.namespace},
                "domains",
            )

    def _delete(self, change: Difference) -> None:
        row = self._row(change.kind, change.name)
        if isinstance(row, models.Cluster):
            row.slbs.update(cluster=None)
        try:
            with transaction.atomic():
                row.delete()
        except ProtectedError as error:
            holders = sorted({f"{o._meta.verbose_name} {o}" for o in error.protected_objects})
            raise Misplaced(
                gettext("%(kind)s %(name)s cannot be removed while it has: %(holders)s.")
                % {"kind": change.kind, "name": change.name, "holders": ", ".join(holders[:5])},
                f"{change.kind.replace(' ', '_')}s",
            ) from error

    def _row(self, kind: str, name: str) -> Any:
        match kind:
            case "unit":
                return models.Unit.objects.get(namespace=self.namespace, code=name)
            case "cluster":
                return models.Cluster.objects.get(namespace=self.namespace, name=name)
            case "unit type":
                return models.UnitType.objects.get(namespace=self.namespace, name=name)
            case _:
                return Domain.objects.get(namespace=self.namespace, name=name)
