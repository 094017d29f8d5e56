"""Signed snapshots: whose they are, and what a node that obeys one snapshot may go on with."""

import json
from typing import Any

import pytest

from msha.steering import breakglass
from msha.steering.breakglass import InvalidKey, InvalidSigned, check_fenced, check_follows, opened
from msha.steering.errors import InvalidSnapshot
from msha.steering.snapshot import Snapshot, load
from tests.support.snapshots import MOVED, snapshot

KEY_PEM, PUBLIC_PEM = breakglass.new_key()
KEY = breakglass.private_key(KEY_PEM)
PUBLIC = breakglass.public_key(PUBLIC_PEM)
OTHER = breakglass.public_key(breakglass.new_key()[1])
AT = "2026-01-01T00:00:00+00:00"


def obeyed(version: int = 4, **about: Any) -> Snapshot:
    return load(snapshot(version, **about).body)


def signed(
    version: int = 5, *, after: Snapshot | None = None, fenced: tuple[str, ...] = (), **about: Any
) -> bytes:
    body = snapshot(version, **{"epoch": 2, **about}).body
    return breakglass.sign(body, KEY, after=after, fenced=fenced, by="op", at=AT)


def test_what_was_signed_is_read_back_by_whoever_has_the_key_among_others() -> None:
    base = obeyed()
    read = opened(signed(new=True, after=base, fenced=("unbj",)), [OTHER, PUBLIC])
    assert read.snapshot == load(snapshot(5, epoch=2, new=True).body)
    assert read.key == breakglass.key_name(PUBLIC)
    told = read.statement
    assert (told.version, told.epoch, told.fenced, told.by, told.at) == (5, 2, ("unbj",), "op", AT)
    assert told.after == breakglass.Base(base.version, base.digest, base.epoch)


def test_another_key_opens_nothing() -> None:
    with pytest.raises(InvalidSigned, match=f"says key '{breakglass.key_name(PUBLIC)}'"):
        opened(signed(), [OTHER])


@pytest.mark.parametrize("place", ["version", "epoch", "digest", "namespace_id", "fenced", "after", "by"])
def test_a_statement_that_was_touched_opens_nothing(place: str) -> None:
    document = json.loads(signed())
    document["statement"][place] = {"fenced": ["unbj"], "version": 6, "epoch": 9, "after": None}.get(
        place, "x"
    )
    if place == "after":
        document["statement"]["after"] = {"version": 1, "digest": "x", "epoch": 1}
    with pytest.raises(InvalidSigned, match="signature"):
        opened(json.dumps(document).encode(), [PUBLIC])


def test_a_body_that_was_exchanged_is_refused() -> None:
    document = json.loads(signed())
    document["body"] = snapshot(5, epoch=2, comment="other").body.decode()
    with pytest.raises(InvalidSnapshot, match="digest"):
        opened(json.dumps(document).encode(), [PUBLIC])


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b"{}", b"null", b'{"msha_signed_snapshot": 1}', signed()[:200], snapshot(5).body]
)
def test_what_is_no_signed_snapshot_is_refused_with_a_sentence(raw: bytes) -> None:
    with pytest.raises(InvalidSigned, match="not a whole signed snapshot"):
        opened(raw, [PUBLIC])


def test_a_format_of_the_future_is_refused() -> None:
    raw = signed().replace(b'"msha_signed_snapshot": 1', b'"msha_signed_snapshot": 2')
    with pytest.raises(InvalidSigned, match="format 2"):
        opened(raw, [PUBLIC])


def test_files_that_are_no_keys_are_refused() -> None:
    for pem in (b"", PUBLIC_PEM, b"-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n"):
        with pytest.raises(InvalidKey):
            breakglass.private_key(pem)
    for pem in (b"", KEY_PEM):
        with pytest.raises(InvalidKey):
            breakglass.public_key(pem)


# -- what may follow what ------------------------------------------------------------------------------------


def follows(applied: Snapshot, raw: bytes) -> None:
    check_follows(applied, opened(raw, [PUBLIC]))


