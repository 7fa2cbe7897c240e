"""Cursors of lists that are ordered by names: three texts, opaque to the caller."""

from __future__ import annotations

import base64
import binascii

import msgspec

from outbox.errors import Fault
from outbox_api.problems import invalid

BEGINNING = ("", "", "")


def write_text_cursor(first: str, second: str, third: str) -> str:
    """Return where the next page begins."""
    return base64.urlsafe_b64encode(msgspec.json.encode((first, second, third))).decode()


def read_text_cursor(cursor: str | None) -> tuple[str, str, str]:
    """Return what `write_text_cursor` wrote. Raises Problem 400."""
    if cursor is None:
        return BEGINNING
    try:
        text = base64.b64decode(cursor, altchars=b"-_", validate=True)
        found = msgspec.json.decode(text, type=tuple[str, str, str])
    except (binascii.Error, ValueError, msgspec.MsgspecError):
        found = ("\x00", "", "")
    if any("\x00" in part for part in found):
        raise invalid([Fault("/query/cursor", "is no cursor that was given out")], status=400)
    return found
