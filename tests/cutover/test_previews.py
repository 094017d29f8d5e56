"""What a preview says: in tables, in text, in one sentence, and as a command."""

from typing import Any

import pytest

from cutover import previews, services
from cutover.models import Cutover
from tests.cutover.builders import NEW_RANGES, Scene, make_draft, make_scene
from tests.support.answering import answering, well
from units.models import Probe

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _time_to_answer(monkeypatch: pytest.MonkeyPatch, _nodes_do_not_answer_for_long: None) -> None:
    monkeypatch.setattr(previews, "COUNT_DEADLINE_S", 5.0)


@pytest.fixture
def scene() -> Scene:
    return make_scene()


def previewed(scene: Scene, **asked: Any) -> tuple[Cutover, services.Preview]:
    asked = asked or {"ranges": NEW_RANGES}
    cutover = services.create_draft(scene.namespace, "unit_type", actor="op", **asked)
    with answering():
        return cutover, services.preview(cutover, "op")


def test_a_preview_says_the_impact_in_plain_words(scene: Scene) -> None:
    cutover, preview = previewed(scene)
    assert preview.impact == (
        "383 of 10000 ids (5998~6380), 4 live sessions, move from Unbj to Center. All others stay connected."
    )
    assert cutover.state == Cutover.State.PREVIEWED


def test_a_preview_shows_each_unit_before_and_after(scene: Scene) -> None:
    _, preview = previewed(scene)
    center, unbj = preview.units
    assert (center.code, center.old_ranges, center.new_ranges) == ("center", ["0~5997"], ["0~6380"])
    assert (center.old_share, center.new_share, center.new_percent) == (5998, 6381, 63.81)
    assert (center.sessions_gained, center.sessions_lost) == (0 + 4, 0)
    assert (unbj.sessions_gained, unbj.sessions_lost) == (0, 4)
    (move,) = preview.moves
    assert (move.losing, move.gaining, move.text, move.ids, move.sessions) == (
        "unbj",
        "center",
        "5998~6380",
        383,
        4,
    )


def test_sessions_are_counted_at_the_losing_nodes_only(scene: Scene) -> None:
    cutover = make_draft(scene)
    with answering() as asked:
        services.preview(cutover, "op")
    assert [(probe.kind, probe.node.unit.code, probe.params) for probe in asked] == [
        ("count", "unbj", {"unit_type": "unit_type", "ranges": [[5998, 6380]]})
    ]


def test_moves_between_several_units_are_told_apart(db: None) -> None:
    scene = make_scene(codes=("center", "unbj", "unsh"))
    ranges = {"center": ["0~4999"], "unbj": ["5000~7999"], "unsh": ["8000~9999"]}
    _, preview = previewed(scene, ranges=ranges)
    assert [(move.losing, move.gaining, move.ids) for move in preview.moves] == [
        ("center", "unbj", 998),
        ("unbj", "unsh", 2000),
    ]
    assert "5000~5997 from Center to Unbj (4); 8000~9999 from Unbj to Unsh (4)" in preview.impact


def test_a_node_that_does_not_count_is_named(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(previews, "COUNT_DEADLINE_S", 0.3)
    cutover = make_draft(scene)
    with answering(lambda probe: None):
        preview = services.preview(cutover, "op")
    assert preview.uncounted == [scene["unbj-1"].row.name]
    assert f"could not be counted on {scene['unbj-1'].row.name}" in preview.impact


def test_a_node_without_a_connection_is_not_even_asked(scene: Scene) -> None:
    scene["unbj-1"].disconnect()
    cutover = make_draft(scene)
    preview = services.preview(cutover, "op")
    assert preview.uncounted == [scene["unbj-1"].row.name]
    assert not Probe.objects.exists()


def test_an_answer_that_makes_no_sense_counts_as_none(scene: Scene) -> None:
    cutover = make_draft(scene)
    with answering(lambda probe: {**well(probe), "counts": "many"}):
        assert services.preview(cutover, "op").uncounted == [scene["unbj-1"].row.name]


def test_the_rule_text_stands_before_and_after_side_by_side(scene: Scene) -> None:
    _, preview = previewed(scene)
    changed = [row for row in preview.rows if row.changed]
    assert [(row.left.text.strip(), row.right.text.strip()) for row in changed if row.left and row.right] == [
        ("routerId: 0~5997", "routerId: 0~6380"),
        ("routerId: 5998~9999", "routerId: 6381~9999"),
    ]


@pytest.mark.parametrize(
    ("asked", "line"),
    [
        ({"ranges": NEW_RANGES}, "--ranges 'center=0~6380,unbj=6381~9999'"),
        ({"exact": {"unbj": [42, 43]}}, "--ranges 'center=0~5997,unbj=5998~9999' --exact unbj=42+43"),
        (
            {"ranges": {"center": ["0~9", "20~9999"], "unbj": ["10~19"]}},
            "--ranges 'center=0~9+20~9999,unbj=10~19'",
        ),
    ],
)
def test_the_same_act_is_shown_as_a_line_for_a_shell(scene: Scene, asked: dict[str, Any], line: str) -> None:
    cutover, preview = previewed(scene, **asked)
    assert preview.command == (
        f"mshactl cutover start -n {cutover.namespace.name} --unit-type unit_type {line}"
    )


def test_what_a_line_cannot_say_is_not_shown_as_one(scene: Scene) -> None:
    entry = {**make_draft(scene).old_rule, "untagged": "reject"}
    _, preview = previewed(scene, entry=entry)
    assert preview.command == ""
    assert "No id moves" in preview.impact


def test_a_preview_is_kept_and_shown_again_without_asking_anybody(scene: Scene) -> None:
    cutover, preview = previewed(scene)
    again = services.stored_preview(Cutover.objects.get(pk=cutover.pk))
    assert again == preview
    assert Probe.objects.count() == 1
