"""Heads as values: what is let through, what is refused and with which words."""

import pytest

from msha.edge.wire import handshake
from msha.edge.wire.handshake import InvalidAnswer, InvalidHead
from tests.support.websocket_wire import accept_key, handshake_head

KEY = "dGhlIHNhbXBsZSBub25jZQ=="


def verdict(data: bytes, *, step: int = 0) -> str:
    """``websocket``, ``http``, ``more``, or why it is refused; the bytes come ``step`` at a time."""
    try:
        seen = 0
        for end in range(step, len(data), step) if step else ():
            if handshake.head_end(data[:end], seen) is not None:
                break
            seen = end
        end_of_head = handshake.head_end(data, seen)
        if end_of_head is None:
            return "more"
        head = handshake.parse_request(data[:end_of_head])
        return "websocket" if handshake.asks_for_websocket(head) else "http"
    except InvalidHead as error:
        return f"{error.status} {error.reason}"


def lines(*fields: str, first: str = "GET / HTTP/1.1") -> bytes:
    """A head of these lines."""
    return "\r\n".join((first, *fields, "", "")).encode("latin-1")


def changed(*fields: str, drop: tuple[str, ...] = (), first: str = "GET / HTTP/1.1") -> bytes:
    """A good handshake with some fields dropped and others added."""
    good = (
        "Host: websocket.test",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {KEY}",
        "Sec-WebSocket-Version: 13",
    )
    kept = [line for line in good if line.split(":")[0] not in drop]
    return lines(*kept, *fields, first=first)


