import json

import pytest
import yaml
from hypothesis import given

from msha.steering import snapshot, topology, topology_file
from msha.steering.decision import Redirect, Tunnel, decide
from msha.steering.errors import InvalidSnapshot
from msha.steering.router_id import Request
from msha.steering.topology import Act, split_servers
from msha.steering.topology_file import InvalidTopology
from tests.support.topologies import WALK_THROUGH, topologies


@given(topologies())
def test_the_text_of_a_topology_reads_back_as_the_same_topology(any_topology: topology.Topology) -> None:
    assert topology_file.parse(topology_file.to_yaml(any_topology)) == any_topology


@given(topologies())
def test_every_topology_compiles_to_a_snapshot_that_an_edge_loads(any_topology: topology.Topology) -> None:
    published = topology.compiled(any_topology, version=3)
    loaded = snapshot.load(published.body, published.digest)
    assert loaded.version == 3
    assert loaded.units == tuple(unit.code for unit in any_topology.units)
    assert set(loaded.unit_types) == {unit_type.name for unit_type in any_topology.unit_types}


@given(topologies(), topologies())
def test_two_topologies_differ_in_nothing_exactly_when_they_are_equal(
    one: topology.Topology, other: topology.Topology
) -> None:
    assert (topology.differences(one, other) == []) == (one == other)
    assert topology.differences(one, one) == []


def test_the_compiled_walk_through_steers_as_the_document_shows() -> None:
    loaded = snapshot.load(topology.compiled(topology_file.parse(WALK_THROUGH)).body)

    def decided(router_id: str) -> object:
        headers = {"routerId": router_id, "unitType": "unit_type"}
        return decide(loaded, "unbj", Request.of("websocket.msha.tech", "/", headers))

    redirect = decided("1111")
    assert isinstance(redirect, Redirect)
    assert redirect.location == "http://center.websocket.msha.tech/"
    assert isinstance(decided("6249"), Tunnel)


def test_the_same_file_compiles_to_the_same_digest_whatever_the_order_of_its_parts() -> None:
    value = yaml.safe_load(WALK_THROUGH)
    value["clusters"].reverse()
    value["unit_types"][0]["ranges"] = dict(reversed(value["unit_types"][0]["ranges"].items()))
    reordered = topology_file.parse(yaml.safe_dump(value, sort_keys=True, allow_unicode=True))
    assert topology.compiled(reordered).digest == topology.compiled(topology_file.parse(WALK_THROUGH)).digest


def test_only_tls_ports_other_than_443_stand_in_a_snapshot() -> None:
    plain = topology.compiled(topology_file.parse(WALK_THROUGH))
    assert b"tls_ports" not in plain.body
    named = WALK_THROUGH.replace(
        "    clusters: {", "    tls_ports: {center: 443, unbj: 8443}\n    clusters: {"
    )
    document = topology.compiled(topology_file.parse(named)).document
    assert document["config"]["domains"][0].pop("tls_ports") == {"unbj": 8443}
    assert snapshot.canonical(document) == plain.body


