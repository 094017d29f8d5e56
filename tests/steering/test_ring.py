"""The ring: stable, fair enough, and few ids move when a server comes or goes."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from msha.steering.ring import Ring

SERVERS = [f"10.0.0.{n}:8080" for n in range(1, 6)]


@given(st.permutations(SERVERS), st.integers(0, 9999))
def test_the_order_in_which_servers_are_named_does_not_matter(servers: list[str], key: int) -> None:
    assert Ring(dict.fromkeys(servers, 1)).preference(key) == Ring(dict.fromkeys(SERVERS, 1)).preference(key)


@given(st.sets(st.sampled_from(SERVERS), min_size=1), st.integers(0, 9999))
def test_a_preference_names_every_server_once(servers: set[str], key: int) -> None:
    assert sorted(Ring(dict.fromkeys(servers, 1)).preference(key)) == sorted(servers)


@given(st.integers(0, 9999), st.sampled_from(SERVERS))
def test_removing_a_server_moves_only_its_own_ids(key: int, gone: str) -> None:
    before = Ring(dict.fromkeys(SERVERS, 1)).preference(key)
    after = Ring({server: 1 for server in SERVERS if server != gone}).preference(key)
    assert after == tuple(server for server in before if server != gone)


def test_weights_are_shares() -> None:
    ring = Ring({"a:1": 1, "b:1": 3})
    counts = Counter(ring.preference(key)[0] for key in range(10_000))
    assert 2 < counts["b:1"] / counts["a:1"] < 4.5
