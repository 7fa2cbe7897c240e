"""Reading requests: bodies within limits, structs with all their faults, query parameters.

A body is refused by its declared length before a byte of it is read, and by what has arrived
while it streams. Structs are read member by member, so that every fault is told, not the first.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Mapping
from functools import cache
from typing import Protocol, TypeAlias, TypeVar, get_type_hints

import msgspec
from litestar import Litestar, Request, WebSocket
from litestar.datastructures import State
from litestar.types import HTTPScope, Receive

from outbox.errors import Fault
from outbox.jsontext import BadJson, NotJson, escape, read
from outbox_api.auth import Principal
from outbox_api.problems import Problem, invalid

ApiRequest: TypeAlias = Request[None, Principal, State]
ApiSocket: TypeAlias = WebSocket[None, Principal, State]

SMALL_BODY_BYTES_MAX = 1_048_576
"""For everything but jobs and batches, whose limits are settings."""
DRAIN_BYTES_MAX = 100 * 1024 * 1024
DRAIN_S_MAX = 5.0
DRAIN_IDLE_S_MAX = 0.2
"""What is dropped unread of a body that is too large; who sends nothing is not waited for."""

_JSON_TYPE = re.compile(r"application/(?:[a-z0-9.+-]+\+)?json$", re.IGNORECASE)
_NDJSON = frozenset({"application/x-ndjson", "application/ndjson", "application/jsonl"})
_PATH = re.compile(r" - at `\$(.*)`$", re.DOTALL)
_STEP = re.compile(r"\.([^.\[]+)|\[(\d+|\.\.\.)\]")

T = TypeVar("T", bound=msgspec.Struct)


class Incoming(Protocol):
    """What reading a request needs: Litestar's, or the bare one of the hot path."""

    @property
    def scope(self) -> HTTPScope:
        """The ASGI scope."""
        ...

    @property
    def receive(self) -> Receive:
        """Where the body comes from."""
        ...

    @property
    def auth(self) -> Principal:
        """Who is asking."""
        ...

    @property
    def app(self) -> Litestar:
        """The app."""
        ...


def header(request: Incoming | ApiSocket, name: bytes) -> str | None:
    """Return a header by its name in lower case. Of one that is repeated, the first."""
    for key, value in request.scope["headers"]:
        if key == name:
            return value.decode("latin-1")
    return None


async def read_body(request: Incoming, bytes_max: int) -> bytes:
    """Return the body. Raises Problem 413 as early as it can be known, 400 if it is cut off."""
    receive = request.receive
    declared = header(request, b"content-length")
    if declared is not None and declared.isdecimal() and int(declared[:20]) > bytes_max:
        if int(declared[:20]) <= DRAIN_BYTES_MAX and header(request, b"expect") is None:
            await _drain(receive)
        raise _too_large(bytes_max)
    chunks: list[bytes] = []
    size_bytes = 0
    while True:
        event = await receive()
        if event["type"] != "http.request":
            raise Problem(400, "The body was cut off.")
        chunk = event["body"]
        size_bytes += len(chunk)
        if size_bytes > bytes_max:
            chunks.clear()
            await _drain(receive)
            raise _too_large(bytes_max)
        chunks.append(chunk)
        if not event.get("more_body", False):
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)


async def _drain(receive: Receive) -> None:
    """Let a client that is sending already finish: else a reset would cost it our answer."""
    size_bytes = 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_S_MAX):
            while size_bytes <= DRAIN_BYTES_MAX:
                event = await asyncio.wait_for(receive(), DRAIN_IDLE_S_MAX)
                if event["type"] != "http.request" or not event.get("more_body", False):
                    return
                size_bytes += len(event["body"])


def _too_large(bytes_max: int) -> Problem:
    return Problem(
        413,
        f"The body may have {bytes_max} bytes.",
        errors=[Fault("", f"must not be longer than {bytes_max} bytes")],
        headers={"connection": "close"},
    )


def is_ndjson(request: Incoming) -> bool:
    """Tell whether the body is a JSON value a line. Raises Problem 415 for what is no JSON."""
    if (header(request, b"content-encoding") or "identity").lower() != "identity":
        raise Problem(415, "A body must come without a content-encoding.")
    written = header(request, b"content-type") or ""
    if written == "application/json":
        return False
    media_type, _, parameters = written.partition(";")
    media_type = media_type.strip().lower()
    charset = re.search(r"charset\s*=\s*\"?([^\";\s]+)", parameters, re.IGNORECASE)
    if charset is not None and charset[1].lower() not in ("utf-8", "utf8", "us-ascii"):
        raise Problem(415, "JSON is UTF-8.")
    if media_type in _NDJSON:
        return True
    if media_type and not _JSON_TYPE.match(media_type):
        raise Problem(415, "A body must be application/json.")
    return False


def require_json(request: Incoming) -> None:
    """Raise Problem 415 unless the body is one JSON value."""
    if is_ndjson(request):
        raise Problem(415, "A body must be application/json.")


def parse(body: bytes) -> object:
    """Return what a JSON body says. Raises Problem 400 or 422."""
    try:
        return read(body)
    except NotJson as error:
        raise Problem(400, f"The body {error}.", errors=[Fault("", f"{error}")]) from error
    except BadJson as error:
        raise invalid(error.faults) from error


