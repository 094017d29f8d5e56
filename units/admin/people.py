"""Users, groups, and the tokens with which programs act as users."""

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.auth.admin import GroupAdmin as DjangoGroupAdmin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group, User
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.utils.safestring import SafeString
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from unfold.decorators import action, display
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from units import audit
from units.admin.base import ConsoleAdmin, NamedList, moment
from units.models import ApiToken
from units.tokens import API_PREFIX, Token, make_token

admin.site.unregister(User)
admin.site.unregister(Group)


@admin.register(User)
class UserAdmin(DjangoUserAdmin, NamedList):
    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm

    def save_model(self, request: HttpRequest, obj: User, form: Any, change: bool) -> None:
        with transaction.atomic():
            super().save_model(request, obj, form, change)
            changed = sorted(name for name in form.changed_data if "password" not in name)
            audit.record(
                request.user.get_username(),
                "user.update" if change else "user.create",
                obj.get_username(),
                after={"changed": changed},
            )


@admin.register(Group)
class GroupAdmin(DjangoGroupAdmin, NamedList):
    pass


class ApiTokenForm(forms.ModelForm):
    class Meta:
        model = ApiToken
        fields = ("name",)


@admin.register(ApiToken)
class ApiTokenAdmin(ConsoleAdmin):
    """Everybody has his own tokens, and sees no other's; they may do what he may do."""

    form = ApiTokenForm
    namespace_path = ""
    list_display = ("name", "state", "made", "used")
    actions_detail = ("revoke",)
    empty_hint = _("A token lets mshactl and other programs act as you. Its text is shown once.")

    def get_queryset(self, request: HttpRequest) -> QuerySet[ApiToken]:
        rows: QuerySet[ApiToken] = super().get_queryset(request).filter(user=request.user)
        return rows

    def get_fields(self, request: HttpRequest, obj: ApiToken | None = None) -> tuple[str, ...]:
        return ("name",) if obj is None else ("name", "state", "made", "used")

    def get_readonly_fields(self, request: HttpRequest, obj: ApiToken | None = None) -> tuple[str, ...]:
        return () if obj is None else ("name", "state", "made", "used")

    @display(description=_("state"), label={"valid": "success", "revoked": "danger"})
    def state(self, row: ApiToken) -> tuple[str, str]:
        return ("revoked", gettext("revoked")) if row.revoked_at else ("valid", gettext("valid"))

    @display(description=_("created"), ordering="created")
    def made(self, row: ApiToken) -> SafeString | str:
        return moment(row.created)

    @display(description=_("last used"), ordering="last_used_at")
    def used(self, row: ApiToken) -> SafeString | str:
        return moment(row.last_used_at)

    def save_model(self, request: HttpRequest, obj: ApiToken, form: Any, change: bool) -> None:
        if change:
            return
        token = make_token(API_PREFIX)
        assert isinstance(request.user, User)
        obj.user, obj.token_hash = request.user, token.hash
        with transaction.atomic():
            obj.save()
            audit.record(self.actor(request), "api_token.create", obj.name)
        request._new_token = token  # type: ignore[attr-defined]

    def response_add(
        self, request: HttpRequest, obj: ApiToken, post_url_continue: str | None = None
    ) -> HttpResponse:
        token: Token = request._new_token  # type: ignore[attr-defined]
        context = {
            **self.admin_site.each_context(request),
            "title": _("API token"),
            "row": obj,
            "token": token.text,
        }
        return render(request, "units/api_token.html", context)

    @action(description=_("Revoke"), url_path="revoke", icon="block")
    def revoke(self, request: HttpRequest, object_id: int) -> HttpResponse:
        row = self.get_queryset(request).filter(pk=object_id).first()
        if row is None:
            raise PermissionDenied
        if request.method == "POST":
            with transaction.atomic():
                revoked = ApiToken.objects.filter(pk=row.pk, revoked_at=None).update(
                    revoked_at=timezone.now()
                )
                if revoked:
                    audit.record(self.actor(request), "api_token.revoke", row.name)
            messages.success(request, gettext("Token %(name)s opens nothing any more.") % {"name": row.name})
            return HttpResponseRedirect(reverse("admin:units_apitoken_changelist"))
        context = {**self.admin_site.each_context(request), "title": _("Revoke token"), "row": row}
        return render(request, "units/revoke_token.html", context)

    # A token is its user's own: no permission is needed for it, and none opens another user's.
    def has_module_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.is_active and request.user.is_staff)

    def has_view_permission(self, request: HttpRequest, obj: ApiToken | None = None) -> bool:
        return self.has_module_permission(request) and (obj is None or obj.user_id == request.user.pk)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return self.has_module_permission(request)

    def has_change_permission(self, request: HttpRequest, obj: ApiToken | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: ApiToken | None = None) -> bool:
        return False
