"""The promise under everything at once, by a fixed seed (`make chaos`: others, for hours)."""

from __future__ import annotations

from pathlib import Path

import pytest

from outbox.embedded import EmbeddedServer
from tests.faults.chaos import DISPATCHERS, LEASE_S, chaos
from tests.faults.nemesis import WEIGHTS, Fault, plan_of

SEED = 20_261_125
LENGTH_S = 45.0


def _plan(seed: int, length_s: float = LENGTH_S) -> list[Fault]:
    return plan_of(seed, length_s=length_s, dispatchers=DISPATCHERS, lease_s=LEASE_S)


def test_a_seed_gives_the_same_plan_each_time_and_another_seed_another() -> None:
    assert _plan(1) == _plan(1)
    assert _plan(1) != _plan(2)
    assert _plan(1, 3600)[: len(_plan(1)) - 1] == _plan(1)[:-1], "a longer run begins the same"


def test_the_plan_of_the_fixed_seed_has_every_kind_of_fault() -> None:
    assert {fault.kind for fault in _plan(SEED)} == set(WEIGHTS)


@pytest.mark.timeout(300)
async def test_every_promise_holds_under_kills_freezes_crashes_cuts_delays_clocks_and_a_migration(
    own_server: EmbeddedServer, tmp_path: Path
) -> None:
    verdict = await chaos(own_server, tmp_path, SEED, _plan(SEED))
    assert verdict.broken == [], verdict.summary()
    said = {handed.said for handed in verdict.run.handed}
    assert said >= {"committed", "rolled back"}
    assert any(attempt.lost for attempt in verdict.run.attempts), "the faults have hit something"
