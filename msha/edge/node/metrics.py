"""What Prometheus is told of a node; ``docs/edge.md`` has the table.

Nothing is counted here: the figures are those that the workers told the agent last. So a scrape costs a few
tenths of a millisecond of the agent, and the workers nothing while nobody scrapes.
"""

import os
import platform
import resource
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from msha.edge.node.certificate_watch import CertificateFigures
from msha.edge.node.workers import Fleet, Stats, Worker
from msha.edge.session.sessions import DECISION_BOUNDS_S
from msha.edge.session.tally import Pair

#: Counters that have a family of their own, where they are told apart better; all others are events.
_NO_EVENTS = ("handshakes", "bytes_up", "bytes_down", "back_source_failed")
_NO_EVENT_PREFIXES = ("decision_", "reason_", "invalid_", "ended_by_")


@dataclass(frozen=True, slots=True)
class Standing:
    """How the node stands, as its agent knows it.

    Attributes:
        unit, node: empty until they are known.
        version, epoch: of the snapshot that every worker obeys; 0 and -1 before the first.
        refused: whether the newest snapshot that was seen could not be applied.
        in_sync: whether the snapshot is known to be the newest (PROTOCOL 1).
        connected: whether the console has welcomed the node on an open connection; None without a console.
        back_sources: the servers of its unit in that version.
    """

    unit: str
    node: str
    version: int
    epoch: int
    refused: bool
    in_sync: bool
    connected: bool | None
    listening: bool
    parked: bool
    draining: bool
    back_sources: frozenset[str]


class Descriptors(NamedTuple):
    """File descriptors of a process: how many are open, and how many may be."""

    used: int
    limit: int


@dataclass(frozen=True, slots=True)
class WorkerFigures:
    """One worker.

    Attributes:
        lag_s: the longest that its loop served nobody lately.
        age_s: how old its figures are.
        descriptors: None if the process has just ended.
    """

    slot: int
    lag_s: float
    age_s: float
    descriptors: Descriptors | None


