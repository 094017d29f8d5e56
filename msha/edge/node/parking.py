"""Whether a node that refused a snapshot must also close its doors.

A refusal leaves the last good snapshot in force, and in most cases that is all: PREPARE and FREEZE then run
into their deadline and abort with nothing changed, while a listener closed here would cut off clients that
the cutover does not concern. After ACTIVATE there is no abort. A node of a gaining unit that goes on with the
table from before would send the moved ids back to where they are frozen, and its silence would hold up the
gate; parked (refused, listener closed, no sessions) it does neither (PROTOCOL 5).
"""

import json
from typing import Any

from msha.steering.phases import Phase
from msha.steering.snapshot import Snapshot


def must_park(applied: Snapshot, unit: str, refused: str) -> bool:
    """Whether a node of ``unit`` that obeys ``applied`` parks on refusing the body ``refused``.

    The body need not be valid; what can be read of it decides, and where nothing can be read, what the
    applied snapshot says is coming.
    """
    try:
        rule = json.loads(refused)["rule"]
        epoch, running = rule["epoch"], rule["cutover"]
        if type(epoch) is int and epoch <= applied.epoch:
            return False
        return running is not None and running["phase"] == Phase.ACTIVATE and _gains(running["moved"], unit)
    except (ValueError, TypeError, KeyError, IndexError, RecursionError):
        coming = applied.cutover
        return coming is not None and coming.phase is Phase.FREEZE and unit in coming.moved.gaining_units


def _gains(moved: list[list[Any]], unit: str) -> bool:
    return any(row[3] == unit for row in moved)
