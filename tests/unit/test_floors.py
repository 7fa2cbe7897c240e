"""Where claims start in a lane, and where what has appeared behind them is looked for."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from outbox_dispatcher import floors as module
from outbox_dispatcher import pace
from outbox_dispatcher.floors import Floors, Horizon, Place
from outbox_dispatcher.pace import Pace

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)


def at(second: float, entry_id: int = 1) -> Place:
    return NOW + timedelta(seconds=second), entry_id


class Clock:
    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.now = 1_000.0
        for using in (module, pace):
            patch.setattr(using, "monotonic", lambda: self.now)


def looked(floors: Floors, first: dict[int, Place], *, at_s: float) -> None:
    floors._horizon.looked(at(at_s)[0])
    floors.looked(first)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_a_lane_that_is_new_is_looked_at_from_the_bottom(clock: Clock) -> None:
    assert Floors(Horizon()).starts(below=False) == Floors(Horizon()).starts(below=True) == {}


def test_a_claim_starts_behind_what_the_last_one_took_and_nothing_moves_it_down(
    clock: Clock,
) -> None:
    floors = Floors(Horizon())
    floors.claimed({1: at(5)}, full=True)
    floors.claimed({1: at(2), 5: at(3)}, full=False)
    assert floors.starts(below=False) == {1: at(5), 5: at(3)}


def test_a_full_claim_that_looked_below_goes_on_where_it_ended(clock: Clock) -> None:
    floors = Floors(Horizon())
    floors.claimed({1: at(5)}, full=True)
    floors.claimed({1: at(2)}, full=True)
    assert floors.starts(below=False) == {1: at(2)}


def test_a_near_look_starts_where_claims_were_a_few_seconds_ago(clock: Clock) -> None:
    floors = Floors(Horizon())
    looked(floors, {1: at(0)}, at_s=60)
    for second in range(1, 20):
        clock.now += 1
        floors.claimed({1: at(second)}, full=True)
        start = floors.starts(below=True)[1]
        assert start <= at(max(0, second - module.NEAR_S))
        assert second <= 8 or start >= at(second - 2 * module.NEAR_S - 1)
    # Nobody has claimed for long: all of that has been looked at since.
    clock.now += 60
    assert floors.starts(below=True)[1] == at(19)


def test_what_is_given_back_is_where_the_next_claim_starts(clock: Clock) -> None:
    floors = Floors(Horizon())
    floors.claimed({1: at(9)}, full=True)
    floors.lower(1, at(4, entry_id=7))
    # A claim that was under way meanwhile moves the floor, but does not forget it.
    floors.claimed({1: at(10)}, full=True)
    assert floors.starts(below=False)[1] < at(4, entry_id=7)
    floors.claimed({1: at(4, entry_id=7)}, full=False)
    assert floors.starts(below=False)[1] == at(4, entry_id=7)


def test_what_a_far_look_finds_lowers_a_floor_and_what_it_does_not_find_is_over(
    clock: Clock,
) -> None:
    floors = Floors(Horizon())
    floors.claimed({1: at(30), 5: at(30)}, full=True)
    looked(floors, {5: at(10)}, at_s=60)
    starts = floors.starts(below=False)
    assert starts[1] == at(30)
    assert at(9) < starts[5] < at(10)
    # Of priorities that nothing was claimed of: what is older than a few seconds is not there.
    assert starts[0] == starts[10] == (at(60 - module.HORIZON_S)[0], 0)


def test_what_is_resumed_is_looked_at_from_the_bottom_until_the_next_far_look(
    clock: Clock,
) -> None:
    floors = Floors(Horizon())
    looked(floors, {}, at_s=60)
    floors.claimed({1: at(70)}, full=False)
    floors.forget()
    assert floors.starts(below=False) == floors.starts(below=True) == {}
    looked(floors, {1: at(5)}, at_s=80)
    starts = floors.starts(below=False)
    assert starts[1] < at(5)
    assert starts[5] == (at(80 - module.HORIZON_S)[0], 0)


def test_what_claims_left_out_for_a_while_is_looked_for_where_they_began_to(clock: Clock) -> None:
    floors = Floors(Horizon())
    floors.claimed({1: at(5)}, full=True)
    floors.mark()
    floors.lower(1, at(3))
    assert floors.starts(below=False)[1] < at(3)
    floors.claimed({1: at(20), 0: at(20)}, full=True)
    assert floors.starts(below=False)[1] == at(20)
    floors.back_to_mark()
    starts = floors.starts(below=False)
    assert starts[1] < at(3)
    assert starts[0] < at(0)


def test_walks_get_a_twentieth_of_the_time_unless_one_was_slow_by_itself(clock: Clock) -> None:
    walks = Pace()
    walks.took(2.0)
    assert walks.may_at <= clock.now
    walks.took(3.0)
    assert walks.may_at == clock.now + 2.0 / pace.SHARE_MAX
    walks.took(2.0, walkers=3)
    assert walks.may_at == clock.now + 3 * 2.0 / pace.SHARE_MAX
    walks.took(1_000.0)
    walks.took(1_000.0)
    assert walks.may_at == clock.now + pace.PAUSE_S_MAX
