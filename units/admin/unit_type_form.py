"""The form of a unit type: its rule as lines of text, one field per unit."""

import re
from typing import Any, ClassVar

from django import forms
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from unfold.widgets import UnfoldAdminTextareaWidget

from msha.steering.errors import InvalidRule
from units import editing
from units.admin.base import InNamespaceForm
from units.models import Namespace, Unit, UnitType

_SOURCES = ("header", "query", "cookie", "path")
_TRANSFORMS = ("modulo", "truncate", "hash")


def _lines(help_text: Any, label: Any, rows: int = 3, *, required: bool = False) -> forms.CharField:
    widget = UnfoldAdminTextareaWidget(attrs={"rows": rows, "spellcheck": "false"})
    return forms.CharField(label=label, help_text=help_text, widget=widget, required=required)


class UnitTypeForm(InNamespaceForm):
    sources_text = _lines(
        _("One per line, in order; the first with a value wins: header, query, cookie or path, then a name."),
        _("Sources of the routerId"),
        required=True,
    )
    transform_text = _lines(
        _("One step per line, in order: modulo 10000, truncate 4, hash crc32. Empty: the id as it is."),
        _("Transform"),
        2,
    )
    units: ClassVar[list[Unit]] = []

    class Meta:
        model = UnitType
        fields = ("name", "untagged")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        row = self.instance
        self.initial["sources_text"] = _as_lines(row.sources or [{"header": "routerId"}])
        self.initial["transform_text"] = _as_lines(row.transform)
        for unit in self.units:
            self.initial[ranges_field(unit)] = "\n".join(row.ranges.get(unit.code, []))
            self.initial[exact_field(unit)] = ", ".join(map(str, row.exact.get(unit.code, [])))

    def clean(self) -> dict[str, Any]:
        super().clean()
        data = self.cleaned_data
        row = self.instance
        row.sources = self._pairs("sources_text", _SOURCES)
        row.transform = self._pairs("transform_text", _TRANSFORMS)
        row.untagged = data.get("untagged", row.untagged)
        row.name = data.get("name", row.name)
        row.ranges = {
            unit.code: found
            for unit in self.units
            if (found := re.split(r"[\s,;]+", data.get(ranges_field(unit), "").strip())) != [""]
        }
        row.exact = {
            unit.code: ids for unit in self.units if (ids := self._ids(unit, data.get(exact_field(unit), "")))
        }
        if not self.errors:
            self._check_rule(row)
        return data

    def _check_rule(self, row: UnitType) -> None:
        try:
            editing.check_rule(row, {unit.code for unit in self.units})
        except InvalidRule as error:
            sentence = f"{error.problem[:1].upper()}{error.problem[1:]}".rstrip(".") + "."
            self.add_error(self._field(error.place), sentence)

    def _field(self, place: str) -> str | None:
        """The form field that a place of the rule stands for; None for the form as a whole."""
        head, _, code = place.partition(".")
        head = head.partition("[")[0]
        for unit in self.units:
            if unit.code == code.partition("[")[0]:
                return {"ranges": ranges_field(unit), "exact": exact_field(unit)}.get(head)
        field = {"sources": "sources_text", "transform": "transform_text"}.get(head, head)
        return field if field in self.fields else None

    def _pairs(self, field: str, kinds: tuple[str, ...]) -> list[dict[str, Any]]:
        pairs: list[dict[str, Any]] = []
        for number, line in enumerate(self.cleaned_data.get(field, "").splitlines(), start=1):
            if not line.strip():
                continue
            kind, _, rest = line.strip().replace(":", " ", 1).partition(" ")
            rest = rest.strip()
            if kind not in kinds or not rest:
                self.add_error(
                    field,
                    gettext("Line %(number)d: write one of %(kinds)s and what it takes, as “%(example)s”.")
                    % {
                        "number": number,
                        "kinds": ", ".join(kinds),
                        "example": "header routerId" if kinds is _SOURCES else "modulo 10000",
                    },
                )
                continue
            numeric = kinds is _TRANSFORMS and rest.isascii() and rest.isdigit()
            pairs.append({kind: int(rest) if numeric else rest})
        return pairs

    def _ids(self, unit: Unit, text: str) -> list[int]:
        ids = []
        for word in re.split(r"[\s,;]+", text.strip()):
            if not word:
                continue
            if not (word.isascii() and word.isdigit() and len(word) <= 16):
                self.add_error(
                    exact_field(unit),
                    gettext("%(word)s is not an id. Write numbers: 42, 4711.") % {"word": word},
                )
                continue
            ids.append(int(word))
        return ids


def form_for(namespace: Namespace | None) -> type[UnitTypeForm]:
    """The form with the fields of this namespace's units."""
    units = [] if namespace is None else list(namespace.units.order_by("position", "code"))
    fields: dict[str, Any] = {"units": units}
    for unit in units:
        fields[ranges_field(unit)] = _lines(
            _("Inclusive, one per line: 0~5997. All units together cover the key space exactly once."),
            _("Ranges of %(unit)s") % {"unit": unit},
        )
        fields[exact_field(unit)] = forms.CharField(
            label=_("Exact ids of %(unit)s") % {"unit": unit},
            help_text=_("Single ids that belong here whatever the ranges say: 42, 4711."),
            widget=UnfoldAdminTextareaWidget(attrs={"rows": 1, "spellcheck": "false"}),
            required=False,
        )
    return type("NamespaceUnitTypeForm", (UnitTypeForm,), fields)


def ranges_field(unit: Unit) -> str:
    return f"ranges_{unit.pk}"


def exact_field(unit: Unit) -> str:
    return f"exact_{unit.pk}"


def _as_lines(pairs: list[dict[str, Any]]) -> str:
    return "\n".join(f"{kind} {value}" for pair in pairs for kind, value in pair.items())
