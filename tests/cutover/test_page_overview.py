import re

import pytest
from django.test import Client
from django.utils import translation

from tests.cutover.builders import Scene, make_draft, make_started, take_to
from tests.cutover.pages import CSP_FREE_NAMES, signed_in
from tests.units.builders import make_namespace
from units.alarms import clear_alarm, raise_alarm
from units.models import Alarm, EdgeNode


@pytest.fixture
def viewer(scene: Scene) -> Client:
    return signed_in("viewer")


def shown(client: Client, path: str = "/") -> str:
    page = client.get(path)
    assert page.status_code == 200
    return page.content.decode()


def test_the_overview_draws_the_rule_in_effect_and_counts_each_units_sessions(
    scene: Scene, viewer: Client
) -> None:
    EdgeNode.objects.filter(pk=scene["unbj-1"].pk).update(sessions=81)
    page = shown(viewer)
    assert "5998~9999" in page
    assert re.search(r'class="value">81 ', page)
    assert "in sync" in page or "not confirmed" in page


def test_an_edge_node_that_fell_silent_is_lost_and_one_that_refused_says_why(
    scene: Scene, viewer: Client
) -> None:
    EdgeNode.objects.filter(pk=scene["unbj-1"].pk).update(connected=False)
    EdgeNode.objects.filter(pk=scene["center-1"].pk).update(
        nack_version=99, nack_reason="a domain without a name"
    )
    page = shown(viewer)
    assert "it is still enrolled" in page.lower()
    assert "a domain without a name" in page


def test_the_figures_are_a_fragment_that_htmx_fetches(viewer: Client) -> None:
    page = shown(viewer, "/overview/figures/")
    assert "<html" not in page
    assert "5998~9999" in page


def test_without_a_namespace_the_overview_says_what_to_do_next(db: None) -> None:
    assert "There is no namespace yet" in shown(signed_in("operator"))


def test_a_new_namespace_shows_what_it_still_needs(db: None) -> None:
    make_namespace()
    page = shown(signed_in("operator"))
    assert "Continue set-up" in page
    assert "Put into effect" in page
    assert page.count("radio_button_unchecked") >= 5


def test_two_units_may_stand_at_the_same_place_and_still_have_two_colours(
    scene: Scene, viewer: Client
) -> None:
    scene.namespace.units.update(position=0)
    page = shown(viewer)
    assert "dot unit-0" in page
    assert "dot unit-1" in page


def test_nothing_is_inline(scene: Scene, viewer: Client) -> None:
    page = shown(viewer)
    body = page[page.index('<div id="main"') :]
    ours = body[body.index('class="console') :]
    assert not any(name in ours for name in CSP_FREE_NAMES)
    assert "<script>" not in page
    assert ' style="' not in ours[: ours.index("</section>")]


def test_htmx_and_alpine_come_once(viewer: Client) -> None:
    page = shown(viewer)
    assert len(re.findall(r"<script[^>]+htmx", page)) == 1
    assert len(re.findall(r"<script[^>]+/alpine\.js", page)) == 1


def test_the_overview_alone_is_lit_in_the_navigation(viewer: Client) -> None:
    for path, label in (
        ("/", "Overview"),
        ("/cutover/", "Cutover"),
        ("/cutover/history/", "Cutover history"),
    ):
        lit = re.findall(r'<a href="[^"]*" class="[^"]* active"[^>]*>.*?</a>', shown(viewer, path), re.DOTALL)
        assert len(lit) == 1, path
        assert label in lit[0]


def test_the_navigation_counts_drafts_and_the_running_cutover_and_shows_no_empty_badge(
    scene: Scene, viewer: Client
) -> None:
    assert "rounded-xs text-center text-[11px]" not in shown(viewer)
    make_draft(scene)
    assert re.search(r"rounded-xs text-center text-\[11px\].*?>\s*1\s*</span>", shown(viewer), re.DOTALL)


def test_the_page_has_a_skip_link_first_and_a_title(viewer: Client) -> None:
    page = shown(viewer)
    assert page.index('class="skip-link"') < page.index("<nav")
    assert re.search(r"<title>\s*Overview \| msha</title>", page)


# -- banners --------------------------------------------------------


def test_an_alarm_is_a_banner_on_every_page_until_it_is_cleared(scene: Scene, viewer: Client) -> None:
    raise_alarm(scene.namespace.pk, "test", "edge-9 burns", "edge-9")
    for path in ("/", "/cutover/", "/banners/"):
        assert "edge-9 burns" in shown(viewer, path)
    clear_alarm(scene.namespace.pk, "test")
    assert "edge-9 burns" not in shown(viewer)


