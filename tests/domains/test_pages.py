import re
from html import unescape
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.test import Client

from domains import services, topology
from domains.models import Domain
from domains.saved import domain_value, topology_of
from units.models import AuditEvent, Cluster, Namespace, Snapshot, Unit, UnitType

NAME = "websocket.msha.tech"
ADD = "/admin/domains/domain/add/"


def client_of(name: str, *groups: str) -> Client:
    user = User.objects.create_user(name, password="x", is_staff=True)
    user.groups.set(Group.objects.filter(name__in=groups))
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def operator(db: None) -> Client:
    return client_of("olga", "operator")


@pytest.fixture
def viewer(db: None) -> Client:
    return client_of("victor", "viewer")


@pytest.fixture
def stranger(db: None) -> Client:
    return client_of("nobody")


def page_of(domain: Domain) -> str:
    return f"/admin/domains/domain/{domain.pk}/change/"


def filled(html: str) -> dict[str, str]:
    """What a browser would send back of a form, as it was shown."""
    sent: dict[str, str] = {}
    body = html[html.index("data-domain-form") :].partition("<template")[0]
    for tag in re.findall(r"<input[^>]*>", body):
        found = dict(re.findall(r'([\w-]+)="([^"]*)"', tag))
        if found.get("type") == "checkbox" and "checked" not in tag:
            continue
        if "name" in found and found["name"] != "csrfmiddlewaretoken":
            sent[found["name"]] = unescape(found.get("value", "on" if found["type"] == "checkbox" else ""))
    for name, options in re.findall(r'<select[^>]*name="([^"]+)"[^>]*>(.*?)</select>', body, re.S):
        chosen = re.search(r'<option value="([^"]*)" selected', options)
        first = re.search(r'<option value="([^"]*)"', options)
        assert first is not None
        sent[name] = (chosen or first)[1]
    return sent


def text_of(response: Any) -> str:
    """What is read on a page."""
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", response.content.decode())))


PAGES = [
    "/admin/domains/domain/",
    "/effect/demo/",
    "/versions/",
    "/versions/demo/1/",
    "/versions/demo/compare/?before=1&after=1",
    "/route/?router_id=6249",
]


@pytest.mark.parametrize("path", PAGES)
def test_viewers_see_the_pages_and_users_without_a_group_do_not(
    published: Namespace, viewer: Client, stranger: Client, path: str
) -> None:
    assert viewer.get(path).status_code == 200
    assert stranger.get(path).status_code == 403
    assert Client().get(path).status_code == 302


def test_a_saved_form_changes_nothing_when_nothing_was_changed(demo: Namespace, operator: Client) -> None:
    domain = Domain.objects.get()
    before, events = topology_of(demo), AuditEvent.objects.count()
    html = operator.get(page_of(domain)).content.decode()
    response = operator.post(page_of(domain), filled(html))
    assert response.status_code == 302, text_of(response)
    assert topology_of(demo) == before
    assert AuditEvent.objects.count() == events


def test_the_form_shows_sub_domains_clusters_ports_and_labelled_servers(
    demo: Namespace, operator: Client
) -> None:
    html = operator.get(page_of(Domain.objects.get())).content.decode()
    assert f'<code data-subdomain="unbj">unbj.{NAME}</code>' in html
    assert '<option value="ws-bj-2" selected>' in html
    assert 'value="127.0.0.1:9101,127.0.0.1:9102"' in html
    inputs = re.findall(r'<(?:input|select)[^>]*name="(?:uri|unit)-[^>]*>', html)
    assert len(inputs) > 8
    assert all("aria-label=" in tag for tag in inputs)


def test_only_joined_clusters_of_the_unit_can_be_chosen(demo: Namespace, operator: Client) -> None:
    unbj = Unit.objects.get(code="unbj")
    Cluster.objects.create(unit=unbj, name="ws-bj-9")
    domain = Domain.objects.get()
    html = operator.get(page_of(domain)).content.decode()
    assert "ws-bj-9" not in html
    for cluster in ("ws-bj-9", "ws-hz-2"):
        response = operator.post(page_of(domain), {**filled(html), "unit-unbj-cluster": cluster})
        assert response.status_code == 422
        assert f"{cluster} is not one of the available choices" in text_of(response)
    assert domain_value(domain).clusters["unbj"] == "ws-bj-2"


