import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from django.core.exceptions import ImproperlyConfigured

from domains import dns, services
from domains.models import Domain
from msha import environment
from tests.support.name_server import Zone, name_server
from units.models import Cluster, Namespace, Slb, Unit

NAME = "websocket.msha.tech"
Serve = Callable[[Zone], None]


@pytest.fixture
def serve(settings: object) -> Iterator[Serve]:
    """Starts a name server and makes it the only one that is asked."""
    with ExitStack() as stack:

        def start(zone: Zone) -> None:
            settings.DNS_SERVERS = [stack.enter_context(name_server(zone))]  # type: ignore[attr-defined]

        yield start


@pytest.fixture
def managed(demo: Namespace) -> Namespace:
    """The walk-through with managed DNS and one load balancer in each unit, in effect."""
    Domain.objects.update(dns="managed")
    for code, cluster, address in (("center", "ws-hz-2", "10.1.0.1"), ("unbj", "ws-bj-2", "10.2.0.1:80")):
        Slb.objects.create(
            unit=Unit.objects.get(code=code),
            cluster=Cluster.objects.get(name=cluster),
            name=f"lb-{code}",
            external_id=f"lb-{code}",
            address=address,
        )
    services.put_into_effect(demo, "tester")
    return demo


GOOD: dict[str, list[str]] = {
    NAME: [f"CNAME unbj.{NAME}."],
    f"center.{NAME}": ["A 10.1.0.1"],
    f"unbj.{NAME}": ["A 10.2.0.1"],
}


def test_names_that_lead_where_they_should_are_well(managed: Namespace, serve: Serve) -> None:
    serve(GOOD)
    found = {one.name: one for one in dns.look_up(managed)}
    assert set(found) == {NAME, f"center.{NAME}", f"unbj.{NAME}"}
    assert all(one.well for one in found.values()), found
    assert found[NAME].found == ("10.2.0.1",)
    assert found[NAME].aliases == (f"unbj.{NAME}",)
    assert found[NAME].expected == ("10.1.0.1", "10.2.0.1")
    assert found[f"unbj.{NAME}"].expected == ("10.2.0.1",)
    assert dns.problems_of(managed) == []


def test_a_name_that_does_not_exist_is_named(managed: Namespace, serve: Serve) -> None:
    serve({**{k: v for k, v in GOOD.items() if not k.startswith("center")}})
    assert dns.problems_of(managed) == [f"center.{NAME} does not exist in DNS."]


def test_a_name_without_an_address_is_named(managed: Namespace, serve: Serve) -> None:
    serve({**GOOD, f"center.{NAME}": []})
    assert dns.problems_of(managed) == [f"center.{NAME} has no address in DNS."]


def test_a_sub_domain_that_leads_to_another_unit_is_named(managed: Namespace, serve: Serve) -> None:
    serve({**GOOD, f"unbj.{NAME}": ["A 10.1.0.1"]})
    assert dns.problems_of(managed) == [
        f"unbj.{NAME} leads to 10.1.0.1, which is not where the load balancers of unit unbj lead: 10.2.0.1."
    ]


def test_a_domain_with_an_address_of_no_unit_is_named(managed: Namespace, serve: Serve) -> None:
    serve({**GOOD, NAME: ["A 10.1.0.1", "A 10.9.9.9"]})
    (problem,) = dns.problems_of(managed)
    assert problem.startswith(f"{NAME} leads to 10.9.9.9, which is not where its unit sub-domains lead")


def test_without_multi_unit_resolution_the_domain_leads_to_the_center(
    managed: Namespace, serve: Serve
) -> None:
    Domain.objects.update(multi_unit=False)
    services.put_into_effect(managed, "tester")
    serve(GOOD)
    (problem,) = dns.problems_of(managed)
    assert f"{NAME} leads to 10.2.0.1" in problem
    assert f"the center's sub-domain center.{NAME} lead: 10.1.0.1" in problem
    serve({**GOOD, NAME: ["A 10.1.0.1"]})
    assert dns.problems_of(managed) == []


def test_a_load_balancer_known_by_name_is_looked_up_too(managed: Namespace, serve: Serve) -> None:
    Slb.objects.filter(name="lb-unbj").update(address="lb.bj.example")
    serve({**GOOD, "lb.bj.example": ["A 10.2.0.1", "AAAA fd00::1"]})
    assert dns.problems_of(managed) == []
    serve({**GOOD, "lb.bj.example": ["A 10.2.0.7"]})
    (problem,) = dns.problems_of(managed)
    assert "which is not where the load balancers of unit unbj lead: 10.2.0.7" in problem


def test_ipv6_addresses_are_found(managed: Namespace, serve: Serve) -> None:
    Slb.objects.filter(name="lb-unbj").update(address="[fd00::2]:80")
    serve({**GOOD, f"unbj.{NAME}": ["AAAA fd00::2"]})
    assert dns.problems_of(managed) == []


def test_where_no_load_balancer_is_known_any_address_will_do(managed: Namespace, serve: Serve) -> None:
    Slb.objects.all().delete()
    serve({**GOOD, f"unbj.{NAME}": ["A 192.0.2.1"]})
    assert dns.problems_of(managed) == []


def test_a_silent_resolver_is_told_within_the_deadline(managed: Namespace, serve: Serve) -> None:
    serve({"silence": []})
    begin = time.monotonic()
    problems = dns.problems_of(managed)
    assert time.monotonic() - begin < 2 * dns.TIMEOUT_S
    assert len(problems) == 3
    assert problems[0].startswith(f"No resolver answered for {NAME} within 3 s")


def test_domains_without_managed_dns_are_not_asked_about(managed: Namespace, serve: Serve) -> None:
    Domain.objects.update(dns="none")
    services.put_into_effect(managed, "tester")
    serve({})
    assert dns.look_up(managed) == []
    assert len(dns.look_up(managed, [NAME])) == 3


def test_nothing_is_asked_before_the_first_publish(demo: Namespace) -> None:
    Domain.objects.update(dns="managed")
    assert dns.look_up(demo) == []


@pytest.mark.parametrize(
    ("text", "server"),
    [
        ("10.0.0.1", ("10.0.0.1", 53)),
        ("10.0.0.1:5353", ("10.0.0.1", 5353)),
        ("fd00::1", ("fd00::1", 53)),
        ("[fd00::1]:5353", ("fd00::1", 5353)),
        ("[fd00::1]", ("fd00::1", 53)),
    ],
)
def test_resolvers_are_addresses_with_or_without_a_port(
    text: str, server: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MSHA_DNS_SERVERS", f"{text}, 10.0.0.2")
    assert environment.resolvers("MSHA_DNS_SERVERS") == [server, ("10.0.0.2", 53)]


@pytest.mark.parametrize("text", ["dns.example", "10.0.0.1:x", "10.0.0.1:0", ":53", "[fd00::1"])
def test_a_resolver_that_is_no_address_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MSHA_DNS_SERVERS", text)
    with pytest.raises(ImproperlyConfigured, match="MSHA_DNS_SERVERS holds"):
        environment.resolvers("MSHA_DNS_SERVERS")
