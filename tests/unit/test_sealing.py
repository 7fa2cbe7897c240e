"""Secrets in the database: sealed for one place, opened by any key of the setting."""

from __future__ import annotations

import pytest

from outbox.errors import SealBroken
from outbox.sealing import Keyring, Sealed

OLD, NEW = "the-old-key-of-ours", "the-new-key-of-ours"


def test_what_was_sealed_opens_and_shows_nothing_of_itself() -> None:
    ring = Keyring(OLD)
    sealed = ring.seal(b"hunter2!", place="provider/1")
    assert b"hunter2" not in sealed.content
    assert ring.open(sealed, place="provider/1") == b"hunter2!"
    assert sealed.content != ring.seal(b"hunter2!", place="provider/1").content


def test_the_first_key_seals_and_the_others_open() -> None:
    sealed = Keyring(OLD).seal(b"x", place="p")
    both = Keyring(f"{NEW} {OLD}")
    assert both.open(sealed, place="p") == b"x"
    assert both.seal(b"x", place="p").key_id == Keyring(NEW).newest != sealed.key_id
    with pytest.raises(SealBroken, match=sealed.key_id):
        Keyring(NEW).open(sealed, place="p")


def test_a_secret_does_not_open_in_another_place_or_when_it_was_changed() -> None:
    ring = Keyring(OLD)
    sealed = ring.seal(b"x", place="provider/1")
    for broken, place in (
        (sealed, "provider/2"),
        (Sealed(sealed.key_id, sealed.content[:-1] + b"\x00"), "provider/1"),
        (Sealed(sealed.key_id, b"short"), "provider/1"),
    ):
        with pytest.raises(SealBroken):
            ring.open(broken, place=place)


def test_without_a_key_nothing_is_kept() -> None:
    assert not Keyring(None)
    with pytest.raises(SealBroken, match="OUTBOX_SECRET_KEY"):
        Keyring("").seal(b"x", place="p")


def test_no_key_is_in_a_keyring_s_repr() -> None:
    assert OLD not in repr(Keyring(OLD))
