"""Counters of HTTP, and the store's gauges, as Prometheus reads them (operations.md 5).

Label sets are small: a route's template, never a path; no ids.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate, pairwise

import msgspec
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from outbox.otel import Point, Series
from outbox.telemetry import BUCKETS_S as STORE_BUCKETS_S
from outbox_api.gauges import AttemptSnapshot, Snapshot

BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class HttpMetrics:
    """The counters of one app."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "outbox_http_requests",
            "Requests answered.",
            ["method", "route", "status"],
            registry=self.registry,
        )
        self._duration = Histogram(
            "outbox_http_request_duration_seconds",
            "From the request's first byte to the answer.",
            ["route"],
            buckets=BUCKETS_S,
            registry=self.registry,
        )
        self._counters: dict[tuple[str, str, int], Counter] = {}
        self._durations: dict[str, Histogram] = {}

    def count(self, method: str, route: str, status: int, duration_s: float) -> None:
        """Count one answered request."""
        counter = self._counters.get((method, route, status))
        if counter is None:
            counter = self._requests.labels(method, route, str(status))
            self._counters[method, route, status] = counter
        counter.inc()
        duration = self._durations.get(route)
        if duration is None:
            duration = self._durations[route] = self._duration.labels(route)
        duration.observe(duration_s)

    def text(self) -> bytes:
        """Return the metrics of this process."""
        return generate_latest(self.registry)


def store_text(snapshot: Snapshot, attempts: AttemptSnapshot) -> bytes:
    """Return the metrics of the whole store."""
    registry = CollectorRegistry()
    registry.register(_StoreCollector(snapshot))
    registry.register(_AttemptCollector(attempts))
    return generate_latest(registry)


class _StoreCollector(Collector):
    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        """Yield the families that come from the store's tables."""
        yield from self._of_queues()
        store = self._snapshot.store
        yield GaugeMetricFamily("outbox_dispatchers", "Dispatchers alive.", store.dispatchers)
        yield GaugeMetricFamily(
            "outbox_snapshot_age_seconds",
            "Age of the oldest transaction that keeps rows from being vacuumed.",
            store.snapshot_age_s,
        )
        yield GaugeMetricFamily(
            "outbox_partition_days_left",
            "Days ahead that have partitions; below 7, look at the dispatchers.",
            store.partition_days_left,
        )
        shut = GaugeMetricFamily(
            "outbox_destinations_shut",
            "Hosts, endpoints and providers that nobody may talk to freely, over the fleet.",
            labels=["why"],
        )
        shut.add_metric(["paused"], store.destinations_paused)
        shut.add_metric(["breaker"], store.destinations_broken)
        yield shut
        held = GaugeMetricFamily(
            "outbox_lane_held", "Lanes held for a configuration error.", labels=["tenant", "queue"]
        )
        lanes: dict[tuple[str, str], int] = {}
        for tenant, queue, _ in msgspec.json.decode(store.held, type=list[tuple[str, str, str]]):
            lanes[tenant, queue] = lanes.get((tenant, queue), 0) + 1
        for (tenant, queue), count in lanes.items():
            held.add_metric([tenant, queue], count)
        yield held
        dead = GaugeMetricFamily(
            "outbox_dead_letters", "Dead letters not replayed.", labels=["queue", "reason"]
        )
        for queue, reason, n in msgspec.json.decode(
            store.dead_letters, type=list[tuple[str, str, int]]
        ):
            dead.add_metric([queue, reason], n)
        yield dead
        alerts = GaugeMetricFamily(
            "outbox_alerts", "Alerts that are open.", labels=["rule", "severity"]
        )
        for rule, severity, n in msgspec.json.decode(
            store.alerts, type=list[tuple[str, str, int]]
        ):
            alerts.add_metric([rule, severity], n)
        yield alerts

    def _of_queues(self) -> Iterator[Metric]:
        rows = self._snapshot.queues.values()
        size = GaugeMetricFamily(
            "outbox_queue_size",
            "Live jobs, by what they do; many are estimated.",
            labels=["queue", "state"],
        )
        oldest = GaugeMetricFamily(
            "outbox_oldest_waiting_seconds", "Age of the oldest due job.", labels=["queue"]
        )
        ended = CounterMetricFamily("outbox_jobs", "Jobs ended.", labels=["queue", "status"])
        for row in rows:
            for state, n in (
                ("waiting", row.waiting), ("active", row.active), ("delayed", row.delayed)
            ):  # fmt: skip
                size.add_metric([row.queue, state], n)
            oldest.add_metric([row.queue], row.oldest_waiting_s or 0.0)
            for status, n in (
                ("sent", row.total_completed), ("failed", row.total_failed),
                ("expired", row.total_expired), ("cancelled", row.total_cancelled),
            ):  # fmt: skip
                ended.add_metric([row.queue, status], n)
        yield size
        yield oldest
        yield ended
        yield CounterMetricFamily(
            "outbox_leases_rescued",
            "Jobs taken back from dispatchers that died.",
            sum(row.total_rescued for row in rows),
        )
        yield CounterMetricFamily(
            "outbox_late_outcomes",
            "Outcomes that came after their lease was taken.",
            self._snapshot.store.late_outcomes,
        )


