"""What stands between a preview and its start: pacing, safety rules, approval."""

from typing import Any, ClassVar

from django.http import HttpResponse
from django.shortcuts import redirect

from cutover.errors import InvalidChange
from cutover.losing import losing_units
from cutover.models import Cutover
from cutover.pacing.asked import set_pacing
from cutover.pages.base import CHANGE, REFUSED, UNUSABLE, Refusal
from cutover.pages.emergency import Switching
from cutover.pages.pacing import PacingForm, summary
from cutover.pages.shown import mode_acts
from cutover.pages.wizard import places_open
from cutover.safety import approval, assessing, overriding

APPROVE, OVERRIDE = approval.PERMISSION, "cutover.override_safety"


class Gatekeeping(Switching):
    """A page that shows what a start still needs, and on which it is given."""

    acts: ClassVar[dict[str, str]] = {
        "pacing": CHANGE,
        "override": OVERRIDE,
        "request": CHANGE,
        "approve": APPROVE,
        "withdraw": APPROVE,
        **Switching.acts,
    }

    def back(self) -> HttpResponse:
        return redirect(f"cutover:{self.place}", self.cutover.pk)

    def do_pacing(self) -> HttpResponse:
        form = PacingForm.of_post(self.request.POST)
        asked = form.asked()
        if asked is not None:
            try:
                set_pacing(self.cutover, asked, self.actor)
                return self.back()
            except InvalidChange as error:
                form.refuse(error)
        return self.step({"pacing": form}, status=UNUSABLE)

    def do_override(self, rule: str = "") -> HttpResponse:
        overriding.override(self.cutover, rule, self.actor, self.request.POST.get("reason", ""))
        return self.back()

    def do_request(self) -> HttpResponse:
        approval.request_approval(self.cutover, self.actor, self.request.POST.get("comment", ""))
        return self.back()

    def do_approve(self) -> HttpResponse:
        data = self.request.POST
        approval.approve(self.cutover, self.actor, data.get("comment", ""), data.get("seen", ""))
        return self.back()

    def do_withdraw(self) -> HttpResponse:
        approval.withdraw_approval(self.cutover, self.actor, self.request.POST.get("reason", ""))
        return self.back()

    def refused(self, refusal: Refusal) -> HttpResponse:
        """Said at the box it was asked from, if the page still has one."""
        if self.act[0] not in Gatekeeping.acts:
            return super().refused(refusal)
        self.cutover.refresh_from_db()
        if not self.cutover.editable or self.place not in places_open(self.cutover):
            return super().refused(refusal)
        said = {"refused_gate": refusal.sentence, "refused_act": ":".join(self.act)}
        return self.step(said, status=REFUSED)

    def step(self, context: dict[str, Any], *, status: int = 200) -> HttpResponse:
        return super().step({**self.gates(self.cutover), **context}, status=status)

    def gates(self, cutover: Cutover) -> dict[str, Any]:
        """What the boxes show."""
        which = f"{cutover.number} -n {cutover.namespace.name}"
        return {
            "pacing": PacingForm.of_stored(cutover.pacing),
            "pacing_summary": summary(cutover),
            "findings": assessing.shown(cutover),
            "overrides": cutover.overrides.all(),
            "approval": approval.status(cutover),
            "mine": approval.requester(cutover) == self.actor,
            "override_command": f"mshactl cutover override {which} --reason '…'",
            "mode_acts": mode_acts(cutover),
            "losing_units": losing_units(cutover),
            "mode_command": f"mshactl cutover emergency {which} --reason '…'"
            + (" --back" if cutover.emergency else ""),
            "approve_command": f"mshactl cutover approve {which}",
        }
