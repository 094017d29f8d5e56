"""Whatever answers at a hook's address: the call ends in its time, and means what it may safely mean."""

import gc
import socket
import ssl
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from django.test import override_settings

from cutover.hooks import answers, calling
from cutover.hooks.answers import Verdict
from cutover.models import Hook
from tests.cutover.hooks.builders import SECRET
from tests.cutover.hooks.raw import Manners, hang, reset, says, serving, without_end
from tests.support.certificates import Authority
from tests.support.receiver import Receiver, answer, drip

OK = b'{"ok": true}'


def called(url: str, timeout_s: int = 5) -> tuple[Verdict, str]:
    """What one call means, and what people read of it."""
    hook = Hook(name="h", moment="at_freeze", url=url, secret=SECRET, timeout_s=timeout_s)
    began = time.monotonic()
    verdict, facts = calling.made(hook, {"id": "1"}, "1")
    assert time.monotonic() - began < timeout_s + 5  # what is slow here may be the machine
    assert SECRET not in str(facts)
    return verdict, answers.sentence(facts)


def whole(status: str, body: bytes = b"", *headers: str) -> bytes:
    head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(head).encode() + body


@pytest.mark.parametrize(
    ("said", "verdict", "sentence"),
    [
        (whole("200 OK", OK), Verdict.YES, "yes ("),
        (whole("202 Accepted", b"12 s behind"), Verdict.NOT_YET, "not yet (202): 12 s behind"),
        (whole("425 Too Early"), Verdict.NOT_YET, "not yet (425)"),
        (whole("409 Conflict", b"", "Retry-After: 1"), Verdict.NOT_YET, "not yet (409)"),
        (whole("409 Conflict"), Verdict.NO, "answered 409"),
        (whole("503 Busy", b"", "Retry-After: 1"), Verdict.AGAIN, "answered 503"),
        (whole("500 Oops", b"stack\n trace"), Verdict.AGAIN, "answered 500: stack trace"),
        (whole("429 Slower"), Verdict.AGAIN, "answered 429"),
        (whole("401 Who"), Verdict.NO, "answered 401"),
        (whole("404 Not Found"), Verdict.NO, "answered 404"),
        (
            whole("301 Moved", b"", "Location: http://10.0.0.1/"),
            Verdict.NO,
            "redirects are not followed",
        ),
    ],
)
def test_each_answer_has_one_meaning(said: bytes, verdict: Verdict, sentence: str) -> None:
    with serving(says(said)) as url:
        means, told = called(url)
    assert means is verdict
    assert sentence in told


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"OK",
        b"<!doctype html><title>Sign in</title>",
        b"[true]",
        b"true",
        b'{"ok": "true"}',
        b'{"ok": 1}',
        b'{"ok": false}',
        b'{"OK": true}',
        b'{"ok": true',
        b"\xff\xfe\x00",
        b"[" * 60_000,
    ],
)
def test_a_200_that_does_not_say_ok_itself_is_no_yes(body: bytes) -> None:
    with serving(says(whole("200 OK", body))) as url:
        verdict, told = called(url)
    assert verdict is Verdict.NO
    assert told.startswith("answered 200 without “ok”: true")
    assert len(told) < 300


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("manners", "told"),
    [
        (reset, "cannot be reached"),
        (says(), "cannot be reached"),
        (says(b"HTTP/1.1 200 OK\r\nContent-Le"), "cannot be reached"),
        (says(b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n{"), "cannot be reached"),
        (says(b"SSH-2.0-OpenSSH_9.2\r\n"), "cannot be reached"),
        (says(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}"), "cannot be reached"),
        (without_end(b"HTTP/1.1 200 OK\r\n", b"X-Filler: " + b"x" * 1000 + b"\r\n"), "cannot be reached"),
        (without_end(b"HTTP/1.1 200 OK\r\nX: ", b"x" * 4096), "cannot be reached"),
        (without_end(CHUNKED, b"1000\r\n" + b"x" * 4096 + b"\r\n"), "more than 64 KiB"),
        (without_end(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 4096), "more than 64 KiB"),
        (without_end(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"), "did not answer within 1 s"),
        (hang, "did not answer within 1 s"),
        (says(*([b"x"] * 60), every_s=0.05), "did not answer within 1 s"),
        (says(whole("200 OK", b"x" * 100)[:50], *([b"x"] * 40), every_s=0.05), "did not answer within 1 s"),
    ],
    ids=[
        "reset", "closed", "half a head", "half a body", "no http", "two lengths", "endless headers",
        "endless header", "endless chunks", "endless body", "endless early hints", "silent", "slow head",
        "slow body",
    ],
)  # fmt: skip
def test_what_is_no_whole_answer_in_time_has_failed_and_is_tried_again(manners: Manners, told: str) -> None:
    with serving(manners) as url:
        verdict, sentence = called(url, timeout_s=1 if "within 1 s" in told else 8)
    assert verdict is Verdict.AGAIN
    assert told in sentence


def test_a_compressed_answer_is_not_unpacked() -> None:
    with serving(says(whole("200 OK", b"\x1f\x8b" + b"\0" * 100, "Content-Encoding: gzip"))) as url:
        assert called(url)[0] is Verdict.NO


def test_an_answer_that_drips_ends_with_the_time_of_the_call(receiver: Receiver) -> None:
    receiver.lasting = drip(b"x")
    assert called(receiver.url, timeout_s=1)[0] is Verdict.AGAIN


def test_nobody_listens_nobody_accepts_and_no_such_name(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    assert called(f"http://127.0.0.1:{port}/")[0] is Verdict.AGAIN
    with _full_backlog() as url:
        verdict, told = called(url, timeout_s=1)
    assert (verdict, told) == (Verdict.AGAIN, "did not answer within 1 s")

    def no_name(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", no_name)
    verdict, told = called("http://db-hooks.invalid/")
    assert verdict is Verdict.AGAIN
    assert "cannot be reached" in told


def test_a_name_server_that_is_silent_holds_the_call_no_longer_than_its_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = socket.getaddrinfo

    def slow(*arguments: object, **options: object) -> object:
        time.sleep(2.5)
        return real(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    verdict, told = called("http://localhost:1/", timeout_s=1)
    assert (verdict, told) == (Verdict.AGAIN, "did not answer within 1 s")


@contextmanager
def _full_backlog() -> Iterator[str]:
    """A port whose queue is full: nobody accepts, and further SYNs are dropped."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    address = listener.getsockname()
    waiting = [socket.socket() for _ in range(4)]
    try:
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(address)
        yield f"http://127.0.0.1:{address[1]}/"
    finally:
        for one in [*waiting, listener]:
            one.close()


def test_a_certificate_that_nobody_trusts_is_refused_and_one_that_the_system_trusts_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path)
    for name, expected in (("localhost", Verdict.YES), ("other.example", Verdict.AGAIN)):
        file = tmp_path / f"{name}.pem"
        file.write_bytes(authority.pem(name))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        with serving(says(whole("200 OK", OK)), context) as url:
            monkeypatch.delenv("SSL_CERT_FILE", raising=False)
            verdict, told = called(url)
            assert verdict is Verdict.AGAIN
            assert "CERTIFICATE_VERIFY_FAILED" in told
            monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
            verdict, told = called(url)
            assert verdict is expected, told


def test_tls_that_is_none_has_failed() -> None:
    with serving(says(whole("200 OK", OK))) as url:
        assert called(url.replace("http://", "https://"))[0] is Verdict.AGAIN
    with warnings.catch_warnings():  # where TLS cannot begin, httpx leaves its socket to the collector
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def test_proxies_of_the_environment_are_not_used(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    assert called(receiver.url)[0] is Verdict.YES


@pytest.mark.parametrize(
    ("allowed", "made"),
    [([], True), (["127.0.0.1"], True), ([".example.com"], False), (["localhost", "127.0.0.2"], False)],
)
def test_only_hosts_that_are_allowed_are_called(receiver: Receiver, allowed: list[str], made: bool) -> None:
    receiver.lasting = answer(200, OK)
    with override_settings(HOOK_ALLOWED_HOSTS=allowed):
        verdict, told = called(receiver.url)
    assert (verdict is Verdict.YES) is made
    assert len(receiver.received) == made
    if not made:
        assert told == "not called: 127.0.0.1 is not in MSHA_HOOK_ALLOWED_HOSTS"
