"""The `websockets` library at both ends: what another implementation makes of the edge."""

import threading
from collections.abc import Iterator

import pytest
from websockets.exceptions import ConnectionClosedError, ConnectionClosedOK
from websockets.sync.client import connect
from websockets.sync.server import Server, ServerConnection, serve

from tests.support.edge_worker import EdgeWorker, make_config, make_rule


class EchoServer:
    """A back-source of that library that echoes, and remembers how its sessions ended."""

    def __init__(self) -> None:
        self.ended: list[tuple[int, str]] = []
        self.changed = threading.Condition()
        self.server: Server = serve(self._echo, "127.0.0.1", 0, max_size=1 << 24)
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    @property
    def address(self) -> str:
        """``IP:PORT``."""
        return f"127.0.0.1:{self.server.socket.getsockname()[1]}"

    def _echo(self, connection: ServerConnection) -> None:
        try:
            while True:
                connection.send(connection.recv())
        except (ConnectionClosedOK, ConnectionClosedError):
            with self.changed:
                self.ended.append((connection.close_code or 0, connection.close_reason or ""))
                self.changed.notify_all()

    def stop(self) -> None:
        """Nobody is served any more."""
        self.server.shutdown()
        self.thread.join()


@pytest.fixture
def echo_server() -> Iterator[EchoServer]:
    """The only back-source of unit center."""
    server = EchoServer()
    yield server
    server.stop()


@pytest.fixture
def serving(bare_worker: EdgeWorker, echo_server: EchoServer) -> EdgeWorker:
    """A worker in front of it."""
    bare_worker.apply(make_config({"center": [echo_server.address]}), make_rule())
    bare_worker.listen()
    return bare_worker


def headers(router_id: int) -> dict[str, str]:
    return {"routerId": str(router_id)}


@pytest.mark.parametrize("compression", ["deflate", None])
def test_messages_go_round_compressed_or_not(serving: EdgeWorker, compression: str | None) -> None:
    with connect(
        "ws://websocket.test/",
        sock=serving.connect().sock,
        additional_headers=headers(1111),
        compression=compression,
        max_size=1 << 24,
    ) as client:
        for message in ("", "hello", "搬家" * 50_000, b"\0" * 3_000_000):
            client.send(message)
            assert client.recv() == message
        client.send(["in ", "three ", "fragments"])
        assert client.recv() == "in three fragments"
        assert client.ping().wait(5)


def test_a_moved_client_sees_1012_and_so_does_its_back_source(
    serving: EdgeWorker, echo_server: EchoServer
) -> None:
    with connect(
        "ws://websocket.test/", sock=serving.connect().sock, additional_headers=headers(1111)
    ) as client:
        client.send("hello")
        assert client.recv() == "hello"
        serving.apply(
            make_config({"center": [echo_server.address]}), make_rule({"unbj": ["0~9999"]}, epoch=2)
        )
        with pytest.raises(ConnectionClosedError) as caught:
            client.recv(timeout=5)
        assert caught.value.rcvd is not None
        assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (1012, "moved to unbj")
    serving.agent.hear("drained", lambda said: said["epoch"] == 2)
    with echo_server.changed:
        assert echo_server.changed.wait_for(lambda: echo_server.ended, 5)
    assert echo_server.ended == [(1012, "moved to unbj")]
