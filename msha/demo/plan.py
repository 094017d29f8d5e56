"""What a fleet on one machine consists of: names, addresses, who serves what. Values only, nothing is started
here."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from msha.demo.ports import free_ports

NAMESPACE = "demo"
UNIT_TYPE = "unit_type"


@dataclass(frozen=True, slots=True)
class Address:
    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class UnitPlan:
    code: str
    title: str
    city: str
    """Named by its back-sources in every message."""
    cluster: str
    slb: str
    ranges: tuple[str, ...]
    edges: tuple[Address, ...]
    back_sources: tuple[Address, ...]
    center: bool = False

    @property
    def edge_names(self) -> tuple[str, ...]:
        return _numbered(f"edge-{self.code}", len(self.edges))

    @property
    def back_source_names(self) -> tuple[str, ...]:
        return tuple(f"source-{self.code}-{number}" for number in range(1, len(self.back_sources) + 1))


def _numbered(stem: str, count: int) -> tuple[str, ...]:
    """``edge-center``, and then ``edge-center-2`` and so on."""
    return tuple(stem if number == 1 else f"{stem}-{number}" for number in range(1, count + 1))


@dataclass(frozen=True, slots=True)
class Plan:
    directory: Path
    """Everything that the fleet writes is below it."""
    console: Address
    units: tuple[UnitPlan, ...]
    domain: str = "websocket.localhost"
    dns: str = "none"
    clients: int = 200
    edge_workers: int = 1
    every_s: float = 3.0
    tick_s: float | None = None
    """Let the back-sources count aloud, for tests that must see that no message is missed."""
    redis_url: str | None = None
    """An own Redis is started when there is none."""
    database_url: str | None = None
    """SQLite below the directory when there is none."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """More variables for the console, the worker and beat."""

    @property
    def console_url(self) -> str:
        return f"http://{self.console}"

    @property
    def control_url(self) -> str:
        return f"ws://{self.console}"

    def addresses(self) -> Iterator[tuple[Address, str]]:
        """Every TCP address that the fleet listens on, with its purpose."""
        yield self.console, "console"
        for unit in self.units:
            yield from ((address, f"{unit.code} edge") for address in unit.edges)
            yield from ((address, f"{unit.city} back-source") for address in unit.back_sources)

    def unit(self, code: str) -> UnitPlan:
        return next(unit for unit in self.units if unit.code == code)

    def topology(self) -> dict[str, Any]:
        """The same as a topology file, the form that `mshactl apply` reads."""
        return {
            "version": 1,
            "namespace": NAMESPACE,
            "router_id": {"min": 0, "max": 9999},
            "units": [
                {"code": unit.code, "name": unit.title, **({"center": True} if unit.center else {})}
                for unit in self.units
            ],
            "unit_types": [
                {
                    "name": UNIT_TYPE,
                    "sources": [{"header": "routerId"}, {"query": "routerId"}, {"cookie": "routerId"}],
                    "untagged": "local",
                    "ranges": {unit.code: list(unit.ranges) for unit in self.units},
                }
            ],
            "clusters": [
                {"name": unit.cluster, "unit": unit.code, "protocol": "websocket", "slbs": [unit.slb]}
                for unit in self.units
            ],
            "domains": [
                {
                    "name": self.domain,
                    "protocol": "websocket",
                    "dns": self.dns,
                    "multi_unit": True,
                    "correction": "redirect",
                    "redirect_scheme": "http",
                    "ports": {unit.code: unit.edges[0].port for unit in self.units},
                    "clusters": {unit.code: unit.cluster for unit in self.units},
                    "uris": [
                        {
                            "path": "/",
                            "balance": "consistent_hash",
                            "back_sources": {
                                unit.code: ",".join(map(str, unit.back_sources)) for unit in self.units
                            },
                        }
                    ],
                }
            ],
        }

    def slb_inventory(self) -> list[dict[str, str]]:
        """The load balancers that there are to pick from, in the form of the file MSHA_SLB_INVENTORY
        names."""
        return [
            {
                "unit": unit.code,
                "id": f"lb-{unit.slb}-{kind}",
                "name": f"{unit.slb}{suffix}",
                "address": str(address),
            }
            for unit in self.units
            for kind, suffix, address in (
                ("main", "", unit.edges[0]),
                ("spare", "-spare", Address(unit.edges[0].host, unit.edges[0].port + 10)),
            )
        ]


def hangzhou_and_beijing(
    center: tuple[Address, ...],
    unbj: tuple[Address, ...],
    center_sources: tuple[Address, ...],
    unbj_sources: tuple[Address, ...],
) -> tuple[UnitPlan, UnitPlan]:
    """The two units of the product's document, with its rule."""
    return (
        UnitPlan(
            "center",
            "杭州中心",
            "hangzhou",
            "ws-hz-2",
            "slb-hz",
            ("0~5997",),
            center,
            center_sources,
            center=True,
        ),
        UnitPlan("unbj", "北京单元", "beijing", "ws-bj-2", "slb-bj", ("5998~9999",), unbj, unbj_sources),
    )


def demo(directory: Path, *, redis_url: str | None = None, clients: int = 200) -> Plan:
    """The fleet of `make demo`. Its console, edges, domain and rule are fixed: people's scripts rely on
    them."""
    local = "127.0.0.1"
    units = hangzhou_and_beijing(
        (Address(local, 8101),),
        (Address(local, 8102),),
        (Address(local, 9101), Address(local, 9102)),
        (Address(local, 9201), Address(local, 9202)),
    )
    return Plan(directory, Address(local, 8000), units, redis_url=redis_url, clients=clients)


def on_free_ports(directory: Path, *, edges_per_unit: int = 1, **rest: Any) -> Plan:
    """The same fleet where nobody else listens, without simulated clients unless asked."""
    return on_ports(directory, free_ports(5 + 2 * edges_per_unit), edges_per_unit=edges_per_unit, **rest)


def on_ports(directory: Path, ports: Sequence[int], *, edges_per_unit: int = 1, **rest: Any) -> Plan:
    """The same fleet on these ports: the console's, the four back-sources', then the edges'."""
    console, *others = (Address("127.0.0.1", port) for port in ports)
    sources, edges = others[:4], others[4:]
    units = hangzhou_and_beijing(
        tuple(edges[:edges_per_unit]), tuple(edges[edges_per_unit:]), tuple(sources[:2]), tuple(sources[2:])
    )
    return Plan(directory, console, units, **{"clients": 0, **rest})
