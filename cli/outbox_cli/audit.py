"""`outbox audit NAME`: the audit queries, as the read-only role sees them."""

from __future__ import annotations

from typing import Annotated

import psycopg
import typer
from psycopg.rows import dict_row

from outbox.errors import StoreUnavailable
from outbox_cli.database import first_line, open_place, settings
from outbox_cli.groups import Json
from outbox_cli.shown import print_json, print_table
from outbox_sql import audit as queries

STATEMENT_MS_MAX = 300_000


def audit(
    name: Annotated[str | None, typer.Argument(help="Left out: list the queries.")] = None,
    values: Annotated[list[str] | None, typer.Argument(metavar="[PARAMETER=VALUE]...")] = None,
    json: Json = False,
) -> None:
    """Run one of the audit queries."""
    if name is None:
        _list(json)
        return
    try:
        query = queries.load(name)
        bound = query.values(_given(values or []))
    except (LookupError, ValueError) as error:
        raise typer.BadParameter(str(error)) from error
    columns, rows = _run(query.statement, bound)
    if json:
        print_json(rows)
        return
    print_table(
        [column.upper() for column in columns],
        ([row[column] for column in columns] for row in rows),
        empty="No row answers.",
    )


def _list(json: bool) -> None:
    loaded = [queries.load(name) for name in queries.names()]
    if json:
        print_json(
            [
                {
                    "name": query.name,
                    "answers": query.answers,
                    "parameters": [
                        {
                            "name": parameter.name,
                            "type": parameter.type,
                            "default": parameter.default,
                            "meaning": parameter.meaning,
                        }
                        for parameter in query.parameters
                    ],
                }
                for query in loaded
            ]
        )
        return
    print_table(
        ("NAME", "ANSWERS", "PARAMETERS"),
        (
            (query.name, query.answers, [f"{p.name}={p.default}" for p in query.parameters])
            for query in loaded
        ),
        empty="",
    )


def _given(values: list[str]) -> dict[str, str]:
    given: dict[str, str] = {}
    for value in values:
        name, sign, text = value.partition("=")
        if not sign:
            raise ValueError(f"{value!r} is no PARAMETER=VALUE")
        given[name] = text
    return given


def _run(statement: str, bound: dict[str, str]) -> tuple[list[str], list[dict[str, object]]]:
    with open_place(settings()) as place:
        try:
            connection = psycopg.connect(place.url, connect_timeout=5, row_factory=dict_row)
        except psycopg.OperationalError as error:
            message = f"Postgres cannot be reached: {first_line(error)}"
            raise StoreUnavailable(message) from error
        with connection:
            connection.execute(
                "select set_config('role', 'outbox_auditor', true),"
                " set_config('transaction_read_only', 'on', true),"
                " set_config('timezone', 'UTC', true), set_config('statement_timeout', %s, true)",
                (str(STATEMENT_MS_MAX),),
            )
            try:
                cursor = connection.execute(statement.encode(), bound)
            except psycopg.DataError as error:
                raise typer.BadParameter(
                    f"no row can be looked for: {first_line(error)}"
                ) from error
            columns = [column.name for column in cursor.description or []]
            return columns, cursor.fetchall()
