"""The page of one domain: its form, what is in effect of it, and how it is saved and removed."""

from typing import Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.urls import reverse
from django.utils.functional import cached_property
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from domains import editing, services
from domains.errors import Misplaced
from domains.forms import DomainForm
from domains.models import Domain
from domains.saved import domain_value
from msha.steering.errors import MshaError
from units.current import choose
from units.models import Namespace
from units.pages import ConsolePage

LIST = "admin:domains_domain_changelist"


def trail(domain: Domain | None) -> dict[str, Any]:
    """What the shell needs to show where the page stands: in the list of domains."""
    return {"opts": Domain._meta, "original": domain}


class DomainPage(ConsolePage):
    """A domain with its units and URIs; ``pk`` None makes a new one."""

    template_name = "domains/domain.html"
    permission_required = "domains.view_domain"

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        self.post_permission = "domains.change_domain" if kwargs.get("pk") else "domains.add_domain"
        return super().dispatch(request, *args, **kwargs)

    @cached_property
    def domain(self) -> Domain | None:
        if self.kwargs.get("pk") is None:
            return None
        row = get_object_or_404(Domain.objects.select_related("namespace"), pk=self.kwargs["pk"])
        choose(self.request, row.namespace)
        return row

    @cached_property
    def home(self) -> Namespace | None:
        """The namespace that the domain belongs to, or will."""
        return self.domain.namespace if self.domain is not None else self.namespace

    @property
    def may_save(self) -> bool:
        assert self.post_permission is not None
        return bool(self.request.user.has_perm(self.post_permission))

    def get(self, request: HttpRequest, **kwargs: Any) -> HttpResponse:
        if self.domain is None and not self.may_save:
            raise PermissionDenied
        if self.home is None or not self.home.units.exists():
            messages.info(request, gettext("Make the units of a namespace first: a domain leads to them."))
            return redirect("admin:units_unit_changelist" if self.home else "admin:units_namespace_add")
        saved = domain_value(self.domain) if self.domain is not None else None
        return self._shown(DomainForm(self.home, saved=saved, read_only=not self.may_save))

    def post(self, request: HttpRequest, **kwargs: Any) -> HttpResponse:
        if self.home is None:
            return redirect(LIST)
        saved = domain_value(self.domain) if self.domain is not None else None
        form = DomainForm(self.home, request.POST, saved=saved)
        if not form.is_valid():
            return self._shown(form, status=422)
        try:
            domain = editing.save_domain(
                self.home, form.value(), self.actor, domain=self.domain, seen=form.seen
            )
        except Misplaced as error:
            form.complain(error)
            return self._shown(form, status=422)
        except MshaError as error:
            form.complaints.append(str(error))
            return self._shown(form, status=409)
        pending = domain.name in services.pending_domains(self.home)
        messages.success(
            request,
            gettext("%(name)s is saved. It is not in effect yet.") % {"name": domain.name}
            if pending
            else gettext("%(name)s is saved, and in effect as it is.") % {"name": domain.name},
        )
        if "and_effect" in request.POST and pending:
            return redirect("domains:put_into_effect", self.home.name)
        return redirect("admin:domains_domain_change", domain.pk)

    def _shown(self, form: DomainForm, status: int = 200) -> HttpResponse:
        assert self.home is not None
        name = self.domain.name if self.domain is not None else ""
        pending = self.domain is not None and name in services.pending_domains(self.home)
        return self.page(
            {
                "title": name or gettext("New domain"),
                **trail(self.domain),
                "form": form,
                "domain": self.domain,
                "pending": pending,
                "may_save": self.may_save,
                "may_delete": self.domain is not None and self.request.user.has_perm("domains.delete_domain"),
                "may_publish": self.request.user.has_perm("units.publish"),
                "typed_name": form.settings["name"].value() or "",
                "command": f"mshactl export -n {self.home.name} > {self.home.name}.yaml",
            },
            status=status,
        )


class DeleteDomain(ConsolePage):
    """Asks once, with the name typed, and removes a domain from what is saved."""

    template_name = "domains/delete_domain.html"
    permission_required = "domains.delete_domain"
    post_permission = "domains.delete_domain"
    title = _("Delete a domain")

    @cached_property
    def domain(self) -> Domain:
        row = get_object_or_404(Domain.objects.select_related("namespace"), pk=self.kwargs["pk"])
        choose(self.request, row.namespace)
        return row

    def get(self, request: HttpRequest, pk: int) -> HttpResponse:
        return self._shown()

    def post(self, request: HttpRequest, pk: int) -> HttpResponse:
        domain, home = self.domain, self.domain.namespace
        if request.POST.get("name", "").strip().lower() != domain.name:
            return self._shown(gettext("Type the name of the domain to delete it."), status=422)
        try:
            editing.delete_domain(domain, self.actor)
        except MshaError as error:
            return self._shown(str(error), status=409)
        messages.success(
            request,
            gettext("%(name)s is deleted. Edges serve it until that is put into effect.")
            % {"name": domain.name},
        )
        return redirect(f"{reverse(LIST)}?namespace={home.name}")

    def _shown(self, refused: str = "", status: int = 200) -> HttpResponse:
        return self.page(
            {"title": gettext("Delete %(name)s") % {"name": self.domain.name}, **trail(self.domain),
             "domain": self.domain, "refused": refused, "typed": self.request.POST.get("name", "")},
            status=status,
        )  # fmt: skip
