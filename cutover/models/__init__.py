"""Cutovers: what moves, which step runs, what was checked, and what happened."""

from cutover.models.checks import Check
from cutover.models.cutovers import Cutover
from cutover.models.history import CutoverEvent, ProgressSample
from cutover.models.hooks import Hook, HookRun
from cutover.models.practice import Practice
from cutover.models.safety import BlockedWindow, Override, SafetyRules

__all__ = [
    "BlockedWindow",
    "Check",
    "Cutover",
    "CutoverEvent",
    "Hook",
    "HookRun",
    "Override",
    "Practice",
    "ProgressSample",
    "SafetyRules",
]
