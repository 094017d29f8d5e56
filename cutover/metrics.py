"""What Prometheus is told of cutovers: how many of each state, and how the last one that moved ids went."""

from collections.abc import Iterable

from django.db.models import Count
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from cutover.models import Cutover


class Cutovers(Collector):
    """Cutovers by state, and the freeze of the newest one that is done."""

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """Nothing: the database is read at each scrape."""
        return ()

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """The families as they are now."""
        by_state = GaugeMetricFamily("msha_cutovers", "Cutovers by state.", labels=["namespace", "state"])
        rows = Cutover.objects.order_by("namespace__name", "state").values_list("namespace__name", "state")
        for name, state, count in rows.annotate(count=Count("pk")):
            by_state.add_metric([name, state], count)
        yield by_state
        frozen = GaugeMetricFamily(
            "msha_cutover_frozen_seconds",
            "How long the ids of the newest finished cutover were frozen at most.",
            labels=["namespace"],
        )
        newest: dict[str, float] = {}
        done = Cutover.objects.filter(state=Cutover.State.DONE).order_by("number")
        for name, figures in done.values_list("namespace__name", "figures"):
            if isinstance(figures.get("frozen_ms"), int | float):
                newest[name] = figures["frozen_ms"] / 1000
        for name, seconds in sorted(newest.items()):
            frozen.add_metric([name], seconds)
        yield frozen
