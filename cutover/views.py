"""The wizard's pages. GET shows what the database holds; POST does one act and redirects.

Every act names its permission, what is refused is said on the page it was asked from, and nothing lives in
the browser: a page may be reloaded, opened late, or taken over by a colleague at every step.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.functional import cached_property
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from cutover import rules, services
from cutover.bars import Bar, Looks, draw, shares, table_or_none
from cutover.forms import Row, TableForm, rule_of
from cutover.models import Check, Cutover
from cutover.prechecks import BY_KEY
from cutover.previews import Preview
from cutover.shown import (
    Act,
    acts_shown,
    checks_shown,
    duration,
    events_shown,
    moves_sentence,
    nodes_shown,
    phases_shown,
    reading_notice,
)
from cutover.wizard import Place, link_to, place_of, places_open, steps
from msha.steering.errors import MshaError
from msha.steering.phases import moved_between
from msha.steering.ranges import KeySpace, MovedIds, RangeTable
from units.current import choose
from units.pages import ConsolePage

REFUSED = 409
UNUSABLE = 422

ADD, CHANGE, START, SKIP = (
    "cutover.add_cutover",
    "cutover.change_cutover",
    "cutover.start_cutover",
    "cutover.skip_check",
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
        handler: Callable[..., HttpResponse] = getattr(self, f"do_{name}")
        try:
            return handler(*words)
        except MshaError as error:
            return self.refused(Refusal(str(error)))

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


# -- adjust --------------------------------------------------------


class TablePage(WizardPage):
    """The form of the ranges, for a draft and for one that nobody has drafted yet."""

    place = Place.ADJUST
    template_name = "cutover/adjust.html"

    @property
    def in_effect(self) -> dict[str, Any]:
        """The unit type that is in effect now."""
        raise NotImplementedError

    def save(self, table: RangeTable, reason: str) -> Cutover:
        """The cutover that asks for the table."""
        raise NotImplementedError

    def shown(self, form: TableForm, status: int = 200) -> HttpResponse:
        """The page with this form."""
        raise NotImplementedError

    def posted(self) -> TableForm:
        return TableForm.of_post(self.request.POST, self.key_space, self.looks)

    def saved(self, form: TableForm, table: RangeTable) -> Cutover | HttpResponse:
        try:
            return self.save(table, form.reason)
        except MshaError as error:
            form.refusal = str(error)
            return self.shown(form, REFUSED)

    def do_preview(self) -> HttpResponse:
        form = self.posted()
        if not form.is_valid():
            return self.shown(form, UNUSABLE)
        cutover = self.saved(form, form.table())
        if isinstance(cutover, HttpResponse):
            return cutover
        services.preview(cutover, self.actor)
        return redirect("cutover:preview", cutover.pk)

    def do_assign(self) -> HttpResponse:
        form = self.posted()
        table = form.assigned() if form.is_valid() else None
        return self._stay(form, table)

    def do_zero(self, losing: str = "", gaining: str = "") -> HttpResponse:
        form = self.posted()
        table = form.cut_to_zero(losing, gaining) if form.is_valid() else None
        return self._stay(form, table)

    def _stay(self, form: TableForm, table: RangeTable | None) -> HttpResponse:
        if table is None:
            return self.shown(form, UNUSABLE)
        cutover = self.saved(TableForm.of_table(table, self.looks, form.reason), table)
        return cutover if isinstance(cutover, HttpResponse) else redirect("cutover:adjust", cutover.pk)

    def form_context(self, form: TableForm) -> dict[str, Any]:
        """What the table round the form shows."""
        before = self.table(self.in_effect)
        assert before is not None
        after = form.table_or_none() or before
        moved = moved_between(self.in_effect, rule_of(self.in_effect, after), self.key_space)
        return {
            "form": form,
            "refusal": form.refusal,
            "rows": table_rows(form, before, self.looks),
            "in_effect": before,
            "bar": draw(after, self.looks, moved),
            "moved_text": moves_sentence(moved, self.key_space, self.looks),
            "has_exact": any(row.text or row.error for row in form.exact),
            "looks": self.looks,
        }


@dataclass(frozen=True, slots=True)
class TableRow:
    """One line of the form's table: a range, or a unit that owns none."""

    unit: Any
    row: Row | None
    before: tuple[str, ...]
    before_exact: tuple[int, ...]
    count: int
    percent: float
    is_last: bool
    can_zero: bool
    others: tuple[Any, ...]


