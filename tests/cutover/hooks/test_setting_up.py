"""Setting up hooks: by page and API, what is refused, and where the secret never appears."""

import json
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client, override_settings
from django.urls import reverse

from cutover import services
from cutover.errors import Refused
from cutover.hooks import editing, shown, trying
from cutover.models import Cutover, Hook, HookRun
from tests.cutover.builders import Scene, make_checked, make_started, step
from tests.cutover.hooks.builders import NO, NOT_YET, SECRET, Work, do, make_hook
from tests.cutover.pages import page_of, signed_in
from tests.cutover.test_api import bearer
from tests.support.receiver import Receiver
from units.groups import OPERATOR, VIEWER
from units.models import AuditEvent

pytestmark = pytest.mark.django_db(transaction=True)

LIST = reverse("admin:cutover_hook_changelist")
ADD = reverse("admin:cutover_hook_add")


def form(receiver: Receiver, **changed: Any) -> dict[str, Any]:
    values = {
        "name": "writes",
        "moment": "at_freeze",
        "url": receiver.url,
        "secret": SECRET,
        "must_succeed": "on",
        "timeout_s": "5",
        "deadline_s": "30",
        "enabled": "on",
    }
    return {**values, **changed}


def change(hook: Hook) -> str:
    return reverse("admin:cutover_hook_change", args=[hook.pk])


def errors(response: Any) -> str:
    return " ".join(error for found in response.context["adminform"].form.errors.values() for error in found)


def test_an_operator_adds_a_hook_and_nobody_ever_reads_its_secret_again(
    scene: Scene, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    operator = signed_in(OPERATOR)
    assert operator.post(ADD, form(receiver)).status_code == 302
    hook = Hook.objects.get()
    assert hook.secret == SECRET
    assert operator.post(change(hook), form(receiver, secret="", timeout_s="3")).status_code == 302
    hook.refresh_from_db()
    assert (hook.secret, hook.timeout_s) == (SECRET, 3)  # left empty, it stays
    assert operator.post(change(hook), form(receiver, secret="another long secret")).status_code == 302
    hook.refresh_from_db()
    assert hook.secret == "another long secret"
    tried = operator.post(f"{change(hook)}test/".replace("/change/", "/"), follow=True)
    pages = [operator.get(address).content.decode() for address in (LIST, change(hook))]
    api = Client().get(
        f"/api/v1/namespaces/{scene.namespace.name}/hooks",
        **bearer("olga", OPERATOR),  # type: ignore[arg-type]
    )
    audited = json.dumps(list(AuditEvent.objects.values("action", "before", "after", "reason")))
    assert '"secret": "replaced"' in audited
    seen = [*pages, api.content.decode(), audited, caplog.text, tried.content.decode(), str(shown.hook(hook))]
    for text in seen:
        assert SECRET not in text
        assert "another long secret" not in text


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"url": "ftp://db.example/"}, "Give an address such as"),
        ({"url": "db.example/hook"}, "Give an address such as"),
        ({"url": "http://user:word@db.example/"}, "Leave out user, password and fragment"),
        ({"secret": "short"}, "at least 16 characters"),
        ({"secret": ""}, "Give a secret that the receiver knows"),
        ({"timeout_s": "9"}, "less than or equal to 8"),
        ({"deadline_s": "0"}, "greater than or equal to 1"),
        ({"name": "a b"}, "Use letters, digits"),
        ({"moment": "noon"}, "not one of the available choices"),
    ],
)
def test_what_cannot_be_called_is_refused_beside_its_field(
    scene: Scene, receiver: Receiver, changed: dict[str, str], sentence: str
) -> None:
    response = signed_in(OPERATOR).post(ADD, form(receiver, **changed))
    assert response.status_code == 200
    assert sentence in errors(response)
    assert not Hook.objects.exists()


