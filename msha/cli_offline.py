"""What `mshactl` does with no console, no network and no Django: compile snapshots, and sign them."""

import getpass
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import click

from msha.remote import Refusal, confirm, read_text, say
from msha.steering import breakglass, snapshot, topology, topology_file
from msha.steering.errors import MshaError
from msha.steering.ranges import diff
from msha.steering.rule_text import parse_ranges
from msha.steering.snapshot import Document, Published, Snapshot

_PATH = click.Path(path_type=Path, dir_okay=False, allow_dash=True)

_fenced = click.option(
    "--i-have-fenced",
    "fenced",
    multiple=True,
    metavar="UNIT",
    help="Your word, signed with the file: no edge of this unit serves the ids it loses, because all of them"
    " are off for good or have the file before any edge of the other units. May be given again.",
)
_by = click.option("--by", default="", metavar="NAME", help="Who signs; default: your login name.")


_after = click.option(
    "--after",
    type=_PATH,
    metavar="SNAPSHOT",
    help="What the fleet obeys: snapshot.json in the state directory of the node that is furthest ahead.",
)


@click.command("compile")
@click.option("-f", "file", type=click.File(encoding="utf-8"), help="A topology file; - is stdin.")
@_after
@click.option(
    "--ranges",
    metavar="RULE",
    help="With --after, instead of -f: all as it is, but this rule and no exact ids, as center=0~9999 or"
    " center=0~6380,unbj=6381~9999.",
)
@click.option("--unit-type", metavar="NAME", help="With --ranges. Default: the default unit type.")
@click.option("-o", "output", type=_PATH, required=True, help="Where the snapshot goes; - is stdout.")
@click.option("-n", "--namespace", metavar="NAMESPACE", help="Refuse if it is about another one.")
@click.option(
    "--version",
    "number",
    type=click.IntRange(min=1),
    help="Of the snapshot. Default: 1, or one above --after.",
)
@click.option("--namespace-id", type=click.UUID, help="UUID of the namespace; default: made from its name.")
@click.option("--sign", "key", type=_PATH, metavar="KEY", help="Sign it with this private key.")
@_fenced
@_by
@click.option("--yes", is_flag=True, help="Do not ask.")
def compile_(
    file: IO[str] | None,
    after: Path | None,
    ranges: str | None,
    unit_type: str | None,
    output: Path,
    namespace: str | None,
    number: int | None,
    namespace_id: Any,
    key: Path | None,
    fenced: Sequence[str],
    by: str,
    yes: bool,
) -> None:
    """Make a snapshot from the file without any console.

    An edge obeys it with: python -m msha.edge run --snapshot FILE --unit CODE. A signed one is taken by
    running edges that know the public key: docs/break-glass.md.
    """
    if (file is None) == (ranges is None) or (ranges is not None and after is None):
        raise click.UsageError("Give either a topology file (-f), or --after SNAPSHOT with --ranges RULE.")
    base = None if after is None else _snapshot(after)[0]
    try:
        if file is not None:
            made = _from_topology(file, base, number, str(namespace_id) if namespace_id else "")
        else:
            assert base is not None
            made = _with_ranges(base, str(ranges), unit_type, number)
    except MshaError as error:
        raise Refusal(f"{file.name if file is not None else '--ranges'}: {error}") from error
    about = made.document["namespace"]
    if namespace and namespace != about:
        raise Refusal(f"The file is about namespace {about}, not {namespace}.")
    if base is not None and base.namespace_id != made.document["namespace_id"]:
        raise Refusal(f"--after is of namespace {base.namespace}, the file is about {about}.")
    body = made.body
    if key is not None:
        body = _signed(body, key, base, fenced, by, yes)
    _write(output, body)
    what = "Compiled" if key is None else "Compiled and signed"
    say(f"{what} namespace {about}, version {made.version}, digest {made.digest[:12]}.")


@click.command()
@click.argument("file", metavar="SNAPSHOT", type=_PATH)
@click.option("--key", "key", type=_PATH, required=True, help="The private key.")
@_after
@_fenced
@_by
@click.option("-o", "output", type=_PATH, required=True, help="Where the signed snapshot goes; - is stdout.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def sign(
    file: Path, key: Path, after: Path | None, fenced: Sequence[str], by: str, output: Path, yes: bool
) -> None:
    """Sign a compiled snapshot for running edges, without any console."""
    made, body = _snapshot(file)
    base = None if after is None else _snapshot(after)[0]
    _write(output, _signed(body, key, base, fenced, by, yes))
    say(f"Signed namespace {made.namespace}, version {made.version}, digest {made.digest[:12]}.")


@click.group()
def key() -> None:
    """Make the keys that break-glass snapshots are signed with."""


