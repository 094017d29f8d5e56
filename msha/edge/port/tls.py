"""TLS over a client's socket, with the methods of a socket: openings, farewells and tunnels need not know.

OpenSSL never touches the socket. It is given what was read, and gives what is to be sent, so that we decide
what waits where: a read ends only when nothing is left, neither here nor in the kernel, or the caller's
buffer is full, as edge-triggered events demand; and what a write could not get rid of is not sent yet, as far
as the caller knows.
"""

import socket
import ssl
from collections.abc import Callable
from typing import Any

#: Ciphertext is given to and taken from OpenSSL in pieces: its buffers never shrink again. 16 KiB at a time
#: would leave 40 kB behind in a session that has had one large message, and gain nothing that was measurable.
_PIECE_BYTES = 4_096

#: Plaintext that is encrypted before the kernel is asked whether it takes it.
_BLOCK_BYTES = 4 * _PIECE_BYTES

#: Records in one read. A client may put one byte into each, and each takes 2 us.
_RECORDS_PER_READ = 500

#: What TLS itself has to say beside the data (alerts, tickets) is a few hundred bytes.
_CONTROL_LIMIT_BYTES = 65_536

#: The content of a record that is not encrypted (RFC 8446 5.1).
RECORD_LIMIT_BYTES = 16_384

#: The alert ``internal_error``, fatal: we cannot go on, and it is not the client's fault (RFC 8446 6.2).
BUSY_ALERT = b"\x15\x03\x03\x00\x02\x02\x50"

_HEADER_BYTES = 5
_HANDSHAKE = 0x16


