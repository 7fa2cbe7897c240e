"""Chores: a fleet's idle statements do not grow with it."""

from __future__ import annotations

from outbox_dispatcher.upkeep import Chore


async def nothing() -> bool:
    return False


def test_a_fleet_does_a_chore_as_often_as_one_dispatcher_alone() -> None:
    chore = Chore(5.0, nothing)
    for fleet_size in (0, 1, 2, 50):
        turns_s = [chore.again_in_s(fleet_size) for _ in range(200)]
        share = max(1, fleet_size)
        assert 4.0 * share <= min(turns_s) < max(turns_s) <= 6.0 * share
        assert 4.7 * share < sum(turns_s) / len(turns_s) < 5.3 * share


def test_what_somebody_waits_for_is_done_by_each() -> None:
    chore = Chore(1.0, nothing, taking_turns=False)
    assert max(chore.again_in_s(50) for _ in range(200)) <= 1.2