def test_a_namespace_has_five_hooks_at_most(scene: Scene, receiver: Receiver) -> None:
    for number in range(5):
        make_hook(scene, receiver, "at_freeze", f"hook-{number}")
    with pytest.raises(Refused, match="has 5 hooks already"):
        make_hook(scene, receiver, "at_freeze", "one-more")
    response = signed_in(OPERATOR).post(ADD, form(receiver))
    assert "has 5 hooks already" in errors(response)
    with pytest.raises(Refused, match="already has a hook with this name"):
        make_hook(scene, receiver, "at_freeze", "hook-1")


@override_settings(HOOK_ALLOWED_HOSTS=[".example.com"])
def test_a_host_that_is_not_allowed_is_refused_when_the_hook_is_saved(
    scene: Scene, receiver: Receiver
) -> None:
    with pytest.raises(Refused, match=r"Hooks may not be at 127\.0\.0\.1"):
        make_hook(scene, receiver, "at_freeze")
    make_hook(scene, receiver, "at_freeze", url="https://hooks.example.com/msha")


def test_a_running_cutover_pins_its_hooks_but_not_where_they_are(scene: Scene, receiver: Receiver) -> None:
    hook = make_hook(scene, receiver, "at_freeze")
    make_started(scene)
    hook.must_succeed = False
    with pytest.raises(Refused, match="is running and calls the hooks as they are"):
        editing.save(hook, actor="op")
    hook.must_succeed = True
    hook.url, hook.secret, hook.deadline_s = "http://127.0.0.1:1/", "another long secret", 60
    editing.save(hook, actor="op")
    with pytest.raises(Refused, match="is running"):
        editing.remove(hook, actor="op")
    with pytest.raises(Refused, match="is running"):
        make_hook(scene, receiver, "before_freeze")


def test_a_viewer_sees_hooks_and_changes_none(scene: Scene, receiver: Receiver) -> None:
    hook = make_hook(scene, receiver, "at_freeze")
    viewer = signed_in(VIEWER)
    assert viewer.get(LIST).status_code == 200
    test = reverse("admin:cutover_hook_try_out", args=[hook.pk])
    for address, sent in ((ADD, form(receiver)), (change(hook), form(receiver)), (test, {})):
        viewer.post(address, sent)
    assert Hook.objects.count() == 1
    assert receiver.received == []
    cutover = make_started(scene)
    answer = viewer.post(
        page_of(cutover, "progress"), {"act": "skip_hook", "hook": "at_freeze", "reason": "x"}
    )
    assert answer.status_code == 403


def test_the_test_button_sends_a_practice_call_and_shows_what_was_answered(
    scene: Scene, receiver: Receiver
) -> None:
    hook = make_hook(scene, receiver, "before_activate")
    address = reverse("admin:cutover_hook_try_out", args=[hook.pk])
    operator = signed_in(OPERATOR)
    assert "marked as practice" in operator.get(address).content.decode()
    assert receiver.received == []
    assert "yes (" in operator.post(address).content.decode()
    (received,) = receiver.received
    assert received.payload["practice"] is True
    assert received.payload["moment"] == "before_activate"
    assert received.signed_with(SECRET)
    receiver.lasting = NO
    assert "answered 422: never heard of it" in operator.post(address).content.decode()
    assert AuditEvent.objects.filter(action="hook.test").count() == 2


def test_a_rehearsal_calls_every_hook_once_in_practice_and_leaves_the_cutover_alone(
    scene: Scene, receiver: Receiver
) -> None:
    make_hook(scene, receiver, "before_freeze")
    make_hook(scene, receiver, "before_activate")
    cutover = make_checked(scene)
    receiver.behaviours = [NO, NOT_YET]
    runs = trying.rehearse(cutover)
    assert [(run.moment, run.state) for run in runs] == [
        ("before_activate", HookRun.State.FAILED),
        ("before_freeze", HookRun.State.SUCCEEDED),
    ]
    assert all(received.payload["practice"] for received in receiver.received)
    assert receiver.received[0].payload["moved_ids"] == 383
    cutover.refresh_from_db()
    assert (cutover.state, cutover.plan, services.status(cutover)["hooks"]) == (Cutover.State.CHECKED, {}, [])


