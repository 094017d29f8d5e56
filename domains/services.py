"""Putting what is saved into effect.

Saved is not in effect. Putting into effect replaces the config part and copies the rule part; what changes
the owner of an id becomes the draft of a cutover instead (PROTOCOL P1, P2).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from django.db import transaction
from django.utils.translation import gettext

from domains.errors import Refused, SavedMeanwhile
from domains.hosts import refuse_taken_hosts
from domains.unpublished import (
    RuleDifference,
    Unpublished,
    compose_config,
    compose_rule_from_saved,
    has_unpublished_changes,
    pending_domains,
    register_rules_under_way,
    unpublished_changes,
    unsettled_rules,
)
from msha.steering.errors import MshaError
from units import audit, publishing
from units.errors import VersionConflict
from units.models import Namespace, Snapshot, UnitType
from units.publishing import Change

__all__ = [
    "Draft",
    "DraftMaker",
    "Outcome",
    "Unpublished",
    "compose_config",
    "compose_rule_from_saved",
    "has_unpublished_changes",
    "pending_domains",
    "put_into_effect",
    "register_draft_maker",
    "register_rules_under_way",
    "revert_saved_rules",
    "unpublished_changes",
]

Document = dict[str, Any]

# -- drafts of cutovers --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Draft:
    """The draft of a cutover that would bring a saved rule into effect.

    Attributes:
        url: the page where it goes on.
    """

    number: int
    url: str


class DraftMaker(Protocol):
    """Makes the draft of a cutover to ``entry``, or finds the open one that asks for the same.

    Called in the transaction that holds the namespace's lock.

    Raises:
        MshaError: why there can be none; its sentence is shown and nothing else is undone.
    """

    def __call__(
        self, namespace: Namespace, unit_type: str, entry: Document, *, actor: str, reason: str
    ) -> Draft: ...


_draft_maker: DraftMaker | None = None


def register_draft_maker(maker: DraftMaker) -> None:
    """From now on changes of ownership become drafts made by ``maker``."""
    global _draft_maker
    _draft_maker = maker


# -- putting into effect -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """What putting into effect did.

    Attributes:
        snapshot: the new version, or None when the configuration was in effect already.
        drafts: drafts of cutovers for what only a cutover may change.
        sentences: all of it for people.
    """

    snapshot: Snapshot | None
    drafts: Sequence[Draft] = ()
    sentences: Sequence[str] = ()

    @property
    def cutover_draft(self) -> Draft | None:
        """The first draft."""
        return self.drafts[0] if self.drafts else None


def put_into_effect(
    namespace: Namespace,
    actor: object,
    comment: str = "",
    *,
    expected_version: int | None = None,
    seen: str | None = None,
) -> Outcome:
    """What is saved is published, but for changes of ownership, which are left as drafts of cutovers.

    Args:
        expected_version: the version in effect that the caller looked at; refuse if it is another one now.
        seen: of the changes that the caller looked at; refuse if other ones would come into effect.

    Raises:
        Refused, InvalidSnapshot, InUse, VersionConflict, PublishingStopped: nothing has changed; the
            sentence says why.
    """
    with transaction.atomic():
        locked = publishing.locked(namespace.pk)
        if expected_version is not None and locked.version != expected_version:
            raise VersionConflict(locked.name, expected_version, locked.version)
        changes = unpublished_changes(locked)
        if seen is not None and seen != changes.seen:
            raise SavedMeanwhile(locked.name)
        if changes.obstacles:
            raise Refused(" ".join(changes.obstacles))
        refuse_taken_hosts(locked)
        snapshot = _publish(locked, changes, actor, comment)
        drafts, sentences = _leave_drafts(locked, changes.rules, str(actor), comment)
        namespace.refresh_from_db()
    if snapshot is not None:
        in_effect = gettext("Version %(version)d is in effect.") % {"version": snapshot.version}
    else:
        in_effect = gettext("The configuration of version %(version)d is in effect already.") % {
            "version": changes.version
        }
    return Outcome(snapshot, drafts, [in_effect, *sentences])


def _publish(namespace: Namespace, changes: Unpublished, actor: object, comment: str) -> Snapshot | None:
    if not changes.config_changed:
        return None

    def compute(_: Namespace, document: Document | None) -> Change:
        return Change(changes.config_saved, changes.rule_saved if document is None else None)

    # The caller's transaction holds the lock since before it composed the change.
    return publishing.publish(namespace.pk, author=actor, comment=comment, compute=compute)


def _leave_drafts(
    namespace: Namespace, differences: Sequence[RuleDifference], actor: str, comment: str
) -> tuple[list[Draft], list[str]]:
    """Drafts for the rules that differ from those in effect, and what to say about each."""
    drafts, sentences = [], []
    for difference in differences:
        assert difference.saved is not None
        named = {"name": difference.name, "what": str(difference)}
        try:
            if _draft_maker is None:
                raise Refused(gettext("no cutover is installed"))
            with transaction.atomic():
                draft = _draft_maker(
                    namespace, difference.name, difference.saved, actor=actor, reason=comment
                )
        except MshaError as error:
            sentences.append(
                gettext(
                    "Not in effect: %(what)s. Owners change only by a cutover, and no draft could be"
                    " made: %(reason)s"
                )
                % {**named, "reason": error}
            )
            continue
        drafts.append(draft)
        sentences.append(
            gettext(
                "Not in effect yet: %(what)s. Owners change only by a cutover; draft #%(number)d is"
                " prepared for it."
            )
            % {**named, "number": draft.number}
        )
    return drafts, sentences


def revert_saved_rules(namespace: Namespace, actor: object, reason: str = "") -> list[str]:
    """The saved rules are those in effect again; returns the names of the unit types that changed.

    Raises:
        Refused: nothing is in effect yet.
    """
    with transaction.atomic():
        locked = publishing.locked(namespace.pk)
        document = publishing.in_effect(locked)
        if document is None:
            raise Refused(gettext("Nothing of this namespace is in effect yet."))
        changed = []
        for difference in unsettled_rules(locked, document["rule"], compose_rule_from_saved(locked)):
            assert difference.in_effect is not None
            entry = {key: value for key, value in difference.in_effect.items() if key != "name"}
            UnitType.objects.filter(namespace=locked, name=difference.name).update(**entry)
            audit.record(
                actor,
                "unit_type.revert",
                difference.name,
                namespace=locked,
                before=difference.saved,
                after=difference.in_effect,
                reason=reason,
            )
            changed.append(difference.name)
    return changed
