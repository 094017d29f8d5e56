from typing import Any

from django.apps import AppConfig

VIEWER = "viewer"
OPERATOR = "operator"
SUPERVISOR = "supervisor"

_APPS = ("units", "domains", "cutover")
_EDITED = frozenset(
    {
        "namespace", "unit", "unittype", "cluster", "edgenode", "slb", "alarmtarget",
        "domain", "domainunit", "uri", "backsources",
        "cutover", "hook",
    }
)  # fmt: skip
"""Models an operator adds and changes; everything else is written by the services alone."""
_DELETED = frozenset(
    {
        "unit", "unittype", "cluster", "slb", "alarmtarget",
        "domain", "domainunit", "uri", "backsources",
        "hook",
    }
)  # fmt: skip

_SUPERVISED = frozenset({"safetyrules", "blockedwindow"})
"""Models a supervisor changes: what holds operators back is not theirs to loosen."""
_SUPERVISES = frozenset({"override_safety"})


def grant(sender: AppConfig, **_: Any) -> None:
    """The groups viewer, operator and supervisor exist and hold what they may do with the app just migrated.

    Runs after every ``migrate`` (and after a test has flushed the database), once Django has made the
    permissions.
    """
    if sender.label not in _APPS:
        return
    from django.contrib.auth.models import Group, Permission

    permissions = Permission.objects.filter(content_type__app_label=sender.label).select_related(
        "content_type"
    )
    viewer, _created = Group.objects.get_or_create(name=VIEWER)
    operator, _created = Group.objects.get_or_create(name=OPERATOR)
    seen = [p for p in permissions if p.codename.startswith("view_") and p.content_type.model != "apitoken"]
    viewer.permissions.add(*seen)
    supervisor, _created = Group.objects.get_or_create(name=SUPERVISOR)
    operated = [p for p in permissions if _operates(p.codename, p.content_type.model)]
    operator.permissions.add(*seen, *operated)
    supervised = [p for p in permissions if _supervises(p.codename, p.content_type.model)]
    supervisor.permissions.add(*seen, *operated, *supervised)


def _operates(codename: str, model: str) -> bool:
    action = codename.removesuffix(f"_{model}")
    if action in ("add", "change"):
        return model in _EDITED
    if action == "delete":
        return model in _DELETED
    # The permissions of our own: publish, declare_dead, start_cutover, skip_check, and so on.
    return action != "view" and action not in _SUPERVISES


def _supervises(codename: str, model: str) -> bool:
    return model in _SUPERVISED or codename in _SUPERVISES
