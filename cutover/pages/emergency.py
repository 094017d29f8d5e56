"""Emergency on pages: the switch into it and out of it, and declaring the silent nodes of a unit dead."""

from typing import Any, ClassVar

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from cutover import services
from cutover.consequences import consequence
from cutover.losing import losing_units
from cutover.models import Cutover
from cutover.pages.base import EMERGENCY, REFUSED, START, Refusal, WizardPage
from cutover.pages.wizard import Place, link_to

DECLARE_DEAD = "units.declare_dead"


class Switching(WizardPage):
    """A page on which the mode can be switched; it needs the permission to start as well."""

    acts: ClassVar[dict[str, str]] = {"emergency": EMERGENCY, "planned": EMERGENCY}

    def do_emergency(self) -> HttpResponse:
        return self._switched(Cutover.Mode.EMERGENCY)

    def do_planned(self) -> HttpResponse:
        return self._switched(Cutover.Mode.PLANNED)

    def _switched(self, mode: Cutover.Mode) -> HttpResponse:
        if not self.request.user.has_perm(START):
            raise PermissionDenied
        data = self.request.POST
        reason, typed = data.get("reason", ""), data.get("namespace", "")
        services.set_mode(self.cutover, mode, self.actor, reason, typed)
        return redirect(f"cutover:{self.place}", self.cutover.pk)


class DeclareUnitDead(WizardPage):
    """Says what it means to declare the silent nodes of a unit dead, and does it."""

    place = Place.PROGRESS
    template_name = "cutover/declare_dead.html"
    acts: ClassVar[dict[str, str]] = {"declare_dead": DECLARE_DEAD}

    def get(self, request: HttpRequest, pk: int, unit: str) -> HttpResponse:  # type: ignore[override]
        return self.step({})

    def post(self, request: HttpRequest, pk: int, unit: str) -> HttpResponse:  # type: ignore[override]
        if not request.user.has_perms((EMERGENCY, START)):
            raise PermissionDenied
        return super().post(request, pk)

    def do_declare_dead(self) -> HttpResponse:
        data = self.request.POST
        declared = services.declare_unit_dead(
            self.cutover,
            self.kwargs["unit"],
            actor=self.actor,
            typed=data.get("typed", ""),
            reason=data.get("reason", ""),
            fencing=data.get("fencing", ""),
            names=data.getlist("node"),
        )
        said = ngettext("%(nodes)s counts as dead.", "%(nodes)s count as dead.", len(declared))
        messages.success(self.request, said % {"nodes": ", ".join(declared)})
        return redirect(link_to(self.cutover))

    def refused(self, refusal: Refusal) -> HttpResponse:
        self.cutover.refresh_from_db()
        return self.step({"refused": refusal.sentence, "sent": self.request.POST}, status=REFUSED)

    def step(self, context: dict[str, Any], *, status: int = 200) -> HttpResponse:
        unit = self.kwargs["unit"]
        losing = next((one for one in losing_units(self.cutover) if one.unit == unit), None)
        if losing is None:
            raise Http404
        number, name = self.cutover.number, self.cutover.namespace.name
        shown = {
            "title": _("Declare the silent nodes of %(unit)s dead") % {"unit": self.looks.at(unit).label},
            "losing": losing,
            "unit": self.looks.at(unit),
            "consequence": consequence(self.cutover, "declare_dead"),
            "back": link_to(self.cutover),
            "dead_command": f"mshactl cutover declare-dead {unit} {number} -n {name}"
            " --reason '…' --fenced '…'",
        }
        return super().step({**shown, **context}, status=status)
