"""schema.sql is today's schema, and makes it."""

from __future__ import annotations

import psycopg
import pytest
from psycopg import sql

from tests.postgres import Databases
from tests.schema_dump import PATH, dump_schema


@pytest.fixture
def server_18(databases: Databases) -> Databases:
    with databases.server.connect() as admin:
        if admin.info.server_version // 10_000 != 18:
            pytest.skip("schema.sql is written from Postgres 18: others say some things otherwise")
    return databases


def test_schema_sql_is_what_the_migrations_come_to(server_18: Databases) -> None:
    with server_18.clone() as database:
        assert dump_schema(database.admin_url) == PATH.read_text(encoding="utf-8"), (
            "run `make schema`, and look at what changed"
        )


def test_schema_sql_makes_the_schema_that_it_describes(server_18: Databases) -> None:
    name = sql.Identifier(f"{server_18.template}_by_hand_{server_18.worker}")
    with server_18.server.connect() as admin:
        admin.execute(sql.SQL("create database {} template template0").format(name))
        url = server_18.server.admin_url_of(name.as_string().strip('"'))
        try:
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute(PATH.read_text(encoding="utf-8").encode())
            assert dump_schema(url) == PATH.read_text(encoding="utf-8")
        finally:
            admin.execute(sql.SQL("drop database {} with (force)").format(name))
