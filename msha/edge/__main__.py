"""The command line of an edge: ``python -m msha.edge run`` and ``python -m msha.edge leave``."""

import argparse
import asyncio
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import structlog

from msha.edge.limits import InvalidSetting, Limits, check_descriptors, descriptors, unknown_settings
from msha.edge.logs import complain, log_to_stderr
from msha.edge.node.agent import Agent
from msha.edge.node.breakglass import BreakGlass, read_snapshot, refuse_buried
from msha.edge.node.certificate_watch import CertificateWatch
from msha.edge.node.control import InvalidControl, control_url, read_token
from msha.edge.node.leaving import leave
from msha.edge.node.process import (
    EdgeProcess,
    Exit,
    InvalidBind,
    Options,
    TlsOptions,
    WorkerCommand,
    format_address,
    listen_for_scrapes,
    parse_bind,
    reserve,
)
from msha.edge.node.signed_file import NAME, SignedFile, UnusableKey, read_keys
from msha.edge.node.state import INSTANCE, ControlAddress, StateDirectory
from msha.edge.node.succession import Succession, begin
from msha.edge.port.balancers import InvalidNetwork, networks
from msha.edge.port.certificates import Certificates, UnusableCertificate
from msha.steering.errors import InvalidSnapshot, MshaError

WORKERS_LIMIT = 256

#: What the options --trusted-slb and --proxy-protocol can be said by, too.
TRUSTED_SLBS = "MSHA_EDGE_TRUSTED_SLBS"
PROXY_PROTOCOL = "MSHA_EDGE_PROXY_PROTOCOL"

#: What is wrong in the command line and what it names, not in the machine.
_WRONG_USE = (InvalidControl, InvalidBind, InvalidNetwork, InvalidSetting, UnusableCertificate, UnusableKey)

log = structlog.get_logger("msha.edge.agent")


def worker_command(access_log: str, lock_fd: int | None, words: Sequence[str] = ()) -> WorkerCommand:
    """Builds the command line of a real worker, with some words more."""

    def command(ipc_fd: int, address: str, unit: str) -> list[str]:
        line = [sys.executable, "-m", "msha.edge.worker", "--ipc-fd", str(ipc_fd), "--bind", address]
        line += ["--unit", unit, "--access-log", access_log, *words]
        return line if lock_fd is None else [*line, "--lock-fd", str(lock_fd)]

    return command


class _Parser(argparse.ArgumentParser):
    """Usage errors are one sentence, with exit code 2."""

    def error(self, message: str) -> NoReturn:
        sentence = message[:1].upper() + message[1:].rstrip(".")
        self.exit(Exit.USAGE, f"{self.prog}: {sentence}. Try --help.\n")


