"""How answers are made: bytes, encoded once."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Generic, TypeVar

import msgspec
from litestar.response.base import ASGIResponse
from litestar.types import Receive, Scope, Send
from msgspec import Meta

JSON = "application/json"
PROBLEM_JSON = "application/problem+json"

T = TypeVar("T")

JsonObject = Annotated[msgspec.Raw, Meta(extra_json_schema={"type": "object"})]
"""An object that passes through as it was written; who takes it in checks that it is one.

A struct that is read in has `left_out` as its default: msgspec knows no Raw that may be null.
"""

_encoder = msgspec.json.Encoder(decimal_format="number")


class Page(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """A page of a list. `next_cursor` is null on the last one."""

    items: list[T]
    next_cursor: str | None = None


def left_out() -> msgspec.Raw:
    """Return what stands for JSON that was left out, or null: no text at all."""
    return msgspec.Raw(b"")


def written(value: msgspec.Raw) -> str | None:
    """Return the JSON text of a member; None: it was left out."""
    return bytes(value).decode() or None


class WireAnswer(ASGIResponse):
    """A JSON answer that goes out as it is: a tenth of what it costs to build the general one."""

    __slots__ = ("_wire_headers",)

    def __init__(self, body: bytes, status: int, headers: Mapping[str, str] | None = None) -> None:
        self.body = body
        self.status_code = status
        self._wire_headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
        ]
        if headers is not None:
            for name, value in headers.items():
                self._wire_headers.append((name.encode("latin-1"), value.encode("latin-1")))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it (ASGI)."""
        await send(
            {
                "type": "http.response.start",
                "status": self.status_code,
                "headers": self._wire_headers,
            }
        )
        await send({"type": "http.response.body", "body": self.body, "more_body": False})


def answer(
    value: object, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> ASGIResponse:
    """Answer `value` as JSON."""
    return raw_answer(_encoder.encode(value), status=status, headers=headers)


def raw_answer(
    body: bytes, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> ASGIResponse:
    """Answer JSON that is encoded already."""
    return WireAnswer(body, status, headers)


def no_content() -> ASGIResponse:
    """Answer 204."""
    return ASGIResponse(status_code=204)


def raw(text: str | None) -> msgspec.Raw | None:
    """Return JSON text from the store as a value that is encoded as it is."""
    return msgspec.Raw(text.encode()) if text is not None else None


def rfc3339(at: datetime) -> str:
    """Return a time in UTC with `Z`."""
    return msgspec.to_builtins(at)  # type: ignore[no-any-return]  # a datetime becomes a str


def write_cursor(number: int) -> str:
    """Return where the next page begins, as an opaque text."""
    return base64.urlsafe_b64encode(number.to_bytes(8, "big")).rstrip(b"=").decode()


def read_cursor(text: str) -> int | None:
    """Return what `write_cursor` wrote; None for what it never did."""
    try:
        number = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
    return int.from_bytes(number, "big") if len(number) == 8 and number[0] < 128 else None
