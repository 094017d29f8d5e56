"""Cutovers: what moves, which step runs, what was checked, and what happened."""

from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import get_language
from django.utils.translation import gettext_lazy as _

from units.models import AppendOnlyModel, Dated, Namespace


class Cutover(Dated):
    class State(models.TextChoices):
        DRAFT = "draft", _("draft")
        PREVIEWED = "previewed", _("previewed")
        CHECKING = "checking", _("checking")
        CHECKED = "checked", _("checked")
        STARTING = "starting", _("starting")
        PREPARE = "prepare", _("prepare")
        FREEZE = "freeze", _("freeze")
        ACTIVATE = "activate", _("activate")
        RELEASE = "release", _("release")
        ABORTING = "aborting", _("aborting")
        DONE = "done", _("done")
        ABORTED = "aborted", _("aborted")
        DISCARDED = "discarded", _("discarded")

    BEFORE = (State.DRAFT, State.PREVIEWED, State.CHECKING, State.CHECKED)
    ACTIVE = (State.STARTING, State.PREPARE, State.FREEZE, State.ACTIVATE, State.RELEASE, State.ABORTING)
    ENDED = (State.DONE, State.ABORTED, State.DISCARDED)

    namespace = models.ForeignKey(
        Namespace, models.PROTECT, related_name="cutovers", verbose_name=_("namespace")
    )
    number = models.PositiveIntegerField(_("number"), help_text=_("Counts the cutovers of the namespace."))
    unit_type = models.CharField(_("unit type"), max_length=63)
    state = models.CharField(_("state"), max_length=12, choices=State, default=State.DRAFT)
    batch = models.PositiveSmallIntegerField(
        _("batch"), default=0, help_text=_("Index of the slice of ids that is moving.")
    )
    turns = models.PositiveSmallIntegerField(
        _("turns"),
        default=0,
        help_text=_("How often this batch was turned round; odd means on the way back."),
    )
    epoch = models.PositiveBigIntegerField(
        _("epoch"), default=0, help_text=_("The epoch under which the running step was published.")
    )
    base_version = models.PositiveBigIntegerField(_("previewed against version"), default=0)
    base_digest = models.CharField(
        _("digest of the rules previewed against"),
        max_length=64,
        blank=True,
        help_text=_("Of key space and unit types, without epoch and running cutover."),
    )
    old_rule = models.JSONField(_("rule before"), default=dict)
    new_rule = models.JSONField(_("rule after"), default=dict)
    moved = models.JSONField(
        _("moved ids"),
        default=list,
        help_text=_("[[first, last, losing unit, gaining unit], ...], inclusive."),
    )
    plan = models.JSONField(
        _("plan"),
        default=dict,
        blank=True,
        help_text=_("Key space, batches and gaining clusters, fixed at the start."),
    )
    impact = models.JSONField(
        _("impact"),
        default=dict,
        blank=True,
        help_text=_("Live sessions of the moved ids as counted for the preview."),
    )
    created_by = models.CharField(_("created by"), max_length=150, blank=True)
    started_by = models.CharField(_("started by"), max_length=150, blank=True)
    reason = models.TextField(_("reason"), blank=True)
    rollback_of = models.ForeignKey(
        "self",
        models.PROTECT,
        related_name="rollbacks",
        null=True,
        blank=True,
        verbose_name=_("roll back of"),
    )
    started_at = models.DateTimeField(_("started"), null=True, blank=True)
    phase_at = models.DateTimeField(_("step began"), null=True, blank=True)
    ended_at = models.DateTimeField(_("ended"), null=True, blank=True)
    outcome = models.TextField(_("outcome"), blank=True)
    figures = models.JSONField(_("figures"), default=dict, blank=True)

    class Meta:
        verbose_name = _("cutover")
        verbose_name_plural = _("cutovers")
        ordering = ("namespace", "-number")
        permissions = [
            ("start_cutover", _("Can start a cutover")),
            ("skip_check", _("Can skip a failed check")),
        ]
        constraints = [
            models.UniqueConstraint(fields=("namespace", "number"), name="cutover_number"),
            models.UniqueConstraint(
                fields=("namespace",),
                condition=Q(state__in=("starting", "prepare", "freeze", "activate", "release", "aborting")),
                name="cutover_one_active",
                violation_error_message=_("Another cutover of this namespace is running."),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.namespace} #{self.number}"

    @property
    def active(self) -> bool:
        """Whether it holds the one active place of its namespace."""
        return self.state in self.ACTIVE

    @property
    def ended(self) -> bool:
        return self.state in self.ENDED

    @property
    def editable(self) -> bool:
        """Whether its rule may still be adjusted."""
        return not self.active and not self.ended

    @property
    def turned(self) -> bool:
        """Whether ids are on their way back to their old owners."""
        return self.turns % 2 == 1


class Check(models.Model):
    class State(models.TextChoices):
        PENDING = "pending", _("pending")
        RUNNING = "running", _("running")
        PASSED = "passed", _("passed")
        FAILED = "failed", _("failed")
        SKIPPED = "skipped", _("skipped")

    cutover = models.ForeignKey(Cutover, models.CASCADE, related_name="checks", verbose_name=_("cutover"))
    key = models.CharField(_("key"), max_length=60)
    title = models.CharField(_("title"), max_length=200)
    state = models.CharField(_("state"), max_length=10, choices=State, default=State.PENDING)
    reason = models.TextField(_("reason"), blank=True)
    reasons = models.JSONField(
        _("reason in other languages"),
        default=dict,
        blank=True,
        help_text=_("The same sentence by language, for whoever reads it."),
    )
    attempt = models.PositiveIntegerField(_("attempt"), default=0)
    skipped_by = models.CharField(_("skipped by"), max_length=150, blank=True)
    skip_reason = models.TextField(_("reason of the skip"), blank=True)
    started = models.DateTimeField(_("started"), null=True, blank=True)
    finished = models.DateTimeField(_("finished"), null=True, blank=True)

    class Meta:
        verbose_name = _("check")
        verbose_name_plural = _("checks")
        ordering = ("cutover", "pk")
        constraints = [models.UniqueConstraint(fields=("cutover", "key"), name="check_key")]

    def __str__(self) -> str:
        return self.title

    @property
    def said(self) -> str:
        """The reason in the language of whoever reads it."""
        return str(self.reasons.get(get_language() or "", self.reason))


class CutoverEvent(AppendOnlyModel):
    """One line of a cutover's timeline."""

    cutover = models.ForeignKey(Cutover, models.PROTECT, related_name="events", verbose_name=_("cutover"))
    at = models.DateTimeField(_("at"), default=timezone.now)
    kind = models.CharField(_("kind"), max_length=40)
    data = models.JSONField(_("data"), default=dict, blank=True)

    class Meta:
        verbose_name = _("cutover event")
        verbose_name_plural = _("cutover events")
        ordering = ("cutover", "at", "pk")

    def __str__(self) -> str:
        return f"{self.cutover} {self.kind}"


class ProgressSample(models.Model):
    """Sessions closed, remaining and reconnected at one moment of a cutover."""

    cutover = models.ForeignKey(Cutover, models.CASCADE, related_name="samples", verbose_name=_("cutover"))
    at = models.DateTimeField(_("at"), default=timezone.now)
    closed = models.PositiveIntegerField(_("closed"), default=0)
    remaining = models.PositiveIntegerField(_("remaining"), default=0)
    reconnected = models.PositiveIntegerField(_("reconnected"), default=0)

    class Meta:
        verbose_name = _("progress")
        verbose_name_plural = _("progress")
        ordering = ("cutover", "at", "pk")

    def __str__(self) -> str:
        return f"{self.cutover} {self.at:%H:%M:%S}"
