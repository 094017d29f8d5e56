"""The command line of a worker process, which only an agent uses.

``python -m msha.edge.worker --bind HOST:PORT --unit CODE --ipc-fd N [--lock-fd M] [--access-log X]``

The lock's descriptor is only kept open: while a worker lives, no other agent can start on the same state
directory.
"""

import argparse
import gc
import os
import resource
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from msha.edge.entry.access_log import open_access_log
from msha.edge.limits import Limits
from msha.edge.logs import log_to_stderr
from msha.edge.port.balancers import Balancers, networks
from msha.edge.port.certificates import Certificates
from msha.edge.session import tunnel
from msha.edge.wire import handshake
from msha.edge.worker.worker import TlsBind, Worker


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a worker until its agent has no more use for it; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m msha.edge.worker", description=__doc__)
    parser.add_argument("--bind", required=True, metavar="HOST:PORT")
    parser.add_argument("--unit", required=True, metavar="CODE")
    parser.add_argument("--ipc-fd", required=True, type=int, metavar="N", help="socket to the agent")
    parser.add_argument("--lock-fd", type=int, default=-1, metavar="M", help="kept open, not used")
    parser.add_argument("--access-log", default="-", metavar="-|FILE|off")
    parser.add_argument("--drain-s", type=float, default=30.0, metavar="S", help="after a SIGTERM of our own")
    parser.add_argument("--trusted-slb", action="append", default=[], metavar="CIDR")
    parser.add_argument("--tls-bind", metavar="HOST:PORT")
    parser.add_argument("--tls-certs", type=Path, metavar="DIR", help="goes with --tls-bind")
    parser.add_argument("--proxy-protocol", action="store_true", help="of each connection by a trusted SLB")
    options = parser.parse_args(arguments)
    log_to_stderr()
    _allow_many_descriptors()
    return _run(options)


def _run(options: argparse.Namespace) -> int:
    host, _, port = options.bind.rpartition(":")
    limits = Limits.of(os.environ)  # the agent has refused wrong ones
    handshake.take_heads_of(limits.head_bytes, limits.head_fields)
    tunnel.hold_at_most(limits.buffer_bytes)
    trusted = networks(options.trusted_slb)
    worker = Worker(
        socket.socket(fileno=options.ipc_fd),
        unit=options.unit,
        host=host.strip("[]"),
        port=int(port),
        access_log=open_access_log(options.access_log, options.unit),
        limits=limits,
        balancers=Balancers(trusted, proxy_protocol=options.proxy_protocol) if trusted else None,
        tls=_tls(options),
    )

    def terminate() -> None:
        worker.drain(options.drain_s)
        worker.exit_when_empty()

    signal.signal(signal.SIGTERM, lambda number, frame: worker.reactor.call_from_outside(terminate))
    # Ctrl-C in a terminal reaches every process; the agent says what to do about it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Nothing that exists now will ever be garbage; it need not be looked at again and again.
    gc.collect()
    gc.freeze()
    worker.run()
    return worker.exit_code


def _tls(options: argparse.Namespace) -> TlsBind | None:
    if options.tls_bind is None:
        return None
    certificates = Certificates(options.tls_certs)
    certificates.look()  # the agent has found them in order, or says what is not
    host, _, port = options.tls_bind.rpartition(":")
    return TlsBind(host.strip("[]"), int(port), certificates)


def _allow_many_descriptors() -> None:
    """Each session takes two; the soft limit is meant for programs that use select()."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    sys.exit(main())