HEADS = {
    "a good handshake": (changed(), "websocket"),
    "other spellings": (
        lines(
            "hOST: websocket.test",
            "uPGRADE: WebSocket",
            "cONNECTION: keep-alive, upgrade",
            f"sec-websocket-KEY: {KEY}",
            "sec-websocket-version: 13",
        ),
        "websocket",
    ),
    "spaces round values": (
        changed("Sec-WebSocket-Version: \t13 \t", drop=("Sec-WebSocket-Version",)),
        "websocket",
    ),
    "upgrade among others": (changed("Upgrade: h2c, websocket", drop=("Upgrade",)), "websocket"),
    "an absolute target": (changed(first="GET http://websocket.test/ws/?a=b HTTP/1.1"), "websocket"),
    "a plain request": (lines("Host: websocket.test"), "http"),
    "a plain request of an old client": (lines(first="GET / HTTP/1.0"), "http"),
    "a health check by HEAD": (lines(first="HEAD /.well-known/msha/status HTTP/1.0"), "http"),
    "an empty body": (changed("Content-Length: 0"), "websocket"),
    # downgraded on the way
    "a key with HTTP/1.0": (changed(first="GET / HTTP/1.0"), "400 downgraded"),
    "a key without Upgrade": (changed(drop=("Upgrade",)), "400 downgraded"),
    "nginx's default proxying": (
        changed("Connection: close", drop=("Upgrade", "Connection"), first="GET / HTTP/1.0"),
        "400 downgraded",
    ),
    "a key with Connection: close": (
        changed("Connection: close", drop=("Connection",)),
        "400 downgraded",
    ),
    # broken handshakes
    "no key": (changed(drop=("Sec-WebSocket-Key",)), "400 websocket_key"),
    "a short key": (changed("Sec-WebSocket-Key: c2hvcnQ=", drop=("Sec-WebSocket-Key",)), "400 websocket_key"),
    "a key that is not base64": (
        changed("Sec-WebSocket-Key: ####################==", drop=("Sec-WebSocket-Key",)),
        "400 websocket_key",
    ),
    "two keys": (changed(f"Sec-WebSocket-Key: {KEY}"), "400 websocket_key"),
    "an old version": (
        changed("Sec-WebSocket-Version: 8", drop=("Sec-WebSocket-Version",)),
        "426 websocket_version",
    ),
    "no version": (changed(drop=("Sec-WebSocket-Version",)), "426 websocket_version"),
    "two versions": (changed("Sec-WebSocket-Version: 13"), "426 websocket_version"),
    "a HEAD": (changed(first="HEAD / HTTP/1.1"), "405 method"),
    # not for us
    "a POST": (changed(first="POST / HTTP/1.1"), "405 method"),
    "an unknown method": (changed(first="BREW / HTTP/1.1"), "405 method"),
    "a CONNECT": (lines("Host: a", first="CONNECT a:80 HTTP/1.1"), "405 method"),
    "HTTP/2's preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "505 http_version"),
    "HTTP/0.9": (b"GET /\r\n\r\n", "505 http_version"),
    "HTTP/2.0 in words": (changed(first="GET / HTTP/2.0"), "505 http_version"),
    "HTTP/1.2": (changed(first="GET / HTTP/1.2"), "400 malformed"),
    "RTSP": (changed(first="GET / RTSP/1.1"), "505 http_version"),
    # bodies
    "a length": (changed("Content-Length: 5"), "400 body"),
    "two lengths": (changed("Content-Length: 0", "Content-Length: 0"), "400 malformed"),
    "a chunked body": (changed("Transfer-Encoding: chunked"), "400 body"),
    "a chunked body in a plain request": (
        lines("Host: websocket.test", "Transfer-Encoding: chunked"),
        "400 body",
    ),
    # hosts
    "no Host": (changed(drop=("Host",)), "400 host"),
    "two Hosts": (changed("Host: other.test"), "400 host"),
    "the same Host twice": (changed("Host: websocket.test"), "400 host"),
    "an empty Host": (changed("Host:", drop=("Host",)), "400 host"),
    "a Host with a path": (changed("Host: websocket.test/x", drop=("Host",)), "400 host"),
    "a Host with a user": (changed("Host: a@websocket.test", drop=("Host",)), "400 host"),
    "a Host beyond ASCII": (changed("Host: w\xe9bsocket.test", drop=("Host",)), "400 host"),
    # targets
    "a fragment": (changed(first="GET /#x HTTP/1.1"), "400 target"),
    "a star": (changed(first="GET * HTTP/1.1"), "400 target"),
    "another scheme": (changed(first="GET ftp://websocket.test/ HTTP/1.1"), "400 target"),
    "a target beyond ASCII": (changed(first="GET /\xe9 HTTP/1.1"), "400 malformed"),
    "a control character in the target": (changed(first="GET /\x01 HTTP/1.1"), "400 malformed"),
    "an absolute target without a host": (changed(first="GET http:///x HTTP/1.1"), "400 host"),
    # grammar
    "two spaces after the method": (changed(first="GET  / HTTP/1.1"), "400 malformed"),
    "two spaces before the version": (changed(first="GET /  HTTP/1.1"), "400 malformed"),
    "a space after the version": (changed(first="GET / HTTP/1.1 "), "400 malformed"),
    "a tab for a space": (changed(first="GET\t/ HTTP/1.1"), "405 method"),
    "a space before the colon": (changed("X-A : b"), "400 malformed"),
    "a folded line": (changed("X-A: b\r\n c"), "400 malformed"),
    "a line that begins with a space": (changed(" X-A: b"), "400 malformed"),
    "a line without a colon": (changed("X-A"), "400 malformed"),
    "a field without a name": (changed(": b"), "400 malformed"),
    "a name with a parenthesis": (changed("X(A: b"), "400 malformed"),
    "a NUL": (changed("X-A: b\0c"), "400 malformed"),
    "a bell": (changed("X-A: b\x07c"), "400 malformed"),
    "a lone carriage return": (changed("X-A: b\rc"), "400 malformed"),
    "a bare line feed": (changed("X-A: b\nX-B: c"), "400 bare_line_feed"),
    "only line feeds": (changed().replace(b"\r\n", b"\n"), "400 bare_line_feed"),
    "an empty line first": (b"\r\n" + changed(), "400 not_http"),
    "a TLS hello": (b"\x16\x03\x01\x02\x00\x01\x00", "400 not_http"),
    "lower case": (changed(first="get / HTTP/1.1"), "400 not_http"),
    # limits
    "a hundred fields": (changed(*[f"X-{n}: y" for n in range(95)]), "websocket"),
    "a hundred and one fields": (changed(*[f"X-{n}: y" for n in range(96)]), "431 too_many_fields"),
    "a head of 16 KiB": (changed("X: " + "y" * (16384 - len(changed()) - 5)), "websocket"),
    "a head of 16 KiB and one byte": (
        changed("X: " + "y" * (16384 - len(changed()) - 4)),
        "431 head_too_long",
    ),
    "an endless head": (b"GET / HTTP/1.1\r\nX: " + b"y" * 20000, "431 head_too_long"),
    # not all there yet
    "half a head": (changed()[:-2], "more"),
    "the first letter": (b"G", "more"),
}


