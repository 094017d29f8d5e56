"""Host names: each belongs to one namespace, be it a domain or a unit sub-domain of one (PROTOCOL 1)."""

from collections.abc import Iterable

from django.utils.translation import gettext

from domains.errors import Misplaced
from domains.models import Domain
from units.models import Namespace, Unit


def hosts_of(domains: Iterable[str], codes: Iterable[str]) -> dict[str, str]:
    """Every host name that these domains and units give, with its domain."""
    codes = list(codes)
    return {host: name for name in domains for host in (name, *(f"{code}.{name}" for code in codes))}


def refuse_taken_hosts(namespace: Namespace, *more: str) -> None:
    """No host name of the namespace, nor of the further domains, belongs to another namespace.

    Raises:
        Misplaced: names the host and the namespace that has it.
    """
    names = list(Domain.objects.filter(namespace=namespace).values_list("name", flat=True))
    codes = Unit.objects.filter(namespace=namespace).values_list("code", flat=True)
    ours = hosts_of({*names, *more}, codes)
    # Only a name that equals one of ours or lies one label above or below it can collide.
    near = {*ours, *(host.partition(".")[2] for host in ours)}
    elsewhere = Domain.objects.filter(name__in=near).exclude(namespace=namespace).select_related("namespace")
    for other in elsewhere:
        their_codes = Unit.objects.filter(namespace=other.namespace).values_list("code", flat=True)
        for host in hosts_of([other.name], their_codes):
            if host in ours:
                raise Misplaced(
                    gettext("%(host)s belongs to domain %(domain)s of namespace %(namespace)s already.")
                    % {"host": host, "domain": other.name, "namespace": other.namespace},
                    "name",
                )
