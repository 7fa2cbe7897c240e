"""The examples that producers sent are jobs as they are, and their templates ask for no more."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jinja2
import jinja2.meta
import psycopg
import pytest
from psycopg.rows import TupleRow

import outbox

EXAMPLES = Path(__file__).parents[2] / "examples"
MAILS = ("welcome_email", "black_friday_sale", "new_film_recommendation")


def read(name: str) -> Any:
    return json.loads((EXAMPLES / f"{name}.json").read_text("utf-8"))


def put_templates(connection: psycopg.Connection[TupleRow]) -> None:
    connection.execute("set local outbox.tenant = '*'")
    for folder in (EXAMPLES / "templates").glob("*/*/*"):
        code, channel, locale = folder.parts[-3:]
        connection.execute(
            "insert into outbox.template (tenant_id, code, channel, locale, version, body_text)"
            " values ('default', %s, %s, %s, 100, %s)",
            (code, channel, locale, (folder / "text.txt").read_text("utf-8")),
        )


def test_the_examples_are_accepted_as_they_are(
    connection: psycopg.Connection[TupleRow],
) -> None:
    put_templates(connection)
    statuses = {}
    for name in (*MAILS, "welcome_without_address", "order_webhook"):
        text = (EXAMPLES / f"{name}.json").read_text("utf-8")
        statuses[name] = outbox.enqueue(connection, text).status
    assert statuses == {
        "welcome_email": "pending",
        "black_friday_sale": "expired",
        "new_film_recommendation": "expired",
        "welcome_without_address": "pending",
        "order_webhook": "pending",
    }


@pytest.mark.parametrize("name", MAILS)
def test_an_example_brings_all_that_its_templates_ask_for(name: str) -> None:
    given = set(read(name)["data"])
    folders = list((EXAMPLES / "templates" / name).glob("*/*"))
    assert {folder.name for folder in folders} == {"ru", "en"}
    for folder in folders:
        for part in folder.iterdir():
            tree = jinja2.Environment(autoescape=True).parse(part.read_text("utf-8"))
            assert jinja2.meta.find_undeclared_variables(tree) <= given, part


def test_every_example_recipient_but_one_has_an_address() -> None:
    people = {person["user_id"]: person.get("email") for person in read("recipients")}
    for name in (*MAILS, "user_registered_event"):
        assert people[read(name)["user_id"]]
    assert people[read("welcome_without_address")["user_id"]] is None
