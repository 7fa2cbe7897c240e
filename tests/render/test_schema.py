"""A JSON Schema for a template's data."""

from __future__ import annotations

import json
import socket

import pytest

from outbox.render import TemplateSource
from tests.render.desk import Desk

SOURCE = TemplateSource(text="ok")
SCHEMA = {
    "type": "object",
    "required": ["first_name", "age"],
    "properties": {
        "first_name": {"type": "string", "maxLength": 5},
        "age": {"type": "integer"},
        "price": {"type": "number", "multipleOf": 0.01},
        "films": {"type": "array", "items": {"enum": ["a/b", "c"]}},
        "a/b~c": {"type": "null"},
    },
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        ({}, "/first_name, /age: required"),
        ({"first_name": "Hunter2", "age": 3}, "/first_name: breaks maxLength 5"),
        ({"first_name": "x", "age": "hunter2"}, '/age: breaks type "integer"'),
        ({"first_name": "x", "age": 1.5}, '/age: breaks type "integer"'),
        ({"first_name": "x", "age": 1, "price": 0.005}, "/price: breaks multipleOf 0.01"),
        ({"first_name": "x", "age": 1, "films": ["c", 1]}, '/films/1: breaks enum ["a/b","c"]'),
        ({"first_name": "x", "age": 1, "a/b~c": 1}, '/a~1b~0c: breaks type "null"'),
        ({"first_name": "x", "age": 1, "hunter2": 1}, "data: breaks additionalProperties false"),
    ],
)
def test_a_breach_names_place_and_rule_and_no_value(
    desk: Desk, data: dict[str, object], fault: str
) -> None:
    failure = desk.failure(SOURCE, json.dumps(data).encode(), schema=json.dumps(SCHEMA).encode())
    assert (failure.code, failure.kind) == ("template.data", "permanent")
    assert failure.message.replace('"0.01"', "0.01") == fault
    assert "unter2" not in failure.message


def test_data_that_fits_is_rendered_and_user_meta_and_job_are_not_looked_at(desk: Desk) -> None:
    context = b'{"first_name": "x", "age": 2.0, "price": 19.99, "user": 1, "meta": 2, "job": 3}'
    assert desk.render(SOURCE, context, schema=json.dumps(SCHEMA).encode()).text == "ok"


@pytest.mark.parametrize(
    "schema",
    [
        b"{",
        b"[]",
        b'{"type": "strin"}',
        b'{"$ref": "#/nowhere"}',
        b'{"pattern": "("}',
        b'{"properties": {"first_name": {"pattern": "("}}}',
    ],
)
def test_a_broken_schema_is_a_matter_of_configuration(desk: Desk, schema: bytes) -> None:
    failure = desk.failure(SOURCE, b'{"first_name": "x"}', schema=schema)
    assert (failure.code, failure.kind) == ("template.broken", "configuration")


def test_validation_looks_at_the_schema_too(desk: Desk) -> None:
    (problem,) = desk.validate(SOURCE, b'{"properties": {"a": {"type": "strin"}}}').problems
    assert problem.part == "schema"
    assert problem.message.startswith("/properties/a/type: ")
    assert desk.validate(SOURCE, b"true").problems == ()


def test_a_reference_stays_within_the_schema_and_nothing_is_fetched(desk: Desk) -> None:
    local = b'{"$defs": {"n": {"type": "integer"}}, "properties": {"a": {"$ref": "#/$defs/n"}}}'
    assert desk.failure(SOURCE, b'{"a": "x"}', schema=local).message.startswith("/a: breaks type")
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        url = f"http://127.0.0.1:{server.getsockname()[1]}/schema.json"
        for keyword in ("$ref", "$dynamicRef"):
            schema = json.dumps({"properties": {"a": {keyword: url}}}).encode()
            assert desk.failure(SOURCE, b'{"a": 1}', schema=schema).code == "template.broken"
        schema = json.dumps({"$schema": url, "type": "object"}).encode()
        assert desk.render(SOURCE, b'{"a": 1}', schema=schema).text == "ok"
        with pytest.raises(BlockingIOError):
            server.accept()


def test_an_endless_reference_is_refused(desk: Desk) -> None:
    assert desk.failure(SOURCE, b'{"a": 1}', schema=b'{"$ref": "#"}').code == "template.limit"