def table_rows(form: TableForm, before: RangeTable, looks: Looks) -> list[TableRow]:
    """The lines in the order of the ids; what a unit has in effect stands at its first line only."""
    owned = {share.unit.code: share for share in shares(before, looks)}
    lines: list[TableRow] = []
    told: set[str] = set()
    first = form.key_space.min
    for row in form.rows:
        last = row.last if row.last is not None else first - 1
        count = max(0, last - first + 1)
        code = row.unit.code
        share = owned.get(code) if code not in told else None
        others = tuple(unit for unit in looks.values() if unit.code != code)
        lines.append(
            TableRow(
                row.unit,
                row,
                share.ranges if share else (),
                share.exact if share else (),
                count,
                100 * count / form.key_space.size,
                row is form.rows[-1],
                code not in told and bool(others),
                others,
            )
        )
        told.add(code)
        first = last + 1
    for code, unit in looks.items():
        if code not in told:
            share = owned.get(code)
            ranges, exact = (share.ranges, share.exact) if share else ((), ())
            lines.append(TableRow(unit, None, ranges, exact, 0, 0.0, False, False, ()))
    return lines


class New(TablePage):
    """The ranges of a cutover that is drafted by its first act."""

    title = gettext_lazy("New cutover")
    permission_required = ADD
    acts: ClassVar[dict[str, str]] = {"preview": ADD, "assign": ADD, "zero": ADD}

    @cached_property
    def document(self) -> dict[str, Any]:
        assert self.namespace is not None
        return rules.in_effect(self.namespace)

    @cached_property
    def looks(self) -> Looks:
        assert self.namespace is not None
        return Looks.of(self.namespace)

    @cached_property
    def key_space(self) -> KeySpace:
        return rules.key_space_of(self.document["rule"])

    @cached_property
    def unit_type(self) -> str:
        """The unit type asked for, else the default one."""
        rule = self.document["rule"]
        names = [entry["name"] for entry in rule["unit_types"]]
        asked = self.request.GET.get("unit_type", "")
        default = rule["default_unit_type"]
        return asked if asked in names else default if default in names else names[0]

    @cached_property
    def in_effect(self) -> dict[str, Any]:
        return rules.unit_type_of(self.document["rule"], self.unit_type)

    def get(self, request: HttpRequest) -> HttpResponse:  # type: ignore[override]
        if self.namespace is None or not self.namespace.version:
            return redirect("cutover:start")
        return self.shown(TableForm.of_rule(self.in_effect, self.key_space, self.looks))

    def post(self, request: HttpRequest) -> HttpResponse:  # type: ignore[override]
        if self.namespace is None or not self.namespace.version:
            return redirect("cutover:start")
        return super().post(request, 0)

    def refused(self, refusal: Refusal) -> HttpResponse:
        form = self.posted()
        form.refusal = refusal.sentence
        return self.shown(form, REFUSED)

    def save(self, table: RangeTable, reason: str) -> Cutover:
        assert self.namespace is not None
        entry = rule_of(self.in_effect, table)
        return services.create_draft(
            self.namespace, self.unit_type, entry=entry, actor=self.actor, reason=reason
        )

    def shown(self, form: TableForm, status: int = 200) -> HttpResponse:
        return self.page(
            {
                "cutover": None,
                "steps": steps(None, Place.ADJUST),
                "key_space": self.key_space,
                "unit_type": self.unit_type,
                "unit_types": [entry["name"] for entry in self.document["rule"]["unit_types"]],
                **self.form_context(form),
            },
            status=status,
        )


class Adjust(TablePage):
    """The ranges of a draft; read-only once it has started."""

    acts: ClassVar[dict[str, str]] = {
        "preview": CHANGE, "assign": CHANGE, "zero": CHANGE, "discard": CHANGE,
    }  # fmt: skip

    @cached_property
    def in_effect(self) -> dict[str, Any]:
        rule = rules.in_effect(self.cutover.namespace)["rule"]
        return rules.unit_type_of(rule, self.cutover.unit_type)

    def save(self, table: RangeTable, reason: str) -> Cutover:
        entry = rule_of(self.cutover.new_rule, table)
        return services.update_draft(self.cutover, entry=entry, actor=self.actor, reason=reason)

    def do_discard(self) -> HttpResponse:
        services.discard(self.cutover, self.actor)
        messages.success(
            self.request,
            _("Draft #%(number)d is discarded; nothing has changed.") % {"number": self.cutover.number},
        )
        return redirect("cutover:start")

    def step(self, context: dict[str, Any], *, status: int = 200) -> HttpResponse:
        if self.cutover.editable and self.request.user.has_perm(CHANGE):
            # "Back to the rule in effect" shows that one; the draft keeps its own until it is previewed anew.
            afresh = self.request.GET.get("from") == "effect"
            entry = self.in_effect if afresh else self.cutover.new_rule
            form = TableForm.of_rule(entry, self.key_space, self.looks, self.cutover.reason)
            form.refusal = context.get("refusal", "")
            return self.shown(form, status)
        before = self.table(self.cutover.old_rule)
        bars = {"before": draw(before, self.looks) if before is not None else None, "bar": self.bar()}
        return super().step({**context, **bars, "notice": self.notice}, status=status)

    def shown(self, form: TableForm, status: int = 200) -> HttpResponse:
        context = {**self.form_context(form), "notice": self.notice}
        return WizardPage.step(self, context, status=status)

    @property
    def notice(self) -> str:
        return reading_notice(self.cutover)


