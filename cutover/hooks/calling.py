"""Making the calls: each claimed with a lease, outside of every lock and transaction, and recorded once.

It does not matter who calls, how often or how late: a Celery task, a thread of the console, a management
command. A call whose worker died is made again when its lease is over, under the same key; a result counts
only for the claim it was made under.
"""

import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import structlog
from django.db import transaction
from django.db.models import F, Q
from django.utils import timezone

from cutover import alarms, jobs
from cutover.hooks import answers, messages
from cutover.hooks.addresses import host_of, is_allowed
from cutover.hooks.answers import Facts, Verdict
from cutover.models import Cutover, CutoverEvent, Hook, HookRun
from units import webhooks
from units.webhooks import CallFailed

State, Moment = HookRun.State, Hook.Moment

#: How soon a hook that says "not yet", or has failed once, is asked again; ids may be frozen meanwhile.
AGAIN_S = 0.5
#: The longest wait between two calls while a step waits for them, and where nothing but an alarm does.
LONGEST_WAIT_S, LONGEST_WAIT_AFTER_S = 5.0, 30.0
#: Longer than what a call takes beyond its own time.
LEASE_SLACK = timedelta(seconds=5)
#: Nobody has made a call that was due for so long: no worker runs, or it died. Whoever looks makes it.
PICKED_UP_WITHIN = timedelta(seconds=1)
#: A thread does not wait longer than this for the next call; the look at everything finds it then.
PATIENCE_S = 2.0

log = structlog.get_logger(__name__)

_here: set[int] = set()
_here_lock = threading.Lock()


def go_on(run_id: int, for_s: float | None = None) -> float | None:
    """The run was called as often as it takes; the seconds until the next call, or None if none follows.

    Args:
        for_s: no call begins later than this; None means no limit.
    """
    deadline = None if for_s is None else time.monotonic() + for_s
    with _alone(run_id) as alone:
        while alone:
            wait_s = attempt(run_id)
            if wait_s is None:
                return None
            late = deadline is not None and time.monotonic() + wait_s > deadline
            if late or wait_s > PATIENCE_S:
                return wait_s
            time.sleep(wait_s)
    return None


def attempt(run_id: int) -> float | None:
    """The run was called once if that was due; the seconds until the next call, or None if none follows."""
    run = _read(run_id)
    if not run.open or run.next_at is None:
        return None
    if not _still_wanted(run):
        HookRun.objects.filter(pk=run.pk, state=State.PENDING).update(
            state=State.CANCELLED, finished=timezone.now()
        )
        return None
    now = timezone.now()
    if run.state == State.PENDING and run.next_at > now:
        return (run.next_at - now).total_seconds()
    if _earlier_call_under_way(run, now):
        return AGAIN_S / 2
    claim = _claimed(run, now)
    if claim is None:
        return None  # somebody else has it
    verdict, said = _called(_read(run_id))
    return _record(run_id, claim, verdict, said)


def take_over() -> None:
    """Calls that are due and that nobody makes are made by this process, each in a thread."""
    now = timezone.now()
    overdue = Q(state=State.PENDING, next_at__lt=now - PICKED_UP_WITHIN)
    lost = Q(state=State.RUNNING, next_at__isnull=False, lease_until__lt=now)
    for run_id in HookRun.objects.filter(overdue | lost, practice=False).values_list("pk", flat=True):
        jobs.in_background(partial(go_on, run_id))
    _settle_abandoned(now)


def call_due() -> int:
    """How many runs were due; each was called once, here, one after the other."""
    now = timezone.now()
    due = HookRun.objects.filter(state__in=HookRun.OPEN, practice=False, next_at__lte=now)
    pks = list(due.values_list("pk", flat=True))
    for run_id in pks:
        attempt(run_id)
    return len(pks)


# -- one call ------------------------------------------------------------------------------------------------


def _read(run_id: int) -> HookRun:
    return HookRun.objects.select_related("hook", "cutover__namespace").get(pk=run_id)


