"""How a change in this app reaches the apps above it, which it does not import."""

import structlog
from django.dispatch import Signal

#: Sent after the commit of what a node said. Arguments: ``node_id``, ``namespace_id``, ``kind`` (ack, nack,
#: drained, left, dead, workers_exited, status, connected, disconnected, probe).
node_reported = Signal()

#: Sent after the commit of a publish. Arguments: ``namespace_id``, ``version``, ``epoch``, ``kind``.
published = Signal()

#: Sent in the transaction of ``after_restore`` that adopts a rule part the database had forgotten
#: (PROTOCOL P4). Arguments: ``namespace``, ``rule``.
rule_adopted = Signal()

log = structlog.get_logger(__name__)


def announce(signal: Signal, sender: object, **arguments: object) -> None:
    """The receivers have run; the failure of one is logged and hurts neither the others nor the sender."""
    for receiver, outcome in signal.send_robust(sender, **arguments):
        if isinstance(outcome, Exception):
            log.error(
                "signal_receiver_failed",
                receiver=getattr(receiver, "__qualname__", repr(receiver)),
                arguments=arguments,
                exc_info=outcome,
            )