# -- preview and rule text --------------------------------------------------------


class PreviewPage(WizardPage):
    """The new table, the moved ids, and what it costs."""

    place = Place.PREVIEW
    template_name = "cutover/preview.html"
    acts: ClassVar[dict[str, str]] = {"preview": CHANGE}

    def do_preview(self) -> HttpResponse:
        services.preview(self.cutover, self.actor)
        return redirect("cutover:preview", self.cutover.pk)

    def step(self, context: dict[str, Any], *, status: int = 200) -> HttpResponse:
        preview = self.preview
        if preview is None:
            return redirect(link_to(self.cutover))
        at = self.cutover.impact.get("at")
        return super().step(
            {
                "preview": preview,
                "bar": self.bar(),
                "counted_at": datetime.fromisoformat(at) if at else None,
                **context,
            },
            status=status,
        )


class RulesPage(WizardPage):
    """Rule text: before and after, side by side."""

    place = Place.RULES
    template_name = "cutover/rules.html"

    def step(self, context: dict[str, Any], *, status: int = 200) -> HttpResponse:
        if self.preview is None:
            return redirect(link_to(self.cutover))
        return super().step({"preview": self.preview, **self.titles, **context}, status=status)


# -- precheck --------------------------------------------------------


class Precheck(WizardPage):
    """The checks: run, retry, skip."""

    place = Place.PRECHECK
    template_name = "cutover/precheck.html"
    acts: ClassVar[dict[str, str]] = {"run": CHANGE, "retry": CHANGE, "skip": SKIP}

    def do_run(self) -> HttpResponse:
        services.run_prechecks(self.cutover, self.actor)
        return redirect("cutover:precheck", self.cutover.pk)

    def do_retry(self) -> HttpResponse:
        return self._on_check(lambda key: services.retry_check(self.cutover, key, self.actor))

    def do_skip(self) -> HttpResponse:
        reason = self.request.POST.get("reason", "")
        return self._on_check(lambda key: services.skip_check(self.cutover, key, self.actor, reason))

    def _on_check(self, act: Callable[[str], None]) -> HttpResponse:
        key = self.request.POST.get("key", "")
        try:
            act(key)
        except MshaError as error:
            self.cutover.refresh_from_db()
            if key in BY_KEY and self.cutover.editable:
                return self.step({"refused": str(error), "refused_key": key}, status=REFUSED)
            raise
        return redirect("cutover:precheck", self.cutover.pk)

    def step(self, context: dict[str, Any], *, status: int = 200) -> HttpResponse:
        return super().step({**self.checks(), **context}, status=status)

    def checks(self) -> dict[str, Any]:
        """The checks, and what follows from them."""
        cutover = self.cutover
        checks = checks_shown(cutover)
        open_ones = [c for c in checks if c.state in (Check.State.PENDING, Check.State.RUNNING)]
        unfinished = bool(open_ones) and cutover.editable
        ready = cutover.state == Cutover.State.CHECKED or not cutover.editable
        place = Place.CONFIRM if cutover.editable else place_of(cutover)
        return {
            "checks": checks,
            "counts": {
                "failed": sum(c.state == Check.State.FAILED for c in checks),
                "skipped": sum(c.state == Check.State.SKIPPED for c in checks),
            },
            "editable": cutover.editable,
            "unfinished": unfinished,
            "poll": unfinished or cutover.state == Cutover.State.CHECKING,
            "ready": ready,
            "next_link": link_to(cutover, place),
        }


class Checks(Precheck):
    """The inner part of the precheck page, for htmx."""

    acts: ClassVar[dict[str, str]] = {}

    def step(self, context: dict[str, Any], *, status: int = 200) -> HttpResponse:
        shown = {"cutover": self.cutover, **self.commands, **self.checks(), **context}
        return render(self.request, "cutover/_precheck.html", shown, status=status)