def _still_wanted(run: HookRun) -> bool:
    """Whether the step that wanted it is still the newest one; the end of a batch is told in any case."""
    if run.practice or run.moment == Moment.AFTER_RELEASE:
        return True
    return run.cutover.active and run.cutover.epoch == run.epoch


def _earlier_call_under_way(run: HookRun, now: datetime) -> bool:
    """Whether a call of an earlier step, about the same ids, may still be on its way.

    The second must not overtake it: "writes are allowed again" before "forbid writes" would forbid for ever.
    """
    if run.practice:
        return False
    elsewhere = ~Q(cutover=run.cutover_id) | Q(batch=run.batch)
    return HookRun.objects.filter(
        elsewhere,
        cutover__namespace=run.cutover.namespace_id,
        practice=False,
        epoch__lt=run.epoch,
        lease_until__gt=now,
    ).exists()


def _claimed(run: HookRun, now: datetime) -> uuid.UUID | None:
    """The claim under which the call is ours alone, or None.

    The condition looks at columns of the row alone: PostgreSQL judges those anew after a wait for its lock.
    """
    limit = timedelta(seconds=run.hook.timeout_s if run.hook else 0)
    due = Q(state=State.PENDING, next_at__lte=now)
    lost = Q(state=State.RUNNING, next_at__isnull=False, lease_until__lt=now)
    claim = uuid.uuid4()
    mine = HookRun.objects.filter(due | lost, pk=run.pk)
    claimed = mine.update(
        state=State.RUNNING, claim=claim, lease_until=now + limit + LEASE_SLACK, calls=F("calls") + 1
    )
    return claim if claimed == 1 else None


def _called(run: HookRun) -> tuple[Verdict, Facts]:
    """What came of the one call; nothing is locked meanwhile."""
    hook = run.hook
    if hook is None:
        return answers.refused("removed")
    return made(hook, messages.of_call(run), str(run.key))


def made(hook: Hook, body: messages.Body, key: str) -> tuple[Verdict, Facts]:
    """What came of one call of the hook with this body."""
    if not is_allowed(hook.url):
        return answers.refused("host", host=host_of(hook.url))
    try:
        answer = webhooks.call(hook.url, hook.secret, body, delivery=key, timeout_s=hook.timeout_s)
    except CallFailed as error:
        return answers.unanswered(error)
    return answers.judged(answer)


# -- what came of it -----------------------------------------------------------------------------------------


def _record(run_id: int, claim: uuid.UUID, verdict: Verdict, said: Facts) -> float | None:
    """The row says what came of the call, if the claim is still ours; the seconds until the next one.

    What is settled drives its cutover on at once.
    """
    with transaction.atomic():
        run = _read(run_id)
        mine = HookRun.objects.filter(pk=run_id, claim=claim)
        said = {**said, "failures": _failures(run, verdict)}
        now = timezone.now()
        columns = _columns(run, verdict, said, now)
        wanted = mine.filter(state=State.RUNNING, next_at__isnull=False)
        if not wanted.update(**columns, said=said, lease_until=None):
            _let_go(mine, verdict, said, now)
            return None
        settled = columns["state"] != State.PENDING
        log.info(
            "hook_called",
            cutover=str(run.cutover),
            hook=run.name,
            moment=run.moment,
            calls=run.calls,
            verdict=str(verdict),
            state=str(columns["state"]),
            ms=said.get("ms"),
        )
        if settled and not run.practice:
            note(run, str(columns["state"]), said)
    if run.practice:
        return None
    _alarm(run, bool(columns["stuck"]))
    if settled:
        _drive(run.cutover)
        return None
    return max(0.0, (columns["next_at"] - timezone.now()).total_seconds())


