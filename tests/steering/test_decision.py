"""What an edge does with a handshake."""

import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msha.steering.decision import Drop, Hold, Reason, Redirect, Refuse, Tunnel, decide, host_key
from msha.steering.router_id import Request
from msha.steering.snapshot import Snapshot
from tests.steering.builders import make_config, make_domain, make_rule, make_snapshot, make_unit_type

DOMAIN = "websocket.msha.tech"
CENTER_HOST, UNBJ_HOST = f"center.{DOMAIN}", f"unbj.{DOMAIN}"


def request(router_id: object = None, host: str = DOMAIN, target: str = "/", **headers: str) -> Request:
    if router_id is not None:
        headers["routerId"] = str(router_id)
    return Request.of(host, target, headers)


def running(phase: str, *, both: bool = False, epoch: int = 3) -> Snapshot:
    """The walk-through's cutover in a phase: 5998~6380 go from unbj to center."""
    arrived = phase == "activate"
    table = {"center": ["0~6380"], "unbj": ["6381~9999"]} if arrived else None
    cutover = {
        "id": "c1",
        "unit_type": "unit_type",
        "phase": phase,
        "both": both,
        "moved": [[5998, 6380, "unbj", "center"]],
    }
    return make_snapshot(rule=make_rule(make_unit_type(table), epoch=epoch, cutover=cutover), version=7)


def test_the_walk_through_of_the_document() -> None:
    snapshot = make_snapshot()
    answer = decide(snapshot, "unbj", request(1111))
    assert isinstance(answer, Redirect)
    assert (answer.status, answer.location, answer.unit) == (302, f"http://{CENTER_HOST}/", "center")
    assert isinstance(decide(snapshot, "center", request(1111, host=CENTER_HOST)), Tunnel)
    assert isinstance(decide(snapshot, "unbj", request(6249)), Tunnel)
    assert isinstance(decide(snapshot, "unbj", request(8330)), Tunnel)


@given(st.integers(0, 9999), st.sampled_from([DOMAIN, CENTER_HOST, UNBJ_HOST]))
def test_exactly_the_owner_tunnels_and_everybody_else_redirects_to_it(router_id: int, host: str) -> None:
    owner = "center" if router_id <= 5997 else "unbj"
    for unit in ("center", "unbj"):
        answer = decide(SNAPSHOT, unit, request(router_id, host=host))
        if unit == owner:
            assert isinstance(answer, Tunnel)
        else:
            assert isinstance(answer, Redirect)
            assert answer.unit == owner


SNAPSHOT = make_snapshot()


@pytest.mark.parametrize(
    ("host", "key"),
    [
        (DOMAIN, DOMAIN), ("WebSocket.MSHA.tech:8080", DOMAIN), (f"{DOMAIN}.", DOMAIN),
        (f"{DOMAIN}.:80", DOMAIN),
        ("[::1]:80", "[::1]"), ("", ""), (":80", ""),
    ],
)  # fmt: skip
def test_hosts_compare_without_case_port_and_final_dot(host: str, key: str) -> None:
    assert host_key(host) == key


@pytest.mark.parametrize(
    ("asked", "status", "reason"),
    [
        (request(1, host="other.example"), 421, Reason.UNKNOWN_HOST),
        (request(1, host="unsh.websocket.msha.tech"), 421, Reason.UNKNOWN_HOST),
        (request(1, host="127.0.0.1"), 421, Reason.UNKNOWN_HOST),
        (request(1, unitType="other"), 400, Reason.UNKNOWN_UNIT_TYPE),
        (request("1x"), 400, Reason.INVALID_ROUTER_ID),
        (request(10000), 400, Reason.INVALID_ROUTER_ID),
    ],
)
def test_what_cannot_be_served_is_refused_with_a_sentence(
    asked: Request, status: int, reason: Reason
) -> None:
    answer = decide(SNAPSHOT, "center", asked)
    assert isinstance(answer, Refuse)
    assert (answer.status, answer.reason) == (status, reason)
    assert answer.sentence.endswith(".")


def test_a_unit_type_is_given_once_or_always_the_same() -> None:
    def asking(*unit_types: bytes) -> Request:
        headers = [(b"routerid", b"1"), *((b"unittype", unit_type) for unit_type in unit_types)]
        return Request(DOMAIN, headers=headers)

    assert isinstance(decide(SNAPSHOT, "center", asking(b"unit_type", b"unit_type")), Tunnel)
    answer = decide(SNAPSHOT, "center", asking(b"unit_type", b"other"))
    assert isinstance(answer, Refuse)
    assert (answer.status, answer.reason) == (400, Reason.UNKNOWN_UNIT_TYPE)


