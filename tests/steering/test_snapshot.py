"""Snapshots: one digest for a document, and every wrong document refused with its place."""

import copy
import json
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import pairwise, product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msha.steering.errors import InvalidSnapshot
from msha.steering.phases import Phase
from msha.steering.snapshot import (
    Published,
    Snapshot,
    build,
    canonical,
    check_server,
    digest_of,
    load,
    load_checked,
)
from tests.steering.builders import (
    NAMESPACE_ID,
    make_config,
    make_domain,
    make_rule,
    make_snapshot,
    make_unit_type,
    publish,
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


@given(json_values)
def test_the_canonical_form_does_not_depend_on_the_order_of_keys(value: Any) -> None:
    body = canonical(value)
    assert canonical(json.loads(body)) == body
    if isinstance(value, dict):
        assert canonical(dict(reversed(value.items()))) == body


def test_a_built_snapshot_loads_and_knows_its_parts() -> None:
    published = publish(version=41)
    snapshot = load(published.body, published.digest)
    assert (snapshot.version, snapshot.center, snapshot.namespace_id) == (41, "center", NAMESPACE_ID)
    assert set(snapshot.hosts) == {
        "websocket.msha.tech",
        "center.websocket.msha.tech",
        "unbj.websocket.msha.tech",
    }
    assert snapshot.digest == digest_of(published.body) == published.digest


def test_a_torn_or_changed_body_is_refused() -> None:
    published = publish()
    for body in (published.body[:-1], published.body.replace(b"5997", b"5990"), b"", b"[]", b"\xff"):
        with pytest.raises(InvalidSnapshot):
            load(body, published.digest)
        with pytest.raises(InvalidSnapshot):
            load(body + b" ")


def many_domains(count: int) -> Published:
    domains = [make_domain(f"ws{number}.msha.tech", ports={"center": 8101}) for number in range(count)]
    return publish(make_config(*domains))


def test_what_was_checked_before_loads_to_the_same_snapshot() -> None:
    published = many_domains(3)
    again = load_checked(published.body, published.digest)
    assert again == load(published.body)
    assert again != load(many_domains(2).body)
    with pytest.raises(InvalidSnapshot, match="digest"):
        load_checked(published.body.replace(b"5997", b"5990"), published.digest)


def test_a_domain_is_compiled_when_it_is_asked_for_and_once() -> None:
    snapshot = load(many_domains(3).body)
    assert not snapshot.hosts.compiled
    by_unit = snapshot.hosts["unbj.ws1.msha.tech"]
    assert by_unit[1] == "unbj"
    assert snapshot.hosts["ws1.msha.tech"] == (by_unit[0], None)
    assert snapshot.hosts["ws1.msha.tech"][0] is by_unit[0]
    assert set(snapshot.hosts.compiled) == {"unbj.ws1.msha.tech", "ws1.msha.tech"}
    for stranger in (
        "ws9.msha.tech",
        "other.ws1.msha.tech",
        "center.unbj.ws1.msha.tech",
        "unbj",
        "unbj.",
        "",
    ):
        assert snapshot.hosts.get(stranger) is None
    assert len(snapshot.hosts) == len(list(snapshot.hosts)) == 9
    assert all(snapshot.hosts[host][0].name in host for host in snapshot.hosts)


def test_with_many_domains_a_worker_is_kept_for_a_fraction_of_the_time_that_a_check_takes() -> None:
    published = many_domains(400)

    def best(act: Callable[[], object]) -> float:
        times = []
        for _ in range(7):
            began = time.process_time()
            act()
            times.append(time.process_time() - began)
        return min(times)

    checked = best(lambda: load_checked(published.body, published.digest))
    assert checked < best(lambda: load(published.body, published.digest)) / 2


def test_a_body_that_is_not_canonical_is_refused() -> None:
    pretty = json.dumps(json.loads(publish().body), indent=1).encode()
    with pytest.raises(InvalidSnapshot, match="canonical"):
        load(pretty)


def setting(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """A change of one place, ``config.domains.0.name``; the value ``...`` deletes it."""

    def change(document: dict[str, Any]) -> None:
        *parents, last = path.split(".")
        place: Any = document
        for part in parents:
            place = place[int(part)] if part.isdigit() else place[part]
        key = int(last) if last.isdigit() else last
        if value is ...:
            del place[key]
        else:
            place[key] = value

    return change


URI = "config.domains.0.uris.0"
TYPE = "rule.unit_types.0"


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        ("schema", 2, "schema: is 2"),
        ("version", 0, "version: must be a whole number from 1"),
        ("version", True, "version"),
        ("config.units.1.center", True, "exactly one unit must be the center, not 2"),
        ("config.units.0.center", False, "not 0"),
        ("config.units.1.code", "center", "named twice"),
        ("config.units.1.code", "Un_bj", "not a sub-domain label"),
        ("config.clusters.0.unit", "unsh", "not a unit of this namespace"),
        ("config.clusters.0.protocol", "http", "not one of websocket"),
        ("config.domains.0.name", "not a host", "not a host name"),
        ("config.domains.0.name", "10.0.0.5", "is an address"),
        ("config.domains.0.name", "localhost", "not a host name"),
        ("config.domains.0.name", "under_score.com", "not a host name"),
        ("config.domains.0.redirect_scheme", "https", "not one of http, ws, auto"),
        ("config.domains.0.ports.unbj", 65536, "65536 is not a port"),
        ("config.domains.0.ports.unbj", "80", "whole number"),
        ("config.domains.0.tls_ports", {"unbj": 0}, "whole number"),
        ("config.domains.0.tls_ports", {"elsewhere": 443}, "is not a unit"),
        ("config.domains.0.clusters.unbj", "ws-hz-2", "not a cluster of unit unbj"),
        (f"{URI}.path", "chat", "not a path"),
        (f"{URI}.path", "/a?b", "not a path"),
        (f"{URI}.path", "/a/../b", "dot segment"),
        (f"{URI}.path", "/a//b", "empty or dot segment"),
        (f"{URI}.balance", "random", "not one of"),
        (f"{URI}.back_sources.unbj", ["10.0.0.5:99999"], "port '99999' is not a number from 1 to 65535"),
        (f"{URI}.back_sources.unbj", ["10.0.0.5;8080"], "write a colon before the port"),
        (f"{URI}.back_sources.unbj", ["10.0.0.5"], "not of the form IP:PORT"),
        (f"{URI}.back_sources.unbj", ["example.com:80"], "is not an IP address"),
        (f"{URI}.back_sources.unbj", ["10.0.0.5:80", "10.0.0.5:80"], "named twice"),
        ("rule.epoch", -1, "epoch"),
        ("rule.key_space.max", -5, "key_space"),
        ("rule.default_unit_type", "other", "'other' is not one of the unit types"),
        ("rule.unit_types", [], "at least one unit type"),
        (f"{TYPE}.untagged", "guess", "not one of local, center, reject"),
        (f"{TYPE}.ranges.unbj", ["6000~9999"], "no unit owns 5998~5999"),
        (f"{TYPE}.ranges.unsh", [], "'unsh' is not a unit"),
        (f"{TYPE}.exact", {"unbj": ["42"]}, "must be a list of ids"),
        (f"{TYPE}.sources", [], "at least one source"),
        (f"{TYPE}.transform", [{"modulo": 0}], "from 1"),
        ("rule.cutover", {"phase": "release"}, "not one of prepare, freeze, activate"),
    ],
)
def test_a_wrong_document_is_refused_with_its_place(path: str, value: Any, sentence: str) -> None:
    document = copy.deepcopy(publish().document)
    setting(path, value)(document)
    with pytest.raises(InvalidSnapshot, match=sentence):
        load(canonical(document))


