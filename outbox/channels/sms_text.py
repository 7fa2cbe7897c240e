"""How a text is cut into SMS: GSM-7 where its alphabet allows, else UCS-2 (3GPP TS 23.038)."""

from __future__ import annotations

from typing import Literal

import msgspec

# The basic alphabet, and what needs an escape before it (3GPP TS 23.038, 6.2.1).
_BASIC = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
_EXTENDED = frozenset("\f^{}\\[~]|€")

_SINGLE = {"gsm7": 160, "ucs2": 70}
_PART = {"gsm7": 153, "ucs2": 67}


class Segments(msgspec.Struct, frozen=True):
    """How many SMS a text takes. `units`: septets in GSM-7, 16-bit words in UCS-2."""

    encoding: Literal["gsm7", "ucs2"]
    units: int
    count: int


def count_segments(text: str) -> Segments:
    """Return how a text is sent. No character is cut in two, which may waste a unit of a part."""
    encoding: Literal["gsm7", "ucs2"] = "gsm7"
    if not all(c in _BASIC or c in _EXTENDED for c in text):
        encoding = "ucs2"
    wide = _EXTENDED if encoding == "gsm7" else frozenset(c for c in text if ord(c) > 0xFFFF)
    units = len(text) + sum(c in wide for c in text)
    if units <= _SINGLE[encoding]:
        return Segments(encoding, units, 1 if text else 0)
    count, room = 1, _PART[encoding]
    for character in text:
        need = 2 if character in wide else 1
        if need > room:
            count, room = count + 1, _PART[encoding]
        room -= need
    return Segments(encoding, units, count)