def test_a_tls_port_is_saved_shown_exported_and_taken_back(demo: Namespace, operator: Client) -> None:
    domain = Domain.objects.get()
    html = operator.get(page_of(domain)).content.decode()
    assert "tls_ports" not in topology.export_text(demo)
    assert operator.post(page_of(domain), {**filled(html), "unit-unbj-tls_port": "8443"}).status_code == 302
    assert domain_value(domain).tls_ports == {"unbj": 8443}
    text = topology.export_text(demo)
    assert "tls_ports:" in text
    html = operator.get(page_of(domain)).content.decode()
    assert filled(html)["unit-unbj-tls_port"] == "8443"
    assert operator.post(page_of(domain), {**filled(html), "unit-unbj-tls_port": ""}).status_code == 302
    assert not domain_value(Domain.objects.get()).tls_ports
    topology.apply(topology.parse(text), "tester")
    assert domain_value(Domain.objects.get()).tls_ports == {"unbj": 8443}


def test_a_new_domain_is_saved_pending_and_then_put_into_effect(
    published: Namespace, operator: Client
) -> None:
    html = operator.get(ADD).content.decode()
    sent = {
        **filled(html),
        "name": "Chat.MSHA.tech.",
        "unit-center-cluster": "ws-hz-2",
        "unit-unbj-cluster": "ws-bj-2",
        "uri-0-path": "/",
        "uri-0-servers-center": "10.0.0.5:80, 10.0.0.6:80",
        "uri-7-path": "/room",
        "uri-7-balance": "round_robin",
        "uri-7-servers-unbj": "[fd00::1]:80",
        "and_effect": "1",
    }
    response = operator.post(ADD, sent)
    assert response.status_code == 302, text_of(response)
    assert response["Location"] == "/effect/demo/"
    domain = Domain.objects.get(name="chat.msha.tech")
    assert [uri.path for uri in domain_value(domain).uris] == ["/", "/room"]
    assert domain_value(domain).uris[0].back_sources == {"center": ("10.0.0.5:80", "10.0.0.6:80")}

    listed = text_of(operator.get("/admin/domains/domain/"))
    assert "PENDING" in listed
    assert "center.chat.msha.tech" in listed
    assert "IN EFFECT" in listed
    shown = operator.get("/effect/demo/")
    assert "domain chat.msha.tech is new" in text_of(shown)
    assert "- name: chat.msha.tech" in text_of(shown)
    seen = re.search(r'name="seen" value="(\w+)"', shown.content.decode())
    assert seen is not None
    done = operator.post("/effect/demo/", {"seen": seen[1], "comment": "chat"}, follow=True)
    assert done.redirect_chain[-1][0] == "/versions/demo/2/"
    assert "Version 2 is in effect." in text_of(done)
    assert Snapshot.objects.get(version=2).comment == "chat"
    assert "PENDING" not in text_of(operator.get("/admin/domains/domain/"))


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"name": "web socket"}, "'web socket' is not a host name such as websocket.msha.tech."),
        ({"name": "10.0.0.1"}, "is an address, not a host name."),
        ({"name": ""}, "This field is required."),
        ({"uri-0-servers-unbj": "10.0.0.5:99999"}, "port '99999' is not a number from 1 to 65535."),
        (
            {"uri-0-servers-unbj": "10.0.0.5;8080"},
            "write a colon before the port, and commas",
        ),
        ({"uri-0-servers-unbj": "10.0.0.5:80;10.0.0.6:80"}, "write a comma between servers, not ';'."),
        ({"uri-0-servers-unbj": "10.0.0.5:80,10.0.0.5:80"}, "10.0.0.5:80 is named twice."),
        ({"uri-1-path": "/", "uri-1-balance": "round_robin"}, "This domain already has this URI."),
        ({"uri-0-path": "chat"}, "'chat' is not a path such as /chat."),
        ({"uri-0-path": ""}, "A URI begins with a slash, as / or /chat."),
        ({"unit-unbj-port": "70000"}, "less than or equal to 65535."),
        ({"unit-unbj-port": ""}, "This field is required."),
        ({"unit-unbj-tls_port": "70000"}, "less than or equal to 65535."),
        ({"redirect_scheme": "gopher"}, "gopher is not one of the available choices."),
    ],
)
def test_bad_input_gets_a_sentence_beside_its_field_and_saves_nothing(
    demo: Namespace, operator: Client, changed: dict[str, str], sentence: str
) -> None:
    domain = Domain.objects.get()
    before = topology_of(demo)
    html = operator.get(page_of(domain)).content.decode()
    response = operator.post(page_of(domain), {**filled(html), **changed})
    assert response.status_code == 422
    assert sentence in text_of(response)
    name, value = next(iter(changed.items()))
    assert f'id="id_{name}_error"' in response.content.decode()
    assert not value or unescape(value) in unescape(response.content.decode())
    assert topology_of(demo) == before


