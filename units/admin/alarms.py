"""Alarms, whom webhooks tell of them, and whether they were told."""

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.utils.safestring import SafeString
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from unfold.decorators import action, display

from units import alarm_calls, alarm_targets, alarms
from units.admin.base import ConsoleAdmin, ReadOnlyAdmin, moment
from units.models import Alarm, AlarmDelivery, AlarmTarget


@admin.register(Alarm)
class AlarmAdmin(ReadOnlyAdmin):
    list_display = ("raised", "state", "kind", "subject", "what", "cleared")
    list_filter = ("kind",)
    search_fields = ("subject", "sentence")
    fields = (("raised", "cleared"), ("state", "kind", "subject"), "what", "told")
    readonly_fields = ("raised", "cleared", "state", "kind", "subject", "what", "told")
    empty_hint = _("No alarm was ever raised here.")

    @display(description=_("raised"), ordering="raised_at")
    def raised(self, row: Alarm) -> SafeString | str:
        return moment(row.raised_at)

    @display(description=_("cleared"), ordering="cleared_at")
    def cleared(self, row: Alarm) -> SafeString | str:
        return moment(row.cleared_at)

    @display(description=_("state"), label={"raised": "danger", "cleared": "success"})
    def state(self, row: Alarm) -> tuple[str, str]:
        return ("cleared", gettext("cleared")) if row.cleared_at else ("raised", gettext("raised"))

    @display(description=_("what is wrong"), ordering="sentence")
    def what(self, row: Alarm) -> str:
        return alarms.said(row)

    @display(description=_("webhooks"))
    def told(self, row: Alarm) -> str:
        deliveries = row.deliveries.select_related("target").order_by("created")
        lines = [
            f"{delivery.target}: {delivery.get_event_display()} – {delivery.get_state_display()}"
            + (f" ({delivery.answer})" if delivery.answer else "")
            for delivery in deliveries
        ]
        return "; ".join(lines) or gettext("no target")


class AlarmTargetForm(forms.ModelForm):
    secret = forms.CharField(
        label=_("secret"),
        max_length=200,
        required=False,
        strip=False,
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
        help_text=_(
            "Signs every call (HMAC-SHA256); the receiver knows it, too."
            " It is never shown; left empty, it stays."
        ),
    )

    class Meta:
        model = AlarmTarget
        fields = ("name", "namespace", "url", "secret", "enabled")

    def clean_secret(self) -> str:
        given = str(self.cleaned_data["secret"])
        if not given and not self.instance.secret:
            raise forms.ValidationError(gettext("Give the secret that the receiver checks signatures with."))
        return given or str(self.instance.secret)


@admin.register(AlarmTarget)
class AlarmTargetAdmin(ConsoleAdmin):
    form = AlarmTargetForm
    namespace_path = ""
    list_display = ("name", "namespace_name", "url", "state", "last")
    search_fields = ("name", "url")
    actions_detail = ("send_test",)
    empty_hint = _(
        "Alarms are shown on every page. Add a target to have them told to a pager or a chat, too, also when"
        " nobody looks."
    )

    def get_fields(self, request: HttpRequest, obj: AlarmTarget | None = None) -> Any:
        if self.has_change_permission(request, obj):
            shown: tuple[Any, ...] = ("name", "namespace", "url", "secret", "enabled")
        else:
            shown = ("name", "namespace", "url", "enabled")  # the secret is for nobody's eyes
        return shown if obj is None else (*shown, "last")

    def get_readonly_fields(self, request: HttpRequest, obj: AlarmTarget | None = None) -> tuple[str, ...]:
        return () if obj is None else ("last",)

    @display(description=_("namespace"), ordering="namespace__name")
    def namespace_name(self, row: AlarmTarget) -> str:
        return row.namespace.name if row.namespace else gettext("all namespaces")

    @display(description=_("state"), label={"on": "success", "off": "info"})
    def state(self, row: AlarmTarget) -> tuple[str, str]:
        return ("on", gettext("in use")) if row.enabled else ("off", gettext("switched off"))

    @display(description=_("last told"))
    def last(self, row: AlarmTarget) -> str:
        last = alarm_targets.last_told(row)
        return "–" if last is None else _told(last)

    def save_model(self, request: HttpRequest, obj: AlarmTarget, form: Any, change: bool) -> None:
        alarm_targets.save(obj, actor=self.actor(request))

    def delete_model(self, request: HttpRequest, obj: AlarmTarget) -> None:
        alarm_targets.remove(obj, actor=self.actor(request))

    @action(description=_("Send a test"), url_path="test", icon="send")
    def send_test(self, request: HttpRequest, object_id: int) -> HttpResponse:
        row = self.get_queryset(request).filter(pk=object_id).first()
        if row is None or not self.has_change_permission(request, row):
            raise PermissionDenied
        if request.method != "POST":
            context = {**self.admin_site.each_context(request), "title": _("Send a test"), "row": row}
            return render(request, "units/test_alarm_target.html", context)
        delivery = alarm_calls.test(row)
        good = delivery.state == AlarmDelivery.State.DELIVERED
        (messages.success if good else messages.error)(request, _told(delivery))
        return HttpResponseRedirect(self.address(row))


def _told(delivery: AlarmDelivery) -> str:
    words = {"target": delivery.target, "event": delivery.get_event_display(), "answer": delivery.answer}
    if delivery.state == AlarmDelivery.State.DELIVERED:
        return gettext("%(target)s took “%(event)s”: it %(answer)s.") % words
    if delivery.state == AlarmDelivery.State.GAVE_UP:
        return gettext("%(target)s did not take “%(event)s”: it %(answer)s.") % words
    return gettext("%(target)s has not taken “%(event)s” yet: it %(answer)s. It is tried again.") % words