def test_the_longest_uri_on_segment_boundaries_wins() -> None:
    def uri(path: str, server: str) -> dict[str, Any]:
        return {"path": path, "balance": "round_robin", "back_sources": {"center": [server]}}

    uris = [uri("/chat", "1.1.1.1:1"), uri("/chat/room", "1.1.1.2:1"), uri("/feed/", "1.1.1.3:1")]
    snapshot = make_snapshot(make_config(make_domain(uris=uris)))

    def served(path: str) -> str | None:
        answer = decide(snapshot, "center", request(1, target=path))
        return answer.route.servers[0] if isinstance(answer, Tunnel) else None

    assert served("/chat") == served("/chat/") == served("/chat/x") == served("/chat/roomy") == "1.1.1.1:1"
    assert served("/chat/room") == served("/chat/room/7?a=b") == "1.1.1.2:1"
    assert served("/feed/x") == served("/feed/") == "1.1.1.3:1"
    for path in ("/", "/chatter", "/feed", "/feeds/x"):
        answer = decide(snapshot, "center", request(1, target=path))
        assert isinstance(answer, Refuse), path
        assert answer.status == 404
        assert isinstance(decide(snapshot, "unbj", request(1, target=path)), Refuse)


def test_a_uri_without_back_source_in_the_owning_unit_is_503_there_and_a_redirect_elsewhere() -> None:
    uris = [{"path": "/", "balance": "round_robin", "back_sources": {"unbj": ["1.1.1.1:1"]}}]
    snapshot = make_snapshot(make_config(make_domain(uris=uris)))
    answer = decide(snapshot, "center", request(1))
    assert isinstance(answer, Refuse)
    assert (answer.status, answer.reason) == (503, Reason.NO_BACK_SOURCE)
    assert isinstance(decide(snapshot, "unbj", request(1)), Redirect)


@pytest.mark.parametrize(
    ("policy", "at_center", "at_unbj"),
    [("local", Tunnel, Tunnel), ("center", Tunnel, Redirect), ("reject", Refuse, Refuse)],
)
def test_untagged_traffic_goes_by_its_policy(policy: str, at_center: type, at_unbj: type) -> None:
    snapshot = make_snapshot(rule=make_rule(make_unit_type(untagged=policy)))
    assert isinstance(decide(snapshot, "center", request()), at_center)
    answer = decide(snapshot, "unbj", request())
    assert isinstance(answer, at_unbj)
    if isinstance(answer, Redirect):
        assert answer.location == f"http://{CENTER_HOST}/"


def test_path_and_query_are_kept_and_an_id_that_came_by_cookie_travels_in_the_query() -> None:
    answer = decide(SNAPSHOT, "unbj", request(target="/a%20b?x=1&y", Cookie="routerId=1111"))
    assert isinstance(answer, Redirect)
    assert answer.location == f"http://{CENTER_HOST}/a%20b?x=1&y&routerId=1111"


def test_an_id_that_came_by_cookie_is_encoded_in_the_query() -> None:
    rule = make_rule(make_unit_type({"unbj": ["0~9999"]}, transform=[{"hash": "crc32"}, {"modulo": 10000}]))
    answer = decide(make_snapshot(rule=rule), "center", request(Cookie="routerId=a&b c"))
    assert isinstance(answer, Redirect)
    assert answer.location == f"http://{UNBJ_HOST}/?routerId=a%26b%20c"


@pytest.mark.parametrize("raw", [b"\xe5\xbc\xa0", b"caf\xe9", b"%41"])
def test_an_id_that_came_by_cookie_is_the_same_one_after_the_redirect(raw: bytes) -> None:
    rule = make_rule(make_unit_type({"unbj": ["0~9999"]}, transform=[{"hash": "crc32"}, {"modulo": 10000}]))
    snapshot = make_snapshot(rule=rule)
    by_cookie = Request("websocket.msha.tech", "/", "", [(b"cookie", b"routerId=" + raw)])
    answer = decide(snapshot, "center", by_cookie)
    assert isinstance(answer, Redirect)
    _, _, query = answer.location.partition("?")
    followed = decide(snapshot, "unbj", Request(UNBJ_HOST, "/", query))
    assert isinstance(followed, Tunnel)
    assert followed.router_id == answer.router_id == zlib.crc32(raw) % 10000


@pytest.mark.parametrize(
    ("scheme", "agent", "port", "location"),
    [
        ("http", "x", 8101, f"http://{CENTER_HOST}:8101/"),
        ("ws", "x", 80, f"ws://{CENTER_HOST}/"),
        ("auto", "Python/3.11 websockets/15.0", 80, f"ws://{CENTER_HOST}/"),
        ("auto", "Go-http-client/1.1", 80, f"http://{CENTER_HOST}/"),
    ],
)
def test_scheme_and_port_of_the_location_are_the_domain_settings(
    scheme: str, agent: str, port: int, location: str
) -> None:
    domain = make_domain(redirect_scheme=scheme, ports={"center": port, "unbj": 80})
    answer = decide(make_snapshot(make_config(domain)), "unbj", request(1, **{"User-Agent": agent}))
    assert isinstance(answer, Redirect)
    assert answer.location == location


