"""The language of rules, by itself."""

from __future__ import annotations

import json

import pytest

from outbox_api.conditions import DEPTH_MAX, faults_of, holds, read_data

DATA = (
    '{"plan": "pro", "n": 0.30, "ok": true, "tags": ["a", "b"], "who": {"age": 30}, "nil": null}'
)


def rule_test(path: str, op: str, **value: object) -> dict[str, object]:
    return {"path": path, "op": op, **value}


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (rule_test("plan", "eq", value="pro"), True),
        (rule_test("plan", "ne", value="pro"), False),
        (rule_test("missing", "ne", value="pro"), True),
        (rule_test("missing", "eq", value=None), False),
        (rule_test("nil", "eq", value=None), True),
        (rule_test("n", "eq", value=0.3), True),
        (rule_test("n", "lte", value=0.3), True),
        (rule_test("n", "gt", value=0.3), False),
        (rule_test("ok", "eq", value=1), False),
        (rule_test("ok", "eq", value=True), True),
        (rule_test("who.age", "gte", value=18), True),
        (rule_test("who.age", "gte", value="18"), False),
        (rule_test("tags.1", "eq", value="b"), True),
        (rule_test("tags.9", "eq", value="b"), False),
        (rule_test("tags", "contains", value="a"), True),
        (rule_test("plan", "contains", value="ro"), True),
        (rule_test("plan", "in", value=["free", "pro"]), True),
        (rule_test("nil", "exists"), True),
        (rule_test("missing", "exists", value=False), True),
        ({"not": rule_test("plan", "eq", value="pro")}, False),
        ({"all": [rule_test("ok", "exists"), rule_test("plan", "eq", value="x")]}, False),
        ({"any": [rule_test("ok", "exists"), rule_test("plan", "eq", value="x")]}, True),
    ],
    ids=str,
)
def test_a_condition_holds_where_it_says(condition: dict[str, object], expected: bool) -> None:
    checked = read_data(json.dumps(condition))
    assert faults_of(checked) == []
    assert holds(checked, read_data(DATA)) is expected


def test_a_condition_nests_no_deeper_than_its_limit() -> None:
    condition: object = rule_test("a", "exists")
    for _ in range(DEPTH_MAX):
        condition = {"not": condition}
    assert [fault.message for fault in faults_of(condition)] == [
        f"must not nest deeper than {DEPTH_MAX} levels"
    ]
