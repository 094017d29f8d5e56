"""Drafts: what may be asked for, and the sentence for what may not."""

from typing import Any

import pytest

from cutover import services
from cutover.errors import InvalidChange, Refused
from cutover.models import Cutover
from domains import services as domains
from tests.cutover.builders import (
    MOVED_COUNT,
    NEW_RANGES,
    OLD_RANGES,
    Scene,
    make_checked,
    make_draft,
    make_started,
    take_to,
)
from tests.units.builders import make_namespace
from units.models import AuditEvent, UnitType

State = Cutover.State


def draft(scene: Scene, **asked: Any) -> Cutover:
    return services.create_draft(scene.namespace, "unit_type", actor="op", **asked)


def test_a_draft_keeps_the_rule_before_and_after_and_what_moves(scene: Scene) -> None:
    cutover = make_draft(scene, reason="more room")
    assert cutover.old_rule["ranges"] == OLD_RANGES
    assert cutover.new_rule["ranges"] == NEW_RANGES
    assert cutover.moved == [[5998, 6380, "unbj", "center"]]
    assert (cutover.number, cutover.created_by, cutover.reason) == (1, "op", "more room")
    assert services.status(cutover)["moved_ids"] == MOVED_COUNT
    assert AuditEvent.objects.filter(namespace=scene.namespace, action="cutover.create").count() == 1


def test_drafts_are_numbered_per_namespace(scene: Scene) -> None:
    make_draft(scene)
    assert make_draft(scene).number == 2


@pytest.mark.parametrize(
    ("ranges", "sentence"),
    [
        ({"center": ["0~5997"]}, "ranges: no unit owns 5998~9999"),
        ({"center": ["0~6000"], "unbj": ["5998~9999"]}, "ranges: 5998~6000 belongs to both"),
        ({"center": ["0-5997"], "unbj": ["5998~9999"]}, "ranges.center: '0-5997' is not a range"),
        ({"center": ["0~5997"], "mars": ["5998~9999"]}, "'mars' is not a unit of this namespace"),
        ({"center": ["0~10000"]}, "ranges.center: 0~10000 leaves the key space"),
        (OLD_RANGES, "Nothing moves"),
        ({"center": ["0~10", "11~5997"], "unbj": ["5998~9999"]}, "Nothing moves"),
    ],
)
def test_a_rule_that_cannot_be_or_moves_nothing_gets_a_sentence_that_names_the_place(
    scene: Scene, ranges: dict[str, list[str]], sentence: str
) -> None:
    with pytest.raises(InvalidChange) as refused:
        draft(scene, ranges=ranges)
    assert sentence in str(refused.value)
    assert not Cutover.objects.exists()


def test_ranges_as_chinese_input_methods_write_them_are_understood(scene: Scene) -> None:
    cutover = draft(scene, ranges={"center": ["0～6380"], "unbj": ["6381～9999"]})
    assert cutover.new_rule["ranges"] == NEW_RANGES


def test_a_unit_can_be_cut_to_zero(scene: Scene) -> None:
    cutover = draft(scene, ranges={"center": ["0~9999"], "unbj": []})
    assert cutover.new_rule["ranges"] == {"center": ["0~9999"]}
    assert services.status(cutover)["moved_ids"] == 4002


def test_exact_ids_move_alone_and_ranges_stay(scene: Scene) -> None:
    cutover = draft(scene, exact={"unbj": [42]})
    assert cutover.moved == [[42, 42, "center", "unbj"]]
    assert cutover.new_rule["ranges"] == OLD_RANGES


def test_a_change_of_how_the_id_is_read_moves_every_id(scene: Scene) -> None:
    entry = {**make_draft(scene).old_rule, "transform": [{"modulo": 100}]}
    cutover = draft(scene, entry=entry)
    assert services.status(cutover)["moved_ids"] == 10000
    take_to(scene, run(scene, cutover), State.DONE)
    assert scene.rule()["unit_types"][0]["transform"] == [{"modulo": 100}]


def test_a_change_of_the_untagged_policy_moves_nothing_and_still_goes_by_a_cutover(scene: Scene) -> None:
    entry = {**make_draft(scene).old_rule, "untagged": "reject"}
    cutover = run(scene, draft(scene, entry=entry))
    assert cutover.moved == []
    take_to(scene, cutover, State.DONE)
    assert scene.rule()["unit_types"][0]["untagged"] == "reject"


def run(scene: Scene, cutover: Cutover) -> Cutover:
    """The cutover has published PREPARE."""
    from tests.cutover.builders import pass_checks

    services.preview(cutover, "op")
    pass_checks(cutover)
    services.start(cutover, "op", scene.namespace.name)
    services.advance(cutover.pk)
    cutover.refresh_from_db()
    return cutover


