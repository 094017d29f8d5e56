"""Certificates in a directory: which serves which name, and what a look at changed files does."""

import os
import ssl
from pathlib import Path

import pytest

from msha.edge.port.certificates import Certificates, open_to_all
from tests.support.certificates import Authority


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def directory(tmp_path: Path, authority: Authority) -> Path:
    """For one domain and for whatever else."""
    (tmp_path / "websocket.test.pem").write_bytes(authority.pem("websocket.test", "*.websocket.test"))
    (tmp_path / "default.pem").write_bytes(authority.pem("anything.test"))
    return tmp_path


@pytest.fixture
def certificates(directory: Path) -> Certificates:
    found = Certificates(directory)
    assert set(found.look().read) == {"default", "websocket.test"}
    return found


def replace(path: Path, content: bytes) -> None:
    """As a deployment should: never half a file."""
    new = path.with_suffix(".new")
    new.write_bytes(content)
    new.replace(path)


def test_a_file_serves_its_name_and_the_names_one_label_longer(
    certificates: Certificates, directory: Path, authority: Authority
) -> None:
    own, default = certificates.pick("websocket.test"), certificates.pick(None)
    assert own is not None
    assert default is not None
    assert own is not default
    assert certificates.pick("center.websocket.test") is own
    assert certificates.pick("CENTER.WebSocket.Test.") is own
    for other in ("a.center.websocket.test", "test", "elsewhere.test", "", "."):
        assert certificates.pick(other) is default
    (directory / "center.websocket.test.pem").write_bytes(authority.pem("center.websocket.test"))
    assert certificates.look().read == ("center.websocket.test",)
    assert certificates.pick("center.websocket.test") is not own
    assert certificates.pick("unbj.websocket.test") is own


def test_without_a_default_other_names_have_none(certificates: Certificates, directory: Path) -> None:
    (directory / "default.pem").unlink()
    assert certificates.look().gone == ("default",)
    assert certificates.pick("websocket.test") is not None
    assert certificates.pick("elsewhere.test") is None
    assert certificates.pick(None) is None


def test_only_files_that_have_changed_are_read(
    certificates: Certificates, directory: Path, authority: Authority
) -> None:
    assert not certificates.look()
    own, default = certificates.pick("websocket.test"), certificates.pick(None)
    replace(directory / "websocket.test.pem", authority.pem("websocket.test"))
    assert certificates.look().read == ("websocket.test",)
    assert certificates.pick("websocket.test") is not own
    assert certificates.pick(None) is default


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "does not hold a certificate chain"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "does not hold a certificate"),
        ("mismatch", "a private key that does not belong"),
        ("keyless", "does not hold a certificate chain and its private key"),
        ("locked", "needs a password"),
    ],
)
def test_a_broken_file_changes_nothing_and_is_told_once(
    certificates: Certificates, directory: Path, authority: Authority, content: bytes | str, problem: str
) -> None:
    own = certificates.pick("websocket.test")
    pem, other = authority.pem("websocket.test"), authority.pem("websocket.test")
    mark = b"-----BEGIN PRIVATE KEY-----"
    if content == "mismatch":
        content = pem.partition(mark)[0] + mark + other.partition(mark)[2]
    elif content == "keyless":
        content = pem.partition(mark)[0]
    elif content == "locked":
        content = authority.locked("websocket.test")
    assert isinstance(content, bytes)
    replace(directory / "websocket.test.pem", content)
    refused = certificates.look().refused
    assert list(refused) == ["websocket.test"]
    assert problem in str(refused["websocket.test"])
    assert str(directory / "websocket.test.pem") in str(refused["websocket.test"])
    assert certificates.pick("websocket.test") is own
    assert not certificates.look()
    assert list(certificates.refused) == ["websocket.test"]
    replace(directory / "websocket.test.pem", pem)
    assert certificates.look().read == ("websocket.test",)
    assert not certificates.refused


def test_a_directory_that_is_gone_changes_nothing(certificates: Certificates, directory: Path) -> None:
    own = certificates.pick("websocket.test")
    directory.rename(directory.with_name("away"))
    assert "cannot be read" in str(certificates.look().refused[""])
    assert not certificates.look()
    assert certificates.pick("websocket.test") is own
    directory.with_name("away").rename(directory)
    certificates.look()
    assert certificates.unreadable is None


def test_a_directory_without_certificates_is_no_directory_of_certificates(
    certificates: Certificates, directory: Path
) -> None:
    own = certificates.pick("websocket.test")
    for path in directory.iterdir():
        path.unlink()
    assert "has no file such as default.pem" in str(certificates.look().refused[""])
    assert certificates.pick("websocket.test") is own


@pytest.mark.parametrize("name", ["Upper.test.pem", "white space.pem", "*.websocket.test.pem", ".hidden.pem"])
def test_a_name_that_no_client_could_ask_for_is_refused(
    certificates: Certificates, directory: Path, authority: Authority, name: str
) -> None:
    (directory / name).write_bytes(authority.pem("websocket.test"))
    changes = certificates.look()
    assert not changes.read
    assert len(changes.refused) == (not name.startswith("."))


def test_files_are_those_of_one_look_also_while_links_are_exchanged(
    tmp_path: Path, authority: Authority
) -> None:
    for number in (1, 2):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "default.pem").write_bytes(authority.pem("a.test"))
    os.symlink("1", tmp_path / "current")
    certificates = Certificates(tmp_path / "current")
    certificates.look()
    before = certificates.pick(None)
    os.symlink("2", tmp_path / "next")
    (tmp_path / "next").replace(tmp_path / "current")
    assert certificates.look().read == ("default",)
    assert certificates.pick(None) is not before


def test_a_key_that_every_user_can_read_is_noticed(directory: Path) -> None:
    path = directory / "default.pem"
    path.chmod(0o640)
    assert not open_to_all(path)
    path.chmod(0o644)
    assert open_to_all(path)
    assert not open_to_all(directory / "absent.pem")


def test_contexts_offer_no_less_than_tls_1_2_and_no_renegotiation(certificates: Certificates) -> None:
    context = certificates.pick(None)
    assert context is not None
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.options & ssl.OP_NO_RENEGOTIATION