def _columns(run: HookRun, verdict: Verdict, said: Facts, now: datetime) -> dict[str, Any]:
    """The columns after the call: settled, or when the next one is due."""
    settled = {"finished": now, "stuck": False, "next_at": None}
    if verdict is Verdict.YES or (run.practice and verdict is Verdict.NOT_YET):
        return {**settled, "state": State.SUCCEEDED}
    over = verdict is Verdict.NO or now >= (run.give_up_at or now)
    if over and not kept_trying(run):
        return {**settled, "state": State.FAILED}
    stuck = over or run.stuck
    next_at = now + timedelta(seconds=_wait_s(run, verdict, said))
    if not stuck and run.give_up_at is not None:
        next_at = min(next_at, run.give_up_at)
    return {"state": State.PENDING, "stuck": stuck, "next_at": next_at}


def kept_trying(run: HookRun) -> bool:
    """Whether the run is called until it succeeds or somebody skips it, because nothing can be undone."""
    if run.practice or not run.must_succeed:
        return False
    first = run.turns == 0 and (run.moment != Moment.BEFORE_FREEZE or run.batch == 0)
    return run.moment == Moment.AFTER_RELEASE or not first or run.cutover.emergency


def _wait_s(run: HookRun, verdict: Verdict, said: Facts) -> float:
    """How long nothing is called: as the receiver asks, or ever longer while it fails."""
    after = run.moment == Moment.AFTER_RELEASE
    longest = LONGEST_WAIT_AFTER_S if after and run.stuck else LONGEST_WAIT_S
    asked = said.get("retry_after_s")
    if asked is not None:
        return float(min(max(asked, AGAIN_S / 2), longest))
    if verdict is Verdict.NOT_YET:
        return longest if after else AGAIN_S
    return float(min(AGAIN_S * 2 ** min(said["failures"] - 1, 10), longest))


def _failures(run: HookRun, verdict: Verdict) -> int:
    """How many calls in a row were neither a yes nor a "not yet"."""
    if verdict in (Verdict.YES, Verdict.NOT_YET):
        return 0
    return int(run.said.get("failures", 0)) + 1


def _let_go(mine: Any, verdict: Verdict, said: Facts, now: datetime) -> None:
    """The call that was overtaken or skipped meanwhile is over; what it answered is kept."""
    state = State.SUCCEEDED if verdict is Verdict.YES else State.CANCELLED
    mine.filter(state=State.RUNNING).update(state=state, finished=now)
    mine.update(said=said, lease_until=None)


def _settle_abandoned(now: datetime) -> None:
    """Calls that were overtaken while their worker died are over; alarms that nothing backs are cleared."""
    HookRun.objects.filter(state=State.RUNNING, next_at=None, lease_until__lt=now).update(
        state=State.CANCELLED, finished=now, lease_until=None
    )
    alarms.settle_hooks()


def note(run: HookRun, state: str, said: Facts, **more: Any) -> None:
    """The timeline says what became of the run."""
    data = {
        "hook": run.name,
        "moment": run.moment,
        "batch": run.batch,
        "turns": run.turns,
        "outcome": run.outcome,
        "must_succeed": run.must_succeed,
        "state": state,
        "calls": run.calls,
        "said": said,
        **more,
    }
    CutoverEvent.objects.create(cutover=run.cutover, kind="hook", data=data)


def _alarm(run: HookRun, stuck: bool) -> None:
    if stuck:
        alarms.hooks_stuck(run.cutover)
    elif run.stuck:
        alarms.settle_hooks()


def _drive(cutover: Cutover) -> None:
    """The cutover takes the steps that the answer allows."""
    from cutover import driving, steps  # it drives the calls, too

    if Cutover.objects.filter(pk=cutover.pk, state__in=Cutover.ACTIVE).exists():
        driving.advance_safely(cutover.pk, steps.advance)


@contextmanager
def _alone(run_id: int) -> Iterator[bool]:
    """Whether no other thread of this process goes on with the run."""
    with _here_lock:
        alone = run_id not in _here
        _here.add(run_id)
    try:
        yield alone
    finally:
        if alone:
            with _here_lock:
                _here.discard(run_id)