def test_before_the_first_publish_there_is_nothing_to_cut_over(db: None) -> None:
    with pytest.raises(Refused, match="put it into effect first"):
        services.create_draft(make_namespace(), "unit_type", ranges=NEW_RANGES, actor="op")


def test_an_unknown_unit_type_is_named_with_those_there_are(scene: Scene) -> None:
    with pytest.raises(Refused, match=r"nope is not in effect; there is unit_type"):
        services.create_draft(scene.namespace, "nope", ranges=NEW_RANGES, actor="op")


def test_adjusting_a_draft_asks_for_preview_and_checks_anew(scene: Scene) -> None:
    cutover = make_checked(scene)
    services.update_draft(cutover, ranges={"center": ["0~5999"], "unbj": ["6000~9999"]}, actor="op")
    assert (cutover.state, cutover.moved) == (State.DRAFT, [[5998, 5999, "unbj", "center"]])
    assert not cutover.checks.exists()
    assert services.stored_preview(cutover) is None


@pytest.mark.parametrize("state", [State.PREPARE, State.DONE])
def test_a_cutover_that_has_started_is_not_adjusted_or_discarded(scene: Scene, state: str) -> None:
    cutover = make_started(scene)
    take_to(scene, cutover, state)
    with pytest.raises(Refused, match="cannot be adjusted any more"):
        services.update_draft(cutover, exact={"unbj": [1]}, actor="op")
    with pytest.raises(Refused, match="cannot be adjusted any more"):
        services.discard(cutover, "op")


def test_a_discarded_draft_stays_in_the_list_and_cannot_be_previewed(scene: Scene) -> None:
    cutover = make_draft(scene)
    services.discard(cutover, "op")
    assert cutover.state == State.DISCARDED
    with pytest.raises(Refused):
        services.preview(cutover, "op")


def test_asking_twice_for_the_same_rule_finds_the_open_draft(scene: Scene) -> None:
    first = services.open_draft(scene.namespace, "unit_type", ranges=NEW_RANGES, actor="op")
    again = services.open_draft(scene.namespace, "unit_type", ranges=NEW_RANGES, actor="another")
    assert again == first
    services.discard(first, "op")
    assert services.open_draft(scene.namespace, "unit_type", ranges=NEW_RANGES, actor="op") != first


def test_putting_a_saved_change_of_ownership_into_effect_leaves_one_draft(scene: Scene) -> None:
    UnitType.objects.filter(namespace=scene.namespace).update(ranges=NEW_RANGES)
    from cutover import uses

    entry = {**make_draft(scene).old_rule, "ranges": NEW_RANGES}
    made = uses.make_draft(scene.namespace, "unit_type", entry, actor="op", reason="")
    assert domains._draft_maker is uses.make_draft
    assert made.number == 1
    assert Cutover.objects.count() == 1


def test_what_a_running_cutover_brings_into_effect_is_not_drafted_again(scene: Scene) -> None:
    from cutover import uses

    running = make_started(scene)
    assert running.active
    made = uses.make_draft(scene.namespace, "unit_type", running.new_rule, actor="op", reason="")
    assert made.number == running.number
    assert made.url == f"/cutover/{running.pk}/"
    other = {**running.new_rule, "ranges": {"center": ["0~1"], "unbj": ["2~9999"]}}
    assert (
        uses.make_draft(scene.namespace, "unit_type", other, actor="op", reason="").number != running.number
    )


@pytest.mark.parametrize("saved", [OLD_RANGES, NEW_RANGES])
@pytest.mark.parametrize("state", [State.PREPARE, State.FREEZE, State.ACTIVATE, State.RELEASE])
def test_a_saved_rule_that_a_running_cutover_will_settle_is_no_unpublished_change(
    scene: Scene, state: str, saved: dict[str, list[str]]
) -> None:
    running = make_started(scene)
    UnitType.objects.filter(namespace=scene.namespace).update(ranges=saved)
    take_to(scene, running, state)
    assert domains.unpublished_changes(scene.namespace).rules == ()
    assert not [said for said in domains.has_unpublished_changes(scene.namespace) if "moves" in said]
    assert domains.revert_saved_rules(scene.namespace, "op") == []


def test_a_third_saved_rule_beside_a_running_cutover_is_an_unpublished_change(scene: Scene) -> None:
    take_to(scene, make_started(scene), State.ACTIVATE)
    UnitType.objects.filter(namespace=scene.namespace).update(ranges={"center": ["0~1"], "unbj": ["2~9999"]})
    assert [rule.name for rule in domains.unpublished_changes(scene.namespace).rules] == ["unit_type"]
