"""What happened in a cutover: its timeline and its curve."""

from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from cutover.models.cutovers import Cutover
from units.models import AppendOnlyModel


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
