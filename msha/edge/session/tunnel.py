"""An open session: two sockets, and the bytes between them.

Nothing is parsed but where frames end, so that a Close or a message of ours can be put in. A chunk that
cannot be sent at once stops the reading of the other side until it is gone: a session never holds more than
one chunk a direction, and the messages of ours that wait for their place, which are bounded, too.
"""

import socket
import struct
import time
from collections.abc import Sequence
from enum import StrEnum
from fcntl import ioctl
from typing import TYPE_CHECKING

from msha.edge.reactor import BROKEN, HANG_UP, READABLE, WRITABLE
from msha.edge.wire.frames import FrameTracker, close_frame, masked_close_frame, transparent

if TYPE_CHECKING:
    from msha.edge.session.sessions import Sessions

#: What is read at once, and so the most that waits in one direction. A frame of 64 KiB, which is what many
#: programs send, fits with its head: cut in two it would cost twice the system calls.
CHUNK_BYTES = 81_920

#: What a session may hold: a chunk in each direction, and so much of messages of ours (256 KiB in all).
MESSAGES_LIMIT_BYTES = 98_304


def hold_at_most(buffer_bytes: int) -> None:
    """No session of this process will hold more than that; to be called before there is one.

    Numbers of the module, because every chunk needs them: looking them up elsewhere would be felt.
    """
    global CHUNK_BYTES, MESSAGES_LIMIT_BYTES, _bytes, _chunk
    CHUNK_BYTES, MESSAGES_LIMIT_BYTES = buffer_bytes * 5 // 16, buffer_bytes * 3 // 8
    _bytes = bytearray(CHUNK_BYTES)
    _chunk = memoryview(_bytes)


#: Chunks per direction and turn, after which other sessions come first.
_CHUNKS_PER_TURN = 4

#: Whole frames in a chunk, after which it is the last one of the turn: to follow so many takes as long as to
#: pass all four on.
_FRAMES_PER_TURN = 500

# Where every chunk of this process is read to. It is passed on, or what could not be is copied, before the
# next one is read; a place of its own for each would have to be found and given back.
_bytes = bytearray(CHUNK_BYTES)
_chunk = memoryview(_bytes)

_PING = b"\x89\0"

#: What is the last to be sent waits for the FIN, which follows at once: one segment instead of two.
_WITH_FIN = socket.MSG_MORE

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)

#: How much of what a socket was given has not been put on the wire (``linux/sockios.h``).
_SIOCOUTQNSD = 0x894B
_NO_COUNT = bytes(4)
_TCP_CLOSE = 7

# What has happened to a session, as bits.
_CLIENT_HUNG_UP = 1  # a FIN or RST of the client is there or on its way through the receive buffer
_SERVER_HUNG_UP = 2
_CLIENT_ENDED = 4  # nothing more will be read from the client
_SERVER_ENDED = 8
_CLIENT_SHUT = 16  # we have shut down writing to the client
_SERVER_SHUT = 32
_CLOSING = 64  # we are ending it by a Close of our own
_DOWN_CUT = 128  # what still comes from the back-source is not for the client
_UP_CUT = 256  # what still comes from the client is not for the back-source
_GONE = 512  # no longer a session: at most the client's end is being waited for
_FINISHED = 1024
_SPEAKING = 2048  # messages of ours wait for the end of the back-source's
_OPAQUE = 4096  # an extension that we do not know may have changed what a frame means

#: What still comes from the back-source does not simply pass.
_INTERRUPTED = _CLOSING | _SPEAKING
#: One of the three has ended it, or is about to.
_OVER = _CLOSING | _DOWN_CUT | _UP_CUT | _GONE | _FINISHED

_NO_MORE_DOWN = _SERVER_ENDED | _FINISHED
_NO_MORE_UP = _CLIENT_ENDED | _FINISHED
_CUT_UP = _CLOSING | _UP_CUT
_NOTHING_LEFT = _SERVER_ENDED | _CLIENT_SHUT | _UP_CUT


class EndedBy(StrEnum):
    """Who ended a session."""

    CLIENT = "client"
    BACK_SOURCE = "back_source"
    EDGE = "edge"