def server_context() -> ssl.SSLContext:
    """What every context here has in common: TLS 1.2 or 1.3 by Python's choice of ciphers, HTTP/1.1."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_alpn_protocols(["http/1.1"])
    return context


def by_name(pick: Callable[[str | None], ssl.SSLContext | None]) -> ssl.SSLContext:
    """The context that connections begin with; the name that a client asks for picks the one it goes on with.

    It stays the same for as long as the worker lives, and with it the keys of session tickets.

    Args:
        pick: the context for a name, or for no name; None refuses it with the alert ``unrecognized_name``.
    """
    context = server_context()

    def choose(connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> int | None:
        chosen = pick(name)
        if chosen is None:
            return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
        connection.context = chosen
        return None

    context.sni_callback = choose
    return context


def begins_hello(data: bytes) -> bool:
    """Whether the first bytes of a connection can be those of a TLS handshake."""
    return data[0] == _HANDSHAKE


def whole_hello(data: bytes) -> bool:
    """Whether the first record is there to its end, so that a handshake is worth the memory that it takes.

    One that is too long is whole, too: OpenSSL refuses it.
    """
    size = int.from_bytes(data[3:5])
    return len(data) >= _HEADER_BYTES and len(data) >= _HEADER_BYTES + min(size, RECORD_LIMIT_BYTES)


class TlsSocket(socket.SocketType):
    """A client's socket, as which it behaves; only the handshake comes first.

    Args:
        client: connected; this object takes its descriptor over.
        late: sockets that have still to send their last words; :meth:`finish` does, as soon as it can.
        remind: called with the descriptor when a read leaves something in the kernel, so that its owner hears
            of it once more.

    Attributes:
        established: whether the handshake is over.
    """

    __slots__ = (
        "_ended",
        "_fed",
        "_incoming",
        "_kept",
        "_late",
        "_outgoing",
        "_owed",
        "_remind",
        "_shut",
        "_ssl",
        "_waiting",
        "established",
    )

    def __init__(
        self,
        client: socket.SocketType,
        context: ssl.SSLContext,
        late: "set[TlsSocket]",
        remind: Callable[[int], None],
    ) -> None:
        super().__init__(client.family, socket.SOCK_STREAM, 0, client.detach())
        self.setblocking(False)
        self.established = False
        self._late = late
        self._remind = remind
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._ssl = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        # reading
        self._fed = False  # OpenSSL may have more without being given more
        self._kept = b""  # plaintext from before the shutdown
        self._ended = False  # the client has said close_notify
        # writing
        self._waiting = b""  # ciphertext that the kernel did not take
        self._owed = 0  # plaintext in there that was not acknowledged; the next call of send begins with it
        self._shut = False

    # The handshake

    def shake_hands(self, data: bytes = b"") -> bool:
        """Whether the handshake is over, as far as it gets now.

        Args:
            data: what was read already.

        Raises:
            ssl.SSLError: it has failed; the client has been told why if it listens.
            OSError: the client is gone.
        """
        if self._waiting:
            self._flush()
        if data:
            self._incoming.write(data)
        while True:
            try:
                self._ssl.do_handshake()
                break
            except ssl.SSLWantReadError:
                self._flush()
            except ssl.SSLError:
                self._flush()
                raise
            try:
                piece = super().recv(_PIECE_BYTES)
            except BlockingIOError:
                return False
            if not piece:
                raise ConnectionResetError("the client is gone")
            self._incoming.write(piece)
        self._flush()
        self._fed = self.established = True
        return True

    @property
    def resumed(self) -> bool:
        """Whether the client came back with a session ticket."""
        return bool(self._ssl.session_reused)

    def plain(self) -> socket.SocketType:
        """The socket without TLS; this object is of no use any more."""
        client = socket.SocketType(self.family, socket.SOCK_STREAM, 0, self.detach())
        client.setblocking(False)
        return client

    # Reading

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        """As a socket does; flags make no difference."""
        data = bytearray(bufsize)
        return bytes(data[: self.recv_into(data)])

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0, /) -> int:
        """As a socket does: less than the buffer takes means that nothing more is here, nor in the kernel
        unless the owner is reminded of it.

        Raises:
            BlockingIOError: there is nothing.
            OSError: the client is gone, or sends what is not TLS.
        """
        view = memoryview(buffer)
        if nbytes:
            view = view[:nbytes]
        size, got = len(view), 0
        if self._kept:
            got = min(len(self._kept), size)
            view[:got], self._kept = self._kept[:got], self._kept[got:]
        drained, records = False, 0
        while got < size and not self._ended:
            if self._fed:
                got += self._decrypt(view[got:])
                records += 1
            elif got and drained:
                break
            elif records > _RECORDS_PER_READ:
                self._remind(self.fileno())
                if got:
                    break
                raise BlockingIOError
            else:
                try:
                    piece = super().recv(_PIECE_BYTES)
                except BlockingIOError:
                    if got:
                        break
                    raise
                if not piece:
                    break
                drained = len(piece) < _PIECE_BYTES
                self._incoming.write(piece)
                self._fed = True
        if self._ended and got:
            # No event would tell of the end that has been read already, but this makes one.
            self._shut_down(socket.SHUT_RD)
        return got

    def _decrypt(self, view: memoryview) -> int:
        """How much was decrypted of what is here."""
        try:
            size: Any = self._ssl.read(len(view), view)  # how many, if it is given a buffer
        except ssl.SSLWantReadError:
            size, self._fed = 0, False
        except ssl.SSLZeroReturnError:
            size, self._ended = 0, True
        except ssl.SSLError:
            self._flush()  # an alert
            raise
        else:
            if not size:
                self._ended = True
            elif not self._incoming.pending and not self._ssl.pending():
                self._fed = False
        if self._outgoing.pending:
            self._flush()
        return int(size)

    # Writing

    def send(self, data: Any, flags: int = 0, /) -> int:
        """As a socket does, if whoever could not send all begins the next time with what was left.

        A block that the kernel did not take whole is kept encrypted, and called unsent until it is sent, so
        that its owner waits for the kernel as it would without TLS.

        Raises:
            BlockingIOError: nothing is sent.
            OSError: the client is gone.
        """
        sent = 0
        if self._waiting:
            if not self._flush(flags):
                raise BlockingIOError
            assert len(data) >= self._owed, "what could not be sent was given up"
            sent, self._owed = self._owed, 0
        size = len(data)
        while sent < size:
            end = min(sent + _BLOCK_BYTES, size)
            self._encrypt(data, sent, end)
            if not self._flush(flags):
                self._owed = end - sent
                break
            sent = end
        if not sent and size:
            raise BlockingIOError
        return sent

    def _encrypt(self, data: Any, begin: int, end: int) -> None:
        write, outgoing = self._ssl.write, self._outgoing
        if end - begin <= _PIECE_BYTES:
            write(data[begin:end])
            return
        parts = []
        for at in range(begin, end, _PIECE_BYTES):
            write(data[at : min(at + _PIECE_BYTES, end)])
            parts.append(outgoing.read())
        self._waiting = b"".join(parts)

    def _flush(self, flags: int = 0) -> bool:
        """Whether the kernel has all of the ciphertext now."""
        if self._outgoing.pending:
            self._waiting += self._outgoing.read()
        if not self._waiting:
            return True
        try:
            sent = super().send(self._waiting, flags)
        except BlockingIOError:
            sent = 0
        self._waiting = self._waiting[sent:]
        if len(self._waiting) > _CONTROL_LIMIT_BYTES:
            raise ConnectionAbortedError("the client makes TLS answer and does not read the answers")
        return not self._waiting

    # The end

    def shutdown(self, how: int, /) -> None:
        """Nothing more will be sent (SHUT_WR): the client is told by TLS and by TCP. Reading goes on."""
        assert how == socket.SHUT_WR
        if self._say_close():
            super().shutdown(socket.SHUT_WR)
        else:
            self._late.add(self)

    def finish(self) -> None:
        """The last words are out, if there is room for them by now, and the FIN behind them."""
        try:
            done = self._flush()
        except OSError:
            done = True  # there is nobody to say them to
        if done:
            self._late.discard(self)
            self._shut_down(socket.SHUT_WR)

    def close(self) -> None:
        """Let go of the socket; a client that was sent everything is told of the end, if it can be."""
        self._late.discard(self)
        if self.established and not self._waiting and self.fileno() >= 0:
            self._say_close()
        super().close()

    def _say_close(self) -> bool:
        """Whether the kernel has the close_notify, or there is nobody to say it to."""
        if self._shut:
            return True
        self._shut = True
        try:
            # OpenSSL would take what it was fed for an answer to our close_notify, and find none there.
            while self._fed and not self._ended:
                kept = bytearray(_PIECE_BYTES)
                self._kept += kept[: self._decrypt(memoryview(kept))]
            self._ssl.unwrap()
        except OSError:
            pass  # the client has not said close_notify itself, and nobody waits for that here; or it is gone
        try:
            return self._flush(socket.MSG_MORE)
        except OSError:
            return True

    def _shut_down(self, how: int) -> None:
        try:
            super().shutdown(how)
        except OSError:
            pass  # the peer was faster
