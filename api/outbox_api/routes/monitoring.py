"""Health, metrics and figures, outside /api/v1 (contracts.md 7, operations.md 5)."""

from __future__ import annotations

import time
from typing import Any, Literal

import msgspec
from litestar.params import FromPath
from litestar.response.base import ASGIResponse
from prometheus_client import CONTENT_TYPE_LATEST

from outbox.channels.registry import CONTRACT_CHANNELS
from outbox.errors import StoreUnavailable
from outbox.store.pool import EVERY_TENANT
from outbox.store.queues import QueueRow
from outbox.store.revisions import readiness
from outbox_api.answers import answer
from outbox_api.gauges import Snapshot
from outbox_api.metrics import store_text
from outbox_api.operations import Answer, operation
from outbox_api.problems import Problem
from outbox_api.requests import ApiRequest
from outbox_api.routes.queues import STATS_EXAMPLE, QueueStats, read_stats, stats_of
from outbox_api.runtime import Runtime, runtime_of
from outbox_api.tenancy import TenantQuery

BACKLOG_MAX = 1_000
FAILURE_RATE_MAX = 0.1
FAILURE_JOBS_MIN = 20
OLDEST_WAITING_S_MAX = 60.0

Status = Literal["healthy", "degraded", "unhealthy"]


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """How a queue is. `metrics` are its figures; empty when the database cannot be asked."""

    status: Status
    concerns: list[str]
    metrics: dict[str, Any]


class Liveness(msgspec.Struct, frozen=True, kw_only=True):
    """Whether it answers, or can serve."""

    status: Literal["live", "ready"]


def health_of(row: QueueRow) -> Health:
    """Return a queue's health: degraded when any concern holds."""
    concerns = []
    if row.waiting > BACKLOG_MAX:
        concerns.append("High queue backlog")
    ended = row.completed + row.failed
    if ended >= FAILURE_JOBS_MIN and row.failed > FAILURE_RATE_MAX * row.completed:
        concerns.append("High failure rate")
    if (row.oldest_waiting_s or 0.0) > OLDEST_WAITING_S_MAX:
        concerns.append("Old backlog")
    if row.waiting > 0 and row.dispatchers == 0:
        concerns.append("No dispatcher")
    if row.held:
        concerns.append("Lane held")
    return Health(
        status="degraded" if concerns else "healthy",
        concerns=concerns,
        metrics=msgspec.to_builtins(stats_of(row)),
    )


@operation(
    "GET",
    "/monitoring/queues/health",
    summary="Show every queue's health",
    tag="monitoring",
    needs="open",
    answers={
        200: Answer(
            dict[str, Health],
            "Each queue's health, by its name.",
            {"email": {"status": "healthy", "concerns": [], "metrics": {}}},
        ),
        503: Answer(
            dict[str, Health],
            "The database cannot be asked: every queue is unhealthy.",
            {
                "email": {
                    "status": "unhealthy",
                    "concerns": ["The database cannot be asked"],
                    "metrics": {},
                }
            },
        ),
    },
    prefix="",
)
async def queues_health(request: ApiRequest) -> ASGIResponse:
    """Show how each queue is, for whoever watches; needs no key."""
    runtime = runtime_of(request)
    try:
        snapshot = await runtime.gauges.look()
        await _require_database(runtime, snapshot)
    except StoreUnavailable:
        last = runtime.gauges.last()
        known = list(last.queues) if last is not None else CONTRACT_CHANNELS
        concerns = ["The database cannot be asked"]
        unhealthy = Health(status="unhealthy", concerns=concerns, metrics={})
        return answer(dict.fromkeys(known, unhealthy), status=503)
    return answer({name: health_of(row) for name, row in snapshot.queues.items()})


async def _require_database(runtime: Runtime, snapshot: Snapshot) -> None:
    """Raise StoreUnavailable when the database has gone since the snapshot was taken."""
    if time.monotonic() - snapshot.taken_s < 0.05:
        return
    async with runtime.database.transaction(EVERY_TENANT, read_only=True):
        pass


@operation(
    "GET",
    "/monitoring/queues/{queue:str}/stats",
    summary="Show a queue's figures",
    tag="monitoring",
    needs="jobs:read",
    query=TenantQuery,
    answers={200: Answer(QueueStats, "The figures, as under /api/v1.", STATS_EXAMPLE)},
    problems=(400, 404),
    path_examples={"queue": "email"},
    prefix="",
)
async def monitor_queue(request: ApiRequest, queue: FromPath[str]) -> ASGIResponse:
    """Show one queue's figures."""
    return answer(await read_stats(request, queue))


@operation(
    "GET",
    "/health/live",
    summary="Tell whether this process answers",
    tag="monitoring",
    needs="open",
    answers={200: Answer(Liveness, "It does.", {"status": "live"})},
    prefix="",
)
async def live(request: ApiRequest) -> ASGIResponse:
    """Answer; nothing else is looked at."""
    return answer(Liveness(status="live"))


@operation(
    "GET",
    "/health/ready",
    summary="Tell whether requests can be served",
    tag="monitoring",
    needs="open",
    answers={
        200: Answer(Liveness, "The database is there, its schema suits.", {"status": "ready"})
    },
    problems=(503,),
    prefix="",
)
async def ready(request: ApiRequest) -> ASGIResponse:
    """Ask the database, and look whether its schema suits; no when this process is leaving."""
    if runtime_of(request).leaving:
        raise Problem(503, "This process is about to stop.")
    async with runtime_of(request).database.transaction(
        EVERY_TENANT, read_only=True
    ) as connection:
        state = await readiness(connection)
    if objection := state.objection():
        raise Problem(503, objection)
    return answer(Liveness(status="ready"))


@operation(
    "GET",
    "/metrics",
    summary="Show metrics, as Prometheus reads them",
    tag="monitoring",
    needs="jobs:read",
    answers={200: Answer(None, "Counters, gauges and histograms.", media_type="text/plain")},
    prefix="",
)
async def metrics(request: ApiRequest) -> ASGIResponse:
    """Show this process' counters, and the store's as they were some seconds ago."""
    if request.auth.tenant is not None:
        raise Problem(403, "Metrics are of all tenants: they need a service-wide key.")
    runtime = runtime_of(request)
    body = runtime.metrics.text()
    try:
        snapshot, attempts = await runtime.gauges.look(), await runtime.attempts.look()
    except StoreUnavailable:
        pass  # this process' own are all there are
    else:
        body += store_text(snapshot, attempts)
    return ASGIResponse(body=body, headers={"content-type": CONTENT_TYPE_LATEST})


ROUTES = [queues_health, monitor_queue, live, ready, metrics]
