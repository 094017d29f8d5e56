"""Starting: a checked cutover takes the active place of its namespace, or a sentence says what is missing."""

from collections.abc import Callable

from django.db import IntegrityError, transaction
from django.utils import timezone
from django.utils.translation import gettext

from cutover import alarms, jobs, previews, rules
from cutover.errors import InvalidChange, Refused, StalePreview
from cutover.hooks.holding import refuse_while_calls_are_open
from cutover.models import Check, Cutover, CutoverEvent
from cutover.pacing import planning
from cutover.safety import approval, guarding
from units import audit, publishing

State = Cutover.State

#: Each raises `Refused` where a checked cutover must not start yet; called under the namespace's lock.
GUARDS: tuple[Callable[[Cutover], None], ...] = (
    guarding.refuse_unsafe,
    guarding.refuse_unapproved,
    planning.refuse_unweighed,
    refuse_while_calls_are_open,
)


def start(cutover: Cutover, actor: str, typed_namespace: str) -> Cutover:
    """The cutover holds the active place of its namespace, and its first step is on its way.

    Raises:
        StalePreview: the tables in effect are not those of the preview.
        Refused: the name was mistyped, checks are open, or another cutover is running; says what to do.
    """
    if typed_namespace.strip() != cutover.namespace.name:
        raise Refused(
            gettext("Type the name of the namespace, %(name)s, to start the cutover.")
            % {"name": cutover.namespace.name}
        )
    planning.weigh(Cutover.objects.select_related("namespace").get(pk=cutover.pk))
    try:
        with transaction.atomic():
            _claim_start(Cutover.objects.select_related("namespace").get(pk=cutover.pk), actor)
    except IntegrityError as error:
        raise Refused(_forbidden_by_the_database(cutover, error)) from error
    jobs.start(cutover.pk)
    cutover.refresh_from_db()
    return cutover


def _claim_start(cutover: Cutover, actor: str) -> None:
    namespace = publishing.locked(cutover.namespace_id)
    cutover.refresh_from_db()
    if not cutover.editable:
        raise Refused(
            gettext("Cutover %(cutover)s is %(state)s; it cannot be started again.")
            % {"cutover": cutover, "state": cutover.get_state_display()}
        )
    if cutover.state == State.DRAFT:
        raise Refused(gettext("Generate the preview of cutover %(cutover)s first.") % {"cutover": cutover})
    document = rules.in_effect(namespace)
    if previews.is_stale(cutover, document):
        raise StalePreview(
            gettext(
                "The rule in effect has changed since the preview of cutover %(cutover)s."
                " Generate the preview again."
            )
            % {"cutover": cutover}
        )
    _refuse_unfit(cutover, document)
    _refuse_open_checks(cutover)
    for guard in GUARDS:
        guard(cutover)
    if Cutover.objects.filter(namespace=namespace, state__in=Cutover.ACTIVE).exists():
        raise Refused(_another_runs(cutover))
    now = timezone.now()
    rows = Cutover.objects.filter(pk=cutover.pk, state=State.CHECKED)
    claimed = rows.update(
        state=State.STARTING,
        approval_needed=approval.needed(namespace),  # the database refuses this row without an approver
        started_by=actor[:150],
        started_at=now,
        phase_at=now,
        updated=now,
    )
    if claimed != 1:
        raise Refused(gettext("Run the checks of cutover %(cutover)s first.") % {"cutover": cutover})
    CutoverEvent.objects.create(cutover=cutover, kind="started", data={"by": actor}, at=now)
    audit.record(
        actor,
        "cutover.start",
        cutover,
        namespace=namespace,
        before={"state": cutover.state},
        after={"state": State.STARTING, "moved": cutover.moved},
        reason=cutover.reason,
    )
    alarms.clear_undone(namespace.pk)


def _refuse_unfit(cutover: Cutover, document: rules.Document) -> None:
    """Nothing, if every unit that the new rule names is still there."""
    try:
        rules.checked(document, cutover.new_rule)
    except InvalidChange as error:
        raise Refused(
            gettext(
                "The new rule of cutover %(cutover)s does not fit any more (%(problem)s). Adjust the draft."
            )
            % {"cutover": cutover, "problem": str(error).rstrip(".")}
        ) from error


def _refuse_open_checks(cutover: Cutover) -> None:
    checks = list(cutover.checks.all())
    open_ones = [c for c in checks if c.state not in (Check.State.PASSED, Check.State.SKIPPED)]
    if not checks:
        raise Refused(gettext("Run the checks of cutover %(cutover)s first.") % {"cutover": cutover})
    if open_ones:
        titles = ", ".join(check.title for check in open_ones)
        raise Refused(
            gettext("These checks are not passed: %(titles)s. Retry each of them, or skip it with a reason.")
            % {"titles": titles}
        )


def _forbidden_by_the_database(cutover: Cutover, error: IntegrityError) -> str:
    """What somebody did at the same moment, as the constraint that was hit says it."""
    if "cutover_approved" in str(error):
        return gettext("Somebody has just changed this cutover. Look at it again, then start it.")
    return _another_runs(cutover)


def _another_runs(cutover: Cutover) -> str:
    other = Cutover.objects.filter(namespace=cutover.namespace_id, state__in=Cutover.ACTIVE).first()
    return gettext(
        "Another cutover of namespace %(namespace)s is running (%(other)s)."
        " Wait for its end, abort it or turn it around."
    ) % {"namespace": cutover.namespace.name, "other": other or "?"}
