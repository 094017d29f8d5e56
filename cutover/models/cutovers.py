"""A cutover: what moves, how it is paced, which step runs."""

from django.db import models
from django.db.models import F, Q
from django.utils.translation import gettext_lazy as _

from units.models import Dated, Namespace


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

    class Kind(models.TextChoices):
        TABLE = "table", _("ranges and exact ids")
        SHIFT = "shift", _("a share of the ids")
        ZERO = "zero", _("cut to zero")
        ROLLBACK = "rollback", _("roll back")

    class Mode(models.TextChoices):
        PLANNED = "planned", _("planned")
        EMERGENCY = "emergency", _("emergency")

    BEFORE = (State.DRAFT, State.PREVIEWED, State.CHECKING, State.CHECKED)
    ACTIVE = (State.STARTING, State.PREPARE, State.FREEZE, State.ACTIVATE, State.RELEASE, State.ABORTING)
    ENDED = (State.DONE, State.ABORTED, State.DISCARDED)

    namespace = models.ForeignKey(
        Namespace, models.PROTECT, related_name="cutovers", verbose_name=_("namespace")
    )
    number = models.PositiveIntegerField(_("number"), help_text=_("Counts the cutovers of the namespace."))
    unit_type = models.CharField(_("unit type"), max_length=63)
    state = models.CharField(_("state"), max_length=12, choices=State, default=State.DRAFT)
    kind = models.CharField(_("kind"), max_length=10, choices=Kind, default=Kind.TABLE)
    mode = models.CharField(
        _("mode"),
        max_length=10,
        choices=Mode,
        default=Mode.PLANNED,
        help_text=_(
            "In an emergency the losing unit is gone: its nodes are declared dead instead of drained."
        ),
    )
    pacing = models.JSONField(
        _("pacing"),
        default=dict,
        blank=True,
        help_text=_(
            "How the ids are divided into batches, how long each bakes, and what its health must be."
        ),
    )
    batch = models.PositiveSmallIntegerField(
        _("batch"), default=0, help_text=_("Index of the slice of ids that is moving.")
    )
    turns = models.PositiveSmallIntegerField(
        _("turns"),
        default=0,
        help_text=_("How often this batch was turned round; odd means on the way back."),
    )
    unwinding = models.BooleanField(
        _("rolling back"),
        default=False,
        help_text=_("After this batch the finished ones before it go back, too."),
    )
    baking_since = models.DateTimeField(
        _("baking since"),
        null=True,
        blank=True,
        help_text=_("When the last finished batch had moved; the next one waits for its bake."),
    )
    paused_at = models.DateTimeField(_("paused"), null=True, blank=True)
    paused_by = models.CharField(
        _("paused by"), max_length=150, blank=True, help_text=_("Empty where a failing gate paused it.")
    )
    pause_reason = models.TextField(_("reason of the pause"), blank=True)
    hold = models.JSONField(
        _("held by"),
        default=dict,
        blank=True,
        help_text=_("What keeps the next step back although its gate has passed."),
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
    approval_needed = models.BooleanField(_("needs an approval"), default=False)
    requested_by = models.CharField(
        _("requested by"), max_length=150, blank=True, help_text=_("Who last changed what is to be approved.")
    )
    approved_by = models.CharField(_("approved by"), max_length=150, blank=True)
    approved_at = models.DateTimeField(_("approved"), null=True, blank=True)
    approval_comment = models.TextField(_("comment of the approver"), blank=True)
    approved_digest = models.CharField(
        _("digest of what was approved"),
        max_length=64,
        blank=True,
        help_text=_("Of the new rule, the moved ids, mode, pacing and overrides: it holds for nothing else."),
    )
    approval_requested_at = models.DateTimeField(_("approval asked for"), null=True, blank=True)
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
            ("approve_cutover", _("Can approve the cutovers of others")),
            ("override_safety", _("Can override a safety rule")),
            ("emergency_cutover", _("Can cut over in emergency mode")),
        ]
        constraints = [
            models.UniqueConstraint(fields=("namespace", "number"), name="cutover_number"),
            models.UniqueConstraint(
                fields=("namespace",),
                condition=Q(state__in=("starting", "prepare", "freeze", "activate", "release", "aborting")),
                name="cutover_one_active",
                violation_error_message=_("Another cutover of this namespace is running."),
            ),
            models.CheckConstraint(
                condition=Q(approved_by="") | ~Q(approved_by=F("requested_by")),
                name="cutover_approved_by_another",
                violation_error_message=_("Nobody approves a cutover that is their own."),
            ),
            models.CheckConstraint(
                condition=Q(approval_needed=False)
                | ~Q(approved_by="")
                | Q(state__in=("draft", "previewed", "checking", "checked", "discarded")),
                name="cutover_approved_before_start",
                violation_error_message=_("Somebody else has to approve this cutover before it starts."),
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
    def paused(self) -> bool:
        """Whether somebody, or a failing gate, keeps the next batch from beginning."""
        return self.paused_at is not None

    @property
    def emergency(self) -> bool:
        return self.mode == self.Mode.EMERGENCY

    @property
    def turned(self) -> bool:
        """Whether ids are on their way back to their old owners."""
        return self.turns % 2 == 1
