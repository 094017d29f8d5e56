"""Workers that are killed in mid-call, and many at once, in the database of the environment; prints JSON.

Run as ``python -m tests.cutover.hooks.workers ACT [RUN]`` by `test_workers`, once per database.
"""

import json
import os
import sys
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import django

WORKERS = 4


def main(act: str, *words: str) -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "msha.settings")
    django.setup()
    from tests.cutover.builders import without_second_look

    without_second_look()
    if act != "prepare":
        _wake()
    print(json.dumps(ACTS[act](*words)), flush=True)


def prepare(url: str) -> dict[str, Any]:
    """A cutover in PREPARE whose hook before FREEZE is wanted, and not called yet."""
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    from cutover import jobs, previews
    from cutover.hooks import editing
    from cutover.models import Hook, HookRun
    from tests.cutover.builders import make_scene, make_started, step

    previews.COUNT_DEADLINE_S = 0.01
    jobs.in_background = lambda work: None  # type: ignore[assignment]  # the workers of the test call
    scene = make_scene()
    hook = Hook(namespace=scene.namespace, name="agree", moment="before_freeze", url=url)
    hook.secret, hook.timeout_s, hook.deadline_s = "a secret that both sides know", 2, 60
    editing.save(hook, actor="op")
    step(scene, make_started(scene))
    run = HookRun.objects.get()
    return {"run": run.pk, "key": str(run.key)}


def _wake() -> None:
    """The nodes have just spoken, and the step has just begun: starting a process takes seconds."""
    from django.utils import timezone

    from cutover.models import Cutover
    from units.models import EdgeNode

    later = timezone.now() + timedelta(seconds=60)
    EdgeNode.objects.update(status_at=later)
    Cutover.objects.update(phase_at=later)


def call(run_id: str) -> dict[str, Any]:
    """One worker calls."""
    from cutover.hooks import calling

    calling.attempt(int(run_id))
    return state(run_id)


def call_at_once(run_id: str) -> dict[str, Any]:
    """Many workers find the run due at the same moment, several times."""
    from django.db import connections

    from cutover.hooks import calling

    errors: list[str] = []
    barrier = threading.Barrier(WORKERS)

    def work() -> None:
        try:
            for _ in range(3):
                barrier.wait(20)
                calling.attempt(int(run_id))
        except Exception as error:  # noqa: BLE001  reported to the test
            errors.append(repr(error))
        finally:
            connections.close_all()

    threads = [threading.Thread(target=work) for _ in range(WORKERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return {**state(run_id), "errors": errors}


def take_over(run_id: str) -> dict[str, Any]:
    """The look at everything, after leases are over and what was due has waited; its work is done here."""
    from django.utils import timezone

    from cutover import jobs
    from cutover.hooks import calling
    from cutover.models import HookRun

    work: list[Callable[[], object]] = []
    jobs.in_background = work.append  # type: ignore[assignment]
    calling.take_over()
    early = len(work)
    now = timezone.now()
    HookRun.objects.filter(pk=run_id).update(lease_until=now, next_at=now - timedelta(seconds=2))
    calling.take_over()
    for one in work:
        one()
    return {**state(run_id), "early": early}


def state(run_id: str) -> dict[str, Any]:
    from cutover.models import HookRun

    run = HookRun.objects.select_related("cutover").get(pk=run_id)
    return {"state": run.state, "calls": run.calls, "cutover": run.cutover.state}


ACTS: dict[str, Callable[..., dict[str, Any]]] = {
    "prepare": prepare,
    "call": call,
    "call_at_once": call_at_once,
    "take_over": take_over,
}

if __name__ == "__main__":
    main(*sys.argv[1:])