def parser() -> argparse.ArgumentParser:
    """The options that ``docs/edge.md`` describes."""
    top = _Parser(
        prog="python -m msha.edge", description="An edge node: steers WebSocket handshakes by unit."
    )
    commands = top.add_subparsers(dest="command", required=True, parser_class=_Parser)
    run = commands.add_parser(
        "run",
        help="serve until SIGTERM",
        epilog="Limits are set by MSHA_EDGE_* in the environment; docs/edge.md has the table.",
    )
    run.add_argument("--bind", required=True, metavar="HOST:PORT", help="where clients connect; port 0: any")
    source = run.add_mutually_exclusive_group(required=True)
    source.add_argument("--control", metavar="URL", help="the console, such as ws://console.example:8000")
    source.add_argument("--snapshot", type=Path, metavar="FILE", help="obey this file; no console is needed")
    run.add_argument("--token-file", type=Path, metavar="FILE", help="the node's token, with --control")
    run.add_argument("--unit", metavar="CODE", help="the unit to serve, with --snapshot")
    run.add_argument("--workers", type=_workers, default=None, metavar="N", help="default: one per core")
    run.add_argument(
        "--state-dir", type=Path, metavar="DIR", help="default: $STATE_DIRECTORY or ./.msha-edge"
    )
    run.add_argument(
        "--drain-s", type=_seconds, default=30.0, metavar="S", help="how long a drain may take; default: 30"
    )
    run.add_argument(
        "--leave-on-exit", action="store_true", help="SIGTERM leaves for good: no restart by file"
    )
    run.add_argument("--access-log", default="-", metavar="-|FILE|off", help="default: - (stderr)")
    run.add_argument(
        "--metrics-bind", metavar="HOST:PORT", help="where Prometheus reads /metrics; default: nowhere"
    )
    run.add_argument("--tls-bind", metavar="HOST:PORT", help="where clients connect by TLS; default: nowhere")
    run.add_argument(
        "--tls-certs", type=Path, metavar="DIR", help="certificates, such as websocket.example.pem, with keys"
    )
    run.add_argument(
        "--trusted-slb",
        action="append",
        default=[],
        metavar="CIDR",
        help="load balancers whose X-Forwarded-* are believed; may be given again",
    )
    run.add_argument(
        "--proxy-protocol",
        action="store_true",
        help="connections of trusted load balancers begin with a PROXY header, version 1 or 2",
    )
    run.add_argument(
        "--breakglass-key",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="public key whose signed snapshots are taken from a file, with --control; may be given again",
    )
    run.add_argument(
        "--breakglass-file",
        type=Path,
        metavar="FILE",
        help="where they are looked for while running; default: breakglass.json in the state directory",
    )
    run.add_argument(
        "--take-over", type=Path, metavar="DIR", help="state directory of the node whose port this one takes"
    )
    run.add_argument(
        "--take-over-drain-s",
        type=_seconds,
        metavar="S",
        help="how long that one may drain; default: its own",
    )
    gone = commands.add_parser(
        "leave", help="leave for good: the node counts no more and needs a new enrolment"
    )
    gone.add_argument("--state-dir", type=Path, required=True, metavar="DIR", help="that of the node")
    gone.add_argument(
        "--drain-s", type=_seconds, default=None, metavar="S", help="how long a drain may take from now on"
    )
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code; what went wrong was told in one sentence on stderr."""
    options = parser().parse_args(arguments)
    log_to_stderr()
    try:
        if options.command == "leave":
            leave(options.state_dir, options.drain_s)
            sys.stdout.write("left\n")
            return Exit.DONE
        return _run(options)
    except (*_WRONG_USE, UsageError) as error:
        complain(str(error))
        return Exit.USAGE
    except (MshaError, OSError) as error:
        complain(str(error))
        return Exit.FAILED


class UsageError(MshaError):
    """Options that do not go together."""


def _run(options: argparse.Namespace) -> int:
    host, port = parse_bind(options.bind)
    _check_settings()
    _check_access_log(options.access_log)
    options.worker_words = _balancer_words(options, os.environ)
    if options.control is not None:
        return _run_with_console(options, host, port)
    return _run_from_file(options, host, port)


def _check_settings() -> None:
    """The workers will be able to obey the environment; what they can obey only in part is told.

    Raises:
        InvalidSetting: a setting is wrong, or there are too few descriptors for any.
    """
    advice = check_descriptors(Limits.of(os.environ), descriptors())
    if advice:
        log.warning("descriptors_few", advice=advice)
    for name, meant in unknown_settings(os.environ, (TRUSTED_SLBS, PROXY_PROTOCOL)).items():
        log.warning("setting_unknown", name=name, meant=meant)


def _check_access_log(target: str) -> None:
    """The workers will be able to write there.

    Raises:
        UsageError: the file cannot be opened.
    """
    if target in ("-", "off"):
        return
    try:
        with open(target, "ab"):
            pass
    except OSError as error:
        raise UsageError(f"The access log {target} cannot be written: {error.strerror}.") from error


def _balancer_words(options: argparse.Namespace, environment: Mapping[str, str]) -> list[str]:
    """What workers are told of load balancers.

    Raises:
        InvalidNetwork: one of their addresses is none.
        InvalidSetting: as for the limits.
        UsageError: the PROXY protocol would be taken from nobody.
    """
    named = options.trusted_slb or environment.get(TRUSTED_SLBS, "").replace(",", " ").split()
    switch = environment.get(PROXY_PROTOCOL, "off")
    if switch not in ("on", "off"):
        raise InvalidSetting(PROXY_PROTOCOL, f"is {switch!r}, not on or off.")
    words = [word for network in networks(named) for word in ("--trusted-slb", str(network))]
    if options.proxy_protocol or switch == "on":
        if not words:
            raise UsageError("--proxy-protocol needs --trusted-slb: say from which load balancers it comes.")
        words.append("--proxy-protocol")
    return words


def _run_with_console(options: argparse.Namespace, host: str, port: int) -> int:
    if options.token_file is None or options.unit is not None:
        raise UsageError("With --control give --token-file, and no --unit: the console knows the unit.")
    control = ControlAddress(control_url(options.control), str(options.token_file.absolute()))
    read_token(options.token_file)
    default = os.environ.get("STATE_DIRECTORY") or ".msha-edge"
    path = options.state_dir or Path(default)
    signed_file = _signed_file(options, path.absolute())
    succession = _succession(options, path, host, port)
    with (
        reserve(host, port, shared=succession is not None) as reserved,
        _tls(options, succession) as tls,
    ):
        directory = StateDirectory.open(path.absolute())
        try:
            directory.write_control(control)
            shared = _options(options, tls, directory.lock_fd)
            agent = Agent(shared, reserved, directory, control, succession, signed_file)
            return _serve(agent)
        finally:
            directory.close()


def _signed_file(options: argparse.Namespace, directory: Path) -> SignedFile | None:
    """Where signed snapshots are looked for, or None: nowhere.

    Raises:
        UnusableKey: a key is none.
        UsageError: there is a file, but no key.
    """
    if not options.breakglass_key:
        if options.breakglass_file is not None:
            raise UsageError("--breakglass-file needs --breakglass-key: say whose signature is obeyed.")
        if (directory / NAME).exists():
            log.warning("breakglass_without_key", path=str(directory / NAME))
        return None
    path = options.breakglass_file or directory / NAME
    return SignedFile(path.absolute(), read_keys(options.breakglass_key))


def _succession(options: argparse.Namespace, own: Path, host: str, port: int) -> Succession | None:
    """What ``--take-over`` asks for, or None where there is nothing (more) to take over."""
    path: Path | None = options.take_over
    if path is None:
        if options.take_over_drain_s is not None:
            raise UsageError("--take-over-drain-s goes with --take-over.")
        return None
    try:
        if not (path / INSTANCE).is_file():
            raise UsageError(f"--take-over {path}: that is not the state directory of an edge.")
    except PermissionError:
        raise UsageError(f"--take-over {path}: run both nodes as the same user.") from None
    if path.resolve() == own.resolve():
        raise UsageError("--take-over names this node's own --state-dir; give the new node one of its own.")
    if port == 0:
        raise UsageError("With --take-over give --bind the port of the node that is taken over, not 0.")
    return begin(path.absolute(), own, host, port, options.take_over_drain_s)


def _run_from_file(options: argparse.Namespace, host: str, port: int) -> int:
    if options.unit is None or options.token_file is not None:
        raise UsageError("With --snapshot give --unit, and no --token-file: no console is asked.")
    if options.take_over is not None or options.take_over_drain_s is not None:
        raise UsageError("--take-over goes with --control: only an enrolled node may follow another one.")
    if options.breakglass_key or options.breakglass_file is not None:
        raise UsageError(
            "--breakglass-key goes with --control: --snapshot takes what the file says as it is."
        )
    if options.leave_on_exit:
        raise UsageError("--leave-on-exit goes with --control: a node without a console cannot leave it.")
    try:
        first = read_snapshot(options.snapshot, options.unit)
    except InvalidSnapshot as error:
        raise UsageError(f"The snapshot {options.snapshot} cannot be served: {error}.") from error
    directory = StateDirectory.open(options.state_dir.absolute()) if options.state_dir else None
    inherited = (directory.lock_fd,) if directory else ()
    try:
        if directory is not None:
            refuse_buried(directory, first[0])
        with reserve(host, port) as reserved, _tls(options) as tls:
            shared = _options(options, tls, *inherited)
            return _serve(BreakGlass(shared, reserved, options.snapshot, options.unit, first, inherited))
    finally:
        if directory is not None:
            directory.close()


def _serve(process: EdgeProcess) -> int:
    return asyncio.run(process.serve())


@contextmanager
def _tls(options: argparse.Namespace, succession: Succession | None = None) -> Iterator[TlsOptions | None]:
    """Where TLS is spoken, for as long as the address is reserved; None: nowhere.

    Raises:
        InvalidBind: the address cannot be had.
        UnusableCertificate: the directory holds something else than certificates, or none.
        UsageError: one of the two options is missing.
    """
    if options.tls_bind is None and options.tls_certs is None:
        yield None
        return
    if options.tls_bind is None or options.tls_certs is None:
        raise UsageError("--tls-bind and --tls-certs go together: where TLS is spoken, and with what.")
    host, port = parse_bind(options.tls_bind)
    if port and options.tls_bind == options.bind:
        raise UsageError("--tls-bind and --bind must be two ports: on one of them TLS is spoken.")
    if succession is not None:
        succession.check_port(host, port)
    watch = CertificateWatch(Certificates(options.tls_certs.absolute()))
    watch.begin()
    with reserve(host, port, shared=succession is not None) as reserved:
        yield TlsOptions(format_address(*reserved.getsockname()[:2]), watch)


def _options(options: argparse.Namespace, tls: TlsOptions | None, lock_fd: int | None = None) -> Options:
    words = list(options.worker_words)
    if tls is not None:
        words += ["--tls-bind", tls.address, "--tls-certs", str(options.tls_certs.absolute())]
    return Options(
        workers=options.workers or len(os.sched_getaffinity(0)),
        drain_s=options.drain_s,
        leave_on_exit=options.leave_on_exit,
        worker_command=worker_command(options.access_log, lock_fd, words),
        metrics=listen_for_scrapes(*parse_bind(options.metrics_bind)) if options.metrics_bind else None,
        tls=tls,
    )


def _workers(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or not 1 <= int(text[:6]) <= WORKERS_LIMIT:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of workers from 1 to {WORKERS_LIMIT}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 86400:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 0 to 86400")
    return seconds


if __name__ == "__main__":
    sys.exit(main())
