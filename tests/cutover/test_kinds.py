"""Shifts and cuts to zero: asked for in words, worked out against the rule in effect."""

from fractions import Fraction
from typing import Any

import pytest

from cutover import kinds, services
from cutover.errors import InvalidChange
from cutover.kinds import Shift, ToZero
from cutover.models import Cutover
from tests.cutover.builders import OLD_RANGES, Scene, make_draft, make_scene

Kind = Cutover.Kind


def draft(scene: Scene, wish: Any) -> Cutover:
    return services.create_draft(scene.namespace, "unit_type", wish=wish, actor="op")


def ten(**more: Any) -> Shift:
    return Shift("unbj", "center", percent=Fraction(10), **more)


def test_a_percentage_is_one_of_the_losing_units_ids(scene: Scene) -> None:
    cutover = draft(scene, [ten()])
    assert (cutover.kind, cutover.moved) == (Kind.SHIFT, [[5998, 6397, "unbj", "center"]])
    said = services.status(cutover)["asked"]
    assert said == "10 % of the 4002 ids of unbj, which is 400, go to center"
    assert services.status(cutover)["events"][0]["sentence"] == f"Drafted by op: {said}"


def test_a_percentage_may_be_one_of_all_ids(scene: Scene) -> None:
    cutover = draft(scene, [ten(of_all=True)])
    assert services.status(cutover)["moved_ids"] == 1000
    assert "10 % of all 10000 ids, which is 1000" in services.status(cutover)["asked"]


def test_a_number_of_ids_moves_exactly_so_many(scene: Scene) -> None:
    cutover = draft(scene, [Shift("unbj", "center", ids=383)])
    assert cutover.moved == [[5998, 6380, "unbj", "center"]]


def test_several_shifts_are_made_one_after_the_other(db: None) -> None:
    scene = make_scene(codes=("center", "unbj", "unsh"))
    cutover = draft(scene, [Shift("unbj", "center", ids=100), Shift("unbj", "unsh", ids=200)])
    assert cutover.new_rule["ranges"] == {
        "center": ["0~6097"],
        "unbj": ["6098~9799"],
        "unsh": ["9800~9999"],
    }


def test_a_unit_cut_to_zero_gives_to_the_others_by_share_or_to_one(db: None) -> None:
    scene = make_scene(codes=("center", "unbj", "unsh"))
    cutover = draft(scene, ToZero("unbj"))
    assert (cutover.kind, cutover.new_rule["ranges"]) == (Kind.ZERO, {"center": ["0~9999"]})
    other = draft(scene, ToZero("unbj", "unsh"))
    assert other.new_rule["ranges"] == {"center": ["0~5997"], "unsh": ["5998~9999"]}
    assert services.status(other)["asked"] == "unbj is cut to zero: its 4002 ids go to unsh"


def test_exact_ids_stay_in_a_shift_and_go_with_a_cut_to_zero(scene: Scene) -> None:
    exact = make_draft(scene, None).old_rule | {"exact": {"unbj": [42], "center": [6000]}}
    document = scene_document(scene, exact)
    shifted = kinds.granted(document, "unit_type", [Shift("unbj", "center", ids=10)]).entry
    assert shifted["exact"] == {"unbj": [42], "center": [6000]}
    assert shifted["ranges"]["center"] == ["0~6008"]  # 6000 is center's already
    zero = kinds.granted(document, "unit_type", ToZero("unbj")).entry
    assert (zero["ranges"], zero["exact"]) == ({"center": ["0~9999"]}, {"center": [6000]})


def scene_document(scene: Scene, entry: dict[str, Any]) -> dict[str, Any]:
    from cutover import rules

    document = rules.in_effect(scene.namespace)
    document["rule"]["unit_types"] = [entry]
    return document


def test_the_copyable_command_says_the_rule_that_it_came_to(scene: Scene) -> None:
    cutover = draft(scene, [ten()])
    command = services.preview(cutover, "op").command
    assert command.endswith("--ranges 'center=0~6397,unbj=6398~9999'")
    assert services.preview(draft(scene, ToZero("unbj")), "op").command.endswith("--ranges 'center=0~9999'")


def test_asking_twice_finds_the_open_draft(scene: Scene) -> None:
    first = services.open_draft(scene.namespace, "unit_type", wish=[ten()], actor="op")
    assert services.open_draft(scene.namespace, "unit_type", wish=[ten()], actor="op") == first


def test_a_draft_that_is_edited_by_hand_is_a_plain_one_again(scene: Scene) -> None:
    cutover = draft(scene, [ten()])
    services.update_draft(cutover, ranges={"center": ["0~9999"]}, actor="op")
    assert (cutover.kind, services.status(cutover)["asked"]) == (Kind.TABLE, "")
    services.update_draft(cutover, wish=[ten()], actor="op")
    assert (cutover.kind, cutover.moved) == (Kind.SHIFT, [[5998, 6397, "unbj", "center"]])
    assert services.status(cutover)["asked"].startswith("10 % of")


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        ([Shift("unbj", "mars", ids=1)], "There is no unit mars in effect; there is center, unbj"),
        ([Shift("unbj", "unbj", ids=1)], "Choose another unit"),
        ([Shift("unbj", "center")], "Say how much"),
        ([Shift("unbj", "center", ids=1, percent=Fraction(1))], "Say how much"),
        ([Shift("unbj", "center", ids=0)], "At least one id"),
        ([Shift("unbj", "center", ids=5000)], "unbj owns 4002 ids by its ranges, so 5000 cannot"),
        ([Shift("unbj", "center", percent=Fraction(101))], "a percentage above 0 and up to 100"),
        (ToZero("mars"), "There is no unit mars"),
        (ToZero("unbj", "unbj"), "Choose another unit"),
        (ToZero("unbj", {"center": 0}), "at least one share has to be above 0"),
    ],
)
def test_what_cannot_be_asked_for_is_refused_with_a_sentence(scene: Scene, wish: Any, said: str) -> None:
    with pytest.raises(InvalidChange, match=said):
        draft(scene, wish)
    assert not Cutover.objects.exists()
    assert scene.ranges() == OLD_RANGES
