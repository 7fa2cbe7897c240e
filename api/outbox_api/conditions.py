"""When a rule applies: a small language over an event's `data`.

    {"path": "plan", "op": "eq", "value": "pro"}
    {"all": [C, …]}   {"any": [C, …]}   {"not": C}

`path` names members by dots, `items.0.price` goes into lists. `op`:

    eq, ne               the same JSON value; 1 and 1.0 are the same, 1 and true are not
    gt, gte, lt, lte     two numbers, or two texts (by code point)
    in                   the value, a list, has it
    contains             it, a list or a text, has the value
    exists               it is there, even as null; with "value": false, it is not

Where the path leads nowhere, or the kinds don't fit, a test is false (and `ne` true). All of it
is checked when the rule is stored, so no event trips over it. Numbers are compared as decimals.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, cast

import msgspec

from outbox.errors import Fault
from outbox.jsontext import escape

DEPTH_MAX = 8
TESTS_MAX = 50
PATH_CHARS_MAX = 256

_ORDERED: Mapping[str, Callable[[Any, Any], object]] = {
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
    "lte": operator.le,
}
OPS = frozenset({"eq", "ne", "in", "contains", "exists", *_ORDERED})

_decoder = msgspec.json.Decoder(float_hook=Decimal)
_MISSING = object()


def read_data(text: str | bytes) -> object:
    """Return JSON with its fractions as decimals, so that nothing is rounded."""
    return _decoder.decode(text)


def faults_of(condition: object, pointer: str = "/condition") -> list[Fault]:
    """Return what is wrong with a condition, as pointers below `pointer`."""
    faults: list[Fault] = []
    tests = _check(condition, pointer, 1, faults)
    if tests > TESTS_MAX:
        faults.append(Fault(pointer, f"must not have more than {TESTS_MAX} tests"))
    return faults


def _check(condition: object, pointer: str, depth: int, faults: list[Fault]) -> int:
    """Note the faults of a condition; return how many tests it has."""
    if not isinstance(condition, dict):
        faults.append(Fault(pointer, "must be an object"))
        return 0
    if depth > DEPTH_MAX:
        faults.append(Fault(pointer, f"must not nest deeper than {DEPTH_MAX} levels"))
        return 0
    kinds = [kind for kind in ("path", "all", "any", "not") if kind in condition]
    if len(kinds) != 1:
        faults.append(Fault(pointer, "must have one of path, all, any, not"))
        return 0
    kind = kinds[0]
    known = {"path", "op", "value"} if kind == "path" else {kind}
    faults += [
        Fault(f"{pointer}/{escape(key)}", "is not a known member here")
        for key in condition
        if key not in known
    ]
    if kind == "path":
        _check_test(condition, pointer, faults)
        return 1
    inner = condition[kind]
    if kind == "not":
        return _check(inner, f"{pointer}/not", depth + 1, faults)
    if not isinstance(inner, list) or not inner:
        faults.append(Fault(f"{pointer}/{kind}", "must be a list with something in it"))
        return 0
    if len(inner) > TESTS_MAX:
        return len(inner)
    return sum(
        _check(member, f"{pointer}/{kind}/{n}", depth + 1, faults)
        for n, member in enumerate(inner)
    )


def _check_test(test: dict[str, object], pointer: str, faults: list[Fault]) -> None:
    path, op = test["path"], test.get("op")
    if not isinstance(path, str) or not 1 <= len(path) <= PATH_CHARS_MAX:
        faults.append(Fault(f"{pointer}/path", f"must have 1 to {PATH_CHARS_MAX} characters"))
    if not isinstance(op, str) or op not in OPS:
        faults.append(Fault(f"{pointer}/op", f"must be one of {', '.join(sorted(OPS))}"))
        return
    value = test.get("value", _MISSING)
    where = f"{pointer}/value"
    if op == "exists":
        if value is not _MISSING and not isinstance(value, bool):
            faults.append(Fault(where, "must be true or false"))
    elif value is _MISSING:
        faults.append(Fault(where, "is required"))
    elif op == "in" and not isinstance(value, list):
        faults.append(Fault(where, "must be a list"))
    elif op in _ORDERED and not _is_number(value) and not isinstance(value, str):
        faults.append(Fault(where, "must be a number or a string"))


def holds(condition: object, data: object) -> bool:
    """Tell whether a checked condition holds for data of `read_data`."""
    test = cast("dict[str, object]", condition)
    if "all" in test:
        return all(holds(member, data) for member in cast("list[object]", test["all"]))
    if "any" in test:
        return any(holds(member, data) for member in cast("list[object]", test["any"]))
    if "not" in test:
        return not holds(test["not"], data)
    found = _find(data, cast(str, test["path"]))
    op, value = test["op"], test.get("value", True)
    if op == "exists":
        return (found is not _MISSING) is value
    if op == "ne":
        return found is _MISSING or not _same(found, value)
    if found is _MISSING:
        return False
    return _compare(found, cast(str, op), value)


def _compare(found: object, op: str, value: object) -> bool:
    match op:
        case "eq":
            return _same(found, value)
        case "in":
            return any(_same(found, one) for one in cast("list[object]", value))
        case "contains":
            if isinstance(found, list):
                return any(_same(one, value) for one in found)
            return isinstance(found, str) and isinstance(value, str) and value in found
        case _:
            both_numbers = _is_number(found) and _is_number(value)
            if both_numbers or (isinstance(found, str) and isinstance(value, str)):
                return bool(_ORDERED[op](found, value))
            return False


def _is_number(value: object) -> bool:
    return isinstance(value, int | Decimal) and not isinstance(value, bool)


def _same(one: object, other: object) -> bool:
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    return one == other


def _find(data: object, path: str) -> object:
    for step in path.split("."):
        if isinstance(data, dict):
            data = data.get(step, _MISSING)
        elif isinstance(data, list) and step.isascii() and step.isdecimal() and len(step) < 10:
            data = data[int(step)] if int(step) < len(data) else _MISSING
        else:
            return _MISSING
        if data is _MISSING:
            return _MISSING
    return data
