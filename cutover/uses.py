"""What a running cutover relies on, so that nobody removes it (PROTOCOL P3); drafts for the apps below."""

from django.urls import NoReverseMatch, reverse
from django.utils.translation import gettext

from cutover import drafts
from cutover.models import Cutover
from cutover.rules import Document, in_effect, key_space_of, same_rule
from domains.services import Draft
from msha.steering.ranges import MovedIds
from units.in_use import Kind, Thing
from units.models import Namespace


def running(namespace_id: int) -> Cutover | None:
    """The active cutover of the namespace, or None."""
    return Cutover.objects.filter(namespace=namespace_id, state__in=Cutover.ACTIVE).first()


def units_of(cutover: Cutover) -> frozenset[str]:
    """Codes of the units that lose or gain ids."""
    moved = MovedIds.from_lists(cutover.moved)
    return moved.losing_units | moved.gaining_units


def sentence_against(namespace: Namespace, thing: Thing) -> str | None:
    """Why the thing must stay until the running cutover has ended, or None."""
    cutover = running(namespace.pk)
    if cutover is None or not _concerns(cutover, thing):
        return None
    return gettext(
        "Cutover %(cutover)s is running and uses %(thing)s."
        " It cannot be removed or moved until the cutover has ended."
    ) % {"cutover": cutover, "thing": thing}


def _concerns(cutover: Cutover, thing: Thing) -> bool:
    match thing.kind:
        case Kind.UNIT_TYPE:
            return thing.name == cutover.unit_type
        case Kind.UNIT:
            return thing.name in units_of(cutover)
        case Kind.DOMAIN:
            return True
        case _:
            return thing.unit == "" or thing.unit in units_of(cutover)


def make_draft(namespace: Namespace, unit_type: str, entry: Document, *, actor: str, reason: str) -> Draft:
    """The cutover that asks for this rule: the running one, an open draft or a new one.

    The saved rule becomes the one in effect only when its cutover ends; until then it is not forgotten, and
    asking for it again must not draft it a second time (`domains.services.DraftMaker`).
    """
    cutover = running(namespace.pk)
    if cutover is None or cutover.unit_type != unit_type or not _asks_for(cutover, entry):
        cutover = drafts.open_draft(namespace, unit_type, entry=entry, actor=actor, reason=reason)
    return Draft(cutover.number, _address(cutover))


def rules_under_way(namespace: Namespace, unit_type: str) -> list[Document]:
    """The rules before and after the running cutover of this unit type.

    A saved rule that is one of them is settled when the cutover ends; between its steps the table in effect
    is neither, and nobody is to be asked to publish the difference (`domains.unpublished.RulesUnderWay`).
    """
    cutover = running(namespace.pk)
    if cutover is None or cutover.unit_type != unit_type:
        return []
    return [cutover.old_rule, cutover.new_rule]


def _asks_for(cutover: Cutover, entry: Document) -> bool:
    space = key_space_of(in_effect(cutover.namespace)["rule"])
    return same_rule(cutover.new_rule, entry, space)


def _address(cutover: Cutover) -> str:
    try:
        return reverse("cutover:cutover", args=[cutover.pk])
    except NoReverseMatch:  # an installation without pages
        return ""
