"""What is looked at before a cutover may start: each check really looks, and says what it saw.

A check asks nodes first (all questions of all checks go out together) and judges the answers afterwards, so
that the whole takes about as long as the slowest answer.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from cutover import previews, rules
from cutover.checks.capacity import CAPACITY
from cutover.checks.scene import Answered, Precheck, Scene, Verdict
from cutover.checks.slbs import SLBS
from cutover.errors import InvalidChange
from cutover.models import Cutover
from cutover.safety.checks import not_flapping, rules_hold
from domains import dns
from msha.steering import snapshot as steering
from msha.steering.errors import InvalidSnapshot
from units import stopped
from units.models import EdgeNode, Probe
from units.probing import Question

#: Clocks further apart than this make times on pages and in logs misleading.
CLOCK_SKEW_LIMIT_MS = 500
#: More handshakes with back-sources are not tried; each gaining node tries one of each URI before any second.
BACK_SOURCE_PROBES_LIMIT = 200


# -- what needs no question ----------------------------------------------------------------------------------


def _rule_valid(scene: Scene, _answers: Answered) -> Verdict:
    cutover, document = scene.cutover, scene.document
    if previews.is_stale(cutover, document):
        return Verdict(
            False, gettext("The rule in effect has changed since the preview. Generate the preview again.")
        )
    try:
        new = rules.checked(document, cutover.new_rule)
        rule = {**document["rule"], "cutover": None}
        rule["unit_types"] = [
            new if entry["name"] == cutover.unit_type else entry for entry in rule["unit_types"]
        ]
        steering.check_rule(rule, [unit["code"] for unit in document["config"]["units"]])
    except (InvalidChange, InvalidSnapshot) as error:
        return Verdict(False, gettext("The new rule is not valid: %(problem)s") % {"problem": error})
    return Verdict(
        True,
        gettext("Every id has exactly one owner; %(count)d ids move.") % {"count": scene.moved.count},
    )


def _no_other(scene: Scene, _answers: Answered) -> Verdict:
    namespace = scene.cutover.namespace
    other = Cutover.objects.filter(namespace=namespace, state__in=Cutover.ACTIVE).first()
    if other is not None:
        return Verdict(False, gettext("Cutover %(other)s is running. Wait for its end.") % {"other": other})
    if namespace.publishing_stopped:
        return Verdict(
            False, gettext("Publishing is stopped: %(reason)s") % {"reason": stopped.why(namespace)}
        )
    return Verdict(True, gettext("No other cutover of this namespace is running."))


def _nodes_current(scene: Scene, _answers: Answered) -> Verdict:
    faults = [
        gettext("%(node)s %(fault)s") % {"node": node.name, "fault": fault}
        for node in scene.nodes
        if (fault := _fault(node, scene)) and not _lost(node, scene)
    ]
    faults += list(_unserved(scene))
    if faults:
        return Verdict(False, "; ".join(faults) + ".")
    lost = [node.name for node in scene.nodes if _lost(node, scene)]
    passed = Verdict(
        True,
        gettext("%(count)d edge nodes are connected and obey version %(version)d.")
        % {"count": len(scene.nodes) - len(lost), "version": scene.newest.version},
    )
    return _with_lost(passed, lost)


def _lost(node: EdgeNode, scene: Scene) -> bool:
    """Whether the node cannot be heard and, in this emergency, need not be."""
    return not node.live and scene.excused(node)


def _with_lost(passed: Verdict, lost: Sequence[str]) -> Verdict:
    """The verdict, amber where nodes of a losing unit did not answer in an emergency."""
    if not lost:
        return passed
    warning = gettext(
        "%(nodes)s of the losing units cannot be heard: in this emergency they are to be fenced and declared"
        " dead."
    ) % {"nodes": ", ".join(lost)}
    return Verdict(True, f"{passed.reason} {warning}", amber=True)


def _fault(node: EdgeNode, scene: Scene) -> str:
    """Why the node is not ready, or ""."""
    newest = scene.newest
    if not node.connected:
        return gettext("is not connected")
    if not node.live:
        return gettext("has been silent for more than 5 s")
    if node.nack_version > node.applied_version:
        return gettext("refused version %(version)d (%(reason)s)") % {
            "version": node.nack_version,
            "reason": node.nack_reason,
        }
    if node.applied_version != newest.version:
        return gettext("obeys version %(applied)d instead of %(newest)d") % {
            "applied": node.applied_version,
            "newest": newest.version,
        }
    if node.applied_digest != newest.digest:
        return gettext("obeys another content of version %(version)d") % {"version": newest.version}
    if node.parked:
        return gettext("is parked and serves nobody")
    if node.draining and not _followed(node, scene):
        return gettext("is draining")
    return ""


def _followed(node: EdgeNode, scene: Scene) -> bool:
    """Whether another one takes its new sessions; after an upgrade it drains for hours, and acks like any."""
    siblings = [it for it in scene.live if (it.unit_id, it.cluster_id) == (node.unit_id, node.cluster_id)]
    return any(it.listening and not it.draining for it in siblings)


def _unserved(scene: Scene) -> Iterable[str]:
    """Units and clusters that gain ids but have nobody to serve them."""
    clusters = {
        (unit, cluster)
        for domain in scene.document["config"].get("domains", [])
        for unit, cluster in domain.get("clusters", {}).items()
        if unit in scene.moved.gaining_units
    }
    served = {(node.unit.code, node.cluster.name if node.cluster else "") for node in scene.gaining}
    for unit, cluster in sorted(clusters - served):
        yield gettext("cluster %(cluster)s of %(unit)s has no live node") % {
            "cluster": cluster,
            "unit": unit,
        }
    for unit in sorted(scene.moved.gaining_units - {pair[0] for pair in served | clusters}):
        yield gettext("unit %(unit)s has no live node") % {"unit": unit}


def _clocks(scene: Scene, _answers: Answered) -> Verdict:
    skews = {node.name: node.clock_skew_ms for node in scene.live}
    off = {name: skew for name, skew in skews.items() if abs(skew) >= CLOCK_SKEW_LIMIT_MS}
    if off:
        listed = ", ".join(f"{name} {skew:+d} ms" for name, skew in sorted(off.items()))
        return Verdict(
            False,
            gettext("These clocks differ from the console's: %(nodes)s. Check their time service.")
            % {"nodes": listed},
        )
    apart = max(skews.values()) - min(skews.values()) if skews else 0
    if apart >= CLOCK_SKEW_LIMIT_MS:
        return Verdict(
            False,
            gettext("The nodes' clocks are up to %(ms)d ms apart. Check their time service.") % {"ms": apart},
        )
    largest = max((abs(skew) for skew in skews.values()), default=0)
    return Verdict(True, gettext("No clock is further than %(ms)d ms from the console's.") % {"ms": largest})


def _dns(scene: Scene, _answers: Answered) -> Verdict:
    managed = [domain for domain in scene.document["config"].get("domains", []) if domain["dns"] == "managed"]
    if not managed:
        return Verdict(True, gettext("No domain of this namespace has managed DNS."))
    problems = dns.problems_of(scene.cutover.namespace, [domain["name"] for domain in managed])
    if problems:
        return Verdict(False, " ".join(problems))
    return Verdict(
        True,
        gettext("%(names)s and their unit sub-domains resolve.")
        % {"names": ", ".join(domain["name"] for domain in managed)},
    )


# -- what nodes are asked ------------------------------------------------------------------------------------


def _ask_echo(scene: Scene) -> list[Question]:
    return [Question(node, Probe.Kind.ECHO) for node in scene.live]


def _round_trip(scene: Scene, answers: Answered) -> Verdict:
    mute = [question.node for question, answer in answers if not (answer or {}).get("ok")]
    silent = [node.name for node in mute if not scene.excused(node)]
    if silent:
        return Verdict(
            False, gettext("No answer on the control stream of %(nodes)s.") % {"nodes": ", ".join(silent)}
        )
    answered = [float(answer.get("round_trip_ms", 0)) for _, answer in answers if answer and answer.get("ok")]
    if not answered:
        return Verdict(False, gettext("No edge node is connected, so none can be asked."))
    passed = Verdict(
        True,
        gettext("%(count)d edge nodes answered, the slowest after %(ms)d ms.")
        % {"count": len(answered), "ms": round(max(answered))},
    )
    return _with_lost(passed, [node.name for node in mute])


def _ask_back_sources(scene: Scene) -> list[Question]:
    """From each gaining node to each of its unit's servers, of every URI the first ones first."""
    return _all_back_sources(scene)[:BACK_SOURCE_PROBES_LIMIT]


