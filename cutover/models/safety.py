"""What a namespace forbids its cutovers, and who has overridden it."""

from django.core.validators import MaxValueValidator
from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from cutover.models.cutovers import Cutover
from units.models import AppendOnlyModel, Dated, Namespace


class SafetyRules(Dated):
    """Of one namespace; a rule without a value forbids nothing."""

    namespace = models.OneToOneField(
        Namespace, models.CASCADE, related_name="safety_rules", verbose_name=_("namespace")
    )
    min_share_percent = models.PositiveSmallIntegerField(
        _("least share of a unit, in percent"),
        null=True,
        blank=True,
        validators=[MaxValueValidator(100)],
        help_text=_("No unit that serves ids is cut below this share of the key space."),
    )
    max_ids = models.PositiveIntegerField(
        _("most ids of a cutover"), null=True, blank=True, help_text=_("Ids that move in one cutover.")
    )
    max_sessions = models.PositiveIntegerField(
        _("most sessions of a cutover"),
        null=True,
        blank=True,
        help_text=_("Live sessions that one cutover closes, as counted for its preview."),
    )
    quiet_s = models.PositiveIntegerField(
        _("quiet period, in seconds"),
        null=True,
        blank=True,
        help_text=_("After the end of a cutover no other one begins for so long."),
    )
    approval = models.BooleanField(
        _("needs an approval"),
        default=False,
        help_text=_("Somebody other than the requester approves every cutover before it starts."),
    )

    class Meta:
        verbose_name = _("safety rules")
        verbose_name_plural = _("safety rules")

    def __str__(self) -> str:
        return str(self.namespace)


class BlockedWindow(models.Model):
    """A time of the week in which no cutover starts."""

    class Day(models.IntegerChoices):
        MONDAY = 0, _("Monday")
        TUESDAY = 1, _("Tuesday")
        WEDNESDAY = 2, _("Wednesday")
        THURSDAY = 3, _("Thursday")
        FRIDAY = 4, _("Friday")
        SATURDAY = 5, _("Saturday")
        SUNDAY = 6, _("Sunday")
        EVERY_DAY = 7, _("every day")

    rules = models.ForeignKey(
        SafetyRules, models.CASCADE, related_name="blocked_windows", verbose_name=_("safety rules")
    )
    day = models.PositiveSmallIntegerField(_("day"), choices=Day, default=Day.EVERY_DAY)
    begins = models.TimeField(_("begins"))
    ends = models.TimeField(_("ends"), help_text=_("On the next day if it is not later than the beginning."))
    time_zone = models.CharField(_("time zone"), max_length=64, default="UTC")
    note = models.CharField(_("note"), max_length=200, blank=True)

    class Meta:
        verbose_name = _("blocked window")
        verbose_name_plural = _("blocked windows")
        ordering = ("rules", "day", "begins")

    def __str__(self) -> str:
        return f"{self.get_day_display()} {self.begins:%H:%M}-{self.ends:%H:%M} {self.time_zone}"


class Override(AppendOnlyModel):
    """Somebody has said, with a reason, that a cutover goes on against a safety rule."""

    cutover = models.ForeignKey(Cutover, models.PROTECT, related_name="overrides", verbose_name=_("cutover"))
    rule = models.CharField(_("rule"), max_length=40)
    digest = models.CharField(
        _("digest of what was overridden"),
        max_length=64,
        help_text=_("Of the new rule and of what the safety rule said: it holds for nothing else."),
    )
    facts = models.JSONField(
        _("what was found"),
        default=dict,
        blank=True,
        help_text=_("The override lapses once this has become worse."),
    )
    sentence = models.TextField(_("what the rule said"))
    by = models.CharField(_("by"), max_length=150)
    reason = models.TextField(_("reason"))
    at = models.DateTimeField(_("at"), default=timezone.now)

    class Meta:
        verbose_name = _("override")
        verbose_name_plural = _("overrides")
        ordering = ("cutover", "at", "pk")

    def __str__(self) -> str:
        return f"{self.cutover} {self.rule}"
