"""A cutover that was only rehearsed: everything but the moving."""

from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from cutover.models.cutovers import Cutover


class Practice(models.Model):
    """A dry run of a cutover that is ready to start; the cutover itself stays as it is."""

    class State(models.TextChoices):
        RUNNING = "running", _("running")
        DONE = "done", _("done")
        FAILED = "failed", _("failed")

    cutover = models.ForeignKey(Cutover, models.CASCADE, related_name="practices", verbose_name=_("cutover"))
    state = models.CharField(_("state"), max_length=10, choices=State, default=State.RUNNING)
    by = models.CharField(_("by"), max_length=150)
    started = models.DateTimeField(_("started"), default=timezone.now)
    finished = models.DateTimeField(_("finished"), null=True, blank=True)
    findings = models.JSONField(
        _("findings"), default=dict, blank=True, help_text=_("What was measured, part by part.")
    )

    class Meta:
        verbose_name = _("practice run")
        verbose_name_plural = _("practice runs")
        ordering = ("cutover", "-started")

    def __str__(self) -> str:
        return f"{self.cutover} {self.started:%H:%M:%S}"