def _all_back_sources(scene: Scene) -> list[Question]:
    questions: list[tuple[int, Question]] = []
    for domain, uri in _uris(scene):
        for node in scene.gaining:
            for place, server in enumerate(uri.get("back_sources", {}).get(node.unit.code, [])):
                params = {"server": server, "host": domain["name"], "target": uri["path"]}
                questions.append((place, Question(node, Probe.Kind.BACK_SOURCE, params)))
    questions.sort(key=lambda pair: pair[0])
    return [question for _, question in questions]


def _uris(scene: Scene) -> Iterable[tuple[dict[str, Any], dict[str, Any]]]:
    for domain in scene.document["config"].get("domains", []):
        for uri in domain.get("uris", []):
            yield domain, uri


def _back_sources(scene: Scene, answers: Answered) -> Verdict:
    faults = []
    for domain, uri in _uris(scene):
        servers = uri.get("back_sources", {})
        lost = any(servers.get(unit) for unit in scene.moved.losing_units)
        faults += [
            gettext("%(unit)s has no back-source for %(uri)s")
            % {"unit": unit, "uri": f"{domain['name']}{uri['path']}"}
            for unit in sorted(scene.moved.gaining_units)
            if lost and not servers.get(unit)
        ]
    for question, answer in answers:
        if not (answer or {}).get("ok"):
            problem = (answer or {}).get("error") or gettext("the node did not answer")
            faults.append(
                gettext("%(server)s as seen from %(node)s: %(problem)s")
                % {"server": question.params["server"], "node": question.node.name, "problem": problem}
            )
    if faults:
        return Verdict(False, _listed(faults))
    if not answers and scene.moved.gaining_units:
        return Verdict(
            not any(True for _ in _uris(scene)),
            gettext("No node of the gaining units could try a back-source.")
            if any(True for _ in _uris(scene))
            else gettext("No URI is in effect, so there is no back-source to try."),
        )
    servers_tried = {question.params["server"] for question, _ in answers}
    said = gettext("%(count)d back-source servers answered a WebSocket handshake.") % {
        "count": len(servers_tried)
    }
    untried = len(_all_back_sources(scene)) - len(answers)
    if untried > 0:
        words = {"tried": len(answers), "untried": untried}
        said += (
            " " + gettext("%(tried)d ways from a node to a server were tried, %(untried)d were not.") % words
        )
    return Verdict(True, said, amber=untried > 0)


