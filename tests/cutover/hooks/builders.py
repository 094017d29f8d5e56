"""Hooks of a scene, and receivers that answer them."""

import json
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import Any

from cutover.hooks import editing
from cutover.models import Cutover, Hook, HookRun
from tests.cutover.builders import Scene
from tests.support.receiver import Behaviour, Receiver, answer

SECRET = "a secret that both sides know"

Work = list[Callable[[], object]]

YES = answer(200, b'{"ok": true}')
NOT_YET = answer(202, b"still copying")
NO = answer(422, b"never heard of it")
BROKEN = answer(500, b"oops")


def make_hook(scene: Scene, receiver: Receiver, moment: str, name: str = "", **options: Any) -> Hook:
    values = {"secret": SECRET, "url": receiver.url, "timeout_s": 2, "deadline_s": 5, **options}
    hook = Hook(namespace=scene.namespace, name=name or moment, moment=moment, **values)
    return editing.save(hook, actor="op")


def do(work: Work) -> None:
    """What was handed over to threads is done, and what follows from it."""
    while work:
        work.pop(0)()


def told(receiver: Receiver) -> list[tuple[str, int, str, str]]:
    """Of each call in order: moment, batch, direction, outcome."""
    return [
        (body["moment"], body["batch"], body["direction"], body["outcome"])
        for body in (received.payload for received in receiver.received)
    ]


def moments(receiver: Receiver) -> list[str]:
    return [received.payload["moment"] for received in receiver.received]


def run_of(cutover: Cutover, moment: str = "", **where: Any) -> HookRun:
    """The newest run of the cutover, of a moment if one is named."""
    rows = HookRun.objects.filter(cutover=cutover, **where)
    if moment:
        rows = rows.filter(moment=moment)
    found = rows.select_related("cutover").last()
    assert found is not None
    return found


def first(*behaviours: Behaviour) -> Behaviour:
    """Answers by moment of the call: a table of behaviours in a receiver's ``lasting``."""
    waiting = list(behaviours)

    def behave(handler: BaseHTTPRequestHandler) -> None:
        (waiting.pop(0) if len(waiting) > 1 else waiting[0])(handler)

    return behave


def by_moment(receiver: Receiver, otherwise: Behaviour = YES, **of: Behaviour) -> Behaviour:
    """A behaviour for each moment; several receivers in one."""

    def behave(handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(receiver.received[-1].body)
        of.get(body["moment"], otherwise)(handler)

    return behave
