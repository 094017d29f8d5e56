"""``GET /metrics`` for Prometheus: alarms, nodes and versions, read from the database at each scrape.

Nothing is counted in a process: any console behind the load balancer gives the same answer. The scrape shows
an API token as its bearer token; its user needs the permission to view namespaces. The apps above add what
they know with :func:`register`.
"""

from collections import Counter
from collections.abc import Iterable

from django.http import HttpRequest, HttpResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from units.access import user_of_bearer
from units.models import Alarm, AlarmDelivery, AlarmTarget, EdgeNode, Namespace

#: What the collectors of all apps stand in; not the global one, which would add the process's own figures.
REGISTRY = CollectorRegistry(auto_describe=False)

#: Uncleared alarms; a kind is shown as 0 where it was raised once, so that a rule on it sees it end.
ALARMS = "msha_alarms"
#: Webhooks of alarms.
DELIVERIES = "msha_alarm_deliveries"


class Fleet(Collector):
    """Alarms, published versions and edge nodes."""

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """Nothing: the names are known when the database is read, not when the process starts."""
        return ()

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """The families as they are now."""
        yield self._alarms()
        yield self._deliveries()
        yield from self._namespaces()
        yield from self._nodes()

    def _alarms(self) -> GaugeMetricFamily:
        family = GaugeMetricFamily(ALARMS, "Alarms not cleared yet.", labels=["namespace", "kind"])
        raised: Counter[tuple[str, str]] = Counter()
        for name, kind, cleared in Alarm.objects.values_list("namespace__name", "kind", "cleared_at"):
            raised[name, kind] += cleared is None
        for labels, count in sorted(raised.items()):
            family.add_metric(labels, count)
        return family

    def _deliveries(self) -> GaugeMetricFamily:
        family = GaugeMetricFamily(
            DELIVERIES,
            "What alarm targets have not been told yet (pending), or not within a day (gave_up).",
            labels=["target", "state"],
        )
        states = (AlarmDelivery.State.PENDING, AlarmDelivery.State.GAVE_UP)
        rows = AlarmDelivery.objects.filter(state__in=states).exclude(alarm=None)
        counted = Counter(rows.values_list("target__name", "state"))
        for target in AlarmTarget.objects.values_list("name", flat=True):
            for state in states:
                family.add_metric([target, str(state)], counted[target, str(state)])
        return family

    def _namespaces(self) -> Iterable[GaugeMetricFamily]:
        version = GaugeMetricFamily("msha_version", "Newest published version.", labels=["namespace"])
        stopped = GaugeMetricFamily(
            "msha_publishing_stopped",
            "1 while publishing is stopped because a node is ahead of the database.",
            labels=["namespace"],
        )
        for namespace in Namespace.objects.order_by("name"):
            version.add_metric([namespace.name], namespace.version)
            stopped.add_metric([namespace.name], bool(namespace.publishing_stopped))
        return version, stopped

    def _nodes(self) -> Iterable[GaugeMetricFamily]:
        labels = ["namespace", "unit", "node"]
        live = GaugeMetricFamily(
            "msha_node_live", "1 while an enrolled node is connected and speaks.", labels=labels
        )
        in_sync = GaugeMetricFamily(
            "msha_node_in_sync", "1 while it is confirmed to obey the newest version.", labels=labels
        )
        applied = GaugeMetricFamily(
            "msha_node_version", "The version that the node acknowledged.", labels=labels
        )
        sessions = GaugeMetricFamily(
            "msha_node_sessions", "Open sessions, as the node said last.", labels=labels
        )
        rows = EdgeNode.objects.filter(state=EdgeNode.State.ENROLLED).select_related("unit", "namespace")
        for node in rows.order_by("namespace__name", "name"):
            names = [node.namespace.name, node.unit.code, node.name]
            live.add_metric(names, node.live)
            in_sync.add_metric(names, node.in_sync)
            applied.add_metric(names, node.applied_version)
            sessions.add_metric(names, node.sessions)
        return live, in_sync, applied, sessions


def register(collector: Collector) -> None:
    """The collector's families are part of every answer."""
    REGISTRY.register(collector)


register(Fleet())


def metrics(request: HttpRequest) -> HttpResponse:
    """The text that Prometheus reads; 401 without a token, 403 without the permission."""
    user = user_of_bearer(request.headers.get("Authorization", ""))
    if user is None:
        refusal = "Send an API token that is not revoked, as Authorization: Bearer msha_api_...\n"
        return HttpResponse(
            refusal, status=401, content_type="text/plain", headers={"WWW-Authenticate": "Bearer"}
        )
    if not user.has_perm("units.view_namespace"):
        return HttpResponse(
            "The token's user may not view namespaces.\n", status=403, content_type="text/plain"
        )
    return HttpResponse(generate_latest(REGISTRY), content_type=CONTENT_TYPE_LATEST)
