"""The first step: what a cutover is to move."""

from dataclasses import dataclass
from typing import Any, ClassVar

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils.functional import cached_property
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from cutover import kinds, rules, services
from cutover.errors import InvalidChange
from cutover.kinds import ToZero, Wish
from cutover.models import Cutover
from cutover.pages.bars import Looks, draw, shares
from cutover.pages.base import ADD, CHANGE, REFUSED, UNUSABLE, Refusal, WizardPage
from cutover.pages.forms import Row, TableForm, rule_of
from cutover.pages.shown import (
    moves_sentence,
    reading_notice,
)
from cutover.pages.wizard import Place, steps
from msha.steering.errors import MshaError
from msha.steering.phases import moved_between
from msha.steering.ranges import KeySpace, RangeTable


class TablePage(WizardPage):
    """The form of the ranges, for a draft and for one that nobody has drafted yet."""

    place = Place.ADJUST
    template_name = "cutover/adjust.html"

    @property
    def in_effect(self) -> dict[str, Any]:
        """The unit type that is in effect now."""
        raise NotImplementedError

    def save(self, asked: RangeTable | Wish, reason: str) -> Cutover:
        """The cutover that asks for the table, or for what a wish comes to."""
        raise NotImplementedError

    @property
    def asked_in_words(self) -> str:
        """What a draft was asked for, if not as a table; "" otherwise."""
        return ""

    @property
    def base(self) -> dict[str, Any]:
        """The unit type into which an edited table goes; how the routerId is read stays as it is there."""
        return self.in_effect

    def as_asked(self, asked: RangeTable | Wish) -> dict[str, Any]:
        """As the services take it."""
        if isinstance(asked, RangeTable):
            return {"entry": rule_of(self.base, asked)}
        return {"wish": asked}

    def shown(self, form: TableForm, status: int = 200) -> HttpResponse:
        """The page with this form."""
        raise NotImplementedError

    def posted(self) -> TableForm:
        return TableForm.of_post(self.request.POST, self.key_space, self.looks)

    def saved(self, form: TableForm, asked: RangeTable | Wish) -> Cutover | HttpResponse:
        try:
            return self.save(asked, form.reason)
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
        """The unit gives away everything: to the other, or to all others in proportion to their shares."""
        form = self.posted()
        try:
            return self._wished(form, ToZero(losing, gaining or None))
        except InvalidChange as error:
            form.refusal = error.sentence
            return self.shown(form, UNUSABLE)

    def do_shift(self) -> HttpResponse:
        form = self.posted()
        try:
            return self._wished(form, [form.shift.shift()])
        except InvalidChange as error:
            form.shift.error = error.sentence
            return self.shown(form, UNUSABLE)

    def _wished(self, form: TableForm, wish: Wish) -> HttpResponse:
        cutover = self.save(wish, form.reason)
        return redirect("cutover:adjust", cutover.pk)

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
            "kind_said": self.asked_in_words,
            "shift_unit_type": self.in_effect["name"],
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
    acts: ClassVar[dict[str, str]] = {"preview": ADD, "assign": ADD, "zero": ADD, "shift": ADD}

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

    def save(self, asked: RangeTable | Wish, reason: str) -> Cutover:
        assert self.namespace is not None
        return services.create_draft(
            self.namespace, self.unit_type, **self.as_asked(asked), actor=self.actor, reason=reason
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
        "preview": CHANGE, "assign": CHANGE, "zero": CHANGE, "shift": CHANGE, "discard": CHANGE,
    }  # fmt: skip

    @cached_property
    def in_effect(self) -> dict[str, Any]:
        rule = rules.in_effect(self.cutover.namespace)["rule"]
        return rules.unit_type_of(rule, self.cutover.unit_type)

    @property
    def asked_in_words(self) -> str:
        last = self.cutover.events.filter(kind__in=("drafted", "adjusted")).last()
        return kinds.words(last.data.get("asked", ())) if last is not None else ""

    @property
    def base(self) -> dict[str, Any]:
        return self.cutover.new_rule

    def save(self, asked: RangeTable | Wish, reason: str) -> Cutover:
        return services.update_draft(self.cutover, **self.as_asked(asked), actor=self.actor, reason=reason)

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
