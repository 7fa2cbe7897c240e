from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from tests.render.desk import Desk


@pytest.fixture(autouse=True)
def _nothing_is_left_open() -> Iterator[None]:
    """Bring ResourceWarnings out in the test that caused them."""
    yield
    gc.collect()


@pytest.fixture
def desk() -> Desk:
    return Desk()
