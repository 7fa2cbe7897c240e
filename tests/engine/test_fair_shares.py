"""Shares of a claim's room, without a store: what each tenant gets, and when."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outbox_dispatcher.fair import FairShares, in_turn

ENDLESS = 1_000_000


def rounds_until_served(
    room: int, noisy: dict[str, int], quiet: dict[str, int], *, weights: dict[str, int]
) -> int:
    """Claim until all of `quiet` is served, behind a backlog of `noisy`; return the rounds."""
    shares = FairShares()
    backlog = dict(noisy)
    for _ in range(2 * len(noisy)):
        claim(shares, room, backlog, weights)
    backlog |= quiet
    rounds = 0
    while any(backlog.get(tenant, 0) for tenant in quiet):
        claim(shares, room, backlog, weights)
        rounds += 1
    return rounds


def claim(
    shares: FairShares, room: int, backlog: dict[str, int], weights: dict[str, int]
) -> dict[str, int]:
    """Do one round. Nobody knows beforehand how much there is: each is asked for its room."""
    hot = {tenant: room for tenant, left in backlog.items() if left > 0}
    if not hot:
        return {}
    got = {
        tenant: min(share, backlog[tenant])
        for tenant, share in shares.deal(room, hot, weights).items()
    }
    for tenant, count in got.items():
        backlog[tenant] -= count
    if len(hot) > 1:
        shares.charge(got, [tenant for tenant in hot if backlog[tenant] > 0])
    return got


@given(room=st.integers(1, 200), noisy=st.integers(1, 30), jobs=st.integers(1, 5))
def test_a_backlog_of_others_costs_a_small_tenant_no_more_than_one_round(
    room: int, noisy: int, jobs: int
) -> None:
    tenants = {f"noisy {n}": ENDLESS for n in range(noisy)}
    rounds = rounds_until_served(room, tenants, {"quiet": 1}, weights=all_equal(tenants, "quiet"))
    assert rounds == 1
    # Several jobs of one tenant take turns with the others, as they should.
    share = max(1, room // (noisy + 1))
    several = rounds_until_served(
        room, tenants, {"quiet": jobs}, weights=all_equal(tenants, "quiet")
    )
    assert several <= math.ceil(jobs * (noisy + 1) / room) + math.ceil(jobs / share)


@given(room=st.integers(1, 60), quiet=st.integers(1, 300), noisy=st.integers(1, 12))
def test_many_small_tenants_wait_for_each_other_and_one_round_for_the_large_ones(
    room: int, quiet: int, noisy: int
) -> None:
    small = {f"quiet {n}": 1 for n in range(quiet)}
    large = {f"noisy {n}": ENDLESS for n in range(noisy)}
    alone = math.ceil(quiet / room)
    assert rounds_until_served(room, large, small, weights=all_equal(small, *large)) <= alone + 1


@given(
    room=st.integers(1, 500),
    weights=st.lists(st.integers(1, 20), min_size=2, max_size=6),
)
def test_over_time_each_gets_what_its_weight_says(room: int, weights: list[int]) -> None:
    shares = FairShares()
    by_tenant = {str(n): weight for n, weight in enumerate(weights)}
    backlog = dict.fromkeys(by_tenant, ENDLESS)
    rounds = max(20, 40 * sum(weights) // room)
    had = dict.fromkeys(by_tenant, 0)
    for _ in range(rounds):
        got = claim(shares, room, backlog, by_tenant)
        assert sum(got.values()) == room
        for tenant, count in got.items():
            had[tenant] += count
    total = sum(had.values())
    for tenant, weight in by_tenant.items():
        fair = total * weight / sum(weights)
        assert abs(had[tenant] - fair) <= max(room, sum(weights)) * 1.01


def test_who_was_away_has_saved_nothing_up() -> None:
    shares = FairShares()
    weights = {"a": 1, "b": 1}
    backlog = {"a": ENDLESS, "b": 1}
    for _ in range(100):
        claim(shares, 10, backlog, weights)
    backlog["b"] = ENDLESS
    had_a = sum(claim(shares, 10, backlog, weights)["a"] for _ in range(10))
    assert had_a == pytest.approx(50, abs=10)


def test_room_that_one_tenant_does_not_want_goes_to_the_others() -> None:
    assert FairShares().deal(10, {"a": 2, "b": 10}, {"a": 1, "b": 1}) == {"a": 2, "b": 8}


def test_only_those_who_wait_are_remembered() -> None:
    shares = FairShares()
    weights = {str(n): 1 for n in range(1000)}
    shares.deal(1000, dict.fromkeys(weights, 5), weights)
    shares.charge(dict.fromkeys(weights, 1), ["1", "2"])
    assert set(shares._tags) | set(shares._turns) <= {"1", "2"}


def test_what_was_claimed_together_starts_in_turn() -> None:
    assert in_turn(["a1", "a2", "a3", "b1", "c1", "c2"], key=lambda thing: thing[0]) == [
        "a1", "b1", "c1", "a2", "c2", "a3",
    ]  # fmt: skip


def all_equal(tenants: dict[str, int], *more: str) -> dict[str, int]:
    return dict.fromkeys([*tenants, *more], 1)
