"""The configurations that are searched, each with the faults that it concentrates on.

No single one can have everything. `SHORT` is what every run of the tests searches; `FULL` allows more faults
at once and more nodes, and takes some minutes.
"""

from dataclasses import replace

from tests.model.published import Change, Ranges
from tests.model.world import Scenario

TWO: Ranges = {"center": ["0~5"], "unbj": ["6~11"]}
THREE: Ranges = {"center": ["0~3"], "unbj": ["4~7"], "unsh": ["8~11"]}

#: Two ids of unbj go to center.
ONE_WAY: Change = ({"center": ["0~7"], "unbj": ["8~11"]}, (99,))
#: The same, and back again in a second cutover.
THERE_AND_BACK = (ONE_WAY, (TWO, (99,)))
#: center gives to unbj while unbj gives to unsh.
CHAIN: Change = ({"center": ["0~1"], "unbj": ["2~5"], "unsh": ["6~11"]}, (99,))
#: Two ranges cross.
SWAP: Change = ({"unbj": ["0~5"], "center": ["6~11"]}, (99,))
#: Two slices of one range.
BATCHES: Change = ({"center": ["0~9"], "unbj": ["10~11"]}, (2, 99))
#: Two slices that go opposite ways.
CROSSED: Change = ({"center": ["0~3", "6~7"], "unbj": ["4~5", "8~11"]}, (2, 99))
#: One range goes on from unit to unit.
ONWARD = (
    ({"center": ["0~1"], "unbj": ["2~7"], "unsh": ["8~11"]}, (99,)),
    ({"center": ["0~1"], "unbj": ["4~7"], "unsh": ["2~3", "8~11"]}, (99,)),
)

ONE_EACH = {"center": 1, "unbj": 1}
LOSERS = {"center": 1, "unbj": 2}
GAINERS = {"center": 2, "unbj": 1}
TWO_EACH = {"center": 2, "unbj": 2}
TRIPLE = {"center": 1, "unbj": 1, "unsh": 1}


def scenario(
    name: str, short: dict[str, int], full: dict[str, int], **how: object
) -> tuple[Scenario, Scenario]:
    """The same configuration with few faults, and with many (and, with ``full_nodes``, more nodes)."""
    nodes = how.pop("nodes", LOSERS)
    more = how.pop("full_nodes", nodes)
    values = {"ranges": TWO, "changes": (ONE_WAY,), "ids": (6, 9), **how}
    first = Scenario(name, nodes=nodes, faults=short, **values)  # type: ignore[arg-type]
    return first, replace(first, nodes=more, faults=full)  # type: ignore[arg-type]


