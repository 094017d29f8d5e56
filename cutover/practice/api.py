"""The API of practice runs."""

from typing import Any

from django.http import HttpRequest
from ninja import Router, Schema

from cutover import services
from cutover.api import CHANGE, cutover_for
from cutover.practice import shown

router = Router(tags=["practice"])


class PracticeOut(Schema):
    id: int
    state: str
    by: str
    started: str
    finished: str | None
    sentence: str
    checks: list[dict[str, Any]]
    hooks: list[dict[str, Any]]
    drain: dict[str, Any] | None
    recovery: list[dict[str, Any]]
    error: str


@router.post(
    "/namespaces/{namespace}/cutovers/{number}/practice",
    response=PracticeOut,
    summary="Practise a cutover that has a preview: everything but the moving",
)
def practise(request: HttpRequest, namespace: str, number: str) -> dict[str, Any]:
    found = cutover_for(request, namespace, number, CHANGE)
    return shown.practice(services.practise(found, str(request.user)))


@router.get(
    "/namespaces/{namespace}/cutovers/{number}/practice",
    response=list[PracticeOut],
    summary="Its practice runs, the newest first",
)
def practices(request: HttpRequest, namespace: str, number: str) -> list[dict[str, Any]]:
    return shown.practices(cutover_for(request, namespace, number))
