"""Whom a cutover calls on its way, and what they answered."""

import re
import uuid

from django.core.validators import MaxValueValidator, MinLengthValidator, MinValueValidator, RegexValidator
from django.db import models
from django.utils.translation import gettext_lazy as _

from cutover.models.cutovers import Cutover
from units import webhooks
from units.models import Dated, Namespace

#: A call must fit into a Celery task of ten seconds; who needs longer answers "not yet" and is asked again.
CALL_LIMIT_S = 8
DEADLINE_LIMIT_S = 3600
SECRET_MIN = 16

_name = RegexValidator(
    re.compile(r"\A[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,62})\Z"),
    _("Use letters, digits, dot, dash and underscore, beginning with a letter or digit."),
)


class Hook(Dated):
    """An HTTP address that is called at a moment of every cutover of a namespace."""

    class Moment(models.TextChoices):
        BEFORE_FREEZE = "before_freeze", _("before FREEZE")
        AT_FREEZE = "at_freeze", _("at FREEZE")
        BEFORE_ACTIVATE = "before_activate", _("before ACTIVATE")
        AFTER_RELEASE = "after_release", _("after RELEASE")

    namespace = models.ForeignKey(
        Namespace, models.CASCADE, related_name="hooks", verbose_name=_("namespace")
    )
    name = models.CharField(_("name"), max_length=63, validators=[_name])
    moment = models.CharField(_("moment"), max_length=20, choices=Moment)
    url = models.CharField(
        _("address"),
        max_length=500,
        validators=[webhooks.check_address],
        help_text=_("http:// or https://; everybody who may look at cutovers sees it."),
    )
    secret = models.CharField(
        _("secret"),
        max_length=200,
        validators=[MinLengthValidator(SECRET_MIN)],
        help_text=_("Signs every call (HMAC-SHA256); the receiver knows it, too. It is never shown again."),
    )
    must_succeed = models.BooleanField(
        _("must succeed"),
        default=True,
        help_text=_("Otherwise a failure is noted and the cutover goes on."),
    )
    timeout_s = models.PositiveSmallIntegerField(
        _("time for one call, in seconds"),
        default=5,
        validators=[MinValueValidator(1), MaxValueValidator(CALL_LIMIT_S)],
        help_text=_("After that the call has failed. Work that takes longer answers 202 and is asked again."),
    )
    deadline_s = models.PositiveSmallIntegerField(
        _("time in all, in seconds"),
        default=30,
        validators=[MinValueValidator(1), MaxValueValidator(DEADLINE_LIMIT_S)],
        help_text=_(
            "With all retries. While a hook at FREEZE or before ACTIVATE is awaited, ids are frozen."
        ),
    )
    enabled = models.BooleanField(_("in use"), default=True)

    class Meta:
        verbose_name = _("hook")
        verbose_name_plural = _("hooks")
        ordering = ("namespace", "moment", "pk")
        constraints = [
            models.UniqueConstraint(
                fields=("namespace", "name"),
                name="hook_name",
                violation_error_message=_("This namespace already has a hook with this name."),
            )
        ]

    def __str__(self) -> str:
        return self.name


class HookRun(models.Model):
    """One hook at one moment of one cutover; what it was told, and what it answered.

    A row is claimed for each call by a conditional UPDATE on its own columns, with a lease, so that a call of
    a worker that died is made again by another one, under the same key.
    """

    class State(models.TextChoices):
        PENDING = "pending", _("pending")
        RUNNING = "running", _("running")
        SUCCEEDED = "succeeded", _("succeeded")
        FAILED = "failed", _("failed")
        SKIPPED = "skipped", _("skipped")
        CANCELLED = "cancelled", _("no longer wanted")

    class Outcome(models.TextChoices):
        MOVED = "moved", _("moved")
        ABORTED = "aborted", _("aborted")

    OPEN = (State.PENDING, State.RUNNING)

    key = models.UUIDField(
        _("id"),
        default=uuid.uuid4,
        editable=False,
        help_text=_("The same in every call of this run."),
    )
    cutover = models.ForeignKey(Cutover, models.PROTECT, related_name="hook_runs", verbose_name=_("cutover"))
    hook = models.ForeignKey(Hook, models.SET_NULL, null=True, related_name="runs", verbose_name=_("hook"))
    name = models.CharField(_("name"), max_length=63)
    moment = models.CharField(_("moment"), max_length=20, choices=Hook.Moment)
    outcome = models.CharField(
        _("outcome"),
        max_length=10,
        choices=Outcome,
        blank=True,
        help_text=_("After RELEASE: whether the ids of the batch moved, or stayed because it was undone."),
    )
    practice = models.BooleanField(_("practice"), default=False)
    batch = models.PositiveSmallIntegerField(_("batch"), default=0)
    turns = models.PositiveSmallIntegerField(_("turns"), default=0)
    epoch = models.PositiveBigIntegerField(
        _("epoch"), default=0, help_text=_("Of the step that wanted it; a higher one has overtaken it.")
    )
    must_succeed = models.BooleanField(_("must succeed"), default=True)
    state = models.CharField(_("state"), max_length=10, choices=State, default=State.PENDING)
    stuck = models.BooleanField(
        _("stuck"),
        default=False,
        help_text=_("It has failed where nothing can be undone: tried until it succeeds or is skipped."),
    )
    told = models.JSONField(_("what it is told"), default=dict, blank=True)
    calls = models.PositiveIntegerField(_("calls"), default=0)
    said = models.JSONField(_("last answer"), default=dict, blank=True)
    started = models.DateTimeField(_("wanted since"), null=True, blank=True)
    next_at = models.DateTimeField(
        _("next call"),
        null=True,
        blank=True,
        help_text=_("Empty: none, whatever becomes of the present one."),
    )
    give_up_at = models.DateTimeField(_("deadline"), null=True, blank=True)
    claim = models.UUIDField(_("claim"), null=True, editable=False)
    lease_until = models.DateTimeField(_("claimed until"), null=True, blank=True)
    finished = models.DateTimeField(_("finished"), null=True, blank=True)
    skipped_by = models.CharField(_("skipped by"), max_length=150, blank=True)
    skip_reason = models.TextField(_("reason of the skip"), blank=True)

    class Meta:
        verbose_name = _("hook call")
        verbose_name_plural = _("hook calls")
        ordering = ("cutover", "pk")
        constraints = [
            models.UniqueConstraint(
                fields=("cutover", "name", "moment", "epoch"),
                condition=models.Q(practice=False),
                name="hook_run_once",
            )
        ]
        indexes = [models.Index(fields=("state", "next_at"), name="hook_run_due")]

    def __str__(self) -> str:
        return f"{self.cutover} {self.name}"

    @property
    def open(self) -> bool:
        """Whether it is still to be called, or being called."""
        return self.state in self.OPEN

    @property
    def backwards(self) -> bool:
        """Whether its ids are on their way back."""
        return self.turns % 2 == 1

    @property
    def answer(self) -> str:
        """What was answered last, in the reader's language."""
        from cutover.hooks.answers import sentence  # models come first

        return sentence(self.said)
