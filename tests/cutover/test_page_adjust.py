import pytest
from django.test import Client

from cutover.models import Cutover
from tests.cutover.builders import Scene, make_draft, make_scene, make_started
from tests.cutover.pages import page_of, signed_in, table

NEW = "/cutover/new/"


@pytest.fixture
def operator(scene: Scene) -> Client:
    return signed_in("operator")


def newest() -> Cutover:
    return Cutover.objects.latest("pk")


def test_the_form_shows_the_rule_in_effect_and_drafts_nothing(operator: Client) -> None:
    page = operator.get(NEW)
    assert page.status_code == 200
    assert 'value="5997"' in page.content.decode()
    assert Cutover.objects.count() == 0


def test_generate_preview_drafts_the_cutover_and_shows_its_preview(operator: Client) -> None:
    sent = operator.post(NEW, table(("center", 6380), ("unbj", 9999), act="preview", reason="maintenance"))
    cutover = newest()
    assert sent.status_code == 302
    assert sent["Location"] == page_of(cutover, "preview")
    assert cutover.state == Cutover.State.PREVIEWED
    assert cutover.new_rule["ranges"] == {"center": ["0~6380"], "unbj": ["6381~9999"]}
    assert cutover.reason == "maintenance"
    assert "383" in operator.get(sent["Location"]).content.decode()


def test_the_last_range_always_ends_with_the_key_space(operator: Client) -> None:
    operator.post(NEW, table(("center", 6380), ("unbj", 7000), act="preview"))
    assert newest().new_rule["ranges"]["unbj"] == ["6381~9999"]


@pytest.mark.parametrize(
    ("last", "said"),
    [
        ("", "Write the last id"),
        ("64x0", "Write the last id"),
        ("-1", "Write the last id"),
        ("10000", "leaves no id for what follows"),
        ("9999", "leaves no id for what follows"),
    ],
)
def test_an_unusable_last_id_is_refused_with_a_sentence_at_its_row(
    operator: Client, last: str, said: str
) -> None:
    sent = operator.post(NEW, {"unit": ["center", "unbj"], "last": [last, "9999"], "act": "preview"})
    assert sent.status_code == 422
    assert said in sent.content.decode()
    assert 'aria-invalid="true"' in sent.content.decode()
    assert Cutover.objects.count() == 0


def test_a_range_that_ends_before_it_begins_is_refused(operator: Client) -> None:
    sent = operator.post(NEW, table(("center", 6000), ("unbj", 5000), ("center", 9999), act="preview"))
    assert sent.status_code == 422
    assert "lies before this range begins" in sent.content.decode()


def test_a_table_that_moves_nothing_is_refused_and_keeps_what_was_typed(operator: Client) -> None:
    sent = operator.post(NEW, table(("center", 5997), ("unbj", 9999), act="preview", reason="typed"))
    assert sent.status_code == 409
    assert "Nothing moves" in sent.content.decode()
    assert 'value="typed"' in sent.content.decode()
    assert Cutover.objects.count() == 0


def test_cutting_a_unit_to_zero_drafts_that_all_its_ids_go_to_the_other(operator: Client) -> None:
    sent = operator.post(NEW, table(("center", 5997), ("unbj", 9999), act="zero:unbj:center"))
    assert sent["Location"] == page_of(newest(), "adjust")
    assert newest().new_rule["ranges"] == {"center": ["0~9999"]}
    page = operator.get(sent["Location"]).content.decode()
    assert "owns no ids" in page


def test_a_unit_cut_to_zero_loses_its_exact_ids_too(operator: Client) -> None:
    sent = {**table(("center", 5997), ("unbj", 9999)), "exact-unbj": "42", "act": "zero:unbj:center"}
    operator.post(NEW, sent)
    assert newest().new_rule["exact"] == {}


def test_single_ranges_can_be_given_to_another_unit(operator: Client) -> None:
    rows = table(("center", 5997), ("unbj", 9999), act="assign", assign_ids="100~199", assign_unit="unbj")
    operator.post(NEW, rows)
    assert newest().new_rule["ranges"] == {"center": ["0~99", "200~5997"], "unbj": ["100~199", "5998~9999"]}


