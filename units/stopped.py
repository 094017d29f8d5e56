"""Why nothing is published in a namespace, in the reader's language (PROTOCOL P4)."""

from django.utils.translation import gettext

from units import alarms
from units.models import Alarm, Namespace

#: While the fleet's reports are awaited; stored in English like every sentence.
RESTORED = "The database was restored; every enrolled node has to report before anything is published."


def why(namespace: Namespace) -> str:
    """The sentence, or "" where publishing goes on."""
    stored = namespace.publishing_stopped
    if stored == RESTORED:
        return gettext(
            "The database was restored; every enrolled node has to report before anything is published."
        )
    alarm = Alarm.objects.filter(namespace=namespace, cleared_at=None, sentence=stored).first()
    return alarms.said(alarm) if stored and alarm is not None else stored
