"""Counts over time, folded for plots and sparklines."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta

import msgspec

from outbox.store.operate import SeriesRow, SparkRow
from outbox.telemetry import empty_histogram, quantile_s


class Range(msgspec.Struct, frozen=True):
    """How far back a plot looks, in which steps."""

    title: str
    back_s: int
    step_s: int
    fresh_s: float

    @property
    def steps(self) -> int:
        """How many steps there are."""
        return self.back_s // self.step_s


RANGES: Mapping[str, Range] = {
    "15m": Range("15 min", 900, 15, 2.0),
    "24h": Range("24 h", 86_400, 900, 30.0),
    "30d": Range("30 d", 30 * 86_400, 6 * 3_600, 300.0),
}


class Plot(msgspec.Struct, frozen=True, kw_only=True):
    """What uPlot draws; times are Unix seconds, rates a second, latencies seconds."""

    at: list[float]
    sent: list[float]
    failed: list[float]
    p50: list[float | None]
    p95: list[float | None]
    pickup: list[float | None]


def since_of(chosen: Range, now: datetime) -> datetime:
    """Return where the first step begins."""
    step = timedelta(seconds=chosen.step_s)
    base = datetime(2020, 1, 1, tzinfo=UTC)
    newest = base + (now - base) // step * step
    return newest - step * (chosen.steps - 1)


def plot_of(rows: Iterable[SeriesRow], chosen: Range, now: datetime) -> Plot:
    """Return what was done in every step, also where there was nothing."""
    since = since_of(chosen, now)
    steps = chosen.steps
    sent, failed = [0] * steps, [0] * steps
    durations = [empty_histogram() for _ in range(steps)]
    pickups = [empty_histogram() for _ in range(steps)]
    for row in rows:
        index = _index(row, since, chosen)
        if 0 <= index < steps:
            sent[index] += row.sent
            failed[index] += row.failed
            durations[index] = list(map(int.__add__, durations[index], row.durations))
            pickups[index] = list(map(int.__add__, pickups[index], row.pickups))
    return Plot(
        at=[since.timestamp() + i * chosen.step_s for i in range(steps)],
        sent=[n / chosen.step_s for n in sent],
        failed=[n / chosen.step_s for n in failed],
        p50=[quantile_s(each, 0.5) for each in durations],
        p95=[quantile_s(each, 0.95) for each in durations],
        pickup=[quantile_s(each, 0.95) for each in pickups],
    )


def sparks_of(rows: Iterable[SparkRow], chosen: Range, now: datetime) -> dict[str, list[int]]:
    """Return how many each queue sent, step by step."""
    since = since_of(chosen, now)
    lines: dict[str, list[int]] = {}
    for row in rows:
        index = _index(row, since, chosen)
        if 0 <= index < chosen.steps:
            lines.setdefault(row.queue, [0] * chosen.steps)[index] += row.sent
    return lines


def rate_of(line: list[int] | None, chosen: Range, *, steps: int = 4) -> float:
    """Return how many a second were sent in the last full steps."""
    return sum(line[-steps - 1 : -1]) / (steps * chosen.step_s) if line else 0.0


def _index(row: SeriesRow | SparkRow, since: datetime, chosen: Range) -> int:
    return int((row.at - since).total_seconds() // chosen.step_s)