@pytest.mark.parametrize("ids", ["", "abc", "200~100", "9990~10010", "1~2~3"])
def test_unusable_ids_to_give_away_are_refused_at_their_field(operator: Client, ids: str) -> None:
    rows = table(("center", 5997), ("unbj", 9999), act="assign", assign_ids=ids, assign_unit="unbj")
    sent = operator.post(NEW, rows)
    assert sent.status_code == 422
    assert Cutover.objects.count() == 0


@pytest.mark.parametrize(("ids", "said"), [("4x", "is not an id"), ("10000", "leaves the key space")])
def test_unusable_exact_ids_are_refused_at_their_field(operator: Client, ids: str, said: str) -> None:
    rows = {**table(("center", 5997), ("unbj", 9999)), "exact-unbj": ids, "act": "preview"}
    sent = operator.post(NEW, rows)
    assert sent.status_code == 422
    assert said in sent.content.decode()


def test_an_exact_id_named_for_two_units_is_refused(operator: Client) -> None:
    rows = {**table(("center", 5997), ("unbj", 9999)), "exact-unbj": "42", "exact-center": "42"}
    sent = operator.post(NEW, {**rows, "act": "preview"})
    assert sent.status_code == 422
    assert "is already an exact id" in sent.content.decode()


def test_exact_ids_reach_the_draft(operator: Client) -> None:
    rows = {**table(("center", 5997), ("unbj", 9999)), "exact-unbj": "42, 77", "act": "preview"}
    operator.post(NEW, rows)
    assert newest().new_rule["exact"] == {"unbj": [42, 77]}


def test_a_changed_draft_is_a_draft_again(scene: Scene, operator: Client) -> None:
    cutover = make_draft(scene)
    sent = operator.post(page_of(cutover, "adjust"), table(("center", 7000), ("unbj", 9999), act="preview"))
    cutover.refresh_from_db()
    assert sent.status_code == 302
    assert cutover.new_rule["ranges"]["center"] == ["0~7000"]


def test_a_draft_keeps_how_the_router_id_is_read_when_its_ranges_are_adjusted(
    scene: Scene, operator: Client
) -> None:
    cutover = make_draft(scene)
    cutover.new_rule["sources"] = [{"query": "rid"}]
    cutover.save(update_fields=["new_rule"])
    operator.post(page_of(cutover, "adjust"), table(("center", 7000), ("unbj", 9999), act="preview"))
    cutover.refresh_from_db()
    assert cutover.new_rule["sources"] == [{"query": "rid"}]
    assert "how the routerId is read" in operator.get(page_of(cutover, "adjust")).content.decode()


def test_a_draft_can_be_discarded(scene: Scene, operator: Client) -> None:
    cutover = make_draft(scene)
    operator.post(page_of(cutover, "adjust"), {"act": "discard"})
    cutover.refresh_from_db()
    assert cutover.state == Cutover.State.DISCARDED


def test_a_running_cutover_shows_what_was_asked_for_and_takes_no_change(
    scene: Scene, operator: Client
) -> None:
    cutover = make_started(scene)
    page = operator.get(page_of(cutover, "adjust")).content.decode()
    assert "cannot be changed any more" in page
    sent = operator.post(page_of(cutover, "adjust"), table(("center", 7000), ("unbj", 9999), act="preview"))
    assert sent.status_code == 409
    cutover.refresh_from_db()
    assert cutover.new_rule["ranges"]["center"] == ["0~6380"]


def test_with_three_units_the_gaining_one_is_chosen(db: None) -> None:
    make_scene(codes=("center", "unbj", "unsh"))
    operator = signed_in("operator")
    page = operator.get(NEW).content.decode()
    assert "zero:unbj:unsh" in page
    operator.post(NEW, table(("center", 5997), ("unbj", 9999), act="zero:unbj:unsh"))
    assert newest().new_rule["ranges"] == {"center": ["0~5997"], "unsh": ["5998~9999"]}


def test_before_the_first_publish_there_is_nothing_to_cut_over(db: None) -> None:
    from tests.units.builders import make_namespace

    make_namespace()
    operator = signed_in("operator")
    assert operator.get(NEW).status_code == 302
    assert "Continue set-up" in operator.get("/cutover/").content.decode()