async def read_struct(
    request: ApiRequest, kind: type[T], *, bytes_max: int = SMALL_BODY_BYTES_MAX
) -> T:
    """Return the body as a struct. Raises Problem with every fault in it."""
    require_json(request)
    body = await read_body(request, bytes_max)
    parse(body)
    return decode_struct(body, kind)


def decode_struct(body: bytes, kind: type[T]) -> T:
    """Return JSON text, which is sound, as a struct; a null is a member left out."""
    try:
        members = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except msgspec.MsgspecError:
        raise invalid([Fault("", "must be an object")]) from None
    values: dict[str, object] = {}
    faults: list[Fault] = []
    fields = _fields(kind)
    for key, text in members.items():
        field = fields.get(key)
        if field is None:
            faults.append(Fault(f"/{escape(key)}", "is not a known field"))
        elif bytes(text).strip() != b"null":
            try:
                values[field[0]] = msgspec.json.decode(text, type=field[1])
            except (msgspec.ValidationError, RecursionError) as error:
                faults.append(_fault(f"/{escape(key)}", str(error)))
            except msgspec.MsgspecError:
                faults.append(Fault(f"/{escape(key)}", "cannot be read"))
    for key, (name, _, required) in fields.items():
        given = key in members and bytes(members[key]).strip() != b"null"
        if required and name not in values and not given:
            faults.append(Fault(f"/{key}", "is required"))
    if faults:
        raise invalid(sorted(faults, key=lambda fault: fault.pointer))
    return _build(kind, values)


def _build(kind: type[T], values: Mapping[str, object]) -> T:
    try:
        return kind(**values)
    except (ValueError, TypeError) as error:  # a struct's own __post_init__
        raise invalid([_own_fault(str(error))]) from error


def _own_fault(message: str) -> Fault:
    """Read what a struct's __post_init__ raises: `pointer message`."""
    pointer, _, text = message.partition(" ")
    return Fault(pointer, text) if pointer.startswith("/") else Fault("", message)


@cache
def _fields(kind: type[msgspec.Struct]) -> dict[str, tuple[str, object, bool]]:
    hints = get_type_hints(kind, include_extras=True)
    return {
        field.encode_name: (field.name, hints[field.name], field.required)
        for field in msgspec.structs.fields(kind)
    }


def _fault(base: str, message: str) -> Fault:
    """Turn msgspec's "… - at `$.a[0]`" into a pointer below `base`, and a sentence."""
    path = _PATH.search(message)
    pointer = base
    if path is not None:
        message = message[: path.start()]
        for step in _STEP.finditer(path[1]):
            pointer += f"/{escape(step[1]) if step[1] is not None else step[2]}"
    text = message[:1].lower() + message[1:]
    return Fault(pointer, text.replace("`", "'"))


def read_query(request: ApiRequest | ApiSocket, kind: type[T]) -> T:
    """Return the query parameters as a struct. Raises Problem 400 with every fault."""
    fields = _fields(kind)
    values: dict[str, object] = {}
    faults: list[Fault] = []
    for key, text in request.query_params.multi_items():
        field = fields.get(key)
        where = f"/query/{escape(key)}"
        if field is None:
            faults.append(Fault(where, "is not a known parameter"))
        elif field[0] in values:
            faults.append(Fault(where, "is given twice"))
        elif "\x00" in text or any("\ud800" <= c <= "\udfff" for c in text):
            faults.append(Fault(where, "must not contain the NUL character or a lone surrogate"))
        else:
            try:
                values[field[0]] = msgspec.convert(text, field[1], strict=False)
            except msgspec.ValidationError as error:
                faults.append(_fault(where, str(error)))
    for key, (name, _, required) in fields.items():
        if required and name not in values and key not in request.query_params:
            faults.append(Fault(f"/query/{key}", "is required"))
    if faults:
        raise invalid(faults, status=400)
    return _build(kind, values)


class Nothing(msgspec.Struct, frozen=True):
    """The parameters of a route that takes none, or the members of a body that has none."""


async def refuse_the_unknown(request: ApiRequest, *, takes_query: bool, takes_body: bool) -> None:
    """Raise Problem for parameters, and for a body, of a route that has no use for them.

    What a caller says and nobody reads may be what mattered: `?tenant_id=` of a pause, say. No
    body, and an object without members, say nothing.
    """
    if not takes_query and request.scope["query_string"]:
        read_query(request, Nothing)
    if takes_body or not _has_body(request):
        return
    body = await read_body(request, SMALL_BODY_BYTES_MAX)
    if body.strip():
        require_json(request)
        parse(body)
        decode_struct(body, Nothing)


def _has_body(request: Incoming) -> bool:
    if header(request, b"transfer-encoding") is not None:
        return True
    return header(request, b"content-length") not in (None, "0")


def idempotency_key(request: Incoming) -> str | None:
    """Return the header `Idempotency-Key`. Raises Problem 400 when it cannot be one."""
    key = header(request, b"idempotency-key")
    if key is None:
        return None
    # Servers hand headers on as latin-1; a key is text.
    try:
        key = key.encode("latin-1").decode("utf-8")
    except UnicodeError:
        pass
    if not 1 <= len(key) <= 255 or not key.isprintable():
        fault = Fault("/header/idempotency-key", "must have 1 to 255 printable characters")
        raise invalid([fault], status=400)
    return key
