"""Trial handshakes: what each edge node should answer for a moved and an unmoved id, and whether it did.

The expected answer comes from the decision that edges themselves take, applied to the rule in effect.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from django.utils.translation import gettext

from cutover.rules import Document
from msha.steering import snapshot as steering
from msha.steering.decision import Decision, Redirect, Refuse, Request, Tunnel, decide
from msha.steering.errors import InvalidRouterId
from msha.steering.ranges import MovedIds
from msha.steering.router_id import RouterIdReader, SourceKind
from units.models import EdgeNode, Probe
from units.probing import Answer, Question

#: How many texts are tried to find one that reads as a wanted id, where a hash stands between the two.
SEARCH_LIMIT = 200_000


@dataclass(frozen=True, slots=True)
class Trial:
    """One handshake that a node tries against its own listener, and what the rule says about it."""

    question: Question
    router_id: int
    expected: Decision

    def fault(self, answer: Answer | None) -> str:
        """What was wrong with the answer, or "" when it was the expected one."""
        place = gettext("id %(id)d at %(node)s") % {"id": self.router_id, "node": self.question.node.name}
        if answer is None:
            return gettext("%(place)s: the node did not answer in time") % {"place": place}
        status = answer.get("status")
        if status is None:
            problem = answer.get("error") or gettext("no answer")
            return gettext("%(place)s: %(problem)s") % {"place": place, "problem": problem}
        if status != self._status:
            return gettext("%(place)s: answered %(status)s instead of %(expected)s") % {
                "place": place,
                "status": status,
                "expected": self._status,
            }
        if isinstance(self.expected, Redirect):
            host = urlsplit(str(answer.get("location", ""))).hostname
            wanted = urlsplit(self.expected.location).hostname
            if host != wanted:
                return gettext("%(place)s: redirected to %(host)s instead of %(wanted)s") % {
                    "place": place,
                    "host": host,
                    "wanted": wanted,
                }
        return ""

    @property
    def _status(self) -> int:
        match self.expected:
            case Tunnel():
                return 101
            case Redirect(status=status) | Refuse(status=status):
                return status
            case _:
                return 0


def trials(
    document: Document,
    unit_type: str,
    moved: MovedIds,
    nodes: list[EdgeNode],
    coming: MovedIds | None = None,
) -> list[Trial]:
    """One handshake per node, domain and id, one moved and one unmoved id, at the domain's shortest URI.

    Args:
        coming: those of the moved ids that have not moved yet, if some have: one of these is tried. Edges
            count a session of an id that has moved as a client that came back.
    """
    compiled = steering.load(steering.canonical(document))
    rule = compiled.unit_types.get(unit_type)
    if rule is None:
        return []
    texts = list(_texts(rule.reader, moved, moved if coming is None else coming))
    made = []
    for domain in document["config"].get("domains", []):
        if not domain.get("uris"):
            continue
        path = min((uri["path"] for uri in domain["uris"]), key=len)
        for node in nodes:
            for router_id, text in texts:
                request = _request(rule.reader, domain["name"], path, unit_type, text)
                expected = decide(compiled, node.unit.code, request)
                if isinstance(expected, Tunnel | Redirect | Refuse):
                    made.append(Trial(_question(node, request), router_id, expected))
    return made


def _texts(reader: RouterIdReader, moved: MovedIds, coming: MovedIds) -> Iterator[tuple[int, str]]:
    """``(id, text that reads as it)`` for one coming and one unmoved id, as far as there are such."""
    wanted = {True: bool(coming), False: True}
    space = reader.key_space
    first = next(iter(coming)).start if coming else space.min
    for number in (first, *range(space.min, min(space.max + 1, space.min + SEARCH_LIMIT))):
        if not any(wanted.values()):
            return
        try:
            found = reader.read(_request(reader, "trial.invalid", "/", "", str(number)))
        except InvalidRouterId:
            continue
        if found is None or moved.contains(found.value) != coming.contains(found.value):
            continue
        if wanted[moved.contains(found.value)]:
            wanted[moved.contains(found.value)] = False
            yield found.value, str(number)


def _request(reader: RouterIdReader, host: str, path: str, unit_type: str, text: str) -> Request:
    """A handshake that carries the text where the routerId is looked for first."""
    source = reader.sources[0]
    headers = [(b"host", host.encode())]
    if unit_type:
        headers.append((b"unittype", unit_type.encode()))
    query = ""
    match source.kind:
        case SourceKind.HEADER:
            headers.append((source.name.lower().encode(), text.encode()))
        case SourceKind.COOKIE:
            headers.append((b"cookie", f"{source.name}={text}".encode()))
        case SourceKind.QUERY:
            query = f"{source.name}={text}"
        case _:
            filler = [segment for segment in path.split("/") if segment]
            filler += ["trial"] * (int(source.name) - len(filler) - 1)
            path = "/" + "/".join([*filler[: int(source.name) - 1], text])
    return Request(host=host, path=path, query=query, headers=tuple(headers))


def _question(node: EdgeNode, request: Request) -> Question:
    target = f"{request.path}?{request.query}" if request.query else request.path
    headers = {name.decode(): value.decode() for name, value in request.fields.items() if name != b"host"}
    params = {"host": request.host, "target": target, "headers": headers}
    return Question(node, Probe.Kind.HANDSHAKE, params)