class Api:
    """The API of one namespace as one user sees it."""

    def __init__(self, scene: Scene, headers: dict[str, str]) -> None:
        self.base = f"/api/v1/namespaces/{scene.namespace.name}"
        self.headers: dict[str, Any] = headers

    def __call__(self, method: str, path: str, **body: Any) -> tuple[int, Any]:
        response = Client().generic(
            method, self.base + path, json.dumps(body), content_type="application/json", **self.headers
        )
        return response.status_code, response.json()


def test_hooks_are_set_up_tried_and_skipped_by_the_api(
    scene: Scene, receiver: Receiver, handed_over: Work
) -> None:
    api = Api(scene, bearer("olga", OPERATOR))
    values = {"name": "agree", "moment": "before_freeze", "url": receiver.url, "secret": SECRET}
    status, made = api("POST", "/hooks", **values)
    assert (status, made["must_succeed"], made["timeout_s"]) == (200, True, 5)
    assert "secret" not in made
    status, refused = api("POST", "/hooks", **{**values, "name": "other", "secret": "short"})
    assert (status, refused["error"]["place"]) == (422, "secret")
    status, changed = api("PATCH", "/hooks/agree", deadline_s=60)
    assert (status, changed["deadline_s"]) == (200, 60)
    assert Hook.objects.get().secret == SECRET
    status, tried = api("POST", "/hooks/agree/test")
    assert (status, tried["ok"], tried["verdict"], tried["sent"]["practice"]) == (200, True, "yes", True)
    status, unknown = api("POST", "/hooks/agreed/test")
    assert (status, "there is agree" in unknown["error"]["sentence"]) == (404, True)
    receiver.lasting = NOT_YET
    cutover = make_started(scene)
    step(scene, cutover)
    status, calls = api("GET", "/cutovers/running/hooks")
    assert (status, calls["calls"][0]["name"], calls["calls"][0]["skippable"]) == (200, "agree", True)
    status, gone_on = api("POST", "/cutovers/running/hooks/agree/skip", reason="agreed by telephone")
    assert (status, gone_on["phase"], gone_on["hooks"][0]["skipped_by"]) == (200, "freeze", "olga")
    assert api("DELETE", "/hooks/agree")[0] == 409
    services.abort(cutover, "op", "enough")
    for _ in range(3):
        step(scene, cutover)
    do(handed_over)
    assert api("DELETE", "/hooks/agree") == (200, {"removed": "agree"})
    assert services.status(cutover)["hooks"][0]["name"] == "agree"  # its calls stay in the report
    viewer = Api(scene, bearer("victor", VIEWER))
    assert viewer("GET", "/hooks")[0] == 200
    assert viewer("POST", "/hooks", **values)[0] == 403
    assert viewer("POST", "/cutovers/latest/hooks/agree/skip", reason="x")[0] == 403


def test_an_operator_skips_a_hook_on_the_live_page(scene: Scene, receiver: Receiver) -> None:
    make_hook(scene, receiver, "before_freeze", "agree")
    cutover = make_started(scene)
    step(scene, cutover)
    operator = signed_in(OPERATOR)
    page = operator.get(page_of(cutover, "progress")).content.decode()
    assert "FREEZE follows although this hook has not agreed to it." in page
    refused = operator.post(page_of(cutover, "progress"), {"act": "skip_hook", "hook": "agree", "reason": ""})
    assert "Give a reason: why may this hook be skipped?" in refused.content.decode()
    operator.post(
        page_of(cutover, "progress"), {"act": "skip_hook", "hook": "agree", "reason": "agreed by telephone"}
    )
    cutover.refresh_from_db()
    assert cutover.state == Cutover.State.FREEZE
    assert User.objects.get().get_username() == HookRun.objects.get().skipped_by