def test_a_domain_of_another_namespace_is_named(demo: Namespace, operator: Client) -> None:
    text = topology.export_text(demo).replace("namespace: demo", "namespace: two")
    topology.apply(topology.parse(text.replace(NAME, "other.msha.tech")), "tester")
    html = operator.get(f"{ADD}?namespace=two").content.decode()
    response = operator.post(ADD, {**filled(html), "name": NAME})
    assert response.status_code == 422
    assert f"{NAME} is a domain of namespace demo already." in text_of(response)
    response = operator.post(ADD, {**filled(html), "name": f"unbj.{NAME}"})
    assert f"unbj.{NAME} belongs to domain {NAME} of namespace demo already." in text_of(response)


def test_a_change_over_somebody_elses_is_refused(demo: Namespace, operator: Client) -> None:
    domain = Domain.objects.get()
    sent = filled(operator.get(page_of(domain)).content.decode())
    Domain.objects.update(redirect_scheme="ws")
    response = operator.post(page_of(domain), {**sent, "dns": "managed"})
    assert response.status_code == 409
    assert "Something was saved in namespace demo since you looked" in text_of(response)
    assert Domain.objects.get().dns == "none"


@pytest.mark.parametrize("path", [ADD, "change", "delete", "/effect/demo/"])
def test_every_post_of_a_viewer_is_refused(published: Namespace, viewer: Client, path: str) -> None:
    domain = Domain.objects.get()
    address = {"change": page_of(domain), "delete": f"/admin/domains/domain/{domain.pk}/delete/"}.get(
        path, path
    )
    before = (topology_of(published), Snapshot.objects.count())
    assert viewer.post(address, {"name": NAME, "act": "publish"}).status_code == 403
    assert viewer.post(address, {"name": NAME, "act": "revert"}).status_code == 403
    assert before == (topology_of(published), Snapshot.objects.count())


def test_a_viewer_sees_the_domain_and_no_button_to_save(demo: Namespace, viewer: Client) -> None:
    html = viewer.get(page_of(Domain.objects.get())).content.decode()
    assert f'value="{NAME}"' in html
    assert "disabled" in html
    assert 'type="submit">Save' not in html
    assert viewer.get(ADD).status_code == 403


def test_deleting_a_domain_wants_its_name(published: Namespace, operator: Client) -> None:
    address = f"/admin/domains/domain/{Domain.objects.get().pk}/delete/"
    assert operator.get(address).status_code == 200
    assert operator.post(address, {"name": "other"}).status_code == 422
    done = operator.post(address, {"name": NAME}, follow=True)
    assert "is deleted. Edges serve it until that is put into effect." in text_of(done)
    assert not Domain.objects.exists()


def test_what_a_running_cutover_uses_is_not_deleted(
    published: Namespace, operator: Client, use_checks: list[Any]
) -> None:
    use_checks.append(lambda namespace, thing: f"Cutover #1 uses {thing}.")
    domain = Domain.objects.get()
    refused = operator.post(f"/admin/domains/domain/{domain.pk}/delete/", {"name": NAME})
    assert refused.status_code == 409
    assert f"Cutover #1 uses domain {NAME}." in text_of(refused)
    sent = filled(operator.get(page_of(domain)).content.decode())
    refused = operator.post(page_of(domain), {**sent, "uri-0-servers-unbj": "10.9.9.9:1"})
    assert refused.status_code == 409
    assert "Cutover #1 uses back-source 127.0.0.1:9201." in text_of(refused)


def test_putting_into_effect_publishes_exactly_what_was_shown(published: Namespace, operator: Client) -> None:
    Unit.objects.filter(code="unbj").update(name="Beijing")
    shown = operator.get("/effect/demo/").content.decode()
    seen = re.search(r'name="seen" value="(\w+)"', shown)
    assert seen is not None
    Unit.objects.filter(code="unbj").update(name="Peking")
    refused = operator.post("/effect/demo/", {"seen": seen[1]})
    assert refused.status_code == 409
    assert "since you looked" in text_of(refused)
    assert operator.post("/effect/demo/", {}).status_code == 409
    assert Snapshot.objects.count() == 1


def test_a_change_of_ownership_leads_to_the_draft_of_a_cutover(
    published: Namespace, operator: Client
) -> None:
    UnitType.objects.update(ranges={"center": ["0~6380"], "unbj": ["6381~9999"]})
    shown = operator.get("/effect/demo/")
    assert "moves 383 ids: 5998~6380 unbj→center" in text_of(shown)
    assert "Prepare the cutover" in text_of(shown)
    seen = services.unpublished_changes(published).seen
    done = operator.post("/effect/demo/", {"seen": seen}, follow=True)
    assert "draft #1 is prepared for it" in text_of(done)
    assert done.redirect_chain[-1][0].startswith("/cutover/")
    assert Snapshot.objects.count() == 1


def test_the_saved_rule_can_be_set_back(published: Namespace, operator: Client) -> None:
    UnitType.objects.update(ranges={"center": ["0~6380"], "unbj": ["6381~9999"]})
    done = operator.post("/effect/demo/", {"act": "revert"}, follow=True)
    assert "Everything is in effect" in text_of(done)
    assert UnitType.objects.get().ranges["center"] == ["0~5997"]


