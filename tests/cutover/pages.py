"""Operators with a browser, for tests of pages."""

from django.contrib.auth.models import Group, User
from django.test import Client

from cutover.models import Cutover

CSP_FREE_NAMES = ("onclick=", "onchange=", "onsubmit=", "onload=", "javascript:")


def signed_in(group: str | None, *, staff: bool = True) -> Client:
    """A client whose user is a member of the group, or of none."""
    user = User.objects.create_user(f"{group or 'nobody'}-{User.objects.count()}", is_staff=staff)
    if group is not None:
        user.groups.add(Group.objects.get(name=group))
    client = Client()
    client.force_login(user)
    return client


def page_of(cutover: Cutover, place: str) -> str:
    """The address of a step."""
    return f"/cutover/{cutover.pk}/{place}/"


def table(*rows: tuple[str, int], **more: str) -> dict[str, object]:
    """What the form of the ranges sends: of each range its unit and its last id."""
    return {"unit": [unit for unit, _ in rows], "last": [str(last) for _, last in rows], **more}