@pytest.mark.parametrize(
    "path", ["config", "rule", "namespace_id", "config.units", "rule.epoch", f"{TYPE}.ranges"]
)
def test_a_document_without_one_of_its_parts_is_refused(path: str) -> None:
    document = copy.deepcopy(publish().document)
    setting(path, ...)(document)
    with pytest.raises(InvalidSnapshot):
        load(canonical(document))


def test_two_domains_that_share_a_host_name_are_refused() -> None:
    config = make_config(make_domain(), make_domain("unbj.websocket.msha.tech"))
    with pytest.raises(InvalidSnapshot, match=r"belongs to .* already"):
        build(NAMESPACE_ID, "demo", 1, config, make_rule())


def test_a_cutover_that_names_a_stranger_is_refused() -> None:
    running = {
        "id": "c1",
        "unit_type": "unit_type",
        "phase": Phase.FREEZE,
        "both": False,
        "moved": [[1, 2, "unbj", "unsh"]],
    }
    with pytest.raises(InvalidSnapshot, match="unknown units: unsh"):
        make_snapshot(rule=make_rule(cutover=running))


@pytest.mark.parametrize(("text", "parts"), [("127.0.0.1:80", ("127.0.0.1", 80)), ("[::1]:9", ("::1", 9))])
def test_a_server_is_an_address_and_a_port(text: str, parts: tuple[str, int]) -> None:
    assert check_server(text, "servers") == parts


