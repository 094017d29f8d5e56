"""The list and the form of hooks, and the button that tries one out."""

from typing import Any

from django import forms
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from unfold.decorators import action, display
from unfold.widgets import UnfoldAdminPasswordWidget

from cutover.errors import Refused
from cutover.hooks import editing, trying
from cutover.models import Hook
from units.admin.base import InNamespaceAdmin, InNamespaceForm


class HookForm(InNamespaceForm):
    """A hook; the secret is typed in and never shown, and stays as it is when nothing is typed."""

    secret = forms.CharField(
        label=_("Secret"),
        required=False,
        strip=False,
        max_length=200,
        widget=UnfoldAdminPasswordWidget(attrs={"autocomplete": "new-password"}),
    )

    class Meta:
        model = Hook
        fields = ("name", "moment", "url", "secret", "must_succeed", "timeout_s", "deadline_s", "enabled")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._stored = Hook.objects.filter(pk=self.instance.pk).first() if self.instance.pk else None
        self.initial["secret"] = ""
        self.fields["secret"].help_text = (
            gettext("Leave it empty to keep the one that is stored.") if self._stored else _secret_help()
        )

    def clean_secret(self) -> str:
        typed = str(self.cleaned_data["secret"])
        if not typed and self._stored is not None:
            return self._stored.secret
        if not typed:
            raise forms.ValidationError(gettext("Give a secret that the receiver knows, too."))
        return typed

    def _post_clean(self) -> None:
        """What the service would refuse is said beside the form, so that nothing typed is lost."""
        super()._post_clean()  # type: ignore[misc]
        if self.errors:
            return
        try:
            editing.refuse(self.instance, self._stored)
        except Refused as error:
            self.add_error(getattr(error, "place", "") or None, str(error))


def _secret_help() -> str:
    return str(Hook._meta.get_field("secret").help_text)


@admin.register(Hook)
class HookAdmin(InNamespaceAdmin):
    form = HookForm
    list_display = ("name", "moment_title", "url", "demand", "times", "use")
    search_fields = ("name", "url")
    actions_detail = ("try_out",)
    empty_hint = _(
        "A hook is an HTTP address that every cutover calls: before and at FREEZE, before ACTIVATE,"
        " after RELEASE."
    )

    def get_fieldsets(self, request: HttpRequest, obj: Hook | None = None) -> Any:
        return (
            (None, {"fields": (("name", "moment"), "url", "secret")}),
            (
                _("When it does not answer"),
                {
                    "fields": ("must_succeed", ("timeout_s", "deadline_s"), "enabled"),
                    "description": _(
                        "A hook that must succeed and fails before ids have moved undoes the cutover; later"
                        " it is called until it succeeds or somebody skips it."
                    ),
                },
            ),
        )

    @display(description=_("moment"), ordering="moment")
    def moment_title(self, row: Hook) -> str:
        return row.get_moment_display()

    @display(description=_("a failure"), label={"must": "danger", "may": "info"})
    def demand(self, row: Hook) -> tuple[str, str]:
        return ("must", gettext("must succeed")) if row.must_succeed else ("may", gettext("may fail"))

    @display(description=_("time"))
    def times(self, row: Hook) -> str:
        return gettext("%(call)d s a call, %(all)d s in all") % {"call": row.timeout_s, "all": row.deadline_s}

    @display(description=_("in use"), label={"on": "success", "off": "warning"})
    def use(self, row: Hook) -> tuple[str, str]:
        return ("on", gettext("in use")) if row.enabled else ("off", gettext("not in use"))

    def save_model(self, request: HttpRequest, obj: Hook, form: Any, change: bool) -> None:
        editing.save(obj, actor=self.actor(request))

    def delete_model(self, request: HttpRequest, obj: Hook) -> None:
        editing.remove(obj, actor=self.actor(request))

    def obstacles(self, row: Hook) -> list[str]:
        return editing.obstacles(row)

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """Only the hook goes: its calls stay in the reports."""
        return [str(row) for row in objs], {Hook._meta.verbose_name_plural: len(objs)}, set(), []

    def has_try_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        return self.has_change_permission(request)

    @action(description=_("Test"), url_path="test", permissions=["try"], icon="send")
    def try_out(self, request: HttpRequest, object_id: int) -> HttpResponse:
        """Says what a test sends; sends it, and shows the answer."""
        if not self.has_change_permission(request):
            raise PermissionDenied
        row = get_object_or_404(Hook.objects.select_related("namespace"), pk=object_id)
        tried = trying.try_out(row, actor=self.actor(request)) if request.method == "POST" else None
        context = {
            **self.admin_site.each_context(request),
            "title": gettext("Test hook %(name)s") % {"name": row.name},
            "row": row,
            "address": self.address(row),
            "tried": tried,
        }
        return render(request, "cutover/hook_test.html", context)