class Heard(StrEnum):
    """What became of a message of ours to one client."""

    DELIVERED = "delivered"  # all of it is in the kernel
    QUEUED = "queued"  # it waits for the end of a message, or for the client to read
    CLOSING = "closing"  # the session is ending
    FULL = "full"  # the client does not read, and enough waits for it
    EXTENSION = "extension"  # negotiated, but not known to us


class Tunnel:
    """A session.

    Attributes:
        unit_type, router_id: what it was opened for; the id is None for untagged traffic.
        server: the back-source server, ``IP:PORT``.
        number: of the session in this worker, for the access log.
        label: what the access log repeats at the end of the session.
        bytes_up, bytes_down: after the handshake, from the client and to it.
    """

    __slots__ = (
        "_client",
        "_client_fd",
        "_down",
        "_payload",
        "_server",
        "_sessions",
        "_state",
        "_to_client",
        "_to_server",
        "_up",
        "bytes_down",
        "bytes_up",
        "ended_by",
        "label",
        "number",
        "opened_at",
        "reason",
        "router_id",
        "server",
        "unit_type",
    )

    def __init__(
        self,
        sessions: "Sessions",
        client: socket.SocketType,
        server_socket: socket.SocketType,
        *,
        unit_type: str,
        router_id: int | None,
        server: str,
        number: int,
        label: str,
        extensions: Sequence[bytes] = (),
    ) -> None:
        self._sessions = sessions
        self._client = client
        self._client_fd = client.fileno()
        self._server = server_socket
        self._state = _OPAQUE if extensions and not transparent(extensions) else 0
        self._down = FrameTracker()
        self._up = FrameTracker()
        self._to_client = b""
        self._to_server = b""
        self._payload = b""
        self.unit_type = unit_type
        self.router_id = router_id
        self.server = server
        self.number = number
        self.label = label
        self.opened_at = time.monotonic()
        self.bytes_up = 0
        self.bytes_down = 0
        self.ended_by: EndedBy | None = None
        self.reason = ""

    @property
    def closing(self) -> bool:
        """Whether we are ending it."""
        return self._state & _CLOSING != 0

    @property
    def client_descriptor(self) -> int:
        """Of the client's socket."""
        return self._client_fd

    @property
    def sockets(self) -> tuple[socket.SocketType, socket.SocketType]:
        """Of the client and of the back-source."""
        return self._client, self._server

    @property
    def waiting_bytes(self) -> int:
        """What was read and could not be sent yet, both directions."""
        return len(self._to_client) + len(self._to_server)

    def start(
        self, head: bytes, down: bytes, up: bytes, *, more_down: bool, more_up: bool, server_hung_up: bool
    ) -> None:
        """Bytes flow from now on.

        Args:
            head: the 101 for the client.
            down: what the back-source sent behind its 101.
            up: what the client sent behind its request.
            more_down, more_up: whether more may wait in the kernel of which no event will tell.
            server_hung_up: whether an event has told already that the back-source will send no more.
        """
        if server_hung_up:
            self._state |= _SERVER_HUNG_UP
        if down:
            self._down.feed(down)
            self.bytes_down += len(down)
        self._send_down(head + down)
        if up and not self._state & _FINISHED:
            self._up.feed(up)
            self.bytes_up += len(up)
            self._send_up(up)
        if more_down or server_hung_up:
            self._pump_down()
        if more_up:
            self._pump_up()

    # What the reactor calls

    def on_event(self, descriptor: int, events: int) -> None:
        """Move bytes as far as they go."""
        if descriptor == self._client_fd:
            if events & HANG_UP:
                self._state |= _CLIENT_HUNG_UP
                if events & BROKEN and (self._to_client or self._to_server or self._state & _CLIENT_ENDED):
                    self._client_lost()  # what waits for it cannot be delivered, what came from it is half
                    return
            if self._to_client and events & WRITABLE:
                self._flush_down()
            if events & READABLE:
                self._pump_up()
        else:
            if events & HANG_UP:
                self._state |= _SERVER_HUNG_UP
                if events & BROKEN and not self._state & (_CLOSING | _SERVER_ENDED):
                    self._server_lost()
            if self._to_server and events & WRITABLE:
                self._flush_up()
            if events & READABLE:
                self._pump_down()

    def on_turn(self) -> None:
        """Go on in both directions."""
        self._pump_down()
        self._pump_up()

    def on_deadline(self) -> None:
        """The peers had their time to end it."""
        state = self._state
        if state & _CLOSING:
            if not state & _GONE:
                self._sessions.count("close_aborted")
            self.abort()
        else:
            # All that the back-source said is in the kernel by now, which goes on delivering it.
            self.abort(reset=False)

    # Back-source to client

    def _pump_down(self) -> None:
        tracker = self._down
        left = _CHUNKS_PER_TURN
        while not (self._to_client or self._state & _NO_MORE_DOWN):
            try:
                size = self._server.recv_into(_chunk)
            except BlockingIOError:
                return
            except OSError:
                size = 0
            if not size:
                self._server_ended()
                return
            if self._state & _INTERRUPTED:
                self._interrupted_down(bytes(_chunk[:size]))
            else:
                data = _chunk[:size]
                # One short whole data frame between two others changes nothing that the tracker knows.
                short = tracker.idle and 1 < size < 128 and _bytes[1] == size - 2 and _bytes[0] & 0x88 == 0x80
                if not short and tracker.feed(data) > _FRAMES_PER_TURN:
                    left = 1
                self.bytes_down += size
                try:
                    sent = self._client.send(data)
                except BlockingIOError:
                    sent = 0
                except OSError:
                    self._client_lost()
                    return
                if sent != size:
                    self._to_client = bytes(data[sent:])
                    return
            if size < CHUNK_BYTES:
                if self._state & _SERVER_HUNG_UP:  # before this read, which took what came before
                    self._server_ended()
                return
            left -= 1
            if not left:
                self._sessions.reactor.again(self)
                return

    def _send_down(self, data: bytes, flags: int = 0) -> None:
        """Send it after what waits already."""
        if self._to_client:
            self._to_client += data
            return
        self._to_client = data
        self._flush_down(flags, resume=False)

    def _flush_down(self, flags: int = 0, *, resume: bool = True) -> None:
        try:
            sent = self._client.send(self._to_client, flags)
        except BlockingIOError:
            return
        except OSError:
            self._client_lost()
            return
        self._to_client = self._to_client[sent:]
        if not self._to_client:
            self._settle()
            if resume:
                self._pump_down()

    # A message of ours

    def ping(self) -> bool:
        """Whether the client gets a ping now: at an end of a frame, and if nothing waits for it already."""
        free = self._down.between and not self._to_client
        if not free or self._state & _OVER or self._down.closed or self._up.closed:
            return False
        self._send_down(_PING)
        return True

    def say(self, frame: bytes) -> Heard:
        """The client gets a whole message of ours at once, at the next end of a message, or not at all.

        A place between two frames is not enough: the fragments of one message stand together (RFC 6455 5.4).

        Args:
            frame: unmasked, unfragmented.
        """
        if self._state & _OVER or self._down.closed or self._up.closed:
            return Heard.CLOSING
        if self._state & _OPAQUE:
            return Heard.EXTENSION
        count, unsaid = self._sessions.unsaid.get(self, (0, b""))
        ours = len(unsaid) + len(frame)
        if max(ours, ours + len(self._to_client) - CHUNK_BYTES) > MESSAGES_LIMIT_BYTES:
            return Heard.FULL
        if not self._down.idle:
            self._state |= _SPEAKING
            self._sessions.unsaid[self] = (count + 1, unsaid + frame)
            return Heard.QUEUED
        self._send_down(frame)
        if self._state & _FINISHED:
            return Heard.CLOSING
        return Heard.QUEUED if self._to_client else Heard.DELIVERED

    def _interrupted_down(self, data: bytes) -> None:
        if self._state & _CLOSING:
            self._closing_down(data)
        else:
            self._speaking_down(data)

    def _speaking_down(self, data: bytes) -> None:
        """Pass the chunk on, with our messages in the place where the back-source's ends."""
        tracker = self._down
        self.bytes_down += len(data)
        end = tracker.cut_message(data)
        if tracker.idle:
            rest = data[end:]
            tracker.feed(rest)
            self._state &= ~_SPEAKING
            data = data[:end] + self._sessions.unsaid.pop(self)[1] + rest
        elif tracker.closed:
            self._fall_silent()
        self._send_down(data)

    def _fall_silent(self) -> None:
        """What we had to say will not be heard."""
        self._state &= ~_SPEAKING
        self._sessions.lose_unsaid(self)

    def _server_ended(self) -> None:
        self._state |= _SERVER_ENDED | _DOWN_CUT
        if self.ended_by is None:
            self.ended_by = EndedBy.BACK_SOURCE
        if self._state & _CLOSING:
            self._state |= _UP_CUT
        else:
            self._sessions.await_end(self)
        self._settle()

    def _server_lost(self) -> None:
        """The back-source is gone without a proper end: a client has a while to take what came before.

        Reading would find that out, but nothing is read as long as the client takes nothing.
        """
        if self.ended_by is None:
            self.ended_by = EndedBy.BACK_SOURCE
        self._to_server = b""
        self._state |= _UP_CUT
        self._sessions.await_end(self)

    # Client to back-source

    def _pump_up(self) -> None:
        tracker = self._up
        left = _CHUNKS_PER_TURN
        while not (self._to_server or self._state & _NO_MORE_UP):
            try:
                size = self._client.recv_into(_chunk)
            except BlockingIOError:
                return
            except OSError:
                self._client_lost()
                return
            if not size:
                self._client_ended()
                return
            if self._state & _CUT_UP:
                self._closing_up(bytes(_chunk[:size]))
            else:
                data = _chunk[:size]
                # The same as downwards, with a masking key.
                short = (
                    tracker.idle and 5 < size < 132 and _bytes[1] == size + 122 and _bytes[0] & 0x88 == 0x80
                )
                if not short and tracker.feed(data) > _FRAMES_PER_TURN:
                    left = 1
                self.bytes_up += size
                try:
                    sent = self._server.send(data)
                except BlockingIOError:
                    sent = 0
                except OSError:
                    self._state |= _UP_CUT  # it may still have sent a Close; reading finds its end
                    sent = size
                if sent != size:
                    self._to_server = bytes(data[sent:])
                    return
            if size < CHUNK_BYTES:
                if self._state & _CLIENT_HUNG_UP:  # as above
                    self._client_ended()
                return
            left -= 1
            if not left:
                self._sessions.reactor.again(self)
                return

    def _send_up(self, data: bytes, flags: int = 0) -> None:
        """Send it after what waits already."""
        if self._to_server:
            self._to_server += data
            return
        self._to_server = data
        self._flush_up(flags, resume=False)

    def _flush_up(self, flags: int = 0, *, resume: bool = True) -> None:
        try:
            sent = self._server.send(self._to_server, flags)
        except BlockingIOError:
            return
        except OSError:
            self._state |= _UP_CUT
            sent = len(self._to_server)
        self._to_server = self._to_server[sent:]
        if not self._to_server:
            self._settle()
            if resume:
                self._pump_up()

    def _client_ended(self) -> None:
        self._state |= _CLIENT_ENDED | _UP_CUT
        if self.ended_by is None:
            self.ended_by = EndedBy.CLIENT
        if not self._state & _CLOSING:
            self._sessions.await_end(self)
        self._settle()

    def _client_lost(self) -> None:
        """The client is gone without a proper end; there is nobody to send to."""
        self._to_client = b""
        if self.ended_by is None:
            self.ended_by = EndedBy.CLIENT
        if self._state & _CLOSING and not self._state & (_UP_CUT | _FINISHED) and self._up.between:
            self._put_close_up()
        self._state |= _CLIENT_ENDED | _CLIENT_SHUT | _UP_CUT | _DOWN_CUT
        if self._state & _CLOSING:
            self._settle()  # the back-source may still be at work for it
        else:
            self.abort(reset=False)

    # Ending it

    def close(self, payload: bytes, reason: str) -> None:
        """Both peers get a Close as soon as each stream stands between two frames, and the session ends.

        Args:
            payload: of the Close frame.
            reason: for the access log.
        """
        if self._state & (_CLOSING | _FINISHED):
            return
        if self._state & _SPEAKING:
            self._fall_silent()
        self._state |= _CLOSING
        self._payload = payload
        self.ended_by = EndedBy.EDGE
        self.reason = reason
        self._sessions.await_close(self)
        if self._down.between and not self._state & _DOWN_CUT:
            self._put_close_down()
        if self._up.between and not self._state & (_UP_CUT | _FINISHED):
            self._put_close_up()
        if self._state & _SERVER_ENDED:
            self._state |= _UP_CUT
        self._settle()

    def _closing_down(self, data: bytes) -> None:
        """Pass on the rest of the frame that is under way, then our Close, then nothing."""
        if self._state & _DOWN_CUT:
            return
        rest = data[: self._down.cut(data)]
        self.bytes_down += len(rest)
        self._send_down(rest)
        if self._down.between:
            self._put_close_down()
            self._settle()

    def _closing_up(self, data: bytes) -> None:
        if self._state & _UP_CUT:
            return
        rest = data[: self._up.cut(data)]
        self.bytes_up += len(rest)
        self._send_up(rest)
        if self._up.between:
            self._put_close_up()
            self._settle()

    def _put_close_down(self) -> None:
        self._state |= _DOWN_CUT
        if not self._down.closed:
            self._send_down(close_frame(self._payload), _WITH_FIN)

    def _put_close_up(self) -> None:
        self._state |= _UP_CUT
        if not self._up.closed:
            self._send_up(masked_close_frame(self._payload), _WITH_FIN)

    def _settle(self) -> None:
        """Shut down what is fully sent; finish when both ends are there."""
        state = self._state
        if state & _FINISHED:
            return
        if state & (_CLIENT_ENDED | _SERVER_ENDED) and self._said_goodbye:
            self.abort(reset=False)  # neither has anything to say that the other could still hear
            return
        if state & _DOWN_CUT and not self._to_client and not state & _CLIENT_SHUT:
            self._state |= _CLIENT_SHUT
            _shut_down(self._client)
        if state & _UP_CUT and not self._to_server and not state & _SERVER_SHUT:
            self._state |= _SERVER_SHUT
            _shut_down(self._server)
        if self._state & _NOTHING_LEFT == _NOTHING_LEFT:
            # Nothing of the back-source's can reach the client any more, nor of the client's the back-source;
            # but for what waits in the kernel, which the deadline of a Close throws away.
            if not self._state & _GONE:
                if self._state & _CLOSING and self._something_waits:
                    return
                self._state |= _GONE
                self._sessions.remove(self)
            if self._state & _CLIENT_ENDED:
                self.abort(reset=False)

    @property
    def _something_waits(self) -> bool:
        """Whether what one peer said has still to go to the other, from here or from the kernel."""
        if self._to_server or (self.bytes_up and _unsent(self._server)):
            return True
        return _unsent(self._client)

    @property
    def _said_goodbye(self) -> bool:
        """Whether each peer has sent a Close and nothing of it waits (RFC 6455 7.1.1: then TCP is closed)."""
        up, down = self._up, self._down
        if not (up.closed and down.closed and up.between and down.between):
            return False
        return not (self._to_client or self._to_server or self._state & _CLOSING)

    def abort(self, *, reset: bool = True) -> None:
        """Both sockets are closed now.

        Args:
            reset: what still waits in the kernel is thrown away, so that the client cannot hear of this
                session after it has been served elsewhere, nor the back-source of the client.
        """
        if self._state & _FINISHED:
            return
        if reset and not self._state & _GONE:
            if not self._state & _CLIENT_SHUT or _unsent(self._client):
                _reset_on_close(self._client)
            if self._to_server or _unsent(self._server):
                _reset_on_close(self._server)
        self._state |= _FINISHED
        reactor = self._sessions.reactor
        reactor.close(self._client)
        reactor.close(self._server)
        if not self._state & _GONE:
            self._state |= _GONE
            self._sessions.remove(self)
        self._sessions.finished(self)


def _unsent(sock: socket.SocketType) -> bool:
    """Whether something waits in the kernel that the peer has no room for, or the way to it."""
    try:
        if ioctl(sock, _SIOCOUTQNSD, _NO_COUNT) == _NO_COUNT:
            return False
        # What was not sent before a reset is still counted.
        return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != _TCP_CLOSE
    except OSError:
        return False


def _reset_on_close(sock: socket.SocketType) -> None:
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    except OSError:
        pass  # it is gone already


def _shut_down(sock: socket.SocketType) -> None:
    try:
        sock.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # the peer was faster; reading finds out