def _listed(faults: Sequence[str], limit: int = 5) -> str:
    """The first faults as one text, and how many more there are."""
    text = "; ".join(fault.rstrip(".") for fault in faults[:limit])
    if len(faults) > limit:
        text += "; " + gettext("and %(count)d more") % {"count": len(faults) - limit}
    return f"{text}."


def _ask_trials(scene: Scene) -> list[Question]:
    return [trial.question for trial in scene.trials]


def _trials(scene: Scene, answers: Answered) -> Verdict:
    if not any(True for _ in _uris(scene)):
        return Verdict(True, gettext("No URI is in effect, so there is no handshake to try."))
    if not scene.trials:
        return Verdict(False, gettext("No edge node is connected, so no handshake could be tried."))
    faults: list[str] = []
    lost: list[str] = []
    for trial, (question, answer) in zip(scene.trials, answers, strict=True):
        fault = trial.fault(answer)
        if fault and scene.excused(question.node):
            lost.append(question.node.name)
        elif fault:
            faults.append(fault)
    if faults:
        return Verdict(False, _listed(faults))
    passed = Verdict(
        True,
        gettext("%(count)d trial handshakes were served or redirected as the rule says.")
        % {"count": len(answers) - len(lost)},
    )
    return _with_lost(passed, list(dict.fromkeys(lost)))


PRECHECKS: tuple[Precheck, ...] = (
    Precheck("rule", _("The new rule is valid"), _rule_valid, skippable=False),
    Precheck("exclusive", _("No other cutover is running"), _no_other, skippable=False),
    Precheck("safety", _("Safety rules"), rules_hold, skippable=False),
    Precheck("flap", _("These ids have not just moved"), not_flapping),
    Precheck("nodes", _("Every edge node is connected and current"), _nodes_current),
    Precheck("round_trip", _("Control round trip"), _round_trip, _ask_echo),
    Precheck("back_sources", _("Gaining back-sources answer"), _back_sources, _ask_back_sources),
    SLBS,
    CAPACITY,
    Precheck("dns", _("DNS answers"), _dns),
    Precheck("clocks", _("Clocks agree"), _clocks),
    Precheck("handshakes", _("Trial handshakes at each unit"), _trials, _ask_trials),
)
BY_KEY = {check.key: check for check in PRECHECKS}
