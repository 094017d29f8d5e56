"""The console's own look at everything once a second (PROTOCOL I10).

So deadlines and alarms need neither Celery nor a node that still talks. Webhooks are called beside it: an
address that is slow to answer holds up no cutover.
"""

import threading
import time
from collections.abc import Callable

import structlog
from django.db import DatabaseError, connections

from cutover import driving
from units import alarm_calls

EVERY_S = 1.0

log = structlog.get_logger(__name__)

_threads: dict[str, threading.Thread] = {}


def start() -> None:
    """This process looks after cutovers and alarms until it ends; calling it again changes nothing."""
    _keep("cutover-watch", driving.look_at_everything)
    tell_alarms()


def tell_alarms() -> None:
    """This process tells alarm targets what is due until it ends; calling it again changes nothing."""
    _keep("alarm-watch", alarm_calls.looking_beside())


def _keep(name: str, look: Callable[[], object]) -> None:
    running = _threads.get(name)
    if running is None or not running.is_alive():
        _threads[name] = threading.Thread(target=_forever, name=name, args=(name, look), daemon=True)
        _threads[name].start()


def _forever(name: str, look: Callable[[], object]) -> None:
    failing = False
    while True:
        try:
            look()
            failing = False
        except DatabaseError as error:
            connections.close_all()  # the next look dials anew: the server may have been restarted
            if not failing:
                log.warning("watch_blind", watch=name, error=str(error))
            failing = True
        except Exception as error:  # the watch must outlive whatever one look ran into
            log.error("watch_failed", watch=name, exc_info=error)
        time.sleep(EVERY_S)
