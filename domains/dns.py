"""What the world's DNS says about managed domains, and what it should say.

A unit sub-domain leads to the load balancers of the unit's effective cluster; the domain itself leads to
where its unit sub-domains lead, to all of them or to the center's alone.
"""

import ipaddress
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import dns.exception
import dns.nameserver
import dns.resolver
from django.conf import settings
from django.utils.translation import gettext

from units import publishing
from units.models import Namespace, Slb

#: One name's answer is waited for at most so long; a precheck has ten seconds for all of them.
TIMEOUT_S = 3.0
_AT_ONCE = 16
_KINDS = ("A", "AAAA")


@dataclass(frozen=True)
class Found:
    """What DNS says about one name.

    Attributes:
        unit: code of the unit for a unit sub-domain, "" for the domain itself.
        found: addresses, sorted.
        aliases: the names that CNAME records lead through, in order.
        expected: addresses that would be right; empty when nobody can tell.
        problem: a sentence, or "" when all is well.
    """

    name: str
    domain: str
    unit: str = ""
    found: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    expected: tuple[str, ...] = ()
    problem: str = ""

    @property
    def well(self) -> bool:
        return not self.problem


def look_up(namespace: Namespace, names: Iterable[str] | None = None) -> list[Found]:
    """What DNS says about the managed domains in effect and the sub-domains of units that serve them.

    Args:
        names: of domains to look at, managed or not; None looks at all managed ones.
    """
    document = publishing.in_effect(namespace)
    if document is None:
        return []
    config = document["config"]
    wanted = {d["name"] for d in config["domains"] if d["dns"] == "managed"} if names is None else set(names)
    domains = [domain for domain in config["domains"] if domain["name"] in wanted]
    center = next(unit["code"] for unit in config["units"] if unit["center"])
    balancers = _balancers(namespace, domains)
    asked = [
        Found(f"{unit}.{domain['name']}" if unit else domain["name"], domain["name"], unit)
        for domain in domains
        for unit in dict.fromkeys(["", center, *sorted(domain["clusters"])])
    ]
    names_of_balancers = {name for hosts in balancers.values() for name in hosts if not _is_address(name)}
    answers = _ask_all([*asked, *(Found(name, "") for name in sorted(names_of_balancers))])
    outside = {answer.name: set(answer.found) for answer in answers if not answer.domain}
    right = {
        key: {a for host in hosts for a in ({host} if _is_address(host) else outside[host])}
        for key, hosts in balancers.items()
    }
    return [
        judged
        for domain in domains
        for judged in _judged(domain, center, [a for a in answers if a.domain == domain["name"]], right)
    ]


def problems_of(namespace: Namespace, names: Iterable[str] | None = None) -> list[str]:
    """What is wrong, one sentence for each name; empty when all is well."""
    return [one.problem for one in look_up(namespace, names) if one.problem]


def _judged(
    domain: Mapping[str, Any],
    center: str,
    answers: Sequence[Found],
    right: Mapping[tuple[str, str], set[str]],
) -> Iterator[Found]:
    """The answers about one domain, each with what was expected and what is wrong."""
    subs = {answer.unit: answer for answer in answers if answer.unit}
    for answer in answers:
        if answer.unit:
            expected = right.get((domain["name"], answer.unit), set())
            meant = gettext("the load balancers of unit %(unit)s") % {"unit": answer.unit}
        elif domain["multi_unit"]:
            expected = {address for sub in subs.values() for address in sub.found}
            meant = gettext("its unit sub-domains")
        else:
            expected = set(subs[center].found)
            meant = gettext("the center's sub-domain %(name)s") % {"name": subs[center].name}
        yield _compared(answer, expected, meant)


def _compared(answer: Found, expected: set[str], meant: str) -> Found:
    answer = replace(answer, expected=_sorted(expected))
    strangers = _sorted(set(answer.found) - expected)
    if answer.problem or not expected or not strangers:
        return answer
    problem = gettext("%(name)s leads to %(found)s, which is not where %(meant)s lead: %(expected)s.") % {
        "name": answer.name,
        "found": ", ".join(strangers),
        "meant": meant,
        "expected": ", ".join(answer.expected),
    }
    return replace(answer, problem=problem)


def _balancers(
    namespace: Namespace, domains: Sequence[Mapping[str, Any]]
) -> dict[tuple[str, str], list[str]]:
    """Addresses or names of the load balancers by (domain, unit)."""
    by_cluster: dict[str, list[str]] = {}
    for slb in Slb.objects.filter(namespace=namespace, cluster__isnull=False).select_related("cluster"):
        assert slb.cluster is not None
        by_cluster.setdefault(slb.cluster.name, []).append(_bare(slb.address))
    return {
        (domain["name"], unit): by_cluster.get(cluster, [])
        for domain in domains
        for unit, cluster in domain["clusters"].items()
    }


def _resolver(servers: Sequence[tuple[str, int]]) -> dns.resolver.Resolver:
    """A resolver that asks the given servers, or those of this machine."""
    try:
        resolver = dns.resolver.Resolver(configure=not servers)
    except dns.resolver.NoResolverConfiguration:
        resolver = dns.resolver.Resolver(configure=False)
        resolver.nameservers = ["127.0.0.1"]
    resolver.lifetime = TIMEOUT_S
    resolver.timeout = TIMEOUT_S / 2
    if servers:
        resolver.nameservers = [dns.nameserver.Do53Nameserver(address, port) for address, port in servers]
    return resolver


def _ask_all(questions: Sequence[Found]) -> list[Found]:
    resolver = _resolver(settings.DNS_SERVERS)
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="dns") as pool:
        return list(pool.map(lambda one: _ask(resolver, one), questions))


def _ask(resolver: dns.resolver.Resolver, one: Found) -> Found:
    """The name's addresses and aliases, or why there are none."""
    addresses: set[str] = set()
    aliases: list[str] = []
    problem = ""
    for kind in _KINDS:
        try:
            answer = resolver.resolve(f"{one.name}.", kind, raise_on_no_answer=False)
        except dns.resolver.NXDOMAIN:
            problem = gettext("%(name)s does not exist in DNS.") % {"name": one.name}
            break
        except (dns.exception.DNSException, OSError) as error:
            problem = gettext("No resolver answered for %(name)s within %(seconds)d s: %(error)s.") % {
                "name": one.name,
                "seconds": TIMEOUT_S,
                "error": _brief(error),
            }
            break
        aliases = aliases or _aliases(answer)
        if answer.rrset is not None:
            addresses.update(record.address for record in answer.rrset)
    if addresses:
        problem = ""
    elif not problem:
        problem = gettext("%(name)s has no address in DNS.") % {"name": one.name}
    return replace(one, found=_sorted(addresses), aliases=tuple(aliases), problem=problem)


def _aliases(answer: dns.resolver.Answer) -> list[str]:
    return [cname[0].target.to_text(omit_final_dot=True) for cname in answer.chaining_result.cnames]


def _brief(error: Exception) -> str:
    return str(error).split(" after ")[0].split(":")[0].rstrip(".") or type(error).__name__


def _bare(address: str) -> str:
    """The address of an SLB without a port."""
    text = address.strip()
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.rpartition(":")[0] if text.count(":") == 1 else text


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _sorted(addresses: Iterable[str]) -> tuple[str, ...]:
    key: Callable[[str], Any] = lambda text: (":" in text, ipaddress.ip_address(text).packed)  # noqa: E731
    return tuple(sorted(addresses, key=key))