def test_what_cannot_come_into_effect_says_why_and_offers_no_button(
    published: Namespace, operator: Client
) -> None:
    Namespace.objects.update(key_max=19999)
    shown = text_of(operator.get("/effect/demo/"))
    assert "The key space is 0~9999 in effect and 0~19999 saved." in shown
    assert "Put into effect as version" not in shown


def test_any_two_versions_can_be_compared(published: Namespace, operator: Client) -> None:
    for name in ("Beijing", "Peking"):
        Unit.objects.filter(code="unbj").update(name=name)
        services.put_into_effect(published, "tester", name)
    listed = text_of(operator.get("/versions/"))
    assert "Peking" in listed
    compared = operator.get("/versions/demo/compare/?before=3&after=1")
    assert "Version 1 and version 3" in text_of(compared)
    removed = re.findall(r'<td class="removed">(.*?)</td>', compared.content.decode())
    added = re.findall(r'<td class="added">(.*?)</td>', compared.content.decode())
    assert any("北京单元" in line for line in removed)
    assert any("Peking" in line for line in added)
    assert "websocket.msha.tech" not in text_of(compared).partition("Version 1 and")[2]
    whole = operator.get("/versions/demo/compare/?before=1&after=3&whole")
    assert "websocket.msha.tech" in text_of(whole).partition("Version 1 and")[2]
    assert operator.get("/versions/demo/compare/").status_code == 404
    assert operator.get("/versions/demo/compare/?before=1&after=9").status_code == 404
    assert "redirect_scheme: http" in text_of(operator.get("/versions/demo/2/"))


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("router_id=6249", "Unit unbj serves it"),
        ("router_id=1111", "http://center.websocket.msha.tech/"),
        ("router_id=", "untagged traffic is served where it arrives"),
        ("router_id=x", "the routerId is not usable"),
        ("router_id=1&host=none.example", "neither a domain nor a unit sub-domain"),
        ("router_id=1&path=chat", "A path begins with a slash"),
        ("router_id=1&unit_type=none", "none is not a unit type in effect; there is unit_type."),
        ("router_id=6249&host=center.websocket.msha.tech", "msha-version=1"),
        ("router_id=6249", "mshactl route 6249 -n demo"),
    ],
)
def test_the_route_tester_says_what_and_why(
    published: Namespace, viewer: Client, query: str, sentence: str
) -> None:
    assert sentence in text_of(viewer.get(f"/route/?{query}"))


def test_pages_without_a_namespace_lead_to_the_next_step(db: None, admin_client: Client) -> None:
    assert admin_client.get("/route/?router_id=1").status_code == 200
    assert admin_client.get("/versions/").status_code == 200
    assert admin_client.get(ADD)["Location"] == "/admin/units/namespace/add/"
    Namespace.objects.create(name="empty")
    assert admin_client.get(ADD)["Location"] == "/admin/units/unit/"
    assert "Nothing has been published" in text_of(admin_client.get("/route/"))
    assert "There are no units yet" in text_of(admin_client.get("/effect/empty/"))


def test_a_page_that_is_not_there_and_one_that_is_forbidden_lead_back(
    published: Namespace, operator: Client, stranger: Client
) -> None:
    missing = operator.get("/versions/demo/77/")
    assert missing.status_code == 404
    assert "There is nothing at this address" in text_of(missing)
    assert "Unit types" in text_of(missing)  # the navigation
    assert 'href="/">Go to the overview' in missing.content.decode()
    forbidden = stranger.get("/versions/")
    assert forbidden.status_code == 403
    assert "Your account lacks the permission for it." in text_of(forbidden)
    assert 'href="/">Go to the overview' in forbidden.content.decode()


def test_without_a_login_an_address_that_leads_nowhere_leads_to_the_login(db: None) -> None:
    missing = Client(headers={"Accept-Language": "zh-hans"}).get("/nowhere/")
    assert missing.status_code == 404
    assert "此地址没有内容" in text_of(missing)
    assert 'href="/admin/login/">' in missing.content.decode()


def test_the_message_about_a_prepared_draft_leads_to_it(published: Namespace, operator: Client) -> None:
    UnitType.objects.update(ranges={"center": ["0~6380"], "unbj": ["6381~9999"]})
    Unit.objects.filter(code="unbj").update(name="Beijing")
    seen = services.unpublished_changes(published).seen
    shown = operator.post("/effect/demo/", {"act": "publish", "seen": seen}, follow=True)
    link = re.search(r'draft <a [^>]*href="(/cutover/\d+/)">#1</a> is prepared', shown.content.decode())
    assert link is not None
    assert operator.get(link[1], follow=True).status_code == 200
