"""The line of the form that shifts a share, and what it would come to, shown while it is typed."""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from cutover import kinds, rules
from cutover.errors import InvalidChange
from cutover.kinds import Shift
from cutover.pages.bars import Looks, draw
from cutover.pages.shown import moves_sentence
from msha.steering.errors import MshaError
from msha.steering.phases import moved_between, table_of
from units.pages import ConsolePage

#: What the amount is of.
MEASURES: dict[str, Any] = {
    "percent": gettext_lazy("% of its ids"),
    "of_all": gettext_lazy("% of all ids"),
    "ids": gettext_lazy("ids"),
}


@dataclass
class ShiftForm:
    """A shift as it is typed."""

    amount: str = ""
    measure: str = "percent"
    losing: str = ""
    gaining: str = ""
    error: str = ""

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> "ShiftForm":
        return cls(
            data.get("shift_amount", "").strip(),
            data.get("shift_measure", "percent"),
            data.get("shift_from", ""),
            data.get("shift_to", ""),
        )

    @property
    def measures(self) -> list[tuple[str, str]]:
        return [(name, str(title)) for name, title in MEASURES.items()]

    def shift(self) -> Shift:
        """What is asked for.

        Raises:
            InvalidChange: the amount is not one.
        """
        text = self.amount.rstrip("%").strip().replace(",", ".")
        whole, _dot, decimals = text.partition(".")
        if not (whole + decimals).isascii() or not (whole + decimals).isdigit() or len(text) > 16:
            raise InvalidChange(_("Write how much is to move as a number, for example 10."))
        if self.measure == "ids":
            if decimals:
                raise InvalidChange(_("A number of ids is a whole number."))
            return Shift(self.losing, self.gaining, ids=int(whole))
        percent = Fraction(text if whole else f"0{text}")
        return Shift(self.losing, self.gaining, percent=percent, of_all=self.measure == "of_all")


class ShiftShown(ConsolePage):
    """What the shift would come to, for htmx; nothing is drafted by looking."""

    permission_required = "cutover.add_cutover"

    def get(self, request: HttpRequest) -> HttpResponse:
        return render(request, "cutover/_shift_shown.html", self._shown(ShiftForm.of(request.GET.dict())))

    def _shown(self, form: ShiftForm) -> dict[str, Any]:
        namespace = self.namespace
        if namespace is None or not namespace.version or not form.amount:
            return {}
        looks, document = Looks.of(namespace), rules.in_effect(namespace)
        key_space = rules.key_space_of(document["rule"])
        asked = self.request.GET.get("unit_type") or document["rule"]["default_unit_type"]
        try:
            granted = kinds.granted(document, asked, [form.shift()])
            before = rules.unit_type_of(document["rule"], asked)
            moved = moved_between(before, granted.entry, key_space)
        except InvalidChange as error:
            return {"error": error.sentence}
        except MshaError as error:
            return {"error": str(error)}
        table = table_of(granted.entry, key_space)
        return {
            "sentence": moves_sentence(moved, key_space, looks),
            "ranges": [(looks.at(code), texts) for code, texts in table.ranges_text().items()],
            "bar": draw(table, looks, moved),
        }
