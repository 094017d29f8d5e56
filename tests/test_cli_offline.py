"""`mshactl compile`, `sign` and `key`: with no console, no network and no Django."""

import json
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from msha.steering import breakglass
from msha.steering.breakglass import opened, public_key
from msha.steering.snapshot import load
from tests.support.snapshots import snapshot
from tests.support.topologies import WALK_THROUGH
from tests.test_cli import alone


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "breakglass.key"
    path.write_bytes(breakglass.new_key()[0])
    return path


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """What a node has in its state directory."""
    path = tmp_path / "snapshot.json"
    path.write_bytes(snapshot(41, epoch=7).body)
    return path


def public_of(key: Path) -> breakglass.Ed25519PublicKey:
    return breakglass.private_key(key.read_bytes()).public_key()


def test_a_new_key_is_a_private_file_and_a_public_one_and_never_written_over(tmp_path: Path) -> None:
    done = alone("key", "new", "-o", str(tmp_path / "k"))
    assert done.returncode == 0, done.stderr
    private, public = tmp_path / "k", tmp_path / "k.pub"
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert breakglass.key_name(public_of(private)) == breakglass.key_name(public_key(public.read_bytes()))
    assert breakglass.key_name(public_of(private)) in done.stderr
    before = private.read_bytes()
    again = alone("key", "new", "-o", str(tmp_path / "k"))
    assert (again.returncode, "cannot be made" in again.stderr) == (1, True)
    assert private.read_bytes() == before


def test_one_command_makes_a_signed_rule_from_the_file_of_a_node(
    tmp_path: Path, base: Path, key: Path
) -> None:
    out = tmp_path / "snapshot.signed.json"
    words = ["compile", "--after", str(base), "--ranges", "center=0~9999", "--sign", str(key), "-o", str(out)]

    unfenced = alone(*words, "--yes")
    assert unfenced.returncode == 1
    assert "takes ids from unbj" in unfenced.stderr
    assert "--i-have-fenced" in unfenced.stderr
    assert not out.exists()
    unasked = alone(*words, "--i-have-fenced", "unbj")
    assert unasked.returncode == 2, "nobody was there to ask"

    done = alone(*words, "--i-have-fenced", "unbj", "--by", "on-call", "--yes")
    assert done.returncode == 0, done.stderr
    for told in (
        "version 42, epoch 8, after version 41, epoch 7", "5998~9999 unbj→center", "two units serve",
        "after_restore",
    ):  # fmt: skip
        assert told in done.stderr
    signed = opened(out.read_bytes(), [public_of(key)])
    assert (signed.snapshot.version, signed.snapshot.epoch) == (42, 8)
    assert (signed.statement.fenced, signed.statement.by) == (("unbj",), "on-call")
    assert signed.statement.after is not None
    assert signed.snapshot.document["config"] == load(base.read_bytes()).document["config"]
    assert signed.snapshot.serves("center", "unit_type", 9999)


def test_a_topology_after_a_snapshot_keeps_its_namespace_and_raises_the_epoch_only_for_another_rule(
    tmp_path: Path, key: Path
) -> None:
    file, first, second = tmp_path / "t.yaml", tmp_path / "1.json", tmp_path / "2.json"
    file.write_text(WALK_THROUGH, encoding="utf-8")
    some_id = "00000000-0000-0000-0000-00000000002a"
    alone("compile", "-f", str(file), "-o", str(first), "--version", "9", "--namespace-id", some_id)
    same = alone("compile", "-f", str(file), "--after", str(first), "-o", str(second))
    assert same.returncode == 0, same.stderr
    made = load(second.read_bytes())
    assert (made.version, made.epoch, made.namespace_id) == (10, 0, some_id)

    file.write_text(WALK_THROUGH.replace("5997", "6380").replace("5998", "6381"), encoding="utf-8")
    alone("compile", "-f", str(file), "--after", str(first), "-o", str(second), "--version", "77")
    made = load(second.read_bytes())
    assert (made.version, made.epoch) == (77, 1)


def test_a_compiled_snapshot_is_signed_by_itself(tmp_path: Path, base: Path, key: Path) -> None:
    plain = tmp_path / "plain.json"
    plain.write_bytes(snapshot(50, epoch=8, new=True).body)
    words = ["sign", str(plain), "--key", str(key), "-o", "-", "--yes"]
    assert alone(*words).returncode == 2, "neither what it follows nor who is fenced was said"
    done = alone(*words, "--after", str(base), "--i-have-fenced", "unbj")
    assert done.returncode == 0, done.stderr
    assert opened(done.stdout.encode(), [public_of(key)]).snapshot.version == 50
    without = alone(*words, "--i-have-fenced", "unbj")
    assert json.loads(without.stdout)["statement"]["after"] is None


def test_wrong_input_is_refused_with_a_sentence(tmp_path: Path, base: Path, key: Path) -> None:
    out = str(tmp_path / "out")
    compile_ = ["compile", "--after", str(base), "-o", out]
    for words, code, sentence in (
        (["compile", "-o", out], 2, "Give either a topology file"),
        (["compile", "--ranges", "center=0~9999", "-o", out], 2, "Give either a topology file"),
        ([*compile_, "--ranges", "center=0~9"], 1, "10"),
        ([*compile_, "--ranges", "nonsense"], 1, "UNIT=RANGES"),
        ([*compile_, "--ranges", "mars=0~9999"], 1, "mars"),
        ([*compile_, "--ranges", "center=0~9999", "--unit-type", "x"], 1, "no unit type x"),
        ([*compile_, "--ranges", "center=0~9999", "-n", "prod"], 1, "not prod"),
        (
            [*compile_, "--ranges", "center=0~9999", "--version", "41", "--sign", str(key), "--yes"],
            1,
            "above 41",
        ),
        (
            [*compile_, "--ranges", "center=0~9999", "--sign", str(base), "--yes"],
            1,
            "not an unencrypted private",
        ),
        (["sign", str(key), "--key", str(key), "-o", out, "--i-have-fenced", "unbj"], 1, "is not JSON"),
    ):
        done = alone(*words)
        assert (done.returncode, sentence in done.stderr) == (code, True), (words, done.stderr)
        assert "Traceback" not in done.stderr
        assert not Path(out).exists()


def test_it_needs_neither_django_nor_the_network(base: Path, key: Path, tmp_path: Path) -> None:
    program = (
        "import socket, sys\n"
        "def nothing(*_, **__): raise SystemExit('the network was used')\n"
        "socket.socket.connect = socket.getaddrinfo = nothing\n"
        "from msha.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "finally: assert 'django' not in sys.modules, 'Django was loaded'\n"
    )
    words = ["compile", "--after", str(base), "--ranges", "center=0~9999", "--sign", str(key)]
    words += ["--i-have-fenced", "unbj", "--yes", "-o", str(tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, "-c", program, *words], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
