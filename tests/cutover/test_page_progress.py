"""The live page of a cutover in batches: its acts, what they say first, and what they refuse."""

import pytest
from django.test import Client

from cutover import services
from cutover.models import Cutover
from tests.cutover.builders import Scene, make_started, step
from tests.cutover.pages import page_of, signed_in
from tests.cutover.test_page_steps import visible_acts
from tests.cutover.test_report import make_batched

State = Cutover.State


@pytest.fixture
def operator(scene: Scene) -> Client:
    return signed_in("operator")


@pytest.fixture
def between(scene: Scene) -> Cutover:
    """A cutover in three batches, the first of which has moved, and that is paused before the second."""
    cutover = make_batched(scene, 100, 100, 183)
    services.pause(cutover, "op", "look first")
    services.resume(cutover, "op", "begin")
    while cutover.state != State.RELEASE:
        step(scene, cutover)
    services.pause(cutover, "op", "look first")
    step(scene, cutover)
    assert (cutover.state, cutover.batch) == (State.RELEASE, 0)
    return cutover


def test_between_two_batches_one_may_resume_stop_or_go_back(between: Cutover, operator: Client) -> None:
    page = operator.get(page_of(between, "progress")).content.decode()
    assert visible_acts(page) == {"resume", "stop_here", "turn_around", "emergency"}
    assert "Paused by op: look first" in page


def test_each_act_says_its_consequence_in_counted_ids(between: Cutover, operator: Client) -> None:
    page = operator.get(page_of(between, "progress")).content.decode()
    assert "100 ids stay with their new owners, 283 ids never move" in page
    assert "Batch 2 of 3 begins as soon as its gates allow it: 100 ids are frozen" in page
    assert "This concerns batch 1 alone (100 ids)" in page


def test_the_batches_are_listed_with_what_has_become_of_each(between: Cutover, operator: Client) -> None:
    page = operator.get(page_of(between, "progress")).content.decode()
    titles = [row.split("</span>")[0] for row in page.split("data-batch-title>")[1:4]]
    assert titles == ["moved", "waits for its turn", "waits for its turn"]


@pytest.mark.parametrize(
    "act", ["pause", "resume", "stop_here", "abort", "turn_around", "roll_back", "finish"]
)
def test_no_act_is_done_without_a_reason_or_the_permission(
    between: Cutover, operator: Client, act: str
) -> None:
    name = between.namespace.name
    refused = operator.post(page_of(between, "progress"), {"act": act, "reason": " ", "namespace": name})
    assert refused.status_code == 409
    assert "Give a reason" in refused.content.decode()
    sent = {"act": act, "reason": "because", "namespace": name}
    assert signed_in("viewer").post(page_of(between, "progress"), sent).status_code == 403
    between.refresh_from_db()
    assert (between.state, between.batch, between.paused) == (State.RELEASE, 0, True)


@pytest.mark.parametrize("act", ["turn_around", "roll_back"])
def test_an_act_that_brings_served_ids_back_wants_the_namespace_typed(
    between: Cutover, operator: Client, act: str
) -> None:
    sent = {"act": act, "reason": "errors", "namespace": "another"}
    refused = operator.post(page_of(between, "progress"), sent)
    assert refused.status_code == 409
    page = refused.content.decode()
    assert "Type the name of the namespace" in page
    assert 'value="errors"' in page, "what was typed is lost"


def test_resume_lets_the_next_batch_begin(between: Cutover, operator: Client) -> None:
    sent = operator.post(page_of(between, "progress"), {"act": "resume", "reason": "all is well"})
    assert sent["Location"] == page_of(between, "progress")
    between.refresh_from_db()
    assert (between.state, between.batch) == (State.FREEZE, 1)


def test_stop_here_keeps_what_has_moved_and_leads_to_the_report(
    scene: Scene, between: Cutover, operator: Client
) -> None:
    operator.post(page_of(between, "progress"), {"act": "stop_here", "reason": "enough for tonight"})
    between.refresh_from_db()
    assert between.state == State.DONE
    assert scene.ranges() == {"center": ["0~6097"], "unbj": ["6098~9999"]}
    page = operator.get(page_of(between, "report")).content.decode()
    assert "never moved" in page
    assert "enough for tonight" in page


def test_roll_back_brings_finished_batches_back_too(scene: Scene, between: Cutover, operator: Client) -> None:
    operator.post(page_of(between, "progress"), {"act": "resume", "reason": "go on"})
    between.refresh_from_db()
    while between.state != State.ACTIVATE:
        step(scene, between)
    page = operator.get(page_of(between, "progress")).content.decode()
    assert "200 ids in 2 batches" in page
    sent = {"act": "roll_back", "reason": "errors", "namespace": scene.namespace.name}
    assert operator.post(page_of(between, "progress"), sent).status_code == 302
    between.refresh_from_db()
    while not between.ended:
        step(scene, between)
    assert scene.ranges() == {"center": ["0~5997"], "unbj": ["5998~9999"]}


def test_a_cutover_in_one_batch_shows_no_list_of_batches(scene: Scene, operator: Client) -> None:
    page = operator.get(page_of(make_started(scene), "progress")).content.decode()
    assert "data-batches-card hidden" in page