# -- confirm --------------------------------------------------------


class Confirm(WizardPage):
    """The last word: the namespace is typed, the cutover starts."""

    place = Place.CONFIRM
    template_name = "cutover/confirm.html"
    acts: ClassVar[dict[str, str]] = {"start": START}

    def do_start(self) -> HttpResponse:
        typed = self.request.POST.get("namespace", "")
        try:
            services.start(self.cutover, self.actor, typed)
        except MshaError as error:
            self.cutover.refresh_from_db()
            if self.cutover.state != Cutover.State.CHECKED:
                raise
            return self.step({"refused": str(error), "typed": typed}, status=REFUSED)
        return redirect("cutover:progress", self.cutover.pk)

    def step(self, context: dict[str, Any], *, status: int = 200) -> HttpResponse:
        if self.preview is None:
            return redirect(link_to(self.cutover))
        skipped = [check for check in checks_shown(self.cutover) if check.state == Check.State.SKIPPED]
        shown = {"preview": self.preview, "bar": self.bar(), "skipped": skipped, "typed": ""}
        return super().step({**shown, **context}, status=status)


# -- progress and report --------------------------------------------------------


class Running(WizardPage):
    """What progress and report share: the status, drawn."""

    @cached_property
    def status(self) -> dict[str, Any]:
        return services.status(self.cutover)

    def refused(self, refusal: Refusal) -> HttpResponse:
        self.__dict__.pop("status", None)
        self.cutover.refresh_from_db()
        return self.step({"refused": refusal.sentence, "refused_act": self.act[0]}, status=REFUSED)

    def step(self, context: dict[str, Any], *, status: int = 200) -> HttpResponse:
        moved = MovedIds.from_lists(self.cutover.moved)
        frozen = [ms for ms in (self.status["frozen_ms"], self.status["frozen_now_ms"]) if ms is not None]
        now = {
            **self.status,
            "events": events_shown(self.status["events"]),
            "frozen_shown": max(frozen, default=None),
        }
        return super().step(
            {
                "status": now,
                "phases": phases_shown(self.status),
                "nodes": nodes_shown(self.status),
                "losing_names": [self.looks.at(code).label for code in sorted(moved.losing_units)],
                "gaining_names": [self.looks.at(code).label for code in sorted(moved.gaining_units)],
                "preview": self.preview,
                **context,
            },
            status=status,
        )


class Progress(Running):
    """The running cutover, live; abort, turn-around and finish with their consequence."""

    place = Place.PROGRESS
    template_name = "cutover/progress.html"
    acts: ClassVar[dict[str, str]] = {"abort": START, "turn_around": START, "finish": START}

    def do_abort(self) -> HttpResponse:
        return self._done(services.abort)

    def do_turn_around(self) -> HttpResponse:
        return self._done(services.turn_around)

    def do_finish(self) -> HttpResponse:
        return self._done(services.finish_with_stragglers)

    def _done(self, act: Callable[[Cutover, str, str], Cutover]) -> HttpResponse:
        act(self.cutover, self.actor, self.request.POST.get("reason", ""))
        return redirect("cutover:progress", self.cutover.pk)

    def step(self, context: dict[str, Any], *, status: int = 200) -> HttpResponse:
        shown: list[Act] = acts_shown(self.status, may=self.request.user.has_perm(START))
        any_act = any(act.possible for act in shown)
        return super().step({"acts": shown, "any_act": any_act, **context}, status=status)


class Report(Running):
    """What happened, to keep and to print; the way back stays visible."""

    place = Place.REPORT
    template_name = "cutover/report.html"
    acts: ClassVar[dict[str, str]] = {"rollback": ADD}

    def do_rollback(self) -> HttpResponse:
        draft = services.rollback(self.cutover, self.actor)
        return redirect("cutover:adjust", draft.pk)

    def step(self, context: dict[str, Any], *, status: int = 200) -> HttpResponse:
        cutover = self.cutover
        if self.preview is None:
            return redirect("cutover:start")
        return super().step(
            {
                "checks": checks_shown(cutover),
                "duration": duration(cutover),
                "rollbacks": cutover.rollbacks.exclude(state=Cutover.State.DISCARDED),
                "rollback_possible": self.status["actions"]["rollback"],
                **self.titles,
                **context,
            },
            status=status,
        )


class Status(ConsolePage):
    """The status as JSON: for the live page while its WebSocket is down."""

    permission_required = "cutover.view_cutover"

    def get(self, request: HttpRequest, pk: int) -> HttpResponse:
        return JsonResponse(services.status(get_object_or_404(Cutover, pk=pk)))
