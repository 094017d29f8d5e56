"""The agent of a node: it holds the control stream and the state directory, and answers for its workers.

The invariants (PROTOCOL 3, 4, 7): nothing is listened on before a snapshot is obeyed; an ack means on disk
and in every worker; drained means nothing left in any worker; the version never goes down, restarts included;
and a node that left or was revoked never starts from its file.
"""

import asyncio
import os
import socket
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import structlog

from msha.edge.limits import Limits, Room, descriptors
from msha.edge.node import probes
from msha.edge.node.control import DIAL_TIMEOUT_S, ControlClient, Turned
from msha.edge.node.leaving import not_told, say_left_patiently
from msha.edge.node.metrics import Standing
from msha.edge.node.parking import must_park
from msha.edge.node.process import EdgeProcess, Exit, Options, Stop, software
from msha.edge.node.signed_file import LOOK_EVERY_S, SignedFile
from msha.edge.node.state import (
    ControlAddress,
    Description,
    Identity,
    RunningAgent,
    StateDirectory,
    Stored,
    Tombstone,
)
from msha.edge.node.succession import Succession
from msha.edge.node.workers import NotApplied, Order, Posture, Stats
from msha.edge.servers import servers_of
from msha.edge.session.messages import Outcome
from msha.steering.breakglass import Signed, check_follows
from msha.steering.errors import InvalidSnapshot, MshaError, Terminal
from msha.steering.phases import Phase
from msha.steering.snapshot import Snapshot, load
from msha.steering.wire import (
    Ack,
    Confirm,
    Deliver,
    Drained,
    Hello,
    Nack,
    ProbeRequest,
    ProbeResult,
    Status,
    Welcome,
    WorkersExited,
)

#: A console that welcomes a starting node but then says nothing is as good as none after this long.
START_PATIENCE_S = 10.0
#: A snapshot that failed for a reason that may pass (a full disk) is tried again after this long.
RETRY_S = 2.0
#: How long the last messages may take to leave.
FLUSH_S = 2.0

log = structlog.get_logger("msha.edge.agent")


class Refusal(Terminal):
    """A delivered snapshot that this node does not apply."""


