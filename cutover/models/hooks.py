"""Whom a cutover calls on its way, and what they answered."""

from django.db import models
from django.utils.translation import gettext_lazy as _

from cutover.models.cutovers import Cutover
from units.models import Dated, Namespace


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
    name = models.CharField(_("name"), max_length=63)
    moment = models.CharField(_("moment"), max_length=20, choices=Moment)
    url = models.URLField(_("address"), max_length=500)
    secret = models.CharField(
        _("secret"),
        max_length=200,
        help_text=_("Signs every call (HMAC-SHA256); the receiver knows it, too."),
    )
    must_succeed = models.BooleanField(
        _("must succeed"),
        default=True,
        help_text=_("Otherwise a failure is noted and the cutover goes on."),
    )
    timeout_s = models.PositiveSmallIntegerField(
        _("time for one call, in seconds"), default=5, help_text=_("After that the call has failed.")
    )
    deadline_s = models.PositiveSmallIntegerField(
        _("time in all, in seconds"),
        default=30,
        help_text=_(
            "With all retries. While a hook at FREEZE or before ACTIVATE is awaited, ids are frozen."
        ),
    )
    enabled = models.BooleanField(_("in use"), default=True)

    class Meta:
        verbose_name = _("hook")
        verbose_name_plural = _("hooks")
        ordering = ("namespace", "moment", "pk")
        constraints = [models.UniqueConstraint(fields=("namespace", "name"), name="hook_name")]

    def __str__(self) -> str:
        return self.name


class HookRun(models.Model):
    """One hook at one moment of one cutover; what it was told, and what it answered."""

    class State(models.TextChoices):
        PENDING = "pending", _("pending")
        RUNNING = "running", _("running")
        SUCCEEDED = "succeeded", _("succeeded")
        FAILED = "failed", _("failed")
        SKIPPED = "skipped", _("skipped")

    cutover = models.ForeignKey(Cutover, models.PROTECT, related_name="hook_runs", verbose_name=_("cutover"))
    hook = models.ForeignKey(Hook, models.SET_NULL, null=True, related_name="runs", verbose_name=_("hook"))
    name = models.CharField(_("name"), max_length=63)
    moment = models.CharField(_("moment"), max_length=20, choices=Hook.Moment)
    practice = models.BooleanField(_("practice"), default=False)
    batch = models.PositiveSmallIntegerField(_("batch"), default=0)
    turns = models.PositiveSmallIntegerField(_("turns"), default=0)
    must_succeed = models.BooleanField(_("must succeed"), default=True)
    state = models.CharField(_("state"), max_length=10, choices=State, default=State.PENDING)
    calls = models.PositiveIntegerField(_("calls"), default=0)
    answer = models.TextField(_("last answer"), blank=True)
    next_at = models.DateTimeField(_("next call"), null=True, blank=True)
    started = models.DateTimeField(_("started"), null=True, blank=True)
    finished = models.DateTimeField(_("finished"), null=True, blank=True)
    skipped_by = models.CharField(_("skipped by"), max_length=150, blank=True)
    skip_reason = models.TextField(_("reason of the skip"), blank=True)

    class Meta:
        verbose_name = _("hook call")
        verbose_name_plural = _("hook calls")
        ordering = ("cutover", "pk")
        constraints = [
            models.UniqueConstraint(
                fields=("cutover", "name", "moment", "batch", "turns"),
                condition=models.Q(practice=False),
                name="hook_run_once",
            )
        ]

    def __str__(self) -> str:
        return f"{self.cutover} {self.name}"
