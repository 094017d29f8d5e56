"""Changing saved domains: one way for pages, API and topology files, checked, locked and audited."""

from collections.abc import Sequence

from django.db import transaction
from django.utils.translation import gettext

from domains.errors import Misplaced, SavedMeanwhile
from domains.hosts import refuse_taken_hosts
from domains.models import BackSources, Domain, DomainUnit, Uri
from domains.saved import domain_value, topology_of
from domains.unpublished import as_sentence, compose_config
from msha.steering import snapshot as steering
from msha.steering import topology
from msha.steering.errors import InvalidSnapshot
from units import audit, publishing
from units.in_use import Kind, Thing, refuse_removal_if_used
from units.models import Cluster, Namespace, Unit
from units.removals import removed


def fingerprint(saved: topology.Domain | None) -> str:
    """Stands for what somebody looked at while he changed it."""
    document = None if saved is None else topology.domain_document(saved)
    return steering.digest_of(steering.canonical(document))[:16]


def save_domain(
    namespace: Namespace,
    wanted: topology.Domain,
    actor: object,
    *,
    domain: Domain | None = None,
    seen: str | None = None,
) -> Domain:
    """The domain, with its units and URIs, saved as wanted; not in effect yet.

    Args:
        domain: the saved domain to change; None makes a new one.
        seen: fingerprint of what the caller changed; refuse if another one is saved now.

    Raises:
        SavedMeanwhile: somebody else has saved it in between.
        Misplaced: names the field and what is wrong there.
        InUse: a running cutover uses what would be removed.
    """
    with transaction.atomic():
        locked = publishing.locked(namespace.pk)
        before = topology_of(locked)
        check_domain(locked, before, wanted, domain)
        present = None if domain is None else domain_value(_fresh(domain))
        if seen is not None and seen != fingerprint(present):
            raise SavedMeanwhile(locked.name)
        old = None if present is None else topology.domain_document(present)
        row = store_domain(locked, wanted, domain)
        refuse_removals(locked, before)
        after = topology.domain_document(domain_value(_fresh(row)))
        if old != after:
            audit.record(
                actor,
                "domain.create" if old is None else "domain.update",
                wanted.name,
                namespace=locked,
                before=old,
                after=after,
            )
    return row


def delete_domain(domain: Domain, actor: object) -> None:
    """The domain is gone from what is saved; edges serve it until that is put into effect.

    Raises:
        InUse: a running cutover uses it.
    """
    with transaction.atomic():
        locked = publishing.locked(domain.namespace_id)
        refuse_removal_if_used(locked, Thing(Kind.DOMAIN, domain.name, domain=domain.name))
        old = topology.domain_document(domain_value(domain))
        name = domain.name
        domain.delete()
        audit.record(actor, "domain.delete", name, namespace=locked, before=old)


def check_domain(
    namespace: Namespace, saved: topology.Topology, wanted: topology.Domain, domain: Domain | None
) -> None:
    """The domain could be saved and published beside what else is saved.

    Raises:
        Misplaced: the place is a path into the domain, as ``uris[0].path`` or ``clusters.unbj``.
    """
    others = [d for d in saved.domains if domain is None or d.name != domain.name]
    clash = Domain.objects.filter(name=wanted.name).first()
    if clash is not None and (domain is None or clash.pk != domain.pk):
        raise Misplaced(
            gettext("%(name)s is a domain of namespace %(namespace)s already.")
            % {"name": wanted.name, "namespace": clash.namespace},
            "name",
        )
    joined = {cluster.name: cluster for cluster in saved.clusters if cluster.joined}
    for unit, name in wanted.clusters.items():
        if name not in joined:
            raise Misplaced(
                gettext("Cluster %(name)s has not joined the access layer of this namespace.")
                % {"name": name},
                f"clusters.{unit}",
            )
    alone = topology.Topology(
        namespace.name, units=_with_center(saved.units), clusters=saved.clusters, domains=(*others, wanted)
    )
    try:
        steering.check_config(topology.config_part(alone))
    except InvalidSnapshot as error:
        place = error.place.removeprefix(f"config.domains[{len(others)}]").lstrip(".")
        raise Misplaced(as_sentence(error.problem), place) from error
    refuse_taken_hosts(namespace, wanted.name)


def store_domain(namespace: Namespace, wanted: topology.Domain, domain: Domain | None) -> Domain:
    """The rows of the domain are as wanted; everything was checked before."""
    wanted = topology.normal_domain(wanted)
    row = domain or Domain(namespace=namespace)
    for name in ("name", "protocol", "dns", "multi_unit", "correction", "redirect_scheme"):
        setattr(row, name, getattr(wanted, name))
    row.save()
    units = {unit.code: unit for unit in Unit.objects.filter(namespace=namespace)}
    clusters = {cluster.name: cluster for cluster in Cluster.objects.filter(namespace=namespace)}
    DomainUnit.objects.filter(domain=row).exclude(unit__code__in=wanted.ports).delete()
    for code, port in wanted.ports.items():
        cluster = clusters[wanted.clusters[code]] if code in wanted.clusters else None
        DomainUnit.objects.update_or_create(
            domain=row,
            unit=units[code],
            defaults={"cluster": cluster, "port": port, "tls_port": wanted.tls_ports.get(code)},
        )
    Uri.objects.filter(domain=row).exclude(path__in=[uri.path for uri in wanted.uris]).delete()
    for uri in wanted.uris:
        stored, _ = Uri.objects.update_or_create(domain=row, path=uri.path, defaults={"balance": uri.balance})
        BackSources.objects.filter(uri=stored).exclude(unit__code__in=uri.back_sources).delete()
        for code, servers in uri.back_sources.items():
            BackSources.objects.update_or_create(
                uri=stored, unit=units[code], defaults={"servers": ",".join(servers)}
            )
    return row


def _fresh(domain: Domain) -> Domain:
    return Domain.objects.prefetch_related(
        "domain_units__unit", "domain_units__cluster", "uris__back_sources__unit"
    ).get(pk=domain.pk)


def refuse_removals(namespace: Namespace, before: topology.Topology) -> None:
    """Nothing that a running cutover uses was there before and is gone from what is saved now."""
    gone = removed(topology.config_part(before), compose_config(namespace))
    refuse_removal_if_used(namespace, *gone)


def _with_center(units: Sequence[topology.Unit]) -> tuple[topology.Unit, ...]:
    """The units, the first taken for the center while there is none: no domain is to blame for that."""
    if any(unit.center for unit in units) or not units:
        return tuple(units)
    return (topology.Unit(units[0].code, units[0].name, center=True), *units[1:])
