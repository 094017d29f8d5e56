"""Calls about the same ids do not overtake each other, and somebody makes them whoever is missing."""

import threading
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler
from io import StringIO

import pytest
from django.core.management import call_command
from django.db import connections
from django.utils import timezone

from cutover import driving, jobs, services, tasks
from cutover.hooks import calling
from cutover.models import Cutover, HookRun
from tests.cutover.builders import Scene, make_started, step
from tests.cutover.hooks.builders import NOT_YET, YES, Work, by_moment, do, make_hook, moments, run_of
from tests.support.receiver import Receiver

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("_asked_again_soon"),
]

State, Run = Cutover.State, HookRun.State


@pytest.fixture
def held_call(receiver: Receiver) -> Iterator[tuple[threading.Event, threading.Event]]:
    """A call at FREEZE arrives, and is answered when the test says so."""
    arrived, over = threading.Event(), threading.Event()

    def hold(handler: BaseHTTPRequestHandler) -> None:
        arrived.set()
        over.wait(10)
        YES(handler)

    receiver.lasting = by_moment(receiver, at_freeze=hold)
    yield arrived, over
    over.set()


def frozen(scene: Scene) -> Cutover:
    cutover = make_started(scene)
    step(scene, cutover)
    assert cutover.state == State.FREEZE
    return cutover


def test_who_is_being_told_of_a_freeze_is_told_of_its_end_only_afterwards(
    scene: Scene,
    receiver: Receiver,
    handed_over: Work,
    held_call: tuple[threading.Event, threading.Event],
) -> None:
    arrived, over = held_call
    make_hook(scene, receiver, "at_freeze", "writes")
    cutover = frozen(scene)
    frozen_run = run_of(cutover)

    def call() -> None:
        calling.attempt(frozen_run.pk)
        connections.close_all()

    worker = threading.Thread(target=call)
    worker.start()
    try:
        assert arrived.wait(10)
        services.abort(cutover, "op", "changed my mind")
        undoing = run_of(cutover, "after_release")
        for _ in range(3):
            assert calling.attempt(undoing.pk) == calling.AGAIN_S / 2
        assert moments(receiver) == ["at_freeze"]
    finally:
        over.set()
        worker.join(10)
    do(handed_over)
    assert moments(receiver) == ["at_freeze", "after_release"]
    frozen_run.refresh_from_db()
    assert (frozen_run.state, frozen_run.calls) == (Run.SUCCEEDED, 1)  # its answer came, and is kept


def test_a_call_that_was_overtaken_and_lost_with_its_worker_is_not_made_again(
    scene: Scene, receiver: Receiver, handed_over: Work
) -> None:
    make_hook(scene, receiver, "at_freeze", "writes")
    cutover = frozen(scene)
    run = run_of(cutover)
    later = timezone.now() + timedelta(seconds=60)
    HookRun.objects.filter(pk=run.pk).update(state=Run.RUNNING, calls=1, lease_until=later)  # by a dead one
    services.abort(cutover, "op", "changed my mind")
    HookRun.objects.filter(pk=run.pk).update(lease_until=timezone.now())
    handed_over.clear()
    driving.look_at_everything()
    do(handed_over)
    run.refresh_from_db()
    assert run.state == Run.CANCELLED
    assert calling.call_due() == 1
    assert moments(receiver) == ["after_release"]  # it may have arrived, so its end is told


def test_a_skip_while_the_call_is_on_its_way_counts_whatever_is_answered(
    scene: Scene,
    receiver: Receiver,
    handed_over: Work,
    held_call: tuple[threading.Event, threading.Event],
) -> None:
    arrived, over = held_call
    make_hook(scene, receiver, "at_freeze", "writes")
    cutover = frozen(scene)
    run = run_of(cutover)

    def call() -> None:
        calling.attempt(run.pk)
        connections.close_all()

    worker = threading.Thread(target=call)
    worker.start()
    try:
        assert arrived.wait(10)
        services.skip_hook(cutover, "writes", "olga", "done by hand")
    finally:
        over.set()
        worker.join(10)
    run.refresh_from_db()
    assert (run.state, run.lease_until) == (Run.SKIPPED, None)
    step(scene, cutover)
    assert cutover.state == State.ACTIVATE


def test_with_neither_broker_nor_thread_the_management_command_makes_the_calls(
    scene: Scene, receiver: Receiver, handed_over: Work
) -> None:
    make_hook(scene, receiver, "before_freeze")
    cutover = make_started(scene)
    step(scene, cutover)
    handed_over.clear()
    out = StringIO()
    call_command("advance_cutovers", stdout=out)
    assert moments(receiver) == ["before_freeze"]
    assert out.getvalue().split(": ")[1].strip() == "freeze"


def test_a_call_that_nobody_makes_is_taken_over_by_the_look_at_everything(
    scene: Scene, receiver: Receiver, handed_over: Work
) -> None:
    make_hook(scene, receiver, "before_freeze")
    cutover = make_started(scene)
    step(scene, cutover)
    handed_over.clear()
    driving.look_at_everything()
    assert handed_over == []  # somebody may still come
    HookRun.objects.update(next_at=timezone.now() - timedelta(seconds=2))
    driving.look_at_everything()
    do(handed_over)
    cutover.refresh_from_db()
    assert cutover.state == State.FREEZE


def test_a_celery_task_calls_for_a_second_and_hands_over_to_the_next(
    scene: Scene, receiver: Receiver, handed_over: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_hook(scene, receiver, "before_activate", deadline_s=600)
    receiver.lasting = NOT_YET
    cutover = make_started(scene)
    for _ in range(2):
        step(scene, cutover)
    handed_over.clear()
    next_tasks: list[float] = []
    monkeypatch.setattr(jobs, "hook", lambda run_id, in_s=0.0: next_tasks.append(in_s))
    monkeypatch.setattr(tasks, "HOOK_S", 0.2)
    tasks.call_hook(run_of(cutover).pk)
    assert len(receiver.received) >= 2
    (again_s,) = next_tasks
    assert 0 <= again_s <= calling.AGAIN_S
    receiver.lasting = YES
    tasks.call_hook(run_of(cutover).pk)
    cutover.refresh_from_db()
    assert cutover.state == State.ACTIVATE
    assert len(next_tasks) == 1
