"""Headers that a job brings along: refused where they could do more than add a header."""

from __future__ import annotations

import re
from collections.abc import Mapping

HEADERS_MAX = 50
NAME_CHARS_MAX = 100
VALUE_CHARS_MAX = 2_000

# RFC 9110 token; a strict subset of what RFC 5322 allows in a field name.
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")
# C0 (but for the tab), DEL, C1, and the two Unicode line breaks.
_FORBIDDEN = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class HeaderRefused(ValueError):
    """A custom header that must not be sent. The text names the header, never its value."""


def check_headers(
    headers: Mapping[str, str],
    *,
    reserved: frozenset[str],
    reserved_prefixes: tuple[str, ...] = (),
    ascii_only: bool = False,
) -> None:
    """Raise HeaderRefused for the first header that is reserved, malformed or too long.

    `reserved` and `reserved_prefixes` are in lower case.
    """
    if len(headers) > HEADERS_MAX:
        raise HeaderRefused(f"{len(headers)} headers, where {HEADERS_MAX} are allowed")
    for name, value in headers.items():
        if len(name) > NAME_CHARS_MAX or not _NAME.match(name):
            shown = name[:40].encode("ascii", "backslashreplace").decode()
            raise HeaderRefused(f"{shown!r} is no header name")
        lower = name.lower()
        if lower in reserved or lower.startswith(reserved_prefixes):
            raise HeaderRefused(f"the header {name} is set by the service itself")
        if len(value) > VALUE_CHARS_MAX:
            raise HeaderRefused(f"the header {name} is over {VALUE_CHARS_MAX} characters long")
        if _FORBIDDEN.search(value):
            raise HeaderRefused(f"the header {name} has a line break or control character in it")
        if ascii_only and not value.isascii():
            raise HeaderRefused(f"the header {name} has characters outside ASCII in it")
