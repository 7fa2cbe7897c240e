"""What dispatchers count of an attempt's times."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from outbox.message import EntryId, Epoch, LaneId, LeaseNo
from outbox.store.engine import Claimed, Recorded
from outbox.telemetry import ARRIVAL_BUCKETS_S
from outbox_dispatcher.histograms import Timed, arrival_s, histograms_of

ACCEPTED = datetime(2026, 11, 25, 12, tzinfo=UTC)


def claimed(job_json: str) -> Claimed:
    """An entry whose job was accepted at ACCEPTED."""
    milliseconds = int((ACCEPTED - datetime(2020, 1, 1, tzinfo=UTC)) / timedelta(milliseconds=1))
    return Claimed(
        id=EntryId((milliseconds << 22) + 7),
        lane_id=LaneId(1),
        lease_no=LeaseNo(1),
        priority=1,
        series=1,
        attempt=1,
        attempts_max=None,
        crashes=0,
        available_at=ACCEPTED,
        expires_at=None,
        claimed_at=ACCEPTED,
        job_id=uuid4(),
        tenant_id="default",
        queue="work",
        channel=None,
        created_at=ACCEPTED,
        traceparent=None,
        job_json=job_json,
        test=False,
        epoch=Epoch(1),
    )


@pytest.mark.parametrize(
    ("job", "seconds"),
    [
        ("{}", 3605.0),
        ('{"send_after": "2026-11-25T18:00:00+05:00"}', 5.0),
        ('{"send_after": "2026-11-25T11:00:00Z"}', 3605.0),
        ('{"send_after": null}', 3605.0),
        ('{"data": {"send_after": 7}}', 3605.0),
    ],
)
def test_a_job_arrives_so_long_after_it_might_first_be_sent(job: str, seconds: float) -> None:
    now = ACCEPTED + timedelta(hours=1, seconds=5)
    assert arrival_s(claimed(job), now) == pytest.approx(seconds, abs=0.002)


def test_attempts_that_sent_nothing_do_not_arrive() -> None:
    def ended(status: str, arrived_s: float | None) -> tuple[Recorded, int, Timed]:
        timed = Timed(duration_s=0.004, pickup_s=0.02, arrival_s=arrived_s)
        recorded = Recorded(
            id=EntryId(1),
            lease_no=LeaseNo(1),
            epoch=Epoch(1),
            op="end",
            status=status,
            series=1,
            attempt=1,
            tenant_id="default",
        )
        return recorded, 1, timed

    (histogram,) = histograms_of([ended("SENT", 200_000.0), ended("FAILED", None)])
    assert sum(histogram.durations) == sum(histogram.pickups) == 2
    assert histogram.arrivals[len(ARRIVAL_BUCKETS_S)] == sum(histogram.arrivals) == 1
    assert histogram.attempts == [("", "SENT", "", 1), ("", "FAILED", "", 1)]
