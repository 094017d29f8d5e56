"""The opening of a connection on a port that speaks TLS: before anything else, its handshake."""

import socket
import ssl

from msha.edge.entry.forwarded_opening import ForwardedOpening
from msha.edge.entry.opening import Opening, Stage
from msha.edge.entry.peers import TlsHandshakes
from msha.edge.limits import Limits
from msha.edge.port.certificates import Certificates
from msha.edge.port.tls import BUSY_ALERT, RECORD_LIMIT_BYTES, TlsSocket, begins_hello, by_name, whole_hello
from msha.edge.wire import handshake
from msha.edge.wire.handshake import RequestHead


class TlsPort:
    """What the connections of a worker's TLS port have in common.

    Attributes:
        certificates: by name; what is changed there is in force for the next handshake.
        context: with which every connection begins.
        handshakes: those under way.
        late: sockets that have still to send their last words.
    """

    __slots__ = ("certificates", "context", "handshakes", "late")

    def __init__(self, certificates: Certificates, limits: Limits) -> None:
        self.certificates = certificates
        self.context = by_name(certificates.pick)
        self.handshakes = TlsHandshakes(limits)
        self.late: set[TlsSocket] = set()

    def finish_late(self) -> None:
        """Last words for which there was no room are tried again."""
        for sock in list(self.late):
            sock.finish()


def _parse_secure(data: bytes) -> RequestHead:
    head = handshake.parse_request(data)
    head.secure = True
    return head


class TlsOpening(Opening):
    """A handshake under way on such a port; the TLS handshake has its time from that of the head.

    Nothing is asked of OpenSSL before a client has sent a whole record: one that sends less costs no more
    than its bytes.
    """

    __slots__ = ()

    _parse = staticmethod(_parse_secure)

    @property
    def _established(self) -> bool:
        client = self._client
        return isinstance(client, TlsSocket) and client.established

    def on_deadline(self) -> None:
        """The client did not finish its head in time, or had not even begun it."""
        if self._established:
            super().on_deadline()
        else:
            self._shell.sessions.count("header_timeout")
            self._hang_up("tls_timeout")

    def _read_head(self) -> None:
        client = self._client
        try:
            if not isinstance(client, TlsSocket):
                established = self._read_hello()
            else:
                established = client.established or self._shake_hands(client)
        except ssl.SSLError as error:
            self._tls_failed(error)
            return
        except OSError:
            self._abandon("client_gone")
            return
        if established and self._stage is Stage.HEAD:
            super()._read_head()

    def _read_hello(self) -> bool:
        """Whether TLS is spoken from here on."""
        try:
            data = self._client.recv(RECORD_LIMIT_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        self._buffer += data
        if not data:
            self._abandon("client_gone")
        elif not begins_hello(self._buffer):
            self._refuse_plain()
        elif whole_hello(self._buffer):
            return self._begin_tls()
        return False

    def _begin_tls(self) -> bool:
        """Whether TLS is spoken from here on, with luck because the hello says it all."""
        tls, balancers, host = self._shell.tls, self._shell.balancers, self._record.address[0]
        assert tls is not None
        excess = tls.handshakes.begin(self, "" if balancers is not None and host in balancers else host)
        if excess:
            self._turn_down(excess)
            return False
        hello, self._buffer = self._buffer, b""
        self._client = TlsSocket(self._client, tls.context, tls.late, self._shell.reactor.remind)
        return self._shake_hands(self._client, hello)

    def _shake_hands(self, client: TlsSocket, data: bytes = b"") -> bool:
        if not client.shake_hands(data):
            return False
        assert self._shell.tls is not None
        self._shell.tls.handshakes.over(self)
        self._shell.sessions.count("tls_handshakes")
        if client.resumed:
            self._shell.sessions.count("tls_resumed")
        return True

    def _refuse_plain(self) -> None:
        """Whoever speaks HTTP here, in the clear, is told so in the clear."""
        record = self._record
        record.line = self._buffer
        sentence = "This port speaks TLS. Connect to it by wss:// or https://."
        if 65 <= self._buffer[0] <= 90:
            self._shell.sessions.count("invalid_plain_http")
            record.decision, record.reason = "invalid", "plain_http"
            super()._bid(400, handshake.refusal(400, sentence))
        else:
            self._hang_up("not_tls")

    def _turn_down(self, excess: str) -> None:
        """The client is told by an alert; OpenSSL has nothing to do with it yet."""
        self._shell.sessions.count(excess)
        self._record.decision, self._record.reason = "refuse", excess
        self._unread = self._shell.patient
        super()._bid(0, BUSY_ALERT)

    def _tls_failed(self, error: ssl.SSLError) -> None:
        """The client has had the alert, or has sent one."""
        # The only callback is the one that looks for a certificate by name.
        word = "UNRECOGNIZED_NAME" if error.reason == "CALLBACK_FAILED" else error.reason or "closed"
        self._record.line = word.encode()
        self._hang_up("tls_failed")

    def _hang_up(self, reason: str) -> None:
        """End what never was a connection by TLS; there is no answer that the client could read."""
        self._shell.sessions.count(f"invalid_{reason}")
        self._record.line = self._record.line or self._buffer
        self._record.decision, self._record.reason = "invalid", reason
        self._bid(0, b"")

    def _bid(self, status: int, answer: bytes) -> None:
        client = self._client
        if self._established:
            self._unread = True  # what the client answers to our close_notify
        else:
            status, answer = 0, b""
            if isinstance(client, TlsSocket):
                self._client = client.plain()
        super()._bid(status, answer)

    def _end(self) -> None:
        super()._end()
        if not self._established:
            assert self._shell.tls is not None
            self._shell.tls.handshakes.over(self)


class ForwardedTlsOpening(ForwardedOpening, TlsOpening):
    """The same from a load balancer of ours, which may send a PROXY header before it speaks TLS."""

    __slots__ = ()
