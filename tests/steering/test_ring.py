"""The ring: stable, fair enough, and few ids move when a server comes or goes."""

from collections import Counter
from hashlib import blake2b

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


def place(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest())


def circle_of(servers: list[str]) -> list[tuple[int, str]]:
    return sorted((place(f"{server}#{replica}"), server) for server in servers for replica in range(64))


def walked(circle: list[tuple[int, str]], key: int) -> tuple[str, ...]:
    """The preference by definition: go round the circle from the key on and note who stands there."""
    begin = place(str(key))
    later = [server for point, server in circle if point >= begin]
    return tuple(dict.fromkeys(later + [server for _, server in circle]))


@given(st.integers(1, 20), st.lists(st.integers(-5, 20_000), min_size=1, max_size=20))
def test_what_a_ring_remembers_changes_no_preference(count: int, keys: list[int]) -> None:
    servers = [f"10.0.0.{n}:8080" for n in range(count)]
    ring, circle = Ring(dict.fromkeys(servers, 1)), circle_of(servers)
    for key in keys + keys:
        assert ring.preference(key) == walked(circle, key)


def test_ids_behind_the_last_point_belong_to_the_first() -> None:
    ring, circle = Ring(dict.fromkeys(SERVERS[:2], 1)), circle_of(SERVERS[:2])
    behind = [key for key in range(10_000) if place(str(key)) > circle[-1][0]]
    assert behind
    for key in behind:
        assert ring.preference(key) == walked(circle, key)


def test_a_ring_without_servers_prefers_none() -> None:
    assert Ring({}).preference(7) == ()