@key.command()
@click.option("-o", "output", type=_PATH, required=True, help="The private key; the public one is FILE.pub.")
def new(output: Path) -> None:
    """Make an Ed25519 key. Keep the private half where only the on-call engineers reach it.

    The edges get the public half: python -m msha.edge run --breakglass-key FILE.pub
    """
    private, public = breakglass.new_key()
    beside = output.with_name(output.name + ".pub")
    _make(output, private, 0o600)
    try:
        _make(beside, public, 0o644)
    except Refusal:
        output.unlink()
        raise
    name = breakglass.key_name(breakglass.public_key(public))
    say(f"Key {name}: {output} is private, {beside} is for the edges.")


# -- making --------------------------------------------------------------------------------------------------


def _from_topology(file: IO[str], base: Snapshot | None, number: int | None, namespace_id: str) -> Published:
    wanted = topology_file.parse(read_text(file))
    if base is None:
        return topology.compiled(wanted, number or 1, namespace_id)
    if base.namespace != wanted.namespace:
        raise Refusal(f"--after is of namespace {base.namespace}, the file is about {wanted.namespace}.")
    rule = _following(base, topology.rule_part(wanted))
    return topology.compiled(wanted, number or base.version + 1, namespace_id or base.namespace_id, rule)


def _with_ranges(base: Snapshot, text: str, unit_type: str | None, number: int | None) -> Published:
    ranges = parse_ranges(text)
    name = unit_type or base.default_unit_type
    rule = base.document["rule"]
    if name not in base.unit_types:
        raise Refusal(f"--after has no unit type {name}; it has {', '.join(base.unit_types)}.")
    entries = [
        {**entry, "ranges": ranges, "exact": {}} if entry["name"] == name else entry
        for entry in rule["unit_types"]
    ]
    new = _following(base, {**rule, "unit_types": entries, "cutover": None})
    version = number or base.version + 1
    return snapshot.build(base.namespace_id, base.namespace, version, base.document["config"], new)


def _following(base: Snapshot, rule: Document) -> Document:
    """The rule under the epoch that it must have: a new one only if it says something new."""
    same = {**rule, "epoch": base.epoch}
    old = base.document["rule"]
    return same if snapshot.canonical(same) == snapshot.canonical(old) else {**rule, "epoch": base.epoch + 1}


# -- signing -------------------------------------------------------------------------------------------------


def _signed(
    body: bytes, key: Path, base: Snapshot | None, fenced: Sequence[str], by: str, yes: bool
) -> bytes:
    if base is None and not fenced:
        raise click.UsageError(
            "Give --after SNAPSHOT, so that it can be seen which units lose ids; or name every unit that does"
            " with --i-have-fenced."
        )
    try:
        signer = breakglass.private_key(_bytes(key))
        made = snapshot.load(body)
        for line in _consequences(base, made, fenced):
            say(line)
        confirm("Sign it?", yes)
        at = datetime.now(UTC).isoformat(timespec="seconds")
        return breakglass.sign(body, signer, after=base, fenced=fenced, by=by or getpass.getuser(), at=at)
    except MshaError as error:
        raise Refusal(str(error)) from error


def _consequences(base: Snapshot | None, made: Snapshot, fenced: Sequence[str]) -> list[str]:
    """What is said before anything is signed."""
    lines = [
        f"Namespace {made.namespace}: version {made.version}, epoch {made.epoch}"
        + (f", after version {base.version}, epoch {base.epoch}." if base else ".")
    ]
    if base is not None:
        for name, rule in made.unit_types.items():
            old = base.unit_types.get(name)
            if old is not None and old.table.key_space == rule.table.key_space:
                lines += [f"  {name}: {move}" for move in diff(old.table, rule.table)]
        if base.cutover is not None:
            lines.append(f"A cutover was in step {base.cutover.phase}; it ends with this file.")
    if fenced:
        lines.append(
            f"You state that the edges of {', '.join(sorted(set(fenced)))} serve none of the ids they lose:"
            " each is off for good, or has this file before any edge of the other units. No program can check"
            " that; where it is not so, two units serve the same clients."
        )
    lines.append(
        "When the console comes back it stops publishing with an alarm, until manage.py after_restore has"
        " adopted what the edges obey."
    )
    return lines


# -- files ---------------------------------------------------------------------------------------------------


def _snapshot(path: Path) -> tuple[Snapshot, bytes]:
    body = _bytes(path).rstrip(b"\n")
    try:
        return snapshot.load(body), body
    except MshaError as error:
        raise Refusal(f"{path}: {error}") from error


def _bytes(path: Path) -> bytes:
    try:
        with click.open_file(str(path), "rb") as file:
            content: bytes = file.read()
            return content
    except OSError as error:
        raise Refusal(f"{path} cannot be read: {error.strerror}.") from error


def _write(path: Path, body: bytes) -> None:
    """The file is there as a whole or not at all: an edge may be looking at it."""
    if str(path) == "-":
        click.echo(body, nl=False)
        return
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        part.write_bytes(body)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise Refusal(f"{path} cannot be written: {error.strerror}.") from error


def _make(path: Path, content: bytes, mode: int) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except OSError as error:
        raise Refusal(f"{path} cannot be made: {error.strerror}.") from error
    with open(descriptor, "wb") as file:
        file.write(content)
