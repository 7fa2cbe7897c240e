"""Fixtures of the audit's tests: the engine's workplace, and a hand that works it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.audit.hand import Hand
from tests.engine.desk import Desk
from tests.postgres import Database


@pytest.fixture
def desk(database: Database) -> Iterator[Desk]:
    """A workplace in a fresh database."""
    desk = Desk(database)
    yield desk
    desk.close()


@pytest.fixture
async def hand(desk: Desk) -> AsyncIterator[Hand]:
    """A dispatcher that does one step at a time."""
    hand = await Hand.of(desk)
    yield hand
    await hand.link.close()