class _AttemptCollector(Collector):
    def __init__(self, snapshot: AttemptSnapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        """Yield the families that tell what attempts came to."""
        outcomes = CounterMetricFamily(
            "outbox_attempts",
            "Attempts, by what they came to.",
            labels=["queue", "provider", "outcome", "error_class"],
        )
        durations = HistogramMetricFamily(
            "outbox_attempt_duration_seconds", "How long attempts took.", labels=["queue"]
        )
        pickups = HistogramMetricFamily(
            "outbox_pickup_latency_seconds", "From due to started.", labels=["queue"]
        )
        for row in self._snapshot.rows:
            for provider, outcome, error_class, n in msgspec.json.decode(
                row.attempts, type=list[tuple[str, str, str, int]]
            ):
                outcomes.add_metric([row.queue, provider, outcome.lower(), error_class], n)
            durations.add_metric([row.queue], _buckets(row.durations), row.duration_ms_sum / 1000)
            pickups.add_metric([row.queue], _buckets(row.pickups), row.pickup_ms_sum / 1000)
        yield outcomes
        yield durations
        yield pickups


def series(
    http: HttpMetrics, snapshot: Snapshot | None, attempts: AttemptSnapshot | None
) -> list[Series]:
    """Return all that /metrics shows, as it is sent by OTLP: the same names, the same labels."""
    families = list(http.registry.collect())
    if snapshot is not None:
        families += _StoreCollector(snapshot).collect()
    if attempts is not None:
        families += _AttemptCollector(attempts).collect()
    return [
        _histogram_of(family) if family.type == "histogram" else _numbers_of(family)
        for family in families
    ]


def _numbers_of(family: Metric) -> Series:
    is_counter = family.type == "counter"
    name = f"{family.name}_total" if is_counter else family.name
    return Series(
        name=name,
        kind="counter" if is_counter else "gauge",
        about=family.documentation,
        points=[
            Point(labels=sample.labels, value=sample.value)
            for sample in family.samples
            if sample.name == name
        ],
    )


def _histogram_of(family: Metric) -> Series:
    """Undo what Prometheus does to a histogram: its buckets count all below their bounds."""
    upto: dict[tuple[tuple[str, str], ...], list[tuple[float, int]]] = {}
    sums: dict[tuple[tuple[str, str], ...], float] = {}
    for sample in family.samples:
        labels = tuple((k, v) for k, v in sorted(sample.labels.items()) if k != "le")
        if sample.name.endswith("_bucket"):
            bound = float(sample.labels["le"])
            upto.setdefault(labels, []).append((bound, int(sample.value)))
        elif sample.name.endswith("_sum"):
            sums[labels] = sample.value
    points = []
    bounds: list[float] = []
    for labels, cumulated in upto.items():
        cumulated.sort()
        bounds = [bound for bound, _ in cumulated if bound != float("inf")]
        below = [0, *(count for _, count in cumulated)]
        counts = [after - before for before, after in pairwise(below)]
        points.append(Point(labels=dict(labels), counts=counts, total=sums.get(labels, 0.0)))
    return Series(
        name=family.name,
        kind="histogram",
        about=family.documentation,
        points=points,
        bounds_s=bounds,
    )


def _buckets(counts: list[int]) -> list[tuple[str, float]]:
    """Return a histogram as Prometheus has it: counts up to each bound."""
    bounds = [*map(str, STORE_BUCKETS_S), "+Inf"]
    return list(zip(bounds, accumulate(map(float, counts)), strict=True))
