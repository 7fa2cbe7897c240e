"""The checker sees what is wrong: histories made by hand, each with one thing that must not be."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from tests.faults.checker import Attempt, Handed, Received, Run, Struck, violations

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)
JOB = UUID(int=1)
OTHER = UUID(int=2)
KEY = str(JOB)


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


SENT = Attempt(JOB, 1, 1, 1, False, "SENT", None, at(0), at(1))
LOST = replace(SENT, status="RETRYING", error_code="lease.lost", finished_at=at(5))
SENT_LATER = replace(SENT, lease_no=3, started_at=at(6), finished_at=at(7))
LATE = replace(SENT, late=True, finished_at=at(8))
FAULT = Struck("a kill", at(-1), at(10))
ARRIVED = Received(KEY, KEY, True)

GOOD = Run([Handed(JOB, "committed")], [ARRIVED], {JOB: ("sent", 1)}, [SENT], [FAULT], 10)
CRASHED = replace(GOOD, received=[ARRIVED, ARRIVED], attempts=[LOST, SENT_LATER, LATE])


def test_a_good_history_has_nothing_to_be_said_against_it() -> None:
    assert violations(GOOD) == []
    assert violations(CRASHED) == []
    assert violations(Run([Handed(OTHER, "rolled back")], [], {}, [])) == []
    assert violations(Run([Handed(OTHER, "unknown")], [], {}, [])) == []


@pytest.mark.parametrize(
    ("run", "sentence"),
    [
        (replace(GOOD, jobs={}, attempts=[], received=[]), "committed, and lost"),
        (replace(GOOD, handed=[Handed(JOB, "rolled back")]), "rolled back, and delivered"),
        (
            replace(GOOD, handed=[Handed(JOB, "rolled back")], received=[]),
            "rolled back, and there",
        ),
        (replace(GOOD, handed=[]), "nobody handed it in"),
        (replace(GOOD, received=[ARRIVED, Received("x", "x", True)]), "no such job"),
        (replace(GOOD, received=[Received(KEY, str(OTHER), True)]), "another idempotency key"),
        (replace(GOOD, jobs={JOB: ("processing", 1)}, attempts=[]), "left behind as processing"),
        (replace(GOOD, jobs={JOB: ("failed", 1)}), "its history ends as SENT"),
        (replace(GOOD, attempts=[]), "series 1 has 0 ends"),
        (replace(CRASHED, attempts=[SENT, SENT_LATER]), "series 1 has 2 ends"),
        (replace(CRASHED, attempts=[SENT, SENT_LATER]), "stale write: lease 3"),
        (
            replace(CRASHED, attempts=[LOST, replace(SENT_LATER, started_at=at(2)), LATE]),
            "began before 1 was over",
        ),
        (
            replace(CRASHED, attempts=[LOST, replace(SENT_LATER, attempt=2), LATE]),
            "attempt 2 after 0 used",
        ),
        (replace(GOOD, attempts=[SENT, SENT]), "lease 1 is recorded twice"),
        (replace(GOOD, received=[ARRIVED, ARRIVED]), "received 2 times, and 1 attempts"),
        (replace(GOOD, received=[]), "the receiver took it 0 times"),
        (replace(GOOD, received=[replace(ARRIVED, ok=False)]), "the receiver took it 0 times"),
        (replace(CRASHED, faults=[Struck("a cut", at(20), at(30))]), "there was no fault"),
        (replace(CRASHED, in_flight_max=0), "1 duplicates after 1 faults"),
        (replace(GOOD, received=[ARRIVED, ARRIVED]), "the history tells of no fault"),
        (
            replace(GOOD, jobs={JOB: ("failed", 1)}, attempts=[replace(SENT, status="FAILED")]),
            "failed, and should have been sent",
        ),
    ],
)
def test_the_checker_finds(run: Run, sentence: str) -> None:
    assert any(sentence in found for found in violations(run)), violations(run)
