"""A worker: one shell, obeying its agent. One whose agent is gone closes everything and ends."""

import os
import socket
import threading
import time
from typing import Any, NamedTuple

import structlog

from msha.edge.entry.access_log import AccessLog
from msha.edge.entry.listener import TLS
from msha.edge.entry.server import Shell
from msha.edge.entry.steering import Steering
from msha.edge.entry.tls_opening import TlsPort
from msha.edge.limits import Limits
from msha.edge.port.balancers import Balancers
from msha.edge.port.certificates import Certificates
from msha.edge.reactor import Reactor
from msha.edge.servers import servers_of
from msha.edge.session.closing import SERVICE_RESTART
from msha.edge.session.cutover_progress import CutoverProgress
from msha.edge.session.idle import IdleWatch
from msha.edge.session.messages import Address, Messages, Outcome, usable_text
from msha.edge.session.sessions import Sessions
from msha.edge.session.tally import Tally
from msha.edge.session.tunnel import Tunnel
from msha.edge.worker.agent_channel import AgentChannel
from msha.edge.worker.drain import Drain
from msha.steering.errors import InvalidSnapshot
from msha.steering.snapshot import Snapshot, load_checked

#: How often the agent is told the figures.
STATS_S = 0.5

#: What is left so long after everything was closed is aborted.
_LAST_WAIT_S = 1.5

log = structlog.get_logger("msha.edge.worker")


class TlsBind(NamedTuple):
    """Where TLS is spoken, and by which certificates."""

    host: str
    port: int
    certificates: Certificates


