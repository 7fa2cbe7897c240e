"""Fixtures of the store's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.engine.desk import Desk
from tests.postgres import Database


@pytest.fixture
def desk(database: Database) -> Iterator[Desk]:
    """A workplace in a fresh database."""
    desk = Desk(database)
    yield desk
    desk.close()
