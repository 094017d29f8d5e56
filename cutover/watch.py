"""The console's own look at everything once a second (PROTOCOL I10).

So deadlines and alarms need neither Celery nor a node that still talks.
"""

import threading
import time

import structlog
from django.db import DatabaseError, connections

from cutover import driving

EVERY_S = 1.0

log = structlog.get_logger(__name__)

_thread: threading.Thread | None = None


def start() -> None:
    """This process looks after running cutovers until it ends; calling it again changes nothing."""
    global _thread
    if _thread is None or not _thread.is_alive():
        _thread = threading.Thread(target=_forever, name="cutover-watch", daemon=True)
        _thread.start()


def _forever() -> None:
    failing = False
    while True:
        try:
            driving.look_at_everything()
            failing = False
        except DatabaseError as error:
            connections.close_all()  # the next look dials anew: the server may have been restarted
            if not failing:
                log.warning("cutover_watch_blind", error=str(error))
            failing = True
        except Exception as error:  # the watch must outlive whatever one look ran into
            log.error("cutover_watch_failed", exc_info=error)
        time.sleep(EVERY_S)