class Worker:
    """What the agent talks to.

    Attributes:
        exit_code: what the process exits with, when there is nothing left to do.
    """

    def __init__(
        self,
        agent: socket.socket,
        *,
        unit: str,
        host: str,
        port: int,
        access_log: AccessLog,
        limits: Limits | None = None,
        balancers: Balancers | None = None,
        tls: TlsBind | None = None,
    ) -> None:
        limits = limits or Limits()
        # process
        self.unit = unit
        self.reactor = Reactor()
        self.sessions = Sessions(self.reactor, close_s=limits.close_s, end_s=limits.end_s)
        self.steering = Steering(unit, hold_s=limits.hold_s)
        tls_port = TlsPort(tls.certificates, limits) if tls else None
        self.shell = Shell(
            self.reactor, self.sessions, self.steering, access_log, limits, balancers, tls_port
        )
        self.idle = IdleWatch(self.reactor, self.sessions, limits)
        self.waiting = self.shell.waiting
        self.messages = Messages(self.reactor, self.sessions)
        self.progress = CutoverProgress(unit)
        self.exit_code = 0
        self._host, self._port, self._tls = host, port, tls
        self._access_log = access_log
        self.shell.opened = self.progress.opened
        self.sessions.on_removed = self._session_removed
        self._channel = AgentChannel(self.reactor, agent, self._heard, self._agent_lost)
        self.reactor.every_tick(self._tick)
        # what is being done
        self._stats_due = 0.0
        self._drain: Drain | None = None
        self._empty_said = False
        self._exit_after_drain = False
        self._parking = False
        self._exit_by = 0.0
        self._looking = False

    def run(self) -> None:
        """Serve the agent until there is nothing left to do; nothing is listened on yet."""
        self._channel.say("started", pid=os.getpid())
        self.reactor.run()
        self._channel.close()
        self.reactor.close_down()
        self._access_log.close()

    # What the agent says

    def _heard(self, said: dict[str, Any]) -> None:
        match said.get("do"):
            case "apply":
                self._apply(said["body"].encode(), said["version"], said["digest"])
            case "listen":
                self._listen()
            case "park":
                self._park()
            case "drain":
                until = float(said.get("listen_until", 0.0))
                self.drain(float(said["seconds"]), until, int(said.get("listeners", 1)))
            case "prefer":
                done = self.shell.prefer(int(said["first"]), int(said["count"]))
                self._channel.say("preferring", count=int(said["count"]) if done else 0)
            case "sync":
                self.steering.sync_until = float(said["until"])
            case "count":
                counts = self.sessions.counts(str(said["unit_type"]), said["ranges"])
                self._channel.say("count", id=said["id"], counts=counts)
            case "returns":
                told = self.progress.returns(int(said["cutover"]), said["among"])
                self._channel.say("returns", id=said["id"], told=told)
            case "report":
                self._say_stats(int(said["id"]))
            case "send":
                self._send(said)
            case "certificates":
                self._look_at_certificates()
            case "close_all":
                self._close_all(str(said["reason"]), int(said.get("code", SERVICE_RESTART)))
            case "exit":
                self.exit("edge stopped")
            case other:
                log.error("agent_order_unknown", order=other)

    def _send(self, said: dict[str, Any]) -> None:
        payload = usable_text(said["text"])
        assert payload is not None, "the agent passes on no other text"

        def spoken(outcome: Outcome) -> None:
            self._channel.say("sent", id=said["id"], **outcome.as_dict())

        self.messages.send(Address(str(said["unit_type"]), said["ranges"]), payload, spoken)

    def _agent_lost(self) -> None:
        log.error("agent_gone")
        self.exit("edge stopped")

    def _apply(self, body: bytes, version: int, digest: str) -> None:
        try:
            snapshot = load_checked(body, digest)  # the agent has checked what is costly to check
            self._check_successor(snapshot, version)
        except InvalidSnapshot as error:
            self._channel.say("refused", version=version, reason=str(error))
            return
        self._obey(snapshot)
        self._channel.say("applied", version=snapshot.version, digest=snapshot.digest, epoch=snapshot.epoch)
        self._say_stats()
        self._say_if_drained()

    def _check_successor(self, snapshot: Snapshot, version: int) -> None:
        """The snapshot may follow the one in force.

        Raises:
            InvalidSnapshot: it is not the version it is said to be, or older, or another one of that number.
        """
        if snapshot.version != version:
            raise InvalidSnapshot("version", f"is {snapshot.version}, not {version} as announced")
        now = self.steering.snapshot
        if now is None:
            return
        if snapshot.version < now.version:
            raise InvalidSnapshot("version", f"is {snapshot.version}, below {now.version} which is in force")
        if snapshot.version == now.version and snapshot.digest != now.digest:
            raise InvalidSnapshot("digest", "is another one than that of the same version in force")

    def _obey(self, snapshot: Snapshot) -> None:
        """From the first line on every decision is by the new snapshot; what it forbids has begun to end.

        All of it happens in one turn of the loop: no handshake can open a tunnel in between (I1, I2).
        """
        self.steering.snapshot = snapshot
        self.shell.back_sources.keep(servers_of(snapshot, self.unit))
        unwanted = self.progress.applied(snapshot, self.sessions)
        self.sessions.close(unwanted, lambda tunnel: _moved_to(snapshot, tunnel))
        for opening in list(self.sessions.half_open):
            wish = opening.wish
            if wish is None or wish.router_id is None:
                continue
            if not snapshot.serves(self.unit, wish.unit_type, wish.router_id):
                try:
                    opening.decide_again()
                except Exception:  # one handshake dies of our error, and no other gets a tunnel by it
                    log.exception("connection_failed", endpoint="Opening")
                    opening.abort()
        self.waiting.wake()

    def _listen(self) -> None:
        if self._drain is not None or self._exit_by:
            return
        self._parking = False
        try:
            port = self.shell.listen(self._host, self._port)
            tls_port = self.shell.listen(self._tls.host, self._tls.port, TLS) if self._tls else 0
        except OSError as error:
            # The agent cannot mend it either: it sees the exit and says so.
            tls = {"tls_host": self._tls.host, "tls_port": self._tls.port} if self._tls else {}
            log.error("cannot_listen", host=self._host, port=self._port, error=str(error), **tls)
            self.exit_code = 1
            self.exit("edge stopped")
            return
        self._channel.say("listening", port=port, tls_port=tls_port)

    def _look_at_certificates(self) -> None:
        """What has changed of them serves the next handshakes; the reading is done beside the loop."""
        if self._tls is None or self._looking:
            return
        self._looking = True
        threading.Thread(target=self._look, args=(self._tls.certificates,), daemon=True).start()

    def _look(self, certificates: Certificates) -> None:
        try:
            certificates.look()
        except Exception:
            log.exception("certificates_not_read")
        finally:
            self._looking = False

    def _park(self) -> None:
        self._parking = True
        self.shell.stop_listening()
        self._close_all("edge parked", SERVICE_RESTART)
        self.waiting.empty()
        self._say_if_parked()

    def drain(self, seconds: float, listen_until: float = 0.0, listeners: int = 1) -> None:
        """No new connection; sessions end within the time, by themselves or by a Close.

        Called again, it gives the sessions that are left this time from now on.

        Args:
            listen_until: somebody else takes the port over, and until then (monotonic seconds) connections
                that are on their way to us are still served; the time for sessions begins after that.
            listeners: how many of those on the port will be closed then, ours and our siblings'.
        """
        now = time.monotonic()
        if self._drain is None and listen_until > now:
            self.shell.run_dry()
            self.reactor.call_later(listen_until - now, lambda: self._hand_over(listeners))
        elif self._drain is None:
            self._close_doors()
        self._drain = Drain(max(now, listen_until), seconds, self.sessions)
        self._go_on_draining(now)

    def _hand_over(self, listeners: int) -> None:
        self.shell.yield_to_others(listeners)
        self._close_doors()

    def _close_doors(self) -> None:
        self.steering.draining = True
        self.shell.stop_listening()

    def exit_when_empty(self) -> None:
        """The process ends after the drain, without waiting for the agent to say so."""
        self._exit_after_drain = True
        self._go_on_draining(time.monotonic())

    def exit(self, reason: str) -> None:
        """Everything is closed and the process ends, a little later at most."""
        if self._exit_by:
            return
        self.steering.draining = True
        self.shell.stop_listening()
        self._close_all(reason, SERVICE_RESTART)
        self.waiting.empty()
        self._exit_by = time.monotonic() + _LAST_WAIT_S
        self._end_if_done(time.monotonic())

    def _close_all(self, reason: str, code: int) -> None:
        self.sessions.close(list(self.sessions), lambda _: reason, code)
        self.shell.drop_openings("edge_closing")

    # What happens meanwhile

    def _session_removed(self, tunnel: Tunnel) -> None:
        if self.progress.removed(tunnel):
            self._say_stats()
            self._say_if_drained()
        if self._parking:
            self._say_if_parked()

    def _say_if_drained(self) -> None:
        if self.progress.drained:
            self._channel.say("drained", epoch=self.progress.epoch)

    def _say_if_parked(self) -> None:
        if self._parking and not self.sessions and not self.sessions.half_open:
            self._parking = False
            self._channel.say("parked")

    def _tick(self, now: float) -> None:
        if now >= self._stats_due:
            self._stats_due = now + STATS_S
            self._say_stats()
        if self._drain is not None:
            self._go_on_draining(now)
        if self._exit_by:
            self._end_if_done(now)

    def _say_stats(self, asked: int = 0) -> None:
        """The agent knows the figures; those that cost something to find out only when it asked for them."""
        self.sessions.counters["log_lines_dropped"] = self._access_log.dropped
        self.sessions.measure(open_ones=asked > 0)
        tally = Tally.of(self.sessions)
        self._channel.mention(
            "stats",
            sessions=len(self.sessions),
            half_open=len(self.sessions.half_open),
            held=len(self.waiting),
            counters=self.sessions.counters | tally.by_name(),
            by_phase=self.progress.numbers() if self.progress.epoch >= 0 else {},
            tally=tally.said(),
            down=sorted(self.shell.back_sources.down),
            lag_s=self.reactor.take_lag(),
            report=asked,
        )

    def _go_on_draining(self, now: float) -> None:
        assert self._drain is not None
        self.sessions.close(self._drain.due(now), lambda _: "edge restarting")
        if now >= self._drain.over_at:
            self.waiting.empty()
        if now >= self._drain.over_at + _LAST_WAIT_S:
            self.reactor.abort_all()
        if not self._empty_said and not self.shell.listening and not self.shell.connections:
            self._empty_said = True
            self._say_stats()
            self._channel.say("empty")
        if self._empty_said and self._exit_after_drain:
            self.exit("edge restarting")

    def _end_if_done(self, now: float) -> None:
        if not self.shell.connections or now >= self._exit_by:
            self.reactor.end()


def _moved_to(snapshot: Snapshot, tunnel: Tunnel) -> str:
    """Why a session ends, for its client: where its id is now, or is going."""
    router_id = tunnel.router_id
    rule = snapshot.unit_types.get(tunnel.unit_type)
    if router_id is None or rule is None or not rule.table.key_space.contains(router_id):
        return "routing changed"
    running = snapshot.cutover
    move = running.moved.find(router_id) if running and running.unit_type == tunnel.unit_type else None
    if move is None:
        return f"moved to {rule.table.owner(router_id)}"
    return f"moved to {move.gaining}" if move.gaining != move.losing else "routing changed"