def test_a_node_goes_on_only_with_a_newer_version() -> None:
    follows(obeyed(4), signed(5))
    for version in (4, 3):
        with pytest.raises(InvalidSigned, match="one above 4"):
            follows(obeyed(4), signed(version))


def test_another_rule_needs_a_newer_epoch_and_the_same_rule_does_not() -> None:
    with pytest.raises(InvalidSigned, match="only epoch 2"):
        follows(obeyed(4, epoch=2), signed(5, epoch=2, new=True, fenced=("unbj",)))
    follows(obeyed(4, epoch=2), signed(5, epoch=2, server="10.0.0.1:80"))


def test_ids_are_taken_only_from_units_that_are_stated_to_be_fenced() -> None:
    with pytest.raises(InvalidSigned, match="takes ids from unbj"):
        follows(obeyed(4), signed(5, new=True))
    with pytest.raises(InvalidSigned, match="takes ids from unbj"):
        follows(obeyed(4), signed(5, new=True, fenced=("center",)))
    follows(obeyed(4), signed(5, new=True, fenced=("unbj",)))


def test_the_signer_is_refused_before_any_node_is() -> None:
    with pytest.raises(InvalidSigned, match="takes ids from unbj"):
        signed(5, new=True, after=obeyed(4))
    with pytest.raises(InvalidSigned, match="one above 6"):
        signed(5, after=obeyed(6))
    with pytest.raises(InvalidSigned, match="no unit nowhere"):
        signed(5, fenced=("nowhere",))


@pytest.mark.parametrize(("phase", "new"), [("freeze", False), ("activate", True)])
def test_in_the_middle_of_a_cutover_either_side_may_serve_what_moves(phase: str, new: bool) -> None:
    base = obeyed(4, phase=phase, new=new, moved=MOVED)
    after_new = load(snapshot(5, epoch=2, new=True).body)
    after_old = load(snapshot(5, epoch=2).body)
    with pytest.raises(InvalidSigned, match="takes ids from unbj"):
        check_fenced(base, after_new, ["center"])
    with pytest.raises(InvalidSigned, match="takes ids from center"):
        check_fenced(base, after_old, ["unbj"])
    check_fenced(base, after_new, ["unbj"])
    check_fenced(base, after_old, ["center"])


def test_a_node_that_missed_a_step_trusts_what_was_stated_against_the_newer_one() -> None:
    """The ids had moved before the file was made; the node that missed it holds or loses them either way."""
    base = obeyed(6, epoch=5, new=True)
    raw = signed(7, epoch=6, ranges={"center": ["0~9999"]}, after=base, fenced=("unbj",))
    follows(obeyed(3, epoch=2), raw)
    same_table = signed(7, epoch=6, new=True, server="10.0.0.1:80", after=base)
    follows(obeyed(3, epoch=2), same_table)


def test_a_file_that_was_made_from_an_older_rule_is_judged_by_what_the_node_obeys() -> None:
    stale = obeyed(3, epoch=0, ranges={"center": ["0~9999"]})
    raw = signed(9, epoch=2, ranges={"center": ["0~9999"]}, after=stale)
    with pytest.raises(InvalidSigned, match="takes ids from unbj"):
        follows(obeyed(4, epoch=1), raw)


def test_reading_the_router_id_differently_moves_everything() -> None:
    base = obeyed(4)
    document = json.loads(snapshot(5, epoch=2).body)
    document["rule"]["unit_types"][0]["transform"] = [{"modulo": 10}]
    other = load(json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode())
    assert breakglass.may_serve_still(base, other) == {"center", "unbj"}


def test_another_namespace_is_refused() -> None:
    document = json.loads(snapshot(5, epoch=2).body)
    document["namespace_id"] = "another"
    other = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    with pytest.raises(InvalidSigned, match="of namespace"):
        breakglass.sign(other, KEY, after=obeyed(4), fenced=(), by="op", at=AT)
