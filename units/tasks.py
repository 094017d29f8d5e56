"""What Celery carries for the platform."""

from celery import shared_task

from units import alarm_calls


@shared_task(acks_late=True, reject_on_worker_lost=True, expires=1)
def tell_alarms() -> None:
    """Alarm targets have been called where something was due; the consoles do the same."""
    alarm_calls.look()
