"""The form of a domain: its settings, where it leads in each unit, and one row per URI.

Every field complains by itself with the sentence of the core; what only the whole can tell (a URI named
twice, a host that belongs to another namespace) comes back from the service and lands on its field.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from django import forms
from django.utils.functional import cached_property
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from domains import editing
from domains.errors import Misplaced
from domains.models import Domain, Uri
from domains.unpublished import as_sentence
from msha.steering import topology
from msha.steering.errors import InvalidSnapshot
from msha.steering.snapshot import DEFAULT_PORT, DEFAULT_TLS_PORT, check_host_name, check_uri_path
from units.models import Cluster, Namespace, Unit

Typed = Mapping[str, Any]
"""What was typed, as in ``request.POST``."""

_ROW = re.compile(r"uri-(\d{1,4})-path")
ROWS_LIMIT = 500

_INPUT = {"class": "input"}
_PLAIN = {**_INPUT, "autocapitalize": "none", "autocomplete": "off", "spellcheck": "false"}


class HostNameField(forms.CharField):
    """A host name, lower case."""

    def clean(self, value: Any) -> str:
        text = super().clean(value).strip().rstrip(".").lower()
        try:
            return check_host_name(text, "")
        except InvalidSnapshot as error:
            raise forms.ValidationError(as_sentence(error.problem)) from error


class ServersField(forms.CharField):
    """Back-source servers, ``IP:PORT,IP:PORT``, as a tuple."""

    def clean(self, value: Any) -> Any:
        try:
            return topology.split_servers(super().clean(value))
        except InvalidSnapshot as error:
            raise forms.ValidationError(as_sentence(error.problem)) from error


class PathField(forms.CharField):
    """The path of a URI."""

    def clean(self, value: Any) -> str:
        text = super().clean(value).strip()
        try:
            return check_uri_path(text, "") if text else ""
        except InvalidSnapshot as error:
            raise forms.ValidationError(as_sentence(error.problem)) from error


class SettingsForm(forms.Form):
    """What is said once about a domain."""

    name = HostNameField(
        label=_("domain"),
        help_text=_("A host name: websocket.msha.tech."),
        widget=forms.TextInput(attrs={**_PLAIN, "data-domain-name": "", "maxlength": 253}),
    )
    protocol = forms.ChoiceField(
        label=_("access type"), choices=Domain.Protocol.choices, widget=forms.Select(attrs=_INPUT)
    )
    dns = forms.ChoiceField(
        label=_("DNS resolution type"),
        choices=Domain.Dns.choices,
        help_text=_("Managed: prechecks look the names up before a cutover."),
        widget=forms.Select(attrs=_INPUT),
    )
    multi_unit = forms.BooleanField(
        label=_("multi-unit resolution"),
        required=False,
        help_text=_("The domain resolves to several units; otherwise to the center."),
    )
    correction = forms.ChoiceField(
        label=_("correction type"),
        choices=Domain.Correction.choices,
        help_text=_("What happens to a handshake in the wrong unit."),
        widget=forms.Select(attrs=_INPUT),
    )
    redirect_scheme = forms.ChoiceField(
        label=_("redirect scheme"),
        choices=Domain.RedirectScheme.choices,
        help_text=_("Node and Go clients want http, Python clients ws."),
        widget=forms.Select(attrs=_INPUT),
    )


class UnitForm(forms.Form):
    """Where the domain leads in one unit."""

    cluster = forms.ChoiceField(
        label=_("effective cluster"), required=False, widget=forms.Select(attrs=_INPUT)
    )
    port = forms.IntegerField(
        label=_("port"),
        min_value=1,
        max_value=65535,
        widget=forms.NumberInput(attrs={"class": "input number"}),
    )
    tls_port = forms.IntegerField(
        label=_("TLS port"),
        required=False,
        min_value=1,
        max_value=65535,
        widget=forms.NumberInput(attrs={"class": "input number", "placeholder": DEFAULT_TLS_PORT}),
    )

    def __init__(
        self, unit: Unit, clusters: Sequence[str], data: Typed | None, initial: Mapping[str, Any]
    ) -> None:
        super().__init__(data, prefix=f"unit-{unit.code}", initial=dict(initial))
        self.unit = unit
        choices = [("", gettext("none")), *((name, name) for name in clusters)]
        self.fields["cluster"].choices = choices  # type: ignore[attr-defined]
        for field in self.fields.values():
            field.widget.attrs["aria-label"] = f"{field.label}, {unit}"

    @property
    def choosable(self) -> bool:
        """Whether any cluster of the unit has joined the access layer."""
        return len(self.fields["cluster"].choices) > 1  # type: ignore[attr-defined]


class UriForm(forms.Form):
    """One URI with its servers in each unit; a row without a path and servers stands for no URI."""

    path = PathField(
        label=_("URI"),
        required=False,
        widget=forms.TextInput(attrs={**_PLAIN, "maxlength": 500, "placeholder": "/"}),
    )
    balance = forms.ChoiceField(
        label=_("load balancing"), choices=Uri.Balance.choices, widget=forms.Select(attrs=_INPUT)
    )

    def __init__(
        self,
        index: str,
        units: Sequence[Unit],
        data: Typed | None = None,
        initial: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(data, prefix=f"uri-{index}", initial=dict(initial or {}))
        self.index = index
        self.units = units
        for unit in units:
            self.fields[f"servers-{unit.code}"] = ServersField(
                label=gettext("back-source servers of %(unit)s") % {"unit": unit},
                required=False,
                widget=forms.TextInput(attrs={**_PLAIN, "placeholder": "10.0.0.5:8080,10.0.0.6:8080"}),
            )
        for field in self.fields.values():
            field.widget.attrs["aria-label"] = field.label

    @property
    def blank(self) -> bool:
        """Whether nothing was typed into the row."""
        typed = (self[name].value() for name in self.fields if name != "balance")
        return not any(str(value or "").strip() for value in typed)

    def clean(self) -> dict[str, Any]:
        data = super().clean() or {}
        if not self.blank and not data.get("path") and "path" not in self.errors:
            self.add_error("path", gettext("A URI begins with a slash, as / or /chat."))
        return data

    def value(self) -> topology.Uri:
        servers = {unit.code: self.cleaned_data[f"servers-{unit.code}"] for unit in self.units}
        return topology.Uri(self.cleaned_data["path"], self.cleaned_data["balance"], servers)

    def servers(self) -> Iterator[forms.BoundField]:
        """The bound field of each unit, in the order of the units."""
        for unit in self.units:
            yield self[f"servers-{unit.code}"]


class DomainForm:
    """The whole form: bound to what was typed, or filled with a saved domain."""

    def __init__(
        self,
        namespace: Namespace,
        data: Typed | None = None,
        *,
        saved: topology.Domain | None = None,
        read_only: bool = False,
    ) -> None:
        self.namespace = namespace
        self.saved = saved
        self.settings = SettingsForm(data, initial=_settings_of(saved))
        self.units = [self._unit(unit, data) for unit in self.all_units]
        self.uris = self._bound_uris(data) if data is not None else self._saved_uris()
        self.complaints: list[str] = []
        self.seen = editing.fingerprint(saved) if data is None else str(data.get("seen", ""))
        if read_only:
            for form in (self.settings, *self.units, *self.uris):
                for field in form.fields.values():
                    field.disabled = True

    @cached_property
    def all_units(self) -> list[Unit]:
        return list(Unit.objects.filter(namespace=self.namespace).order_by("position", "code"))

    @cached_property
    def blank_uri(self) -> UriForm:
        """The row that the page copies when another URI is added."""
        return UriForm("new", self.all_units)

    def is_valid(self) -> bool:
        valid = [form.is_valid() for form in (self.settings, *self.units, *self._named_uris)]
        return all(valid)  # every form was asked, so that all faults are shown at once

    def value(self) -> topology.Domain:
        """The domain that the form describes."""
        data = self.settings.cleaned_data
        clusters = {form.unit.code: form.cleaned_data["cluster"] for form in self.units}
        tls_ports = {form.unit.code: form.cleaned_data["tls_port"] for form in self.units}
        return topology.Domain(
            name=data["name"],
            protocol=data["protocol"],
            dns=data["dns"],
            multi_unit=data["multi_unit"],
            correction=data["correction"],
            redirect_scheme=data["redirect_scheme"],
            ports={form.unit.code: form.cleaned_data["port"] for form in self.units},
            clusters={code: name for code, name in clusters.items() if name},
            uris=tuple(form.value() for form in self._named_uris),
            tls_ports={code: port for code, port in tls_ports.items() if port is not None},
        )

    def complain(self, error: Misplaced) -> None:
        """The service's complaint stands beside the field it is about."""
        named = re.fullmatch(r"(ports|tls_ports|clusters)\.(.+)", error.place)
        placed = re.fullmatch(r"uris\[(\d+)\]\.(?:(path)|balance|back_sources\.(.+))", error.place)
        if error.place in self.settings.fields:
            self.settings.add_error(error.place, error.sentence)
        elif named and (form := self._unit_form(named[2])) is not None:
            form.add_error(named[1].removesuffix("s"), error.sentence)
        elif placed:
            row = self._named_uris[int(placed[1])]
            row.add_error(f"servers-{placed[3]}" if placed[3] else placed[2] or "balance", error.sentence)
        elif error.place == "uris" and (repeated := self._repeated_uri()) is not None:
            repeated.add_error("path", gettext("This domain already has this URI."))
        else:
            self.complaints.append(str(error))

    def _unit(self, unit: Unit, data: Typed | None) -> UnitForm:
        initial: dict[str, Any] = {"port": DEFAULT_PORT}
        if self.saved is not None:
            initial = {
                "port": self.saved.ports.get(unit.code, DEFAULT_PORT),
                "tls_port": self.saved.tls_ports.get(unit.code),
                "cluster": self.saved.clusters.get(unit.code, ""),
            }
        clusters = [cluster.name for cluster in self._joined if cluster.unit_id == unit.pk]
        return UnitForm(unit, clusters, data, initial)

    @cached_property
    def _joined(self) -> list[Cluster]:
        rows = Cluster.objects.filter(namespace=self.namespace, joined_at__isnull=False)
        return list(rows.order_by("name"))

    def _bound_uris(self, data: Typed) -> list[UriForm]:
        found = sorted({int(match[1]) for key in data if (match := _ROW.fullmatch(key))})
        return [UriForm(str(index), self.all_units, data) for index in found[:ROWS_LIMIT]]

    def _saved_uris(self) -> list[UriForm]:
        """The saved rows and a blank one, so that a URI can be added without scripts."""
        rows = []
        for index, uri in enumerate(self.saved.uris if self.saved is not None else ()):
            servers = {f"servers-{code}": ",".join(texts) for code, texts in uri.back_sources.items()}
            initial = {"path": uri.path, "balance": uri.balance, **servers}
            rows.append(UriForm(str(index), self.all_units, initial=initial))
        return [*rows, UriForm(str(len(rows)), self.all_units, initial={"path": "" if rows else "/"})]

    @property
    def _named_uris(self) -> list[UriForm]:
        return [form for form in self.uris if not form.blank]

    def _unit_form(self, code: str) -> UnitForm | None:
        return next((form for form in self.units if form.unit.code == code), None)

    def _repeated_uri(self) -> UriForm | None:
        seen = set()
        for form in self._named_uris:
            path = form.cleaned_data.get("path")
            if path in seen:
                return form
            seen.add(path)
        return None


def _settings_of(saved: topology.Domain | None) -> dict[str, Any]:
    if saved is None:
        return {"multi_unit": True}
    return {name: getattr(saved, name) for name in SettingsForm.base_fields}
