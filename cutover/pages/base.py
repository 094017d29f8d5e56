"""What every step of the wizard has in common.

GET shows what the database holds; POST does one act and redirects. Every act names its permission, what is
refused is said on the page it was asked from, and nothing lives in the browser: a page may be reloaded,
opened late, or taken over by a colleague at every step.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect
from django.utils.functional import cached_property
from django.utils.translation import gettext as _

from cutover import rules, services
from cutover.models import Cutover
from cutover.pages.bars import Bar, Looks, draw, table_or_none
from cutover.pages.wizard import Place, link_to, place_of, places_open, steps
from cutover.previews import Preview
from msha.steering.errors import MshaError
from msha.steering.ranges import KeySpace, MovedIds, RangeTable
from units.current import choose
from units.pages import ConsolePage

REFUSED = 409
UNUSABLE = 422

ADD, CHANGE, START, SKIP, EMERGENCY = (
    "cutover.add_cutover",
    "cutover.change_cutover",
    "cutover.start_cutover",
    "cutover.skip_check",
    "cutover.emergency_cutover",
)


@dataclass(frozen=True, slots=True)
class Refusal:
    """What a POST was refused with, and the place on the page where it is said."""

    sentence: str
    place: str = ""


class WizardPage(ConsolePage):
    """One step of a cutover's wizard.

    Attributes:
        acts: what the page's buttons do, by the value of ``act`` before a colon; the permission each needs.
    """

    place: ClassVar[Place]
    permission_required = "cutover.view_cutover"
    acts: ClassVar[dict[str, str]] = {}

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if request.method == "POST":
            self.post_permission = self.acts.get(self.act[0])
        return super().dispatch(request, *args, **kwargs)

    @property
    def act(self) -> list[str]:
        """The act asked for and its words: ``zero:unbj:center``."""
        return self.request.POST.get("act", "").split(":")

    @cached_property
    def cutover(self) -> Cutover:
        rows = Cutover.objects.select_related("namespace", "rollback_of")
        cutover = get_object_or_404(rows, pk=self.kwargs["pk"])
        choose(self.request, cutover.namespace)
        return cutover

    @cached_property
    def looks(self) -> Looks:
        return Looks.of(self.cutover.namespace)

    @cached_property
    def key_space(self) -> KeySpace:
        return rules.key_space_of(rules.in_effect(self.cutover.namespace)["rule"])

    @cached_property
    def preview(self) -> Preview | None:
        return services.stored_preview(self.cutover)

    def table(self, entry: dict[str, Any]) -> RangeTable | None:
        return table_or_none(entry, self.key_space)

    def bar(self) -> Bar | None:
        """The table afterwards, with what moves hatched."""
        table = self.table(self.cutover.new_rule)
        return draw(table, self.looks, MovedIds.from_lists(self.cutover.moved)) if table is not None else None

    def get(self, request: HttpRequest, pk: int) -> HttpResponse:
        if self.place not in places_open(self.cutover):
            return redirect(link_to(self.cutover))
        return self.step({})

    def post(self, request: HttpRequest, pk: int) -> HttpResponse:
        name, *words = self.act
        try:
            return self.handler(name)(*words)
        except MshaError as error:
            return self.refused(Refusal(str(error)))

    def handler(self, name: str) -> Callable[..., HttpResponse]:
        """What does the act; `acts` has named it, and the permission is there."""
        found: Callable[..., HttpResponse] = getattr(self, f"do_{name}")
        return found

    def refused(self, refusal: Refusal) -> HttpResponse:
        """The page again with the sentence on it; if it is closed by now, the one that is open."""
        self.cutover.refresh_from_db()
        if self.place not in places_open(self.cutover):
            messages.error(self.request, refusal.sentence)
            return redirect(link_to(self.cutover))
        return self.step({"refusal": refusal.sentence}, status=REFUSED)

    def step(self, context: dict[str, Any], *, status: int = 200) -> HttpResponse:
        """The page of the step; subclasses add what it shows."""
        cutover = self.cutover
        at = place_of(cutover)
        return self.page(
            {
                "title": _("Cutover #%(number)d") % {"number": cutover.number},
                "cutover": cutover,
                "steps": steps(cutover, self.place),
                "looks": self.looks,
                "key_space": self.key_space,
                "command": services.command(cutover),
                **self.commands,
                "next_link": link_to(cutover) if at is not self.place else "",
                **context,
            },
            status=status,
        )

    @property
    def commands(self) -> dict[str, str]:
        """What the buttons of the later steps do, as lines for a shell."""
        which = f"{self.cutover.number} -n {self.cutover.namespace.name}"
        return {
            "start_command": f"mshactl cutover start {which} --wait",
            "watch_command": f"mshactl cutover watch {which}",
            "rollback_command": f"mshactl cutover rollback {which}",
            "practise_command": f"mshactl cutover practise {which}",
            "report_command": f"mshactl cutover report {which} -o json",
        }

    @property
    def titles(self) -> dict[str, Any]:
        """What stands above the two columns of the rule text."""
        before = _("Before (version %(version)d)") % {"version": self.cutover.base_version}
        return {"before_title": before, "after_title": _("After this cutover")}


class Current(ConsolePage):
    """Leads to the step at which the cutover stands."""

    permission_required = "cutover.view_cutover"

    def get(self, request: HttpRequest, pk: int) -> HttpResponse:
        return redirect(link_to(get_object_or_404(Cutover, pk=pk)))
