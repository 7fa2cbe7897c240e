"""What a dispatcher knows of its lanes while a claim is under way."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from outbox.message import LaneId
from outbox.store.engine import Lane, Version
from outbox_dispatcher.lanes import LaneBook

LANE = Lane(
    lane_id=LaneId(7),
    tenant_id="default",
    queue="email",
    scope="",
    paused=False,
    held=False,
    probe_at=None,
)


@pytest.mark.parametrize(
    "reason",
    [
        lambda book: book.ring(None),
        lambda book: book.ring([LANE.lane_id]),
        lambda book: book.ask_again([("default", "email")]),
        lambda book: book.left(LANE.lane_id),
        lambda book: book.take_all(),
    ],
    ids=[
        "a bell for any lane",
        "a bell for this lane",
        "the next of its key",
        "room in its window",
        "suspects of a crash that may be claimed again",
    ],
)
def test_what_appears_during_a_claim_is_asked_for_after_it(
    reason: Callable[[LaneBook], None],
) -> None:
    book = LaneBook(None)
    book.load(Version(1), [LANE])
    (state,) = book.open_lanes()
    state.start_slowly()
    state.ask(5, below=False)
    book.claimed({LANE.lane_id: (state, 5, False)}, [], 0.001)
    assert not state.hot
    state.ring()
    state.ask(5, below=False)
    reason(book)
    book.claimed({LANE.lane_id: (state, 5, False)}, [], 0.001)
    assert state.hot