@pytest.mark.parametrize(
    "text",
    [
        "::1:80",
        "[10.0.0.1]:80",
        "[fe80::1%eth0]:80",
        "10.0.0.1:0",
        "10.0.0.1:8x",
        "10.0.0.1:0000099999",
        "10.0.0.1:",
        ":80",
        "a:b",
    ],
)
def test_anything_else_is_not_a_server(text: str) -> None:
    with pytest.raises(InvalidSnapshot):
        check_server(text, "servers")


@given(st.dictionaries(st.text(max_size=5), json_values, max_size=3))
def test_no_json_object_makes_the_check_stumble(document: dict[str, Any]) -> None:
    with pytest.raises(InvalidSnapshot):
        load(canonical({"schema": 1, "namespace": "x", "namespace_id": "y", "version": 1, **document}))


def places(value: Any, path: str = "") -> Iterator[str]:
    """Every place in a document, as :func:`setting` takes it."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        here = f"{path}.{key}" if path else str(key)
        yield here
        yield from places(inner, here)


FREEZE = {
    "id": "c",
    "unit_type": "unit_type",
    "phase": "freeze",
    "both": False,
    "moved": [[1, 2, "unbj", "center"]],
}
WHOLE = publish(rule=make_rule(cutover=FREEZE)).document


@pytest.mark.parametrize(
    "value", [..., None, [], {}, "", -1, 1.5, 10**30, [[]], [{}], {"a": []}, ["a", ["b"]]], ids=str
)
def test_nothing_in_any_place_makes_the_check_stumble(value: Any) -> None:
    for place in places(WHOLE):
        document = copy.deepcopy(WHOLE)
        setting(place, value)(document)
        body = canonical(document)
        with suppress(InvalidSnapshot):
            load(body)
        with suppress(InvalidSnapshot):
            load_checked(body, digest_of(body))


def test_a_document_without_bottom_is_refused() -> None:
    with pytest.raises(InvalidSnapshot, match="not JSON"):
        load(b"[" * 100_000)


@st.composite
def frozen_rules(draw: st.DrawFn) -> Snapshot:
    """Rules over 30 ids, some of them exact, with a cutover in any phase."""
    owners = draw(st.lists(st.sampled_from(["center", "unbj"]), min_size=30, max_size=30))
    ranges: dict[str, list[str]] = {}
    for number, unit in enumerate(owners):
        ranges.setdefault(unit, []).append(f"{number}~{number}")
    exact = draw(st.dictionaries(st.integers(0, 29), st.sampled_from(["center", "unbj"]), max_size=4))
    by_unit: dict[str, list[int]] = {}
    for number, unit in exact.items():
        by_unit.setdefault(unit, []).append(number)
    cuts = sorted(draw(st.sets(st.integers(0, 29), max_size=8)))
    units = st.sampled_from(["center", "unbj"])
    moved = [
        [first, last, draw(units), draw(units)] for first, last in zip(cuts[::2], cuts[1::2], strict=False)
    ]
    cutover = {
        "id": "c",
        "unit_type": draw(st.sampled_from(["unit_type", "other"])),
        "phase": draw(st.sampled_from(["prepare", "freeze", "activate"])),
        "both": draw(st.booleans()),
        "moved": moved,
    }
    types = [make_unit_type(ranges, by_unit), make_unit_type(name="other", ranges={"center": ["0~29"]})]
    rule = make_rule(
        *types, key_space={"min": 0, "max": 29}, cutover=cutover if moved and draw(st.booleans()) else None
    )
    return make_snapshot(rule=rule)


@given(frozen_rules())
def test_what_is_served_in_ranges_is_what_is_served_one_by_one(snapshot: Snapshot) -> None:
    for unit, unit_type in product(("center", "unbj"), ("unit_type", "other", "unknown")):
        served = snapshot.served(unit, unit_type)
        assert all(start < end for start, end in served)
        assert all(before[1] <= after[0] for before, after in pairwise(served))
        ids = {number for start, end in served for number in range(start, end)}
        assert ids == {number for number in range(-1, 32) if snapshot.serves(unit, unit_type, number)}
