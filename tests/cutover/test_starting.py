"""The gate between a draft and a running cutover: preview, checks, confirmation, one at a time."""

from typing import Any

import pytest

from cutover import jobs, services
from cutover.errors import Refused, StalePreview
from cutover.models import Check, Cutover
from msha.celery import app
from msha.demo.ports import free_ports
from tests.cutover.builders import (
    NEW_RANGES,
    OLD_RANGES,
    Scene,
    make_checked,
    make_draft,
    make_started,
    pass_checks,
    take_to,
)
from tests.units.builders import publish_config
from units.in_use import InUse, Kind, Thing, refuse_removal_if_used
from units.models import AuditEvent

State = Cutover.State
OTHER_RANGES = {"center": ["0~5999"], "unbj": ["6000~9999"]}


def start(scene: Scene, cutover: Cutover) -> Cutover:
    return services.start(cutover, "op", scene.namespace.name)


def test_a_start_wants_the_namespace_typed(scene: Scene) -> None:
    cutover = make_checked(scene)
    with pytest.raises(Refused, match=scene.namespace.name):
        services.start(cutover, "op", "demo")
    assert cutover.state == State.CHECKED


def test_a_draft_is_not_started_before_its_preview(scene: Scene) -> None:
    with pytest.raises(Refused, match="Generate the preview"):
        start(scene, make_draft(scene))


def test_a_previewed_cutover_is_not_started_before_its_checks(scene: Scene) -> None:
    cutover = make_draft(scene)
    services.preview(cutover, "op")
    with pytest.raises(Refused, match="Run the checks"):
        start(scene, cutover)


@pytest.mark.parametrize("state", [Check.State.PENDING, Check.State.RUNNING, Check.State.FAILED])
def test_a_check_that_is_not_passed_stands_in_the_way_by_name(scene: Scene, state: str) -> None:
    cutover = make_checked(scene)
    Check.objects.filter(cutover=cutover, key="clocks").update(state=state)
    with pytest.raises(Refused, match="Clocks agree"):
        start(scene, cutover)


def test_a_preview_against_another_rule_than_the_one_in_effect_is_stale(scene: Scene) -> None:
    first, second = make_checked(scene), make_checked(scene, OTHER_RANGES)
    take_to(scene, _running(scene, first), State.DONE)
    with pytest.raises(StalePreview, match="Generate the preview again"):
        start(scene, second)
    assert services.stored_preview(second).stale
    services.preview(second, "op")
    assert second.moved == [[6000, 6380, "center", "unbj"]]
    pass_checks(second)
    assert start(scene, second).state == State.STARTING


def _running(scene: Scene, cutover: Cutover) -> Cutover:
    start(scene, cutover)
    services.advance(cutover.pk)
    cutover.refresh_from_db()
    return cutover


def test_a_publish_that_leaves_the_tables_alone_does_not_make_a_preview_stale(scene: Scene) -> None:
    cutover = make_checked(scene)
    publish_config(scene.namespace)
    assert start(scene, cutover).state == State.STARTING


def test_an_undone_cutover_does_not_make_another_preview_stale(scene: Scene) -> None:
    cutover = make_checked(scene, OTHER_RANGES)
    undone = make_started(scene)
    services.abort(undone, "op", "no")
    take_to(scene, undone, State.ABORTED)
    assert start(scene, cutover).state == State.STARTING


def test_a_rule_that_changes_between_start_and_first_step_ends_the_cutover_unpublished(scene: Scene) -> None:
    cutover = make_started(scene, advance=False)
    from units import publishing

    rule = {**scene.rule(), "epoch": scene.rule()["epoch"] + 1, "default_unit_type": "unit_type"}
    rule["unit_types"] = [{**rule["unit_types"][0], "untagged": "reject"}]
    publishing.publish(
        scene.namespace.pk, author="test", compute=lambda _row, _newest: publishing.Change(rule=rule)
    )
    assert services.advance(cutover.pk) == State.ABORTED
    cutover.refresh_from_db()
    assert "Generate the preview again" in cutover.outcome
    assert scene.published() == 2


def test_one_cutover_runs_per_namespace(scene: Scene) -> None:
    first, second = make_checked(scene), make_checked(scene, OTHER_RANGES)
    _running(scene, first)
    with pytest.raises(Refused, match=r"Another cutover .* is running"):
        start(scene, second)
    second.refresh_from_db()
    assert second.state == State.CHECKED


def test_the_database_itself_allows_one_active_cutover_per_namespace(scene: Scene) -> None:
    from django.db import IntegrityError

    first, second = make_checked(scene), make_checked(scene, OTHER_RANGES)
    start(scene, first)
    with pytest.raises(IntegrityError):
        Cutover.objects.filter(pk=second.pk).update(state=State.PREPARE)


def test_a_cutover_starts_once(scene: Scene) -> None:
    cutover = make_checked(scene)
    start(scene, cutover)
    with pytest.raises(Refused, match="cannot be started again"):
        start(scene, cutover)
    assert AuditEvent.objects.filter(action="cutover.start").count() == 1


def test_what_a_running_cutover_uses_cannot_be_removed_until_it_has_ended(scene: Scene) -> None:
    cutover = make_started(scene)
    for thing in (
        Thing(Kind.UNIT, "unbj", "unbj"),
        Thing(Kind.CLUSTER, "ws-center", "center"),
        Thing(Kind.DOMAIN, "websocket.localhost"),
        Thing(Kind.BACK_SOURCE, "10.0.0.1:80", "center", "websocket.localhost"),
        Thing(Kind.UNIT_TYPE, "unit_type"),
    ):
        with pytest.raises(InUse, match="until the cutover has ended"):
            refuse_removal_if_used(scene.namespace, thing)
    take_to(scene, cutover, State.DONE)
    refuse_removal_if_used(scene.namespace, Thing(Kind.UNIT, "unbj", "unbj"))


# -- without a broker ----------------------------------------------------------------------------------------


@pytest.fixture
def dead_broker(monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    """A broker is configured, and nobody listens there."""
    url = f"redis://127.0.0.1:{free_ports(1)[0]}/0"
    settings.CELERY_BROKER_URL = url
    monkeypatch.setattr(app.conf, "broker_url", url)
    monkeypatch.setattr(app, "_pool", None)
    monkeypatch.setattr(app.amqp, "_producer_pool", None)


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("dead_broker")
def test_a_start_succeeds_with_the_broker_down_and_is_done_here(handed_over: list) -> None:
    from tests.cutover.builders import make_scene

    scene = make_scene()
    cutover = make_checked(scene)
    handed_over.clear()
    assert start(scene, cutover).state == State.STARTING
    assert len(handed_over) == 1
    handed_over.pop()()
    cutover.refresh_from_db()
    assert cutover.state == State.PREPARE
    assert scene.ranges() == OLD_RANGES != NEW_RANGES


@pytest.mark.usefixtures("dead_broker")
def test_what_cannot_be_enqueued_is_done_instead() -> None:
    from cutover import tasks

    done: list[str] = []
    jobs.send(tasks.start, (1,), lambda: done.append("here"))
    assert done == ["here"]
