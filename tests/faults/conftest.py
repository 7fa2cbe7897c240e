"""Fixtures of the fault tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.desk import Desk
from tests.faults.workers import Workers


@pytest.fixture
def workers(desk: Desk, tmp_path: Path) -> Iterator[Workers]:
    """Dispatcher processes for the desk's database; they end with the test."""
    workers = Workers(desk.database.url, tmp_path)
    yield workers
    workers.stop()
