"""What a decision costs, in this process: one function call, without a socket."""

from time import perf_counter_ns

from bench.programs import HOST
from bench.snapshots import domain, publish
from msha.steering.decision import Request, Tunnel, decide
from msha.steering.snapshot import load

_REQUESTS = 1_000
_REPEATS = 15


class Decider:
    """A snapshot and handshakes that it tunnels, so that nothing but the lookups differs between two of them.

    Args:
        ranges: of the rule, of equal width, in turn of each unit.
        domains: of the snapshot; the handshakes ask for each in turn.
    """

    def __init__(self, ranges: int, domains: int) -> None:
        self.pids: list[int] = []
        width = 10_000 // ranges
        owned = [range(start, start + width) for start in range(0, 10_000, width)]
        units = {
            unit: [f"{ids[0]}~{ids[-1]}" for ids in owned[n::2]] for n, unit in enumerate(("center", "unbj"))
        }
        names = [HOST, *(f"domain-{number}.test" for number in range(1, domains))]
        rows = [domain(name, {"/": "127.0.0.1:9"}) for name in names]
        self._snapshot = load(publish(1, units, rows).body)
        ids = [each for part in owned[::2] for each in part]
        self._requests = [
            Request.of(names[n % domains], f"/im?session={n}", {"routerId": str(ids[n * 7919 % len(ids)])})
            for n in range(_REQUESTS)
        ]
        assert all(isinstance(decide(self._snapshot, "center", each), Tunnel) for each in self._requests)

    def microseconds(self) -> float:
        """What one decision takes: the best of some passes over the handshakes, as others' work only adds."""
        return min(self._pass() for _ in range(_REPEATS))

    def stop(self) -> None:
        """There is nothing to stop."""

    def _pass(self) -> float:
        snapshot, requests = self._snapshot, self._requests
        began = perf_counter_ns()
        for request in requests:
            decide(snapshot, "center", request)
        return (perf_counter_ns() - began) / len(requests) / 1000
