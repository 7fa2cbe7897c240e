"""How long attempts took, counted in buckets for `stat_second`."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

import msgspec

from outbox.message import accepted_ms
from outbox.store.engine import Claimed, Histogram, Recorded
from outbox.telemetry import ARRIVAL_BUCKETS_S, bucket_of, empty_histogram


@dataclass(slots=True, frozen=True)
class Timed:
    """An attempt's times in seconds: how long it took, due -> started, and `arrival_s`."""

    duration_s: float
    pickup_s: float
    arrival_s: float | None


class _Scheduled(msgspec.Struct, frozen=True):
    send_after: datetime | None = None


def arrival_s(claimed: Claimed, now: datetime) -> float:
    """Return how long after it might first be sent (accepted, `send_after` come) it is `now`."""
    since_s = accepted_ms(claimed.id) / 1000
    if '"send_after"' in claimed.job_json:  # few have one: the others need not be parsed for it
        try:
            scheduled = msgspec.json.decode(claimed.job_json, type=_Scheduled).send_after
        except msgspec.ValidationError:  # a time in a form of another kind
            scheduled = None
        if scheduled is not None:
            since_s = max(since_s, scheduled.timestamp())
    return max(now.timestamp() - since_s, 0.0)


def histograms_of(
    attempts: Iterable[tuple[Recorded, int, Timed | None]],
) -> list[Histogram]:
    """Return the histograms of each lane. Takes what was recorded, its lane, and its times."""
    by_lane: dict[int, tuple[Histogram, Counter[tuple[str, str, str]]]] = {}
    for recorded, lane_id, timed in attempts:
        if timed is None:
            continue
        of_lane = by_lane.get(lane_id)
        if of_lane is None:
            of_lane = by_lane[lane_id] = (_empty(lane_id), Counter())
        histogram, outcomes = of_lane
        histogram.durations[bucket_of(timed.duration_s)] += 1
        histogram.pickups[bucket_of(timed.pickup_s)] += 1
        histogram.pickup_ms_sum += int(timed.pickup_s * 1000)
        if timed.arrival_s is not None:
            histogram.arrivals[bisect_left(ARRIVAL_BUCKETS_S, timed.arrival_s)] += 1
        outcomes[recorded.provider or "", recorded.status or "", recorded.error_class or ""] += 1
    for histogram, outcomes in by_lane.values():
        histogram.attempts = [(*key, count) for key, count in outcomes.items()]
    return [histogram for histogram, _ in by_lane.values()]


def _empty(lane_id: int) -> Histogram:
    return Histogram(
        lane_id=lane_id,
        durations=empty_histogram(),
        pickups=empty_histogram(),
        arrivals=[0] * (len(ARRIVAL_BUCKETS_S) + 1),
    )
