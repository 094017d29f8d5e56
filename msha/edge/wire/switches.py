"""The 101s of back-sources, remembered: a server says the same each time, but for its proof of the key."""

from collections.abc import Sequence
from typing import NamedTuple

from msha.edge.wire import handshake

#: Servers that put the time into their 101 say something new every second.
_REMEMBERED = 64


class Switch(NamedTuple):
    """A 101 on which a tunnel may open.

    Attributes:
        head: what the client gets.
        extensions: what it says of them, one value for each line.
    """

    head: bytes
    extensions: Sequence[bytes]


class Switches:
    """Reads 101s; one that differs from an earlier one only in the right proof of its key is not parsed.

    What parsing, checking and writing anew make of a head does not depend on which 28 characters of base64
    the proof is. What was found out about a head therefore holds for every other with the same bytes before
    and after its own proof.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[bytes, bytes], tuple[bytes, bytes, Sequence[bytes]]] = {}

    def recall(self, data: bytes, key: bytes) -> Switch | None:
        """What a head is known to be, or None if it must be read."""
        accept = handshake.accept_for(key)
        before, found, after = data.partition(accept)
        known = self._known.get((before, after))
        if known is None or not found:
            return None
        return Switch(known[0] + accept + known[1], known[2])

    def learn(self, data: bytes, key: bytes, head: handshake.ResponseHead) -> Switch:
        """What the head of a 101 is.

        Raises:
            InvalidAnswer: it is none that a client with this key must accept.
        """
        handshake.check_switch(head, key)
        accept = handshake.accept_for(key)
        switch = Switch(handshake.switching_protocols(head), handshake.extensions(head))
        before, _, after = switch.head.partition(accept)
        if data.count(accept) == switch.head.count(accept) == 1:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            its_before, _, its_after = data.partition(accept)
            self._known[its_before, its_after] = (before, after, switch.extensions)
        return switch