@pytest.mark.parametrize(
    ("scheme", "agent", "tls_ports", "location"),
    [
        ("http", "x", {}, f"https://{CENTER_HOST}/"),
        ("ws", "x", {"center": 443}, f"wss://{CENTER_HOST}/"),
        ("auto", "Python/3.11 websockets/15.0", {"center": 8443}, f"wss://{CENTER_HOST}:8443/"),
        ("auto", "Go-http-client/1.1", {"center": 80}, f"https://{CENTER_HOST}:80/"),
    ],
)
def test_a_client_that_came_by_tls_is_redirected_to_tls(
    scheme: str, agent: str, tls_ports: dict[str, int], location: str
) -> None:
    domain = make_domain(redirect_scheme=scheme, ports={"center": 8101, "unbj": 80}, tls_ports=tls_ports)
    snapshot = make_snapshot(make_config(domain))
    asked = request(1, **{"User-Agent": agent})
    asked.secure = True
    answer = decide(snapshot, "unbj", asked)
    assert isinstance(answer, Redirect)
    assert answer.location == location
    plain = decide(snapshot, "unbj", request(1, **{"User-Agent": agent}))
    assert isinstance(plain, Redirect)
    assert plain.location.startswith(("http://", "ws://"))


def test_rule_s_a_worker_out_of_sync_drops_what_came_by_its_own_sub_domain_and_redirects_the_rest() -> None:
    dropped = decide(SNAPSHOT, "unbj", request(1111, host=UNBJ_HOST), in_sync=False)
    assert isinstance(dropped, Drop)
    assert dropped.reason is Reason.NOT_IN_SYNC
    assert isinstance(decide(SNAPSHOT, "unbj", request(1111), in_sync=False), Redirect)
    assert isinstance(decide(SNAPSHOT, "unbj", request(1111, host=CENTER_HOST), in_sync=False), Redirect)
    assert isinstance(decide(SNAPSHOT, "center", request(1111, host=CENTER_HOST), in_sync=False), Tunnel)


def test_rule_m_a_redirect_by_unit_sub_domain_carries_its_version_and_stops_whoever_is_not_newer() -> None:
    first = decide(make_snapshot(version=7), "unbj", request(1111, host=UNBJ_HOST))
    assert isinstance(first, Redirect)
    assert first.location == f"http://{CENTER_HOST}/?msha-version=7"
    stale = make_snapshot(rule=make_rule(make_unit_type({"unbj": ["0~9999"]})), version=7)
    again = request(1111, host=CENTER_HOST, target="/?msha-version=7")
    assert isinstance(decide(stale, "center", again), Drop)
    newer = make_snapshot(rule=make_rule(make_unit_type({"unbj": ["0~9999"]})), version=8)
    onward = decide(newer, "center", again)
    assert isinstance(onward, Redirect)
    assert onward.location == f"http://{UNBJ_HOST}/?msha-version=8"


def test_the_version_never_reaches_the_back_source() -> None:
    answer = decide(SNAPSHOT, "center", request(1, target="/a?x=1&msha-version=3&y=2"))
    assert isinstance(answer, Tunnel)
    assert answer.target == "/a?x=1&y=2"
    bare = decide(SNAPSHOT, "center", request(1, target="/a?msha-version=zzz"))
    assert isinstance(bare, Tunnel)
    assert bare.target == "/a"


@pytest.mark.parametrize(
    ("phase", "both", "at_center", "at_unbj"),
    [
        ("prepare", False, Redirect, Tunnel),
        ("freeze", False, Redirect, Hold),
        ("freeze", True, Hold, Hold),
        ("activate", False, Tunnel, Hold),
        ("activate", True, Tunnel, Hold),
    ],
)
def test_a_moved_id_in_each_phase(phase: str, both: bool, at_center: type, at_unbj: type) -> None:
    snapshot = running(phase, both=both)
    assert isinstance(decide(snapshot, "center", request(6249)), at_center)
    assert isinstance(decide(snapshot, "unbj", request(6249)), at_unbj)
    assert snapshot.serves("center", "unit_type", 6249) == (at_center is Tunnel)
    assert snapshot.serves("unbj", "unit_type", 6249) == (at_unbj is Tunnel)


@pytest.mark.parametrize("phase", ["prepare", "freeze", "activate"])
@given(router_id=st.integers(0, 9999).filter(lambda i: not 5998 <= i <= 6380))
def test_an_id_that_does_not_move_never_notices(phase: str, router_id: int) -> None:
    snapshot = PHASES[phase]
    for unit in ("center", "unbj"):
        assert type(decide(snapshot, unit, request(router_id))) is type(
            decide(SNAPSHOT, unit, request(router_id))
        )


PHASES = {phase: running(phase) for phase in ("prepare", "freeze", "activate")}


def test_an_edge_of_a_removed_unit_redirects_everything() -> None:
    snapshot = make_snapshot()
    assert isinstance(decide(snapshot, "unsh", request(1)), Redirect)
    assert not snapshot.serves("unsh", "unit_type", 1)
