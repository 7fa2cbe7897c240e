"""A process between two epochs: it starts nothing, and still knows what time it is."""

from __future__ import annotations

from datetime import UTC, datetime
from time import monotonic

from outbox_dispatcher.life import Life


def test_an_attempt_that_ends_before_a_new_epoch_s_first_heartbeat_knows_the_time() -> None:
    life = Life()
    life.begin()
    now = datetime(2026, 11, 25, tzinfo=UTC)
    life.beat(sent_at=monotonic(), db_now=now)
    assert life.may_start()
    life.begin()
    assert not life.may_start()
    assert 0 <= (life.db_now() - now).total_seconds() < 60
