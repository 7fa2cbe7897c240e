"""What is counted, and in which buckets: shared by whoever counts and whoever shows."""

from __future__ import annotations

from bisect import bisect_left

BUCKETS_S = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0),
)
"""Upper bounds in seconds of the histograms in `stat_second`; one more bucket holds the rest."""
ARRIVAL_BUCKETS_S = (
    *(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
    *(30.0, 60.0, 300.0, 900.0, 3_600.0, 21_600.0, 86_400.0),
)
"""The same of its `arrivals`, which retries stretch to days."""


def bucket_of(seconds: float) -> int:
    """Return the index of the bucket that `seconds` falls into (0 … len(BUCKETS_S))."""
    return bisect_left(BUCKETS_S, seconds)


def empty_histogram() -> list[int]:
    """Return a histogram with nothing in it."""
    return [0] * (len(BUCKETS_S) + 1)


def quantile_s(counts: list[int], q: float) -> float | None:
    """Return a quantile in seconds, taken to lie evenly within its bucket; None when empty.

    An estimate, as Prometheus' histogram_quantile and SQL's outbox.quantile_s have it; what is
    above the last bound counts as that bound.
    """
    total = sum(counts)
    seen = 0
    for index, count in enumerate(counts):
        if count and seen + count >= q * total:
            low = BUCKETS_S[index - 1] if index else 0.0
            high = BUCKETS_S[min(index, len(BUCKETS_S) - 1)]
            return round(low + (high - low) * (q * total - seen) / count, 5)
        seen += count
    return None
