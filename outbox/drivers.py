"""How one statement is run on whatever connection the caller has, sync or async.

No driver is imported here, so that the library needs none: a connection is known by the name of
its class, and whoever has one has imported its driver. Values are `Any` for the same reason.
"""

from __future__ import annotations

import functools
import inspect
import json
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from outbox_sql import query


@dataclass(frozen=True)
class Statement:
    """One of outbox_sql's queries, by name, with its parameters; it returns one text."""

    name: str
    parameters: Mapping[str, str | bool]


Runner: TypeAlias = Callable[[Any, Statement], Any]
"""Runs a statement and returns its text; a coroutine function on an async connection."""


def _find_runner(kind: type) -> tuple[Runner, bool]:
    """Return what runs the statement on a connection of that kind, and whether it is async.

    Raises TypeError for what is no connection.
    """
    for base in kind.__mro__:
        runner = _RUNNERS.get((base.__module__.partition(".")[0], base.__name__))
        if runner is not None:
            return runner, inspect.iscoroutinefunction(runner)
    raise TypeError(
        "enqueue needs a connection of psycopg, SQLAlchemy or asyncpg, or a session,"
        f" not {kind.__module__}.{kind.__qualname__}"
    )


runner_of: Callable[[type], tuple[Runner, bool]] = functools.lru_cache(maxsize=64)(_find_runner)


def told_by(error: BaseException | None) -> tuple[str | None, str, str | None]:
    """Return SQLSTATE, message and DETAIL: psycopg, psycopg2, asyncpg, or SQLAlchemy over them."""
    while error is not None:
        diagnosis = getattr(error, "diag", None)
        if diagnosis is not None and diagnosis.sqlstate is not None:
            return diagnosis.sqlstate, diagnosis.message_primary or "", diagnosis.message_detail
        if hasattr(error, "detail") and hasattr(error, "sqlstate"):
            return error.sqlstate, str(getattr(error, "message", "")), error.detail
        error = getattr(error, "orig", None) or error.__cause__
    return None, "", None


def hide_parameters(error: Exception) -> None:
    """Keep SQLAlchemy from printing the jobs, with all personal data, in its error's text."""
    if hasattr(error, "hide_parameters"):
        error.hide_parameters = True


def _psycopg_parameters(connection: Any, statement: Statement) -> Mapping[str, str | bool]:
    if connection.pgconn.parameter_status(b"client_encoding") == b"UTF8":
        return statement.parameters
    jobs = str(statement.parameters["jobs"])
    escaped = re.sub(r"[^\x00-\x7f]", lambda match: json.dumps(match[0])[1:-1], jobs)
    return {**statement.parameters, "jobs": escaped}


def _psycopg(connection: Any, statement: Statement) -> str:
    psycopg = sys.modules["psycopg"]
    # A plain cursor, whatever cursor and row factories the caller has set.
    with psycopg.Cursor(connection, row_factory=psycopg.rows.tuple_row) as cursor:
        cursor.execute(query(statement.name), _psycopg_parameters(connection, statement))
        return _text(cursor.fetchone()[0])


async def _psycopg_async(connection: Any, statement: Statement) -> str:
    psycopg = sys.modules["psycopg"]
    async with psycopg.AsyncCursor(connection, row_factory=psycopg.rows.tuple_row) as cursor:
        await cursor.execute(query(statement.name), _psycopg_parameters(connection, statement))
        return _text((await cursor.fetchone())[0])


def _psycopg_cursor(cursor: Any, statement: Statement) -> str:
    return _psycopg(cursor.connection, statement)


async def _psycopg_async_cursor(cursor: Any, statement: Statement) -> str:
    return await _psycopg_async(cursor.connection, statement)


@functools.cache
def _sqlalchemy_text(name: str) -> Any:
    sqlalchemy = sys.modules["sqlalchemy"]
    return sqlalchemy.text(re.sub(r"%\((\w+)\)s", r":\1", query(name)))


def _sqlalchemy(connection: Any, statement: Statement) -> str:
    return _text(
        connection.execute(_sqlalchemy_text(statement.name), statement.parameters).scalar_one()
    )


async def _sqlalchemy_async(connection: Any, statement: Statement) -> str:
    result = await connection.execute(_sqlalchemy_text(statement.name), statement.parameters)
    return _text(result.scalar_one())


# By way of the session's connection: a session's own `execute` would have to pick an engine.
def _sqlalchemy_session(session: Any, statement: Statement) -> str:
    return _sqlalchemy(session.connection(), statement)


async def _sqlalchemy_async_session(session: Any, statement: Statement) -> str:
    return await _sqlalchemy_async(await session.connection(), statement)


@functools.cache
def _asyncpg_text(name: str) -> tuple[str, tuple[str, ...]]:
    names: list[str] = []

    def numbered(match: re.Match[str]) -> str:
        names.append(match[1])
        return f"${len(names)}"

    return re.sub(r"%\((\w+)\)s", numbered, query(name)), tuple(names)


async def _asyncpg(connection: Any, statement: Statement) -> str:
    text, names = _asyncpg_text(statement.name)
    values = (statement.parameters[name] for name in names)
    return _text(await connection.fetchval(text, *values))


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode()


_RUNNERS: Mapping[tuple[str, str], Runner] = {
    ("psycopg", "Connection"): _psycopg,
    ("psycopg", "AsyncConnection"): _psycopg_async,
    ("psycopg", "Cursor"): _psycopg_cursor,
    ("psycopg", "AsyncCursor"): _psycopg_async_cursor,
    ("psycopg", "ServerCursor"): _psycopg_cursor,
    ("psycopg", "AsyncServerCursor"): _psycopg_async_cursor,
    ("sqlalchemy", "Connection"): _sqlalchemy,
    ("sqlalchemy", "Session"): _sqlalchemy_session,
    ("sqlalchemy", "scoped_session"): _sqlalchemy_session,
    ("sqlalchemy", "AsyncConnection"): _sqlalchemy_async,
    ("sqlalchemy", "AsyncSession"): _sqlalchemy_async_session,
    ("sqlalchemy", "async_scoped_session"): _sqlalchemy_async_session,
    ("asyncpg", "Connection"): _asyncpg,
    ("asyncpg", "PoolConnectionProxy"): _asyncpg,
}
