"""One database for a module of tests: each test rolls back, or uses tenants or ids of its own."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from psycopg.rows import TupleRow

from tests.contract_cases import prepare
from tests.postgres import Database, Databases

Connection = psycopg.Connection[TupleRow]


@pytest.fixture(scope="module")
def doors(databases: Databases) -> Iterator[Database]:
    """A migrated database with the handlers and the template of the contract's cases."""
    with databases.clone() as database:
        with database.admin_connect() as admin:
            prepare(admin)
        yield database


@pytest.fixture
def connection(doors: Database) -> Iterator[Connection]:
    """A connection of the service's role; what it did is rolled back."""
    with doors.connect() as connection:
        yield connection
        connection.rollback()