_ALL = [
    # A node is killed and starts again: with the console or without, its file older or newer than the
    # console knows; its last words come late.
    scenario("restarts", {"crash": 1}, {"crash": 1, "late": 1}),
    scenario("restarts again", {"crash": 1, "torn": 1}, {"crash": 2, "torn": 1}, nodes=ONE_EACH),
    scenario("torn writes", {"torn": 1}, {"torn": 1, "delay": 1, "publish": 1}),
    scenario("workers exit", {"workers": 1}, {"workers": 1, "late": 1}),
    # Streams break and come back, nodes are silent, snapshots and words are late.
    scenario("flapping", {"flap": 1, "silence": 1}, {"flap": 2, "silence": 1}),
    scenario("late words", {"late": 1, "delay": 1}, {"late": 2, "delay": 1}),
    # Half-open and held handshakes, client by client.
    scenario("handshakes", {}, {"crash": 1}, clients="handshakes", ids=(6,)),
    scenario("handshakes turned", {"turn": 1}, {"turn": 2}, clients="handshakes", ids=(6,)),
    scenario("sessions", {"turn": 1}, {"turn": 1, "crash": 1}, clients="sessions", nodes=ONE_EACH,
             full_nodes=LOSERS),
    # Operators and their ways.
    scenario("turns", {"turn": 2, "publish": 1}, {"turn": 3, "publish": 1, "flap": 1}, nodes=ONE_EACH),
    scenario("turns of two", {"turn": 1, "flap": 1}, {"turn": 2, "flap": 1}),
    scenario("aborts", {"abort": 1, "crash": 1}, {"abort": 1, "crash": 1, "publish": 1}),
    scenario("batches", {"abort": 1, "turn": 1}, {"abort": 1, "turn": 2, "crash": 1}, changes=(BATCHES,),
             ids=(6, 8), nodes=ONE_EACH),
    scenario("batches crossed", {"rollback": 1, "turn": 1}, {"rollback": 1, "turn": 1, "flap": 1},
             changes=(CROSSED,), ids=(4, 6), nodes=ONE_EACH),
    scenario("roll back", {"rollback": 1, "stop": 1}, {"rollback": 1, "turn": 1, "stop": 1},
             changes=(BATCHES,), ids=(6, 8), nodes=ONE_EACH, full_nodes=LOSERS),
    scenario("roll back and restarts", {"rollback": 1, "torn": 1}, {"rollback": 1, "crash": 1},
             changes=(BATCHES,), ids=(6, 8), nodes=ONE_EACH),
    scenario("emergency", {"emergency": 1, "crash": 1, "dead": 1}, {"emergency": 1, "crash": 2, "dead": 1},
             nodes=ONE_EACH, heeded=3),
    scenario("declared dead", {"dead": 1, "flap": 1}, {"dead": 1, "flap": 1, "turn": 1}, heeded=3),
    scenario("parking", {"refuse": 1}, {"refuse": 1, "flap": 1, "turn": 1}, nodes=GAINERS),
    # Who joins, leaves and comes back.
    scenario("joining", {"delay": 1}, {"crash": 1, "turn": 1}, nodes=ONE_EACH, strangers={"unbj": 1}),
    scenario("joining the gaining", {"turn": 1}, {"turn": 1, "delay": 1, "crash": 1}, nodes=ONE_EACH,
             strangers={"center": 1}),
    scenario("leaving", {"leave": 1}, {"leave": 1, "late": 1}, heeded=1, nodes=ONE_EACH, full_nodes=LOSERS),
    scenario("stopping", {"term": 1}, {"term": 1, "late": 1, "turn": 1}),
    # Several drivers.
    scenario("two drivers", {"driver": 1, "abort": 1}, {"driver": 2, "abort": 1, "turn": 1, "flap": 1}),
    scenario("drivers and batches", {"driver": 1, "rollback": 1}, {"driver": 2, "rollback": 1, "flap": 1},
             changes=(BATCHES,), ids=(6, 8), nodes=ONE_EACH),
    # More units, more ranges, more cutovers.
    scenario("chain", {"flap": 1}, {"crash": 1, "turn": 1}, ranges=THREE, changes=(CHAIN,), ids=(2, 6, 9),
             nodes=TRIPLE),
    scenario("chain of two", {}, {"flap": 1, "turn": 1}, ranges=THREE, changes=(CHAIN,), ids=(2, 6),
             nodes={"center": 1, "unbj": 2, "unsh": 1}),
    scenario("swap", {"turn": 1}, {"turn": 1, "crash": 1}, changes=(SWAP,), ids=(2, 6), nodes=ONE_EACH,
             full_nodes=LOSERS),
    scenario("two and two", {}, {"flap": 1}, nodes=TWO_EACH),
    scenario("there and back", {"next": 1, "finish": 1, "flap": 1},
             {"next": 1, "finish": 1, "flap": 1, "crash": 1}, changes=THERE_AND_BACK, nodes=ONE_EACH),
    scenario("onward", {"next": 1}, {"next": 1, "crash": 1, "finish": 1}, ranges=THREE,
             changes=ONWARD, ids=(2,), nodes=TRIPLE),
    # A client that is redirected while all this goes on.
    scenario("redirects", {"connect": 1, "flap": 1}, {"connect": 1, "flap": 1, "turn": 1, "publish": 1},
             clients="none", ids=(6,), nodes=ONE_EACH),
    scenario("redirects of two", {"connect": 1}, {"connect": 1, "silence": 1}, clients="none", ids=(6,),
             nodes=ONE_EACH, full_nodes=GAINERS),
    scenario("redirects across cutovers", {"connect": 1, "next": 1}, {"connect": 1, "next": 1, "flap": 1},
             changes=THERE_AND_BACK, clients="none", ids=(6,), nodes=ONE_EACH),
    scenario("redirects, unnoticed loss", {"connect": 1, "unnoticed": 1}, {"connect": 1, "unnoticed": 1},
             clients="none", ids=(6,), nodes=ONE_EACH, full_nodes=GAINERS),
    scenario("redirects, stale console", {"connect": 1, "stale-confirm": 1},
             {"connect": 1, "next": 1, "stale-confirm": 2}, changes=THERE_AND_BACK, clients="none", ids=(6,),
             nodes=ONE_EACH),
]  # fmt: skip

SHORT = [short for short, _ in _ALL]
FULL = [full for _, full in _ALL]
