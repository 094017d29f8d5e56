"""A handshake that a trusted load balancer passes on: who the client is, is what the balancer says."""

import socket
from typing import TYPE_CHECKING

from msha.edge.entry.access_log import Address
from msha.edge.entry.opening import Opening
from msha.edge.port.balancers import SECURE_SCHEMES
from msha.edge.wire import handshake, proxy_protocol
from msha.edge.wire.handshake import InvalidHead
from msha.edge.wire.proxy_protocol import InvalidProxyHeader
from msha.steering.decision import Tunnel

if TYPE_CHECKING:
    from msha.edge.entry.server import Shell


class ForwardedOpening(Opening):
    """A handshake under way, from a load balancer of ours.

    Until it is known who the client is, the record has the balancer's address; limits for each address then
    do not apply.
    """

    __slots__ = ("_asked_host", "_by_tls", "_chain", "_client_known", "_header_due")

    def __init__(self, shell: "Shell", client: socket.SocketType, address: Address) -> None:
        super().__init__(shell, client, address)
        assert shell.balancers is not None
        self._header_due = shell.balancers.proxy_protocol
        self._client_known = False
        self._chain = self._asked_host = ""
        self._by_tls = False
        self._record.balancer = address[0]

    # The header of the PROXY protocol

    def _read_head(self) -> None:
        if not self._header_due or self._read_proxy_header():
            super()._read_head()

    def _read_proxy_header(self) -> bool:
        """Whether the header has come and been taken from the connection.

        It is looked at where it is, and taken in one piece when it is whole: what stands behind it is not
        touched, and each further byte makes an event of its own.
        """
        try:
            seen = self._client.recv(proxy_protocol.V2_LIMIT_BYTES + 1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
            if not seen:
                self._abandon("client_gone")
                return False
            proxied = proxy_protocol.read(seen)
            if proxied is None:
                return False
            self._client.recv(proxied.size, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            self._abandon("client_gone")
            return False
        except InvalidProxyHeader as error:
            sentence = f"This load balancer must begin each connection with a PROXY header: {error}."
            self._reject(InvalidHead(400, "proxy_protocol", sentence))
            return False
        self._header_due = False
        if proxied.source is not None:
            self._record.address = proxied.source
        self._by_tls = proxied.secure
        return True

    # Who the client is

    def _decide(self) -> None:
        if not self._client_known:
            self._client_known = True
            self._know_client()
            shell, record = self._shell, self._record
            host = record.address[0]
            assert shell.balancers is not None
            if host not in shell.balancers:
                excess = shell.peers.excess(host, shell.reactor.now())
                if excess is not None:
                    self._refuse(excess)
                    return
                if self._watched:
                    self._book()
        super()._decide()

    def _know_client(self) -> None:
        """Take from the fields what a balancer may say; nobody else's reach us here."""
        record, head, balancers = self._record, self._head, self._shell.balancers
        assert head is not None
        assert balancers is not None
        peer = record.address[0]
        chain = balancers.chain(peer, head.values(b"x-forwarded-for"))
        self._chain = ", ".join(chain.hops)
        head.secure = head.secure or self._by_tls
        if peer not in balancers:
            return
        schemes = b",".join(head.values(b"x-forwarded-proto")).split(b",")
        # One for each hop, or only the last balancer's.
        scheme = schemes[-min(max(len(chain.hops) - 1, 1), len(schemes))].strip(b" \t").lower()
        if scheme:
            head.secure = scheme in SECURE_SCHEMES
        self._asked_host = handshake.host_in(head.fields.get(b"x-forwarded-host", b""))
        if chain.client != peer:
            record.address = (chain.client, 0)

    def _book(self) -> None:
        if self._client_known and self._record.address[0] != self._record.balancer:
            super()._book()

    def request_for(self, wish: Tunnel) -> bytes:
        """The head that a back-source gets."""
        assert self._head is not None
        return handshake.back_source_request(
            self._head, wish.target, self._chain, self._statements(wish), asked_host=self._asked_host
        )
