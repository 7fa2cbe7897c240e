"""Fixtures of the tests of how it is deployed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from psycopg import sql

from tests.cli.shell import Shell
from tests.postgres import Databases


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """A shell in an empty folder."""
    with Shell(tmp_path) as shell:
        yield shell


@pytest.fixture
def fresh(databases: Databases) -> Iterator[str]:
    """An empty database, by its superuser's URL."""
    name = sql.Identifier(f"{databases.run.name}_{databases.worker}_phases")
    with ExitStack() as stack:
        admin = stack.enter_context(databases.server.connect())
        admin.execute(sql.SQL("create database {}").format(name))
        stack.callback(admin.execute, sql.SQL("drop database {} with (force)").format(name))
        yield databases.server.admin_url_of(name.as_string().strip('"'))
