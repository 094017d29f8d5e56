"""What was looked at before a cutover, and what it said."""

from django.db import models
from django.utils.translation import get_language
from django.utils.translation import gettext_lazy as _

from cutover.models.cutovers import Cutover


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
    amber = models.BooleanField(
        _("passed with a warning"),
        default=False,
        help_text=_("It stands in nobody's way, but says what an operator should know."),
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
