"""JSON that Postgres can store: found out before anything is sent, and told by its place.

A text is passed on as it came, so that no number passes through a float. Before that it is read
once, to make sure that it is JSON, and that Postgres will take it: no NUL, no lone surrogate, no
depth or exponent that only an attacker writes. Python's own values are written the same way, and
what JSON has no form for is refused rather than bent: no NaN, no key that is no string.

Reading costs some 3 µs for a job; the slow walk that finds where a fault lies runs only for what
has one.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from uuid import UUID

import msgspec

from outbox.errors import Fault

EXPONENT_MAX = 400
"""Beyond what any double has; `1e131072` would make 131,073 digits of eight characters."""
DIGITS_MAX = 1_000
DEPTH_MAX = 100
"""The contract allows 32 levels inside a field; from here on nobody looks any further."""
FAULTS_MAX = 100

TOO_DEEP = "must not nest deeper than 32 levels"
BAD_NUMBER = f"must have at most {DIGITS_MAX} digits and an exponent within ±{EXPONENT_MAX}"

_SUSPECT = re.compile(rb"\\u(?:0000|[dD][89a-fA-F])")
_EXPONENT = re.compile(r"[eE]([+-]?\d+)$")


class NotJson(Exception):
    """The text is no JSON. The message completes "the body …"."""


class BadJson(Exception):
    """JSON, or a Python value, that cannot be stored."""

    def __init__(self, faults: list[Fault]) -> None:
        super().__init__(faults[0].message)
        self.faults = faults


def escape(key: str) -> str:
    """Return a key as a token of a JSON pointer."""
    return key.replace("~", "~0").replace("/", "~1")


# -- texts -----------------------------------------------------------------------------------


class _BadNumber(Exception):
    pass


class _Marked:
    """A number that is refused, where the slow walk can find it."""


def _number_fault(text: str) -> bool:
    exponent = _EXPONENT.search(text)
    return len(text) > DIGITS_MAX or (
        exponent is not None and abs(int(exponent[1])) > EXPONENT_MAX
    )


def _float(text: str) -> float:
    if _number_fault(text):
        raise _BadNumber
    return 0.0


_decoder = msgspec.json.Decoder(float_hook=_float)


def read(body: bytes | memoryview) -> object:
    """Return what the JSON says (any fraction as 0.0). Raises NotJson, BadJson."""
    try:
        value = _decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, _BadNumber) as error:
        return _diagnose(bytes(body), error)
    if _SUSPECT.search(body):
        faults = _faults(value)
        if faults:
            raise BadJson(faults)
    return value


def _diagnose(body: bytes, error: Exception) -> object:
    """Find out slowly what `read` has tripped over; it may yet be sound."""
    try:
        text = body.decode()
    except UnicodeDecodeError as undecodable:
        raise NotJson("is not UTF-8") from undecodable
    if not text.strip():
        raise NotJson("is empty: a JSON value is needed")
    if isinstance(error, RecursionError):
        raise BadJson([Fault(_deep_pointer(text), TOO_DEEP)])
    try:
        value = json.loads(
            text, parse_float=_mark, parse_int=_mark, parse_constant=_refuse_constant
        )
    except RecursionError:
        raise BadJson([Fault(_deep_pointer(text), TOO_DEEP)]) from None
    except ValueError as malformed:
        place = getattr(malformed, "pos", None)
        at = f" at character {place}" if place is not None else ""
        raise NotJson(f"is not JSON{at}") from malformed
    faults = _faults(value)
    if faults:
        raise BadJson(faults)
    return value


def _mark(text: str) -> object:
    return _Marked() if _number_fault(text) else 0


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}:,]')


def _deep_pointer(text: str) -> str:
    """Return which member of the outermost object nests too deep."""
    depth = 0
    key = ""
    last = ""
    for match in _TOKEN.finditer(text):
        token = match[0]
        if token[0] == '"':
            last = token
        elif token in "[{":
            depth += 1
            if depth > DEPTH_MAX:
                break
        elif token in "]}":
            depth -= 1
        elif token == ":" and depth == 1:
            key = last
    if not key:
        return ""
    try:
        return f"/{escape(json.loads(key))}"
    except ValueError:
        return ""


# -- Python's values --------------------------------------------------------------------------

_encoder = msgspec.json.Encoder(decimal_format="number")
# Exact types: an int's or a str's subclass may write itself as anything.
_PLAIN = frozenset((str, int, bool, type(None), UUID))


def write(value: object) -> bytes:
    """Return `value` as JSON text. Raises BadJson.

    Mappings with string keys, lists, tuples, texts, numbers (Decimal keeps its digits), booleans,
    None, UUIDs, dates, times with an offset, and enums of those.
    """
    if _is_plain(value, 0):
        try:
            text = _encoder.encode(value)
        except (UnicodeEncodeError, ValueError, OverflowError):
            pass  # a lone surrogate, or an integer of thousands of digits
        else:
            if b"\\u0000" not in text:
                return text
    value, faults = _storable(value)
    if faults:
        raise BadJson(faults)
    return _encoder.encode(value)


def _is_plain(value: object, depth: int) -> bool:
    """Whether the encoder writes this just as it is: the quick look that most values pass."""
    kind = type(value)
    if kind is dict:
        if depth > DEPTH_MAX:
            return False
        for key, member in value.items():  # type: ignore[attr-defined]
            if type(key) is not str:
                return False
            if type(member) not in _PLAIN and not _is_plain(member, depth + 1):
                return False
        return True
    if kind is list or kind is tuple:
        return depth <= DEPTH_MAX and all(
            type(member) in _PLAIN or _is_plain(member, depth + 1)
            for member in value  # type: ignore[attr-defined]
        )
    if kind is float:
        return math.isfinite(value)  # type: ignore[arg-type]
    if kind is datetime:
        return value.tzinfo is not None  # type: ignore[attr-defined]
    return kind in _PLAIN


def _storable(root: object) -> tuple[object, list[Fault]]:
    """Return `root` in what the encoder writes as it is, and all that cannot be written."""
    faults: list[Fault] = []

    def visit(value: object, pointer: str, depth: int) -> object:
        if len(faults) >= FAULTS_MAX:
            return None
        if depth > DEPTH_MAX:
            faults.append(Fault("/".join(pointer.split("/", 2)[:2]), TOO_DEEP))
            return None
        if isinstance(value, Enum):
            value = value.value
        if isinstance(value, Mapping):
            members: dict[str, object] = {}
            for key, member in value.items():
                if not isinstance(key, str):
                    faults.append(Fault(pointer, "has a key that is no string"))
                elif said := _text_fault(key):
                    faults.append(Fault(pointer, f"has a key that {said}"))
                else:
                    members[str(key)] = visit(member, f"{pointer}/{escape(key)}", depth + 1)
            return members
        if isinstance(value, list | tuple):
            return [visit(item, f"{pointer}/{n}", depth + 1) for n, item in enumerate(value)]
        leaf, said = _leaf(value)
        if said is not None:
            faults.append(Fault(pointer, said))
        return leaf

    return visit(root, "", 0), _first_of_each(faults)


def _leaf(value: object) -> tuple[object, str | None]:
    """Return a value without members as the encoder takes it, or what is wrong with it."""
    if value is None or isinstance(value, bool):
        return value, None
    if isinstance(value, UUID):
        return str(value), None
    if isinstance(value, str):
        return str(value), _text_fault(value)
    if isinstance(value, int):
        # Three bits make less than a digit: what is near the limit is counted.
        fits = value.bit_length() <= 3 * DIGITS_MAX or abs(value) < 10**DIGITS_MAX
        return int(value), None if fits else BAD_NUMBER
    if isinstance(value, float):
        return float(value), None if math.isfinite(value) else "must be a finite number"
    if isinstance(value, Decimal):
        if not value.is_finite():
            return None, "must be a finite number"
        return value, BAD_NUMBER if _number_fault(str(value)) else None
    if isinstance(value, datetime):
        return value, None if value.tzinfo is not None else "must be a time with an offset"
    if isinstance(value, date):
        return value.isoformat(), None
    return None, f"cannot be written as JSON: {type(value).__name__}"


def _first_of_each(faults: list[Fault]) -> list[Fault]:
    return list(dict.fromkeys(faults))


# -- both -------------------------------------------------------------------------------------


def _faults(value: object) -> list[Fault]:
    found: list[Fault] = []
    for pointer, message in _walk(value):
        found.append(Fault(pointer, message))
        if len(found) == FAULTS_MAX:
            break
    return found


def _walk(root: object) -> Iterator[tuple[str, str]]:
    """Yield what cannot be stored, and where. Not recursive: depth is the sender's choice."""
    todo: list[tuple[str, object]] = [("", root)]
    while todo:
        pointer, value = todo.pop()
        if isinstance(value, str):
            fault = _text_fault(value)
            if fault is not None:
                yield pointer, fault
        elif isinstance(value, dict):
            for key, member in value.items():
                fault = _text_fault(key)
                if fault is not None:
                    yield pointer, f"has a key that {fault}"
                else:
                    todo.append((f"{pointer}/{escape(key)}", member))
        elif isinstance(value, list):
            todo.extend((f"{pointer}/{n}", member) for n, member in enumerate(value))
        elif isinstance(value, _Marked):
            yield pointer, BAD_NUMBER


def _text_fault(text: str) -> str | None:
    if "\x00" in text:
        return "must not contain the NUL character"
    if not text.isascii() and any("\ud800" <= c <= "\udfff" for c in text):
        return "must not contain a lone surrogate"
    return None