@pytest.mark.parametrize("name", HEADS)
def test_a_head_gets_its_verdict(name: str) -> None:
    head, expected = HEADS[name]
    assert verdict(head) == expected


@pytest.mark.parametrize("step", [1, 2, 3, 7, 61])
@pytest.mark.parametrize("name", [name for name in HEADS if len(HEADS[name][0]) < 4000])
def test_a_head_in_pieces_gets_the_same_verdict(name: str, step: int) -> None:
    head, expected = HEADS[name]
    assert verdict(head, step=step) == expected


def test_pipelined_bytes_are_not_part_of_the_head() -> None:
    head = handshake_head()
    assert handshake.head_end(head + b"\n\n\0rest") == len(head)


def test_the_refusal_of_a_downgraded_handshake_says_what_to_change() -> None:
    with pytest.raises(InvalidHead, match=r"HTTP/1\.1.*Upgrade and Connection"):
        handshake.asks_for_websocket(handshake.parse_request(changed(first="GET / HTTP/1.0")))


def test_the_host_of_an_absolute_target_overrides_the_field() -> None:
    head = handshake.parse_request(changed(first="GET ws://other.test:81/a?b=c HTTP/1.1"))
    assert (head.host, head.path, head.query) == ("other.test:81", "/a", "b=c")


def test_an_absolute_target_without_a_path_means_the_root() -> None:
    head = handshake.parse_request(changed(first="GET http://other.test?b HTTP/1.1"))
    assert (head.host, head.path, head.query) == ("other.test", "/", "b")


def test_the_accept_is_that_of_the_rfc() -> None:
    assert handshake.accept_for(KEY.encode()) == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


# What the back-source gets


def request_lines(*fields: str, target: str = "/", ours: tuple[tuple[bytes, bytes], ...] = ()) -> list[str]:
    head = handshake.parse_request(changed(*fields))
    built = handshake.back_source_request(head, target, "192.0.2.7", ours)
    assert built.endswith(b"\r\n\r\n")
    return built[:-4].decode("latin-1").split("\r\n")


def test_the_request_for_the_back_source_keeps_what_is_the_clients_own() -> None:
    built = request_lines("Origin: http://a", "unitType: u", "Cookie: a=b", target="/x?y=z")
    assert built[0] == "GET /x?y=z HTTP/1.1"
    for line in ("Host: websocket.test", "Origin: http://a", "unitType: u", "Cookie: a=b"):
        assert line in built
    assert f"Sec-WebSocket-Key: {KEY}" in built


def test_hop_by_hop_fields_are_written_anew() -> None:
    built = request_lines(
        "Connection: X-Secret, keep-alive",
        "X-Secret: s",
        "Keep-Alive: 5",
        "TE: trailers",
        "Proxy-Connection: a",
    )
    assert [line for line in built if line.lower().startswith("connection")] == ["Connection: Upgrade"]
    assert [line for line in built if line.lower().startswith("upgrade")] == ["Upgrade: websocket"]
    assert not [line for line in built if line.lower().startswith(("x-secret", "keep-alive", "te:", "proxy"))]


def test_the_fields_of_the_handshake_itself_are_passed_on_whatever_connection_lists() -> None:
    built = request_lines("Connection: Sec-WebSocket-Key, sec-websocket-version")
    assert f"Sec-WebSocket-Key: {KEY}" in built
    assert "Sec-WebSocket-Version: 13" in built


