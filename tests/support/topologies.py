"""Random topologies that are valid, and the one of the walk-through."""

import string
from itertools import pairwise
from typing import Any

from hypothesis import strategies as st

from msha.steering import topology

WALK_THROUGH = """\
version: 1
namespace: demo
router_id: {min: 0, max: 9999}
units:
  - {code: center, name: 杭州中心, center: true}
  - {code: unbj, name: 北京单元}
unit_types:
  - name: unit_type
    sources: [{header: routerId}, {query: routerId}, {cookie: routerId}]
    transform: [{modulo: 10000}]
    untagged: local
    ranges: {center: ["0~5997"], unbj: ["5998~9999"]}
clusters:
  - {name: ws-hz-2, unit: center, protocol: websocket, slbs: []}
  - {name: ws-bj-2, unit: unbj, protocol: websocket}
domains:
  - name: websocket.msha.tech
    protocol: websocket
    dns: none
    multi_unit: true
    correction: redirect
    redirect_scheme: http
    ports: {center: 80, unbj: 80}
    clusters: {center: ws-hz-2, unbj: ws-bj-2}
    uris:
      - path: /
        balance: consistent_hash
        back_sources: {center: "127.0.0.1:9101,127.0.0.1:9102", unbj: "127.0.0.1:9201"}
"""

_label = st.text(string.ascii_lowercase + string.digits, min_size=1, max_size=8).map(lambda text: f"x{text}")
_words = st.text(
    st.characters(codec="utf-8", categories=("L", "N"), include_characters=" :#'\"-"), max_size=12
)
_servers = st.lists(
    st.builds(
        "{}:{}".format,
        st.one_of(st.ip_addresses(v=4).map(str), st.ip_addresses(v=6).map(lambda ip: f"[{ip}]")),
        st.integers(1, 65535),
    ),
    unique=True,
    max_size=3,
).map(tuple)


@st.composite
def rules(draw: st.DrawFn, codes: list[str], low: int, high: int) -> dict[str, Any]:
    """Ranges that cover the key space once, and a few exact ids."""
    cuts = sorted(draw(st.sets(st.integers(low + 1, high), max_size=4))) if high > low else []
    edges = [low, *cuts, high + 1]
    ranges: dict[str, list[str]] = {}
    for start, end in pairwise(edges):
        ranges.setdefault(draw(st.sampled_from(codes)), []).append(f"{start}~{end - 1}")
    exact: dict[str, list[int]] = {}
    for router_id in sorted(draw(st.sets(st.integers(low, high), max_size=3))):
        exact.setdefault(draw(st.sampled_from(codes)), []).append(router_id)
    return {"ranges": ranges, "exact": exact}


@st.composite
def topologies(draw: st.DrawFn, namespace: str = "random") -> topology.Topology:
    """A topology that :func:`topology_file.parse` could have returned."""
    codes = draw(st.lists(_label, min_size=1, max_size=3, unique=True))
    low = draw(st.integers(0, 50))
    high = low + draw(st.integers(0, 500))
    names = draw(st.lists(_label, min_size=1, max_size=2, unique=True))
    clusters = {
        name: draw(st.sampled_from(codes)) for name in draw(st.lists(_label, max_size=4, unique=True))
    }
    joined = {name for name in clusters if draw(st.booleans())}
    return topology.normal(
        topology.Topology(
            namespace=namespace,
            title=draw(_words).strip(),
            key_min=low,
            key_max=high,
            default_unit_type=draw(st.sampled_from(names)),
            units=tuple(
                topology.Unit(code, draw(_words).strip(), center=index == 0)
                for index, code in enumerate(codes)
            ),
            unit_types=tuple(
                topology.UnitType(
                    name,
                    sources=draw(
                        st.sampled_from(
                            [[{"header": "routerId"}], [{"query": "id"}, {"path": 2}], [{"cookie": "c"}]]
                        )
                    ),
                    transform=draw(
                        st.sampled_from([[], [{"modulo": 7}], [{"hash": "crc32"}, {"truncate": 2}]])
                    ),
                    untagged=draw(st.sampled_from(["local", "center", "reject"])),
                    **draw(rules(codes, low, high)),
                )
                for name in names
            ),
            clusters=tuple(
                topology.Cluster(name, unit, joined=name in joined) for name, unit in clusters.items()
            ),
            domains=tuple(
                draw(_domains(name, codes, {n: u for n, u in clusters.items() if n in joined}))
                for name in draw(st.lists(_label.map("{}.random.test".format), max_size=2, unique=True))
            ),
        )
    )


@st.composite
def _domains(draw: st.DrawFn, name: str, codes: list[str], clusters: dict[str, str]) -> topology.Domain:
    chosen = {clusters[cluster]: cluster for cluster in clusters if draw(st.booleans())}
    paths = draw(st.lists(st.sampled_from(["/", "/chat", "/chat/room/"]), unique=True, max_size=3))
    return topology.Domain(
        name,
        dns=draw(st.sampled_from(["none", "managed"])),
        multi_unit=draw(st.booleans()),
        redirect_scheme=draw(st.sampled_from(["http", "ws", "auto"])),
        ports={unit: draw(st.integers(1, 65535)) for unit in codes if draw(st.booleans())},
        clusters=chosen,
        uris=tuple(
            topology.Uri(
                path,
                draw(st.sampled_from(["consistent_hash", "round_robin", "least_sessions"])),
                {unit: draw(_servers) for unit in codes},
            )
            for path in paths
        ),
        tls_ports={unit: draw(st.integers(1, 65535)) for unit in codes if draw(st.booleans())},
    )