# -- a share -------------------------------------------------------------------------------------------------


def shift(
    amount: str, measure: str = "percent", losing: str = "unbj", gaining: str = "center"
) -> dict[str, str]:
    return {
        "shift_amount": amount,
        "shift_measure": measure,
        "shift_from": losing,
        "shift_to": gaining,
    }


@pytest.mark.parametrize(
    ("asked", "last"),
    [
        (shift("10"), 5997 + 400),
        (shift("10 %"), 5997 + 400),
        (shift("12.5"), 5997 + 500),
        (shift("3.83", "of_all"), 6380),
        (shift("383", "ids"), 6380),
    ],
)
def test_a_shift_drafts_the_ranges_that_it_comes_to(
    operator: Client, asked: dict[str, str], last: int
) -> None:
    sent = operator.post(NEW, {**table(("center", 5997), ("unbj", 9999)), **asked, "act": "shift"})
    cutover = newest()
    assert sent["Location"] == page_of(cutover, "adjust")
    assert cutover.new_rule["ranges"] == {"center": [f"0~{last}"], "unbj": [f"{last + 1}~9999"]}
    assert cutover.kind == Cutover.Kind.SHIFT
    assert f'value="{last}"' in operator.get(sent["Location"]).content.decode()


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (shift(""), "Write how much is to move"),
        (shift("ten"), "Write how much is to move"),
        (shift("-5"), "Write how much is to move"),
        (shift("0"), "percentage above 0"),
        (shift("101"), "percentage above 0"),
        (shift("1.5", "ids"), "whole number"),
        (shift("5000", "ids"), "cannot be taken from it"),
        (shift("10", losing="center", gaining="center"), "Choose another unit"),
        (shift("10", losing="gone"), "There is no unit gone"),
    ],
)
def test_an_unusable_shift_is_refused_at_its_line_and_drafts_nothing(
    operator: Client, asked: dict[str, str], said: str
) -> None:
    sent = operator.post(NEW, {**table(("center", 5997), ("unbj", 9999)), **asked, "act": "shift"})
    assert sent.status_code == 422
    assert said in sent.content.decode()
    assert Cutover.objects.count() == 0


def test_what_a_shift_comes_to_is_shown_while_it_is_typed_and_drafts_nothing(operator: Client) -> None:
    shown = operator.get("/cutover/shift/", {**shift("10"), "unit_type": "unit_type"}).content.decode()
    assert "400 of 10000 ids move: 5998~6397" in shown
    assert "0~6397" in shown
    refused = operator.get("/cutover/shift/", {**shift("200"), "unit_type": "unit_type"}).content.decode()
    assert "percentage above 0" in refused
    assert operator.get("/cutover/shift/").status_code == 200
    assert Cutover.objects.count() == 0


def test_looking_at_a_shift_needs_the_permission_to_draft(scene: Scene) -> None:
    assert signed_in("viewer").get("/cutover/shift/", shift("10")).status_code == 403


def test_with_three_units_a_cut_to_zero_goes_to_the_others_in_proportion(db: None) -> None:
    make_scene(codes=("center", "unbj", "unsh"))
    operator = signed_in("operator")
    operator.post(NEW, table(("center", 5997), ("unbj", 7999), ("unsh", 9999), act="preview"))
    operator.post(NEW, table(("center", 5997), ("unbj", 9999), act="zero:unbj:"))
    assert newest().new_rule["ranges"] == {"center": ["0~9999"]}
    assert newest().kind == Cutover.Kind.ZERO


def test_a_draft_that_was_a_shift_stays_one_when_only_its_reason_changes(
    scene: Scene, operator: Client
) -> None:
    operator.post(NEW, {**table(("center", 5997), ("unbj", 9999)), **shift("383", "ids"), "act": "shift"})
    page = page_of(newest(), "adjust")
    operator.post(page, table(("center", 6380), ("unbj", 9999), act="preview", reason="more room"))
    assert (newest().kind, newest().reason) == (Cutover.Kind.SHIFT, "more room")
