"""A real nginx in front of the edge: with its defaults, as document 002 prints it, and as it must be."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from msha.demo.ports import free_ports
from tests.support.edge_worker import EdgeWorker
from tests.support.needs import need
from tests.support.websocket_wire import TIMEOUT_S, BackSource, Client, handshake_head

DEFAULTS = ""
#: Document 002 sets these two fields, but no proxy_http_version.
UPGRADING = 'proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade";'
AS_PRINTED = f"root html; index index.html index.htm; {UPGRADING}"
PROPER = f"proxy_http_version 1.1; proxy_set_header Host $http_host; {UPGRADING}"

#: From where nginx connects.
NGINX = "127.0.0.5"

CONFIGURATION = """\
daemon off; master_process off; worker_processes 1; pid {directory}/pid; error_log {directory}/error.log;
events {{ worker_connections 64; }}
http {{
  access_log off;
  client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi; uwsgi_temp_path {directory}/uwsgi; scgi_temp_path {directory}/scgi;
  keepalive_timeout 65;
  upstream edges {{ server 127.0.0.1:{edge} weight=1; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{ proxy_pass http://edges; proxy_bind {address}; {proxying} }}
    error_page 500 502 503 504 /50x.html;
  }}
}}
"""


@contextmanager
def nginx(directory: Path, edge: int, proxying: str) -> Iterator[int]:
    """The port of an nginx that proxies so."""
    program = need("nginx")
    (port,) = free_ports(1)
    configuration = directory / "nginx.conf"
    configuration.write_text(
        CONFIGURATION.format(directory=directory, port=port, edge=edge, address=NGINX, proxying=proxying)
    )
    with subprocess.Popen([program, "-c", str(configuration), "-e", str(directory / "error.log")]) as process:
        try:
            yield port
        finally:
            process.terminate()


def connected(port: int) -> Client:
    """A client, as soon as somebody listens."""
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        try:
            return Client.connect(port)
        except ConnectionRefusedError:
            assert time.monotonic() < deadline, "nginx does not listen"
            time.sleep(0.02)


@pytest.mark.parametrize("proxying", [DEFAULTS, AS_PRINTED], ids=["defaults", "as_printed"])
def test_a_handshake_that_nginx_downgraded_is_refused_at_once_and_counted_for_this_nginx(
    worker: EdgeWorker, tmp_path: Path, proxying: str
) -> None:
    with nginx(tmp_path, worker.port, proxying) as port:
        for _ in range(3):
            with connected(port) as client:
                began = time.monotonic()
                client.send(handshake_head(router_id=5))
                response = client.answer()
                assert response.status == 400
                assert b"load balancer or proxy" in client.read(int(response.headers["content-length"]))
                assert time.monotonic() - began < 1.0  # not when somebody's patience ends
    said = worker.agent.stats(lambda said: said["counters"].get("invalid_downgraded") == 3)
    assert said["counters"][f"downgraded_by_{NGINX}"] == 3


def test_a_handshake_that_nginx_passes_on_properly_is_served(
    worker: EdgeWorker, back_source: BackSource, tmp_path: Path
) -> None:
    with nginx(tmp_path, worker.port, PROPER) as port, connected(port) as client:
        client.send(handshake_head(router_id=5))
        session = back_source.take()
        session.switch()
        assert client.answer().status == 101
        client.send_frame(b"hello")
        assert session.read_frame().payload == b"hello"
