"""The protocol's model, explored whole: it holds, and without any one precaution it does not."""

from __future__ import annotations

import pytest

from tests.model.explorer import LEFT_BEHIND, explore
from tests.model.parts import Bounds, Rules

STALE_RECORD = "an outcome is stored only under the lease that made it"
STALE_START = "no attempt starts under a lease that has moved on"
TWICE = "a lease is recorded once, and once more if it came late"
CARRIED = "what a session carries over, its process works on"
SMALL = Bounds(claims=2)


@pytest.mark.parametrize(
    "bounds",
    [
        pytest.param(Bounds(claims=2), id="two processes, any of them as slow as it likes"),
        pytest.param(Bounds(claims=1, faults=1), id="two processes, one killed or cut off"),
        pytest.param(
            Bounds(claims=1, faults=1, pooled=True), id="the same, where a pooler keeps the lock"
        ),
        pytest.param(
            Bounds(processes=1, claims=3, faults=1, series=2), id="one process, a replay, a fault"
        ),
        pytest.param(
            Bounds(processes=1, claims=2, faults=1, tries=2), id="one process, a retry, a fault"
        ),
    ],
)
def test_every_reachable_state_keeps_the_invariants(bounds: Bounds) -> None:
    found = explore(Rules(), bounds)
    assert found.broken is None, "\n".join(found.story)
    assert found.states > 1000
    assert found.ended > 0


@pytest.mark.parametrize(
    ("rules", "bounds", "broken"),
    [
        pytest.param(
            Rules(fence_lease_no=False, fence_epoch=False),
            SMALL,
            STALE_RECORD,
            id="outcomes are stored by id alone",
        ),
        pytest.param(
            Rules(fence_lease_no=False),
            SMALL,
            STALE_START,
            id="the fence is the process, whichever of its claims it was",
        ),
        pytest.param(
            Rules(self_fence=False), SMALL, STALE_START, id="a process trusts an old heartbeat"
        ),
        pytest.param(
            Rules(age_from_sending=False),
            SMALL,
            STALE_START,
            id="a heartbeat's age counts from its answer",
        ),
        pytest.param(
            Rules(lease_margin=False),
            SMALL,
            STALE_START,
            id="attempts start however old their lease is",
        ),
        pytest.param(
            Rules(lease_no_outlives_series=False),
            Bounds(claims=2, series=2),
            TWICE,
            id="lease_no restarts with a new series",
        ),
        pytest.param(
            Rules(adopt_by_lease=False),
            Bounds(processes=1, claims=2, faults=1, tries=2),
            CARRIED,
            id="a session carries claims over by entry",
        ),
        pytest.param(
            Rules(rescue=False), Bounds(claims=2, faults=1), LEFT_BEHIND, id="nobody rescues"
        ),
    ],
)
def test_without_a_precaution_there_is_a_story_that_breaks_the_promise(
    rules: Rules, bounds: Bounds, broken: str
) -> None:
    found = explore(rules, bounds)
    assert found.broken == broken
    assert found.story
