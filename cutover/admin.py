"""What Django's admin has of this app, by noun."""

from cutover.hooks import admin as hooks
from cutover.safety import admin as safety

__all__ = ["hooks", "safety"]
