"""Every case directly and through an edge: the verdicts are equal."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.edge.conformance.catalogue import CASES, Case
from tests.edge.conformance.conversation import Listener, Verdict, hold
from tests.edge.conformance.misconduct import ACTS, Act
from tests.edge.conformance.servers import SERVERS
from tests.support.edge_worker import EdgeWorker, make_config, make_rule
from tests.support.websocket_wire import BackSource, Client, Wire, handshake_head


@dataclass(frozen=True)
class Ways:
    """To a server, directly and through an edge."""

    direct: int
    edge: int

    def verdicts(self, case: Case) -> tuple[Verdict, Verdict]:
        """Of both."""
        return converse(self.direct, case), converse(self.edge, case)


def converse(port: int, case: Case) -> Verdict:
    """One conversation with whoever listens there; at the limits, by a client that takes little at a time."""
    with Client.connect(port, receive_buffer=8192 if case.name.startswith("9") else None) as client:
        extra = f"Sec-WebSocket-Extensions: {case.offer}\r\n" if case.offer else ""
        response = client.ask(handshake_head(router_id=1111, extra=extra))
        assert response.status == 101
        return hold(client, response.headers.get("sec-websocket-extensions", ""), case)


@pytest.fixture(scope="module", params=list(SERVERS))
def ways(request: pytest.FixtureRequest) -> Iterator[Ways]:
    """To a server of each implementation."""
    with SERVERS[request.param]() as port:
        worker = EdgeWorker().start()
        worker.apply(make_config({"center": [f"127.0.0.1:{port}"]}), make_rule())
        yield Ways(port, worker.listen())
        worker.stop()


@pytest.mark.parametrize("name", CASES)
def test_a_conversation_through_the_edge_ends_as_without_it(ways: Ways, name: str) -> None:
    direct, through = ways.verdicts(CASES[name])
    assert through == direct
    assert direct.end == "end"


# The catalogue itself: it provokes what it is meant to.


@pytest.mark.parametrize("name", [name for name in CASES if name[0] in "346" or "beyond the limit" in name])
def test_a_server_objects_to_what_a_case_says_wrongly(ways: Ways, name: str) -> None:
    expected = {"3": 1002, "4": 1002, "9": 1009}.get(name[0], 1007 if name.startswith("6 bad") else 1000)
    assert converse(ways.direct, CASES[name]).close_code == expected


# Both ends by hand


@dataclass(frozen=True)
class Stage:
    """A back-source whose connections the test holds itself, directly and behind an edge."""

    back_source: BackSource
    edge: int

    @property
    def direct(self) -> int:
        """The port of the back-source."""
        port: int = self.back_source.listener.getsockname()[1]
        return port

    def play(self, act: Act, port: int) -> tuple[Verdict, Verdict]:
        """What the client and the back-source know when it is over."""
        glued = {act.by: act.data} if act.glued else {}
        with Client.connect(port) as client:
            client.send(handshake_head(router_id=1111) + glued.get("client", b""))
            server = self.back_source.take()
            server.switch(rest=glued.get("server", b""))
            response = client.answer()
            assert response.status == 101
            sides: dict[str, Wire] = {"client": client, "server": server}
            first = Listener(sides.pop(act.by))
            second = Listener(*sides.values())
            if not act.glued:
                first.say(act.data)
            if act.end == "reset":
                first.wire.reset()
            else:
                first.wire.half_close()
            while second.next():
                pass
            if act.end == "fin":
                second.say(act.answer)
                second.wire.half_close()
                while first.next():
                    pass
            server.close()
        said = first.verdict(), second.verdict()
        return said if act.by == "client" else said[::-1]


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    """One for all acts."""
    back_source = BackSource()
    worker = EdgeWorker().start()
    worker.apply(make_config({"center": [back_source.address]}), make_rule())
    yield Stage(back_source, worker.listen())
    worker.stop()
    back_source.close()


@pytest.mark.parametrize("name", ACTS)
def test_misconduct_reaches_the_other_side_through_the_edge_as_without_it(stage: Stage, name: str) -> None:
    act = ACTS[name]
    direct, through = stage.play(act, stage.direct), stage.play(act, stage.edge)
    assert through == tuple(verdict.told_by_an_edge() for verdict in direct)
    assert direct[0 if act.by == "server" else 1].end == ("end" if act.end == "fin" else "reset")
