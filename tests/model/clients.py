"""A client that follows redirects, decided by the edges' own code (PROTOCOL 6 and I3)."""

from typing import NamedTuple
from urllib.parse import urlsplit

from msha.steering.decision import Hold, Redirect, decide
from msha.steering.router_id import Request
from tests.model.edges import Broken
from tests.model.published import DOMAIN, Published

#: I3: redirects of one connect while nothing is published, and while no cutover or turn-around begins.
QUIET_LIMIT, BUSY_LIMIT = 2, 3


class Client(NamedTuple):
    """A client in the middle of its connect.

    Attributes:
        host, query: where it goes next.
        redirects: how many it was given in this connect.
        published: whether anything was published meanwhile.
        begun: whether a cutover or a turn-around has begun meanwhile.
        misled: whether it was redirected by a node that took itself for in sync with a version that was not
            the newest any more, because the console had lost it less than 3 s ago, or had read stale.
        redirected_by: who has redirected it by a unit's sub-domain since the last publish: unit, snapshot.
    """

    host: str = DOMAIN
    query: str = ""
    redirects: int = 0
    published: bool = False
    begun: bool = False
    misled: bool = False
    redirected_by: frozenset[tuple[str, int]] = frozenset()


class Clients:
    """What becomes of a client at an edge."""

    def __init__(self, published: Published, wrongs: frozenset[str]) -> None:
        self.published = published
        self.wrongs = wrongs
        self._gone: dict[tuple[Client, str, int, bool, bool], tuple[Client | None, str]] = {}

    def go(
        self, client: Client, unit: str, snapshot: int, in_sync: bool, lost: bool
    ) -> tuple[Client | None, str]:
        """The client after this edge has decided, or None when its connect is over; and what was said.

        Args:
            lost: the edge takes itself for in sync, but the console has lost it, or read stale.

        Raises:
            Broken: I3.
        """
        key = (client, unit, snapshot, in_sync, lost)
        if key not in self._gone:
            self._gone[key] = self._go(*key)
        return self._gone[key]

    def _go(
        self, client: Client, unit: str, snapshot: int, in_sync: bool, lost: bool
    ) -> tuple[Client | None, str]:
        if client.host not in (DOMAIN, f"{unit}.{DOMAIN}"):
            return client, ""
        if "every edge redirects, in sync or not" in self.wrongs:
            in_sync = True
        loaded = self.published.load(snapshot)
        request = Request.of(client.host, f"/?{client.query}", {"routerId": str(self.published.ids[0])})
        decision = decide(loaded, unit, request, in_sync)
        if isinstance(decision, Hold):
            return client, "holds the client"
        if not isinstance(decision, Redirect):
            return None, f"answers the client: {type(decision).__name__} ({decision.reason})"
        where = urlsplit(decision.location)
        words = f"(version {loaded.version}) redirects the client to {where.netloc}?{where.query}"
        issuer = (unit, snapshot)
        if issuer in client.redirected_by:
            raise Broken(f"I3: edges of {unit} redirect the client in a circle: {words}")
        after = client._replace(
            host=str(where.hostname),
            query=where.query,
            redirects=client.redirects + 1,
            misled=client.misled or (lost and client.host != DOMAIN),
            redirected_by=client.redirected_by | ({issuer} if client.host != DOMAIN else set()),
        )
        self._check(after, words)
        return after, words

    def _check(self, client: Client, words: str) -> None:
        quiet = not client.published and not client.misled
        if client.redirects > QUIET_LIMIT and quiet:
            raise Broken(f"I3: {client.redirects} redirects while nothing is published: {words}")
        if client.redirects > BUSY_LIMIT and not client.begun:
            raise Broken(f"I3: {client.redirects} redirects while no cutover begins: {words}")