def test_a_cluster_that_has_not_joined_the_access_layer_stays_out_of_the_snapshot() -> None:
    text = WALK_THROUGH.replace("domains:", "  - {name: spare, unit: unbj, joined: false}\ndomains:")
    document = json.loads(topology.compiled(topology_file.parse(text)).body)
    assert [cluster["name"] for cluster in document["config"]["clusters"]] == ["ws-bj-2", "ws-hz-2"]


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("9102", "99102", "line 28: domains.0..uris.0..back_sources.center: .*port '99102'"),
        ("127.0.0.1:9201", "127.0.0.1;9201", "line 28: .*back_sources.unbj: .*write a colon before the port"),
        ("9101,127", "9101;127", "write a comma between servers, not ';'"),
        ("9101,127.0.0.1:9102", "9101,127.0.0.1:9101", "127.0.0.1:9101 is named twice"),
        ("5998~", "6000~", "line 12: unit_types.0..ranges: no unit owns 5998~5999"),
        ("5998~", "5990~", "5990~5997 belongs to both center .* and unbj"),
        ("9999\"", "10000\"", "line 12: .*5998~10000 leaves the key space 0~9999"),
        ("北京单元}", "北京单元, center: true}", "line 5: units: exactly one unit must be the center, not 2"),
        ("name: websocket.msha.tech", "name: web socket", "line 17: domains.0..name: .* not a host"),
        ("name: websocket.msha.tech", "name: 10.1.2.3", "is an address, not a host name"),
        ("untagged", "untaged", "line 11: unit_types.0..untaged: is not a key that belongs here"),
        ("unbj: ws-bj-2", "unbj: ws-hz-2", "line 24: .*'ws-hz-2' is not a cluster of unit unbj"),
        ("version: 1", "version: 2", "line 1: version: is 2; this program reads version 1"),
        ("version: 1", "version: yes", "line 1: version: must be a whole number from 0, not True"),
        ("- path: /", "- path: /x\n      - path: /x\n      - path: /", "path '/x' is named twice"),
        ("- path: /", "- path: chat", "line 26: .*'chat' is not a path such as /chat"),
        ("code: unbj", "code: un_bj", "line 6: units.1..code: 'un_bj' is not a sub-domain label"),
        ("namespace: demo", "namespace: a demo", "line 2: namespace: 'a demo' is not a name"),
        ("namespace: demo\n", "", "namespace is missing"),
        ("unit: unbj, protocol", "protocol", "line 15: clusters.1.: unit is missing"),
        ("{name: ws-bj-2, unit", "{unit: center, name: ws-bj-2, unit", "clusters.1..unit: stands here twice"),
        ("modulo: 10000", "modulo: ten", "line 10: .*modulo takes a whole number from 1"),
        ("header: routerId", "body: routerId", "line 9: .*'body' is not a source"),
        ("min: 0", "min: 10000", "line 3: router_id: .*is not a range of ids"),
        ("\"127.0.0.1:9101,127.0.0.1:9102\"", "127.0.0.1:9101,127.0.0.1:9102", "in one pair of quotes"),
        ("slbs: []", "slbs: [lb, lb]", "line 14: .*SLB 'lb' is named twice"),
        ("slbs: []", "joined: false", "line 24: .*cluster ws-hz-2 has not joined the access layer"),
        ("namespace: demo", "namespace: [demo", "line 3: is not YAML"),
        ("namespace: demo", "namespace: &a demo\ntitle: *a", "write it out"),
        ("namespace: demo", "<<: {title: x}\nnamespace: demo", "keys must be plain texts"),
        ("namespace: demo", "? [a]\n: 1\nnamespace: demo", "keys must be plain texts"),
    ],
)  # fmt: skip
def test_a_fault_in_the_file_is_named_with_its_place(old: str, new: str, complaint: str) -> None:
    assert old in WALK_THROUGH
    with pytest.raises(InvalidTopology, match=complaint):
        topology_file.parse(WALK_THROUGH.replace(old, new, 1))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "the file is empty"),
        ("- just\n- a list", "must be a mapping"),
        ("[" * 5000, "nested too deeply"),
        ("a: \x00", "is not YAML"),
        ("date: 2024-99-99", "is not YAML"),
        ("x" * (topology_file.SIZE_LIMIT_BYTES + 1), "larger than 4096 KiB"),
    ],
)
def test_a_file_that_is_no_topology_at_all_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(InvalidTopology, match=complaint):
        topology_file.parse(text)


def test_a_difference_names_each_value_that_changes() -> None:
    before = topology_file.parse(WALK_THROUGH)
    after = topology_file.parse(
        WALK_THROUGH.replace("127.0.0.1:9201", "127.0.0.1:9202")
        .replace("0~5997", "0~6380")
        .replace("5998~", "6381~")
        .replace("ws-bj-2", "ws-bj-3")
    )
    changes = topology.differences(before, after)
    assert [(change.act, change.kind, change.name) for change in changes] == [
        (Act.CREATE, "cluster", "ws-bj-3"),
        (Act.UPDATE, "unit type", "unit_type"),
        (Act.UPDATE, "domain", "websocket.msha.tech"),
        (Act.DELETE, "cluster", "ws-bj-2"),
    ]
    assert changes[2].details() == [
        "clusters.unbj: ws-bj-2 → ws-bj-3",
        "uris./.back_sources.unbj: 127.0.0.1:9201 → 127.0.0.1:9202",
    ]
    assert "ranges.center: [0~5997] → [0~6380]" in str(changes[1])


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("10.0.0.5:99999", "port '99999' is not a number from 1 to 65535"),
        ("10.0.0.5;8080", "write a colon before the port"),
        ("127.0.0.1:9101;1", "write a comma between servers, not ';'"),
        ("127.0.0.1:9101；127.0.0.1:9102", "write a comma between servers"),
        ("127.0.0.1:9101,,127.0.0.1:9102", "nothing stands between two commas"),
        (",127.0.0.1:9102", "nothing stands between two commas"),
        ("127.0.0.1:9101,127.0.0.1:9101", "is named twice"),
    ],
)
def test_a_wrong_list_of_servers_is_told_where_it_is_wrong(text: str, sentence: str) -> None:
    with pytest.raises(InvalidSnapshot, match=sentence):
        split_servers(text)


def test_blanks_line_ends_and_a_last_comma_are_fine_in_a_list_of_servers() -> None:
    servers = ("127.0.0.1:9101", "127.0.0.1:9102")
    for text in (
        "127.0.0.1:9101, 127.0.0.1:9102,",
        "127.0.0.1:9101,\n127.0.0.1:9102\n",
        "127.0.0.1:9101\n\n127.0.0.1:9102",
    ):
        assert split_servers(text) == servers
    assert split_servers("") == split_servers("\n ") == ()
