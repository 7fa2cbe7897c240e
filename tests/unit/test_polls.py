"""When a dispatcher polls, and how far."""

from __future__ import annotations

import pytest

from outbox_dispatcher import pace, wakeup
from outbox_dispatcher.wakeup import Wakeup


class Clock:
    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.now = 1_000.0
        for using in (wakeup, pace):
            patch.setattr(using, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def polls(clock: Clock, *, took_s: float, for_s: float) -> list[str]:
    """Return the polls of a dispatcher that claims go on in, twenty times a second."""
    polling = Wakeup(poll_s_min=0.02, poll_s_max=1.0)
    seen: list[str] = []
    until = clock.now + for_s
    while clock.now < until:
        if reach := polling.poll_due():
            clock.now += took_s if reach == "far" else 0.001
            polling.polled(reach, took_s if reach == "far" else 0.001, {})
            seen.append(reach)
        clock.now += 0.05
        polling.busy(more=True)
    return seen


def test_however_busy_it_is_everything_is_looked_at_every_second_or_so(clock: Clock) -> None:
    assert 8 <= len(polls(clock, took_s=0.005, for_s=10.0)) <= 12


def test_however_busy_it_is_slow_looks_get_a_twentieth_of_the_time(clock: Clock) -> None:
    seen = polls(clock, took_s=2.0, for_s=200.0)
    assert 4 <= seen.count("far") <= 7
    assert "near" not in seen


def test_a_fleet_takes_turns_at_slow_looks(clock: Clock) -> None:
    polling = Wakeup(poll_s_min=0.02, poll_s_max=1.0)
    for _ in range(2):
        polling.polled("far", 2.0, {}, fleet_size=5)
    clock.now += 4 * 2.0 / pace.SHARE_MAX
    assert polling.poll_due() == "near"
    clock.now += 2.0 / pace.SHARE_MAX
    assert polling.poll_due() == "far"


def test_where_nothing_happens_near_looks_come_in_between_slow_ones(clock: Clock) -> None:
    polling = Wakeup(poll_s_min=0.02, poll_s_max=1.0)
    for _ in range(2):
        clock.now += 1.0
        assert polling.poll_due() == "far"
        polling.polled("far", 2.0, {})
        polling.idle()
    clock.now += 1.0
    assert polling.poll_due() == "near"
    clock.now += 2.0 / pace.SHARE_MAX
    assert polling.poll_due() == "far"