@dataclass(frozen=True, slots=True)
class NodeMetrics(Collector):
    """All families of one scrape."""

    software: str
    standing: Standing
    stats: Stats
    workers: Sequence[WorkerFigures]
    wanted: int
    crashes: int
    certificates: CertificateFigures | None = None

    def collect(self) -> Iterator[Metric]:
        """The families, always all of them, so that no dashboard depends on what has happened yet."""
        yield from self._node()
        yield from self._snapshot()
        yield from self._traffic()
        yield from self._processes()
        if self.certificates is not None:
            yield from self._tls(self.certificates)

    def _node(self) -> Iterator[Metric]:
        standing = self.standing
        build = GaugeMetricFamily(
            "msha_edge_build_info",
            "What runs here, and as which node; always 1.",
            labels=["version", "python", "unit", "node"],
        )
        build.add_metric(
            [self.software.removeprefix("msha/"), platform.python_version(), standing.unit, standing.node], 1
        )
        yield build
        yield _gauge("msha_edge_listening", "1 while every worker takes connections.", standing.listening)
        yield _gauge(
            "msha_edge_parked", "1 while it refuses its snapshot and serves nobody.", standing.parked
        )
        yield _gauge("msha_edge_draining", "1 from being stopped until the end.", standing.draining)
        if standing.connected is not None:
            yield _gauge("msha_edge_control_connected", "1 while connected to a console.", standing.connected)

    def _snapshot(self) -> Iterator[Metric]:
        standing = self.standing
        yield _gauge("msha_edge_snapshot_version", "Version that every worker obeys.", standing.version)
        yield _gauge("msha_edge_snapshot_epoch", "Epoch of that version's rules.", standing.epoch)
        yield _gauge("msha_edge_snapshot_refused", "1 while a newer one cannot be applied.", standing.refused)
        yield _gauge("msha_edge_in_sync", "1 while confirmed to obey the newest version.", standing.in_sync)

    def _traffic(self) -> Iterator[Metric]:
        stats, tally = self.stats, self.stats.tally
        yield _gauge("msha_edge_sessions", "Open sessions.", stats.sessions)
        yield _gauge("msha_edge_half_open", "Handshakes that wait for a back-source's 101.", stats.half_open)
        yield _gauge("msha_edge_held", "Handshakes that wait for the next snapshot.", stats.held)
        yield _pairs("msha_edge_handshakes", "Requests answered.", ("decision", "reason"), tally.handshakes)
        yield self._decisions()
        yield _pairs("msha_edge_sessions_ended", "Sessions that are over.", ("by", "reason"), tally.ended)
        moved = {"up": tally.bytes_up, "down": tally.bytes_down}
        yield _counts("msha_edge_bytes", "Bytes relayed from clients and to them.", "direction", moved)
        yield self._back_sources()
        yield _counts(
            "msha_edge_back_source_failures",
            "Handshakes that a back-source server failed.",
            "server",
            tally.failures,
        )
        yield _counts("msha_edge_events", "What else was counted.", "event", _events(stats.counters))

    def _back_sources(self) -> Metric:
        meaning = "1 while no worker holds the back-source server for down."
        family = GaugeMetricFamily("msha_edge_back_source_up", meaning, labels=["server"])
        for server in sorted(self.standing.back_sources):
            family.add_metric([server], server not in self.stats.down)
        return family

    def _decisions(self) -> Metric:
        tally = self.stats.tally
        bounds = [*(str(bound) for bound in DECISION_BOUNDS_S), "+Inf"]
        buckets = list(zip(bounds, accumulate(tally.decisions), strict=True))
        meaning = "How long it took to decide on a handshake."
        return HistogramMetricFamily("msha_edge_decision_seconds", meaning, buckets, tally.decision_s)

    def _processes(self) -> Iterator[Metric]:
        yield _gauge("msha_edge_workers", "Worker processes that run.", len(self.workers))
        yield _gauge("msha_edge_workers_wanted", "Worker processes that should run.", self.wanted)
        crashes = CounterMetricFamily(
            "msha_edge_worker_crashes", "Workers that ended without having been told to."
        )
        crashes.add_metric([], self.crashes)
        yield crashes
        yield self._each(
            "msha_edge_worker_loop_lag_seconds",
            "The longest that its loop served nobody within a minute.",
            lambda worker: worker.lag_s,
        )
        yield self._each(
            "msha_edge_worker_report_age_seconds",
            "How long ago it told its figures.",
            lambda worker: worker.age_s,
        )
        yield self._each(
            "msha_edge_worker_open_fds",
            "File descriptors in use.",
            lambda worker: worker.descriptors and worker.descriptors.used,
        )
        yield self._each(
            "msha_edge_worker_max_fds",
            "File descriptors that may be in use.",
            lambda worker: worker.descriptors and worker.descriptors.limit,
        )

    def _tls(self, certificates: CertificateFigures) -> Iterator[Metric]:
        family = GaugeMetricFamily(
            "msha_edge_certificate_expiry_timestamp_seconds",
            "When the certificate in use expires.",
            labels=["name"],
        )
        for name, expires_at in sorted(certificates.expiries.items()):
            family.add_metric([name], expires_at)
        yield family
        meaning = "Certificate files that cannot be used."
        yield _gauge("msha_edge_certificates_refused", meaning, certificates.refused)

    def _each(
        self, name: str, meaning: str, value: Callable[[WorkerFigures], float | None]
    ) -> GaugeMetricFamily:
        family = GaugeMetricFamily(name, meaning, labels=["worker"])
        for worker in self.workers:
            found = value(worker)
            if found is not None:
                family.add_metric([str(worker.slot)], found)
        return family


def of_workers(fleet: Fleet, now: float) -> list[WorkerFigures]:
    """The figures of each worker at this time of the loop."""
    return [
        WorkerFigures(worker.slot, worker.lag.at(now), now - worker.stats_at, _descriptors(worker))
        for worker in fleet.workers
    ]


def _descriptors(worker: Worker) -> Descriptors | None:
    """Asked of the kernel: a worker that leaks descriptors would not know."""
    pid = worker.process.pid
    try:
        folder = f"/proc/{pid}/fd"
        used = os.stat(folder).st_size or len(os.listdir(folder))  # Linux before 6.2 does not tell the size
        return Descriptors(used, resource.prlimit(pid, resource.RLIMIT_NOFILE)[0])
    except OSError:
        return None


def _events(counters: Mapping[str, int]) -> dict[str, int]:
    return {
        name: count
        for name, count in counters.items()
        if name not in _NO_EVENTS and not name.startswith(_NO_EVENT_PREFIXES)
    }


def _gauge(name: str, meaning: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, meaning, value=float(value))


def _counts(name: str, meaning: str, label: str, counts: Mapping[str, int]) -> CounterMetricFamily:
    family = CounterMetricFamily(name, meaning, labels=[label])
    for value, count in sorted(counts.items()):
        family.add_metric([value], count)
    return family


def _pairs(name: str, meaning: str, labels: Iterable[str], counts: Mapping[Pair, int]) -> CounterMetricFamily:
    family = CounterMetricFamily(name, meaning, labels=list(labels))
    for pair, count in sorted(counts.items()):
        family.add_metric(pair, count)
    return family