class Agent(EdgeProcess):
    """A node of a console.

    Attributes:
        snapshot: what every worker obeys, or None before the first.
        on_disk: the valid snapshot in the state directory, or None; never older than ``snapshot``.
        enrolment: the enrolment that the console counts this node under, or None.
        refused: the snapshot that was refused last and not followed by one that was applied.
    """

    def __init__(
        self,
        options: Options,
        reserved: socket.socket,
        directory: StateDirectory,
        control: ControlAddress,
        succession: Succession | None = None,
        signed_file: SignedFile | None = None,
    ) -> None:
        super().__init__(options, reserved, (directory.lock_fd,))
        # process
        self.directory = directory
        self.control = control
        self.client = ControlClient(control.url, Path(control.token_file), self)
        self.identity: Identity | None = directory.floor.identity if directory.floor else None
        self._probes: set[asyncio.Task[None]] = set()
        self._probing = asyncio.Semaphore(probes.AT_ONCE)
        possible = Room.of(descriptors()).connections
        self._room_of_one = min(Limits.of(os.environ).connections or possible, possible)
        self._succession = succession
        self._signed_file = signed_file
        self._ready = asyncio.Event()
        # what the node has
        self.on_disk: Snapshot | None = None
        self.snapshot: Snapshot | None = None
        self.enrolment: int | None = None
        self.refused: Nack | None = None
        self._barred = False
        # what is wanted of it
        self._wanted: Deliver | None = None
        self._wake = asyncio.Event()
        self._applying = asyncio.Lock()
        # what was said on the present connection
        self._told_drained = -1
        self._told_exited = -1
        self._reported: tuple[object, ...] = ()
        self._read_disk()
        if succession is not None and self.identity is not None:
            succession.check(self.identity)

    # ---- the process

    def standing(self) -> Standing:
        has, identity = self.snapshot, self.identity
        return Standing(
            unit=identity.unit if identity else "",
            node=identity.node if identity else "",
            version=has.version if has else 0,
            epoch=has.epoch if has else -1,
            refused=self.refused is not None,
            in_sync=self.client.in_sync,
            connected=self.client.connected,
            listening=self._listening,
            parked=self._parked,
            draining=self.draining,
            back_sources=servers_of(has, identity.unit) if has and identity else frozenset(),
        )

    def works(self) -> list[Coroutine[Any, Any, None]]:
        if self.identity is not None:
            self.start_fleet(self.identity.unit)
        self.directory.take_request()  # meant for an agent before us
        self._say_who_runs()
        works = [self.client.run(), self._apply_forever(), self._succeed()]
        if self._signed_file is not None:
            works.append(self._break_glass(self._signed_file))
        return works

    async def _succeed(self) -> None:
        """The node whose port this one takes over leaves as soon as this one serves."""
        await self._ready.wait()
        if self._succession is not None:
            assert self.fleet is not None
            try:
                await self._succession.complete(self.fleet, lambda: not self.draining)
                await self._succession.until_left(self.fleet)
            except Exception:
                # The port has two nodes then, which an operator can end; it must not be left with none.
                log.exception("taking_over_failed")
        await asyncio.Event().wait()

    def _say_who_runs(self, *, leaving: bool = False) -> None:
        try:
            self.directory.write_agent(RunningAgent(os.getpid(), self.address, leaving))
        except OSError as error:  # a node that cannot be taken over serves all the same
            log.warning("agent_file_not_written", path=str(self.directory.path), reason=str(error))

    def leave(self) -> None:
        request = self.directory.take_request()
        if request is not None:
            drain_s = self.options.drain_s if request.drain_s is None else request.drain_s
            self.drain_within(drain_s, hand_over=request.hand_over)
        if request is not None and self.turn_into_leaving():
            self._say_who_runs(leaving=True)
        else:
            super().leave()

    def changed(self) -> None:
        super().changed()
        if self._listening:
            self._ready.set()
        self._tell_drained()
        self._tell_exited()
        has = self._shape()
        if has != self._reported:
            self._reported = has
            self.client.report()

    def ticked(self) -> None:
        patience_s = START_PATIENCE_S if self.client.connected else DIAL_TIMEOUT_S
        if self.snapshot is None and time.monotonic() - self.began > patience_s:
            self.unreachable("", answered=False)
        # A gate may wait for this one word; saying it again costs less than losing it once. (An ack that
        # is lost is asked for: the console delivers again.)
        self._told_drained = self._told_exited = -1
        self._tell_drained()
        self._tell_exited()

    async def finish(self) -> int:
        assert self._stop is not None
        if self._stop.leave:
            self._say_who_runs(leaving=True)
        if self._stop.code is not Exit.REVOKED:
            await self.drain()
        if self.fleet is not None:
            await self.fleet.stop(self._stop.sentence)
        self._tell_exited()
        await self.client.close(FLUSH_S)
        async with self._applying:
            stop = self._stop  # all of this lasts long enough to be declared dead meanwhile
            if stop.code is Exit.REVOKED:
                return await self._finish_revoked(stop)
            if stop.leave and self.enrolment is not None:
                return await self._finish_leaving(stop, self.enrolment)
        return self.ended(stop)

    async def _finish_leaving(self, stop: Stop, enrolment: int) -> int:
        await self._bury(Tombstone.now(enrolment, "left"))
        try:
            await say_left_patiently(self.directory, self.control, self.address)
        except MshaError as error:
            return self.ended(Stop(Exit.FAILED, not_told(self.directory, error)))
        return self.ended(stop)

    async def _finish_revoked(self, stop: Stop) -> int:
        await self._bury(self._revocation())
        return self.ended(stop)

    def _revocation(self) -> Tombstone:
        stored = self.directory.stored
        enrolment = max(self.enrolment or 0, stored.enrolment if stored else 0)
        return Tombstone.now(enrolment, "revoked", told=True)

    async def _bury(self, tombstone: Tombstone) -> None:
        """The tombstone is on disk; without it the process does not end, because another could start."""
        while True:
            try:
                await asyncio.to_thread(self.directory.write_tombstone, tombstone)
                return
            except OSError as error:
                log.error("tombstone_not_written", path=str(self.directory.path), reason=str(error))
                await asyncio.sleep(RETRY_S)

    # ---- what the control stream asks (control.Node)

    def hello(self) -> Hello:
        floor, has, tombstone = self.directory.floor, self.on_disk, self.directory.tombstone
        return Hello(
            instance=self.directory.instance,
            software=software(),
            address=self.address,
            workers=self.options.workers,
            pid=os.getpid(),
            enrolment=floor.enrolment if floor else None,
            version=has.version if has else 0,
            digest=has.digest if has else "",
            epoch=has.epoch if has else -1,
            left=tombstone.enrolment if tombstone else None,
        )

    def status(self, seq: int, in_sync: bool) -> Status:
        has = self.snapshot or self.on_disk
        totals = self.fleet.totals() if self.fleet else Stats()
        return Status(
            enrolment=self.enrolment or 0,
            seq=seq,
            version=has.version if has else 0,
            digest=has.digest if has else "",
            epoch=has.epoch if has else -1,
            clock_ms=time.time_ns() // 1_000_000,
            sessions=totals.sessions,
            half_open=totals.half_open,
            held=totals.held,
            workers=self.fleet.alive if self.fleet else 0,
            listening=self._listening,
            parked=self._parked,
            draining=self._stopping.is_set(),
            in_sync=in_sync,
            counters={**totals.counters, "connections_limit": self._room()},
            progress=totals.progress,
        )

    def _room(self) -> int:
        """How many clients all workers together take at most."""
        return self._room_of_one * (self.fleet.alive if self.fleet else 0)

    def applied(self) -> tuple[int, str]:
        return (self.snapshot.version, self.snapshot.digest) if self.snapshot else (0, "")

    def welcomed(self, welcome: Welcome) -> None:
        identity = Identity(welcome.node, welcome.unit, welcome.namespace_id)
        if self._succession is not None:
            self._succession.check(identity)
        known = self.identity
        if known is not None and (known.unit, known.namespace_id) != (identity.unit, identity.namespace_id):
            path = self.directory.path
            raise Turned(
                f"The state directory {path} belongs to node {known.node} of unit {known.unit}."
                f" Run node {identity.node} of unit {identity.unit} with a --state-dir of its own."
            )
        log.info("welcomed", node=welcome.node, unit=welcome.unit, enrolment=welcome.enrolment)
        self.identity = identity
        tombstone = self.directory.tombstone
        if welcome.enrolment is not None and (tombstone is None or tombstone.enrolment < welcome.enrolment):
            self.enrolment = welcome.enrolment
        if not self._stopping.is_set():
            self.start_fleet(welcome.unit)
        self._told_drained = self._told_exited = -1
        if self.refused is not None:
            self.client.send(self.refused)
        self._tell_ack()
        self._tell_drained()
        self._tell_exited()

    def delivered(self, deliver: Deliver) -> None:
        if self._wanted is not None and deliver.version < self._wanted.version:
            return  # a late message
        if (deliver.version, deliver.digest) == self.applied() and deliver.enrolment == self._counted:
            self._tell_ack()
            return
        self._want(deliver)

    def confirmed(self, confirm: Confirm) -> None:
        """The console says that our own file is current: that is as good as having it delivered."""
        stored = self.directory.stored
        if stored is None or self.on_disk is None or self.enrolment is None or not self._idle:
            return
        current = (confirm.version, confirm.digest) == (stored.version, stored.digest)
        if current and (self.snapshot is None or stored.enrolment != self.enrolment):
            self._want(_own(stored, self.enrolment))

    def synced(self, until: float) -> None:
        if self.fleet is not None:
            self.fleet.sync(until)
            if until and self.snapshot is not None and self.fleet.posture is Posture.IDLE:
                self._open()

    def revoked(self, reason: str) -> None:
        log.error("revoked", reason=reason)
        if self.fleet is not None:
            self.fleet.park()
        try:
            # At once: from being told on the promise rests on us, also if we are killed the next moment.
            # When the workers have ended it is written again, because an enrolment may be being stored now.
            self.directory.write_tombstone(self._revocation())
        except OSError as error:
            log.error("tombstone_not_written", path=str(self.directory.path), reason=str(error))
        self.stop(Stop(Exit.REVOKED, f"This node was declared dead and does not serve any more: {reason}"))

    def turned_away(self, sentence: str) -> None:
        if self.snapshot is None and self._idle:
            self.stop(Stop(Exit.FAILED, sentence))

    def unreachable(self, sentence: str, *, answered: bool) -> None:
        if self._idle and not answered:
            self._start_from_file()

    def probe(self, request: ProbeRequest) -> None:
        if len(self._probes) >= probes.WAITING_LIMIT:
            busy = {"ok": False, "ms": 0, "error": "This node is busy with other probes."}
            self.client.send(ProbeResult(request.probe, busy))
            return
        task = asyncio.create_task(self._probe(request))
        self._probes.add(task)
        task.add_done_callback(self._probes.discard)

    async def _probe(self, request: ProbeRequest) -> None:
        if request.kind == "count":
            result = await self._count(request)
        elif request.kind == "send":
            result = await self._send(request)
        elif request.kind == "returns":
            result = await self._returns(request)
        elif request.kind == "rehearse":
            result = await self._rehearse(request)
        else:
            async with self._probing:
                result = await probes.run(request, (self.host, self.port), f"{software()} probe")
        self.client.send(ProbeResult(request.probe, result))

    async def _count(self, request: ProbeRequest) -> probes.Result:
        """Live sessions in each of the ranges; the workers know them."""
        unit_type, ranges = probes.countable(request.params)
        if ranges is None:
            return {"ok": False, "ms": 0, "error": "The ranges of the probe are not [[first, last], ...]."}
        started = time.perf_counter()
        counts: list[int] | None = [0] * len(ranges)
        if self.fleet is not None:
            counts = await self.fleet.count(unit_type, ranges, request.timeout_s)
        ms = round((time.perf_counter() - started) * 1000, 1)
        if counts is None:
            return {"ok": False, "ms": ms, "error": "Not every worker counted its sessions in time."}
        return {"ok": True, "ms": ms, "counts": counts}

    async def _returns(self, request: ProbeRequest) -> probes.Result:
        """Whose sessions a cutover has closed here and who has come back; the workers remember it."""
        cutover, among = request.params.get("cutover"), request.params.get("among")
        if among is not None:
            among = probes.countable({"ranges": among})[1]
        if type(cutover) is not int or (among is None) != (request.params.get("among") is None):
            return {"ok": False, "ms": 0, "error": "The probe names no cutover, or ranges that are none."}
        started = time.perf_counter()
        told = None
        if self.fleet is not None:
            told = await self.fleet.returns(cutover, among, request.timeout_s)
        ms = round((time.perf_counter() - started) * 1000, 1)
        if told is None:
            return {"ok": False, "ms": ms, "error": "Not every worker remembers this cutover."}
        return {"ok": True, "ms": ms, "ids": told[0], "left_out": told[1]}

    async def _rehearse(self, request: ProbeRequest) -> probes.Result:
        """What a FREEZE would take here: disk, reading a snapshot, finding the sessions; none is closed."""
        stored = self.directory.stored
        if stored is None:
            return {"ok": False, "ms": 0, "error": "This node has no snapshot yet."}
        started = time.perf_counter()
        try:
            disk_ms = await asyncio.to_thread(self.directory.rehearse)
        except OSError as error:
            return {"ok": False, "ms": 0, "error": f"The disk refused: {error.strerror}."}
        began = time.perf_counter()
        await asyncio.to_thread(load, stored.body)
        read_ms = round((time.perf_counter() - began) * 1000, 1)
        counted = await self._count(request)
        ms = round((time.perf_counter() - started) * 1000, 1)
        return {**counted, "ms": ms, "disk_ms": disk_ms, "read_ms": read_ms}

    async def _send(self, request: ProbeRequest) -> probes.Result:
        """A text is on its way to sessions; nothing is waited for before the workers are told (order)."""
        read = probes.speakable(request.params)
        if isinstance(read, str):
            return {"ok": False, "ms": 0, "error": read}
        address, text = read
        started = time.perf_counter()
        outcome, complete = Outcome(), True
        if self.fleet is not None:
            outcome, complete = await self.fleet.send(address, text, request.timeout_s)
        ms = round((time.perf_counter() - started) * 1000, 1)
        result = {"ok": complete, "ms": ms, **outcome.as_dict()}
        if not complete:
            result["error"] = "Not every worker said in time what became of the text."
        return result

    # ---- applying

    @property
    def _idle(self) -> bool:
        return self._wanted is None and not self._applying.locked()

    @property
    def _counted(self) -> int | None:
        """The enrolment that the disk remembers; only under it may anything be said to be there."""
        return self.directory.stored.enrolment if self.directory.stored else None

    def _want(self, deliver: Deliver) -> None:
        self._wanted = deliver
        self._wake.set()

    def _read_disk(self) -> None:
        directory = self.directory
        if directory.torn:
            log.error("snapshot_file_torn", path=str(directory.path), reason=directory.torn)
        if directory.floor is not None and directory.tombstone is None:
            self.enrolment = directory.floor.enrolment
        if directory.stored is not None:
            try:
                self.on_disk = load(directory.stored.body, directory.stored.digest)
            except InvalidSnapshot as error:
                log.error("snapshot_file_refused", path=str(directory.path), reason=str(error))

    def _start_from_file(self) -> None:
        """With no console to ask, an enrolled node goes on from its own newest file (PROTOCOL J2)."""
        stored = self.directory.stored
        if self.snapshot is not None or self._barred or stored is None or self.on_disk is None:
            return
        if self.directory.tombstone is not None:
            return  # it starts only by being enrolled anew
        log.warning("starting_from_file", version=stored.version)
        self._want(_own(stored, stored.enrolment))

    async def _apply_forever(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            async with self._applying:
                deliver, self._wanted = self._wanted, None
                if deliver is not None and self.fleet is not None and not self._ended:
                    await self._take(deliver)

    async def _break_glass(self, file: SignedFile) -> None:
        """A signed snapshot in the file is obeyed, with or without a console (docs/break-glass.md)."""
        log.info("breakglass_possible", path=str(file.path), keys=file.key_names)
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            if self.snapshot is None or self.fleet is None:
                continue  # a node that serves nothing yet has to be enrolled first (PROTOCOL J1)
            signed = await file.news()
            if signed is None:
                continue
            async with self._applying:
                try:
                    deliver = self._from_file(signed)
                except Terminal as error:
                    file.refuse(str(error))
                    continue
                if deliver is not None and not self._ended:
                    told = signed.statement
                    log.warning(
                        "breakglass_taken",
                        version=told.version,
                        epoch=told.epoch,
                        key=signed.key,
                        by=told.by,
                        signed_at=told.at,
                        fenced=list(told.fenced),
                    )
                    await self._take(deliver)

    def _from_file(self, signed: Signed) -> Deliver | None:
        """The signed snapshot as if it had been delivered; None if it is in force already.

        Raises:
            Terminal: this node must not go on with it.
        """
        assert self.identity is not None
        has, snapshot, enrolment = self.snapshot, signed.snapshot, self._counted
        if (snapshot.version, snapshot.digest) == self.applied():
            return None
        if has is None or enrolment is None or self.directory.tombstone is not None:
            raise Refusal("This node is not enrolled; nobody would wait for it.")
        if self.identity.unit not in snapshot.units:
            raise Refusal(f"It has no unit {self.identity.unit}, which this node serves.")
        check_follows(has, signed)
        return Deliver(enrolment, snapshot.version, snapshot.digest, signed.body.decode())

    @property
    def _ended(self) -> bool:
        return self._stop is not None and self._stop.code is Exit.REVOKED

    async def _take(self, deliver: Deliver) -> None:
        """The snapshot is obeyed and acked, or refused with a reason."""
        if deliver.version != self.applied()[0]:
            self.client.unsync()
        try:
            snapshot = self._verified(deliver)
            await self._store(deliver, snapshot)
            await self._obey(snapshot)
        except (OSError, NotApplied) as error:
            self._refuse(deliver, _sentence(error))
            asyncio.get_running_loop().call_later(RETRY_S, self._retry, deliver)
        except Terminal as error:
            self._refuse(deliver, str(error))
        except Exception as error:
            # A document that trips us up would trip up every edge; none of them may stop serving for it.
            log.exception("applying_failed", version=deliver.version)
            self._refuse(deliver, f"This edge failed on it: {error!r}")

    def _verified(self, deliver: Deliver) -> Snapshot:
        assert self.identity is not None
        tombstone = self.directory.tombstone
        if tombstone is not None and deliver.enrolment <= tombstone.enrolment:
            raise Refusal(
                f"This node has ended its enrolment {tombstone.enrolment} ({tombstone.reason}) and starts"
                " only by being enrolled anew."
            )
        snapshot = load(deliver.body.encode(), deliver.digest)
        if snapshot.version != deliver.version:
            raise Refusal(f"Version {deliver.version} was announced, but the document is {snapshot.version}.")
        if snapshot.namespace_id != self.identity.namespace_id:
            raise Refusal(f"Version {deliver.version} belongs to another namespace, {snapshot.namespace}.")
        self.directory.check_version(snapshot.version, snapshot.digest)
        return snapshot

    async def _store(self, deliver: Deliver, snapshot: Snapshot) -> None:
        assert self.identity is not None
        node, unit, namespace_id = self.identity.node, self.identity.unit, self.identity.namespace_id
        described = Description(
            snapshot.version, snapshot.digest, deliver.enrolment, node, unit, namespace_id
        )
        stored = self.directory.stored
        if stored is None or stored.description != described:
            await asyncio.to_thread(self.directory.write_snapshot, Stored(described, deliver.body.encode()))
        self.on_disk = snapshot
        self.enrolment = deliver.enrolment
        self._tell_exited()

    async def _obey(self, snapshot: Snapshot) -> None:
        assert self.fleet is not None
        assert self.directory.stored is not None
        if self.snapshot is None or self.snapshot.digest != snapshot.digest:
            body = self.directory.stored.body
            await self.fleet.apply(Order(snapshot.version, snapshot.digest, snapshot.epoch, body))
        self.snapshot = snapshot
        if self.refused is None or self.refused.version <= snapshot.version:
            self.refused, self._barred = None, False
        log.info("applied", version=snapshot.version, digest=snapshot.digest, epoch=snapshot.epoch)
        self._tell_ack()
        self._tell_drained()
        self._open()
        self.client.report()

    def _open(self) -> None:
        """The workers listen, unless there is a reason not to.

        One is a node that still serves on our port: it gives redirects that a node which is not in sync yet
        must not give (PROTOCOL S), so that a client would be turned away that comes to us too early.
        """
        assert self.fleet is not None
        alone = self._succession is None or not self._succession.pending
        if not self._barred and not self._stopping.is_set() and (alone or self.client.in_sync):
            self.fleet.listen()

    def _refuse(self, deliver: Deliver, reason: str) -> None:
        log.error("refused", version=deliver.version, reason=reason)
        self.refused = Nack(deliver.enrolment, deliver.version, deliver.digest, reason)
        self.client.unsync()
        self.client.send(self.refused)
        assert self.identity is not None
        has = self.snapshot or self.on_disk
        if has is not None and must_park(has, self.identity.unit, deliver.body):
            self._barred = True
            if self.fleet is not None and not self._stopping.is_set():
                log.error("parked", version=deliver.version)
                self.fleet.park()
        elif self.on_disk is not None and self.on_disk.version != deliver.version:
            self._start_from_file()
        self.client.report()

    def _retry(self, deliver: Deliver) -> None:
        refused = self.refused
        still = refused is not None and (refused.version, refused.digest) == (deliver.version, deliver.digest)
        if still and self._wanted is None and not self._stopping.is_set():
            self._want(deliver)

    # ---- telling

    def _tell_ack(self) -> None:
        if self.snapshot is not None and self._counted is not None and self._counted == self.enrolment:
            has = self.snapshot
            self.client.send(Ack(self._counted, has.version, has.digest, has.epoch))

    def _tell_drained(self) -> None:
        has = self.snapshot
        if has is None or not _freezes(has) or has.epoch == self._told_drained or self.fleet is None:
            return
        if self._counted is not None and self._counted == self.enrolment and self.fleet.drained(has.epoch):
            self._told_drained = has.epoch
            self.client.send(Drained(self._counted, has.epoch))

    def _tell_exited(self) -> None:
        """PROTOCOL J4: whatever starts here next starts from that FREEZE or from something newer."""
        has = self.on_disk
        if has is None or not _freezes(has) or has.epoch == self._told_exited or self.fleet is None:
            return
        if self._counted is not None and self._counted == self.enrolment and self.fleet.alive == 0:
            self._told_exited = has.epoch
            self.client.send(WorkersExited(self._counted, has.epoch))

    @property
    def _listening(self) -> bool:
        return self.fleet is not None and self.fleet.listening

    @property
    def _parked(self) -> bool:
        """Refused, listener closed, no sessions: on the word of every worker."""
        if self.refused is None or self.fleet is None:
            return False
        return self.fleet.posture is Posture.IDLE or self.fleet.parked

    def _shape(self) -> tuple[object, ...]:
        """What makes a status worth sending before its second is over."""
        if self.fleet is None:
            return ()
        progress = tuple(sorted(self.fleet.totals().progress.items()))
        return (self.fleet.alive, self._listening, self._parked, progress)


def _own(stored: Stored, enrolment: int) -> Deliver:
    """Our own file as if it had been delivered."""
    return Deliver(enrolment, stored.version, stored.digest, stored.body.decode())


def _freezes(snapshot: Snapshot) -> bool:
    return snapshot.cutover is not None and snapshot.cutover.phase is Phase.FREEZE


def _sentence(error: OSError | NotApplied) -> str:
    if isinstance(error, OSError):
        return f"The snapshot could not be written to disk: {error.strerror}."
    return str(error)