def test_what_a_client_claims_in_our_name_is_replaced() -> None:
    built = request_lines(
        "X-Forwarded-For: 6.6.6.6",
        "x-forwarded-port: 1",
        "Forwarded: for=6.6.6.6",
        "X-MSHA-Router-Id: 9",
        "X_Msha_Router_Id: 9",
        "x_forwarded-for: 6.6.6.6",
        ours=((b"X-Msha-Unit", b"center"),),
    )
    claims = ("x-forwarded", "forwarded", "x-msha")
    ours = [line for line in built if line.lower().replace("_", "-").startswith(claims)]
    assert ours == [
        "X-Forwarded-For: 192.0.2.7",
        "X-Forwarded-Proto: http",
        "X-Forwarded-Host: websocket.test",
        "X-Msha-Unit: center",
    ]


# What a back-source answers


def answer(*fields: str, first: str = "HTTP/1.1 101 Switching Protocols") -> bytes:
    return lines(*fields, first=first)


SWITCH = ("Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Accept: {accept_key(KEY)}")


def test_a_proper_101_may_open_a_tunnel() -> None:
    head = handshake.parse_response(answer(*SWITCH, "Sec-WebSocket-Protocol: chat"))
    handshake.check_switch(head, KEY.encode())
    built = handshake.switching_protocols(head)
    assert built.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
    assert b"Sec-WebSocket-Protocol: chat\r\n" in built


def test_the_accept_reaches_the_client_whatever_connection_lists() -> None:
    head = handshake.parse_response(answer(*SWITCH, "Connection: Sec-WebSocket-Accept, X-A", "X-A: b"))
    handshake.check_switch(head, KEY.encode())
    built = handshake.switching_protocols(head)
    assert b"Sec-WebSocket-Accept: " in built
    assert b"X-A" not in built


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        (SWITCH[1:], "malformed|lacks Upgrade"),
        ((SWITCH[0], SWITCH[2]), "malformed|lacks Connection"),
        (SWITCH[:2], "wrong Sec-WebSocket-Accept"),
        ((*SWITCH[:2], "Sec-WebSocket-Accept: c29tZXRoaW5nIGVsc2U="), "wrong Sec-WebSocket-Accept"),
        ((*SWITCH, SWITCH[2]), "wrong Sec-WebSocket-Accept"),
        (("Upgrade: h2c", *SWITCH[1:]), "malformed|lacks Upgrade"),
    ],
)
def test_an_improper_101_opens_nothing(fields: tuple[str, ...], problem: str) -> None:
    with pytest.raises(InvalidAnswer, match=problem):
        handshake.check_switch(handshake.parse_response(answer(*fields)), KEY.encode())


def test_a_101_of_an_old_http_opens_nothing() -> None:
    head = handshake.parse_response(answer(*SWITCH, first="HTTP/1.0 101 Switching Protocols"))
    with pytest.raises(InvalidAnswer, match=r"not HTTP/1\.1"):
        handshake.check_switch(head, KEY.encode())


@pytest.mark.parametrize(
    "head",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 1010 X\r\n\r\n",
        b"HTTP/1.1 099 X\r\n\r\n",
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: b\n\r\n\r\n",
        b"RTSP/1.0 200 OK\r\n\r\n",
        b"\r\nHTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 O\0K\r\n\r\n",
        b"HTTP/1.1 200 O\x1bK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
)
def test_an_answer_that_is_not_http_is_told_apart(head: bytes) -> None:
    with pytest.raises(InvalidAnswer):
        handshake.parse_response(head)


def test_the_body_of_another_answer_is_bounded() -> None:
    reader = handshake.AnswerReader(b"HTTP/1.1 200 OK\r\n\r\n")
    for _ in range(20):
        assert not reader.complete or len(reader.body) == handshake.ANSWER_LIMIT_BYTES
        reader.feed(b"x" * 10_000)
    assert reader.complete
    assert len(reader.body) == handshake.ANSWER_LIMIT_BYTES


def test_a_chunked_body_is_unwrapped() -> None:
    reader = handshake.AnswerReader(b"HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n\r\n")
    for byte in b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n":
        reader.feed(bytes([byte]))
    assert (reader.complete, reader.body) == (True, b"abcde")


@pytest.mark.parametrize("second", ["HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", None])
def test_an_answer_behind_the_answer_is_not_part_of_it(second: str | None) -> None:
    first = b"HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno"
    reader = handshake.AnswerReader(first + (second.encode() if second is not None else answer(*SWITCH)))
    assert (reader.complete, reader.body) == (True, b"no")
