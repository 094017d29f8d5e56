"""Whether the load balancers of the gaining units pass a WebSocket handshake on as one.

A balancer that speaks HTTP/1.0 to the edge, or drops Upgrade, turns every handshake into one that must be
refused; it shows only when clients arrive. So a gaining node tries the way that they will come.
Source: the third of the source documents, on SLBs in front of WebSocket gateways.
"""

import socket
from collections.abc import Iterator

from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from cutover.checks.scene import Answered, Precheck, Scene, Verdict
from cutover.trials import trials
from units.models import Probe, Slb
from units.probing import Answer, Question

#: What an edge answers to a handshake that reached it whole: served, or sent to the unit that owns the id.
_REACHED = (101, 301, 302, 303, 307, 308)
_DEFAULT_PORT = 80


def _ask(scene: Scene) -> list[Question]:
    """One handshake through each balancer and domain behind it, tried by a node of the same unit."""
    questions = []
    for slb in _concerned(scene):
        nodes = [node for node in scene.gaining if node.unit_id == slb.unit_id]
        for trial in trials(scene.document, scene.cutover.unit_type, scene.moved, nodes[:1], scene.coming):
            host = str(trial.question.params["host"])
            if (host, slb.unit.code) in _fronted(scene, slb):
                server = _endpoint(slb, _port(scene, host, slb.unit.code))
                params = {**trial.question.params, "server": server, "slb": slb.name}
                questions.append(Question(trial.question.node, Probe.Kind.BACK_SOURCE, params))
    return questions


def _concerned(scene: Scene) -> list[Slb]:
    rows = Slb.objects.filter(
        namespace=scene.cutover.namespace,
        unit__code__in=scene.moved.gaining_units,
        cluster__isnull=False,
    )
    return list(rows.select_related("unit", "cluster").order_by("name"))


def _fronted(scene: Scene, slb: Slb) -> set[tuple[str, str]]:
    """Domains in effect whose cluster stands behind the balancer, with its unit."""
    assert slb.cluster is not None
    return {
        (domain["name"], slb.unit.code)
        for domain in scene.document["config"].get("domains", [])
        if domain.get("clusters", {}).get(slb.unit.code) == slb.cluster.name
    }


def _port(scene: Scene, host: str, unit: str) -> int:
    for domain in scene.document["config"].get("domains", []):
        if domain["name"] == host:
            return int(domain.get("ports", {}).get(unit, _DEFAULT_PORT))
    return _DEFAULT_PORT


def _endpoint(slb: Slb, port: int) -> str:
    """``IP:PORT`` of the balancer; its address may be a name, and have a port of its own."""
    name, colon, digits = slb.address.rpartition(":")
    if not colon or not digits.isdigit() or name.endswith(":"):
        name, digits = slb.address, str(port)
    try:
        found = socket.getaddrinfo(name.strip("[]"), int(digits), type=socket.SOCK_STREAM)
    except OSError:
        return f"{name}:{digits}"  # the node says that this is no address
    address = str(found[0][4][0])
    return f"[{address}]:{digits}" if ":" in address else f"{address}:{digits}"


def _judge(scene: Scene, answers: Answered) -> Verdict:
    slbs = _concerned(scene)
    if not slbs:
        return Verdict(True, gettext("No SLB of the gaining units is known, so there is none to try."))
    faults = list(_faults(answers))
    if faults:
        return Verdict(False, " ".join(faults))
    if not answers:
        return Verdict(
            False, gettext("No node of the gaining units could try their SLBs, or no domain is behind them.")
        )
    tried = ", ".join(sorted({question.params["slb"] for question, _answer in answers}))
    return Verdict(True, gettext("SLBs passed a WebSocket handshake on: %(slbs)s.") % {"slbs": tried})


def _faults(answers: Answered) -> Iterator[str]:
    told = set()
    for question, answer in answers:
        slb = question.params["slb"]
        sentence = _fault(answer)
        if sentence and slb not in told:
            told.add(slb)
            words = {"slb": slb, "server": question.params["server"], "problem": sentence}
            yield gettext("%(slb)s (%(server)s): %(problem)s") % words


def _fault(answer: Answer | None) -> str:
    if answer is None:
        return gettext("the node that tried it did not answer.")
    status = answer.get("status")
    if answer.get("ok") or status in _REACHED:
        return ""
    if status == 400:
        return gettext(
            "it answered 400, as an edge does where Upgrade is lost on the way. Let it speak HTTP/1.1 to the"
            " edges and pass Upgrade and Connection on (nginx: proxy_http_version 1.1)."
        )
    if status is not None:
        return gettext("it answered %(status)s.") % {"status": status}
    return str(answer.get("error") or gettext("it did not answer."))


SLBS = Precheck("slbs", _("SLBs pass WebSocket handshakes on"), _judge, _ask)
