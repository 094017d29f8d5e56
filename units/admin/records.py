"""What was published and what was done: to be looked at, never edited."""

import json
from typing import Any

from django.contrib import admin
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _
from unfold.decorators import display

from msha.steering.diff import document_text
from units.admin.base import ReadOnlyAdmin, moment
from units.models import AuditEvent, Snapshot


def _text(value: str) -> SafeString:
    return format_html('<pre class="whole-text">{}</pre>', value)


@admin.register(Snapshot)
class SnapshotAdmin(ReadOnlyAdmin):
    list_display = ("number", "kind_label", "epoch", "short_digest", "author", "comment", "published_at")
    list_filter = ("kind",)
    search_fields = ("comment", "author", "digest")
    ordering = ("-version",)
    fields = (("version", "kind", "epoch"), "digest", ("author", "published_at"), "comment", "document")
    readonly_fields = ("version", "kind", "epoch", "digest", "author", "published_at", "comment", "document")
    empty_hint = _("Nothing has been put into effect yet; the first version appears here then.")

    @display(description=_("version"), ordering="version")
    def number(self, row: Snapshot) -> str:
        return f"v{row.version}"

    @display(description=_("kind"), label={"config": "info", "rule": "warning"}, ordering="kind")
    def kind_label(self, row: Snapshot) -> tuple[str, str]:
        return row.kind, row.get_kind_display()

    @display(description=_("digest"))
    def short_digest(self, row: Snapshot) -> str:
        return row.digest[:12]

    @display(description=_("published"), ordering="created")
    def published_at(self, row: Snapshot) -> SafeString | str:
        return moment(row.created)

    @display(description=_("document"))
    def document(self, row: Snapshot) -> SafeString:
        return _text(document_text(json.loads(row.body)))


@admin.register(AuditEvent)
class AuditEventAdmin(ReadOnlyAdmin):
    list_display = ("recorded_at", "actor_name", "action", "target", "reason")
    list_filter = ("action", "actor")
    search_fields = ("actor", "action", "target", "reason")
    date_hierarchy = "at"
    fields = (("recorded_at", "actor_name"), ("action", "target"), "reason", "was", "is_now")
    readonly_fields = ("recorded_at", "actor_name", "action", "target", "reason", "was", "is_now")
    namespace_path = ""
    empty_hint = _("Every change, publish, skip and cutover step is recorded here.")

    @display(description=_("at"), ordering="at")
    def recorded_at(self, row: AuditEvent) -> SafeString | str:
        return moment(row.at)

    @display(description=_("who"), ordering="actor")
    def actor_name(self, row: AuditEvent) -> str:  # `actor` is the admin's own method
        return row.actor

    @display(description=_("before"))
    def was(self, row: AuditEvent) -> SafeString:
        return _json(row.before)

    @display(description=_("after"))
    def is_now(self, row: AuditEvent) -> SafeString:
        return _json(row.after)


def _json(value: Any) -> SafeString:
    return _text("–" if value is None else json.dumps(value, ensure_ascii=False, indent=2))
