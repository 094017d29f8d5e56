"""What can be done with a cutover: pages, API and management commands call these and nothing below.

Nothing here knows of HTTP; permissions are the caller's. `actor` is the name that the audit trail keeps. What
is refused raises `cutover.errors.Refused` (or another `MshaError`) with a sentence that says what to do.
"""

from cutover.checking import retry_check, run_prechecks, skip_check
from cutover.commands import abort, finish_with_stragglers, pause, resume, roll_back, stop_here, turn_around
from cutover.drafts import create_draft, discard, open_draft, rollback, update_draft
from cutover.emergency import declare_unit_dead, set_mode
from cutover.errors import InvalidChange, Refused, StalePreview
from cutover.hooks.acts import skip_hook
from cutover.kinds import Shift, ToZero
from cutover.pacing.asked import set_pacing
from cutover.practice.running import practise
from cutover.previews import MoveRow, Preview, UnitRow, command, preview, stored_preview
from cutover.report import report
from cutover.safety.approval import approve, request_approval, unapprove, withdraw_approval
from cutover.safety.overriding import override
from cutover.starting import start
from cutover.status import actions, status, summary
from cutover.steps import advance
from cutover.stragglers import find as find_stragglers

__all__ = [
    "InvalidChange",
    "MoveRow",
    "Preview",
    "Refused",
    "Shift",
    "StalePreview",
    "ToZero",
    "UnitRow",
    "abort",
    "actions",
    "advance",
    "approve",
    "command",
    "create_draft",
    "declare_unit_dead",
    "discard",
    "find_stragglers",
    "finish_with_stragglers",
    "open_draft",
    "override",
    "pause",
    "practise",
    "preview",
    "report",
    "request_approval",
    "resume",
    "retry_check",
    "roll_back",
    "rollback",
    "run_prechecks",
    "set_mode",
    "set_pacing",
    "skip_check",
    "skip_hook",
    "start",
    "status",
    "stop_here",
    "stored_preview",
    "summary",
    "turn_around",
    "unapprove",
    "update_draft",
    "withdraw_approval",
]