def test_a_running_cutover_is_a_banner_that_leads_to_it(scene: Scene, viewer: Client) -> None:
    cutover = make_started(scene)
    assert f"/cutover/{cutover.pk}/progress/" in shown(viewer, "/banners/")
    take_to(scene, cutover, "done")
    assert "is running" not in shown(viewer, "/banners/")


def test_a_clock_that_is_off_is_a_banner(scene: Scene, viewer: Client) -> None:
    EdgeNode.objects.filter(pk=scene["unbj-1"].pk).update(clock_skew_ms=-2500)
    assert "-2500 ms" in shown(viewer, "/banners/")


def test_what_publishing_stopped_is_a_banner(scene: Scene, viewer: Client) -> None:
    scene.namespace.publishing_stopped = "restored from an older backup"
    scene.namespace.save()
    assert "restored from an older backup" in shown(viewer, "/banners/")


# -- lists --------------------------------------------------------


def test_the_history_is_filtered_by_state_and_by_who_started(scene: Scene, viewer: Client) -> None:
    cutover = make_started(scene)
    take_to(scene, cutover, "done")
    assert f"/cutover/{cutover.pk}/" in shown(viewer, "/cutover/history/")
    assert f"/cutover/{cutover.pk}/" in shown(viewer, "/cutover/history/?state=done&who=op")
    assert "No cutover matches" in shown(viewer, "/cutover/history/?state=aborted")
    assert f"/cutover/{cutover.pk}/" in shown(viewer, "/cutover/history/?state=nonsense")


def test_the_namespace_of_the_address_is_worked_in_and_remembered(scene: Scene, viewer: Client) -> None:
    other = make_namespace(name="other")
    cutover = make_draft(scene)
    assert f"/cutover/{cutover.pk}/" not in shown(viewer, f"/cutover/?namespace={other.name}")
    assert f"/cutover/{cutover.pk}/" not in shown(viewer, "/cutover/")
    assert f"/cutover/{cutover.pk}/" in shown(viewer, f"/cutover/?namespace={scene.namespace.name}")


def test_the_palette_finds_pages_and_cutovers_by_number(scene: Scene, viewer: Client) -> None:
    cutover = make_draft(scene)
    assert "/cutover/history/" in shown(viewer, "/admin/search/?s=history&extended=1")
    assert f"/cutover/{cutover.pk}/" in shown(viewer, f"/admin/search/?s=%23{cutover.number}&extended=1")


def test_an_alarm_of_a_cutover_is_said_in_the_readers_language(scene: Scene, viewer: Client) -> None:
    from cutover import services
    from tests.cutover.builders import grow_old

    cutover = make_started(scene)
    take_to(scene, cutover, "activate")
    grow_old(cutover, 11)
    services.advance(cutover.pk)
    assert "has waited in" in shown(viewer, "/banners/")
    viewer.cookies["django_language"] = "zh-hans"
    assert "步骤等待" in shown(viewer, "/banners/")


def test_the_banner_of_a_running_cutover_is_left_out_on_its_own_pages(scene: Scene, viewer: Client) -> None:
    cutover = make_started(scene)
    own = f"http://testserver/cutover/{cutover.pk}/progress/"
    there = viewer.get("/banners/", headers={"HX-Current-URL": own}).content.decode()
    assert "is running" not in there
    assert "is running" in viewer.get("/banners/", headers={"HX-Current-URL": "http://x/"}).content.decode()


def test_alarms_name_silent_clusters_in_chinese_on_the_progress_page_and_in_its_timeline(
    scene: Scene, viewer: Client
) -> None:
    from cutover import services
    from tests.cutover.builders import grow_old

    cutover = make_started(scene)
    scene["center-1"].disconnect()
    scene["unbj-1"].ack()
    grow_old(cutover, 11)
    services.advance(cutover.pk)
    cutover.refresh_from_db()
    with translation.override("en"):
        english = services.status(cutover)
    name = scene["center-1"].row.name
    silent = f"a node of cluster ws-center (center; {name} has not answered)"
    assert silent in english["alarm"] == Alarm.objects.get(namespace=scene.namespace).sentence
    with translation.override("zh-hans"):
        status = services.status(cutover)
    told = [event["sentence"] for event in status["events"] if event["kind"] == "alarm"]
    for sentence in (status["alarm"], status["outcome"], *told):
        assert f"{name} 未应答" in sentence
        assert "did not answer" not in sentence
        assert "a node of" not in sentence
    assert len(told) == 1
