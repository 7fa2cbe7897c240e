"""The first page: every queue's figures, plots, and who is alive."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

import msgspec
from litestar.params import FromPath
from litestar.response.base import ASGIResponse

from outbox.alerts import RULES
from outbox.store import alerts, operate, queues, sink
from outbox.store.operate import DispatcherRow
from outbox.store.queues import QueueRow
from outbox.store.sink import SinkFilter
from outbox_api.answers import answer
from outbox_api.dashboard.live import live_part
from outbox_api.dashboard.rendering import (
    goes,
    page,
    page_route,
    query_of,
    read_form,
    render,
    told,
)
from outbox_api.dashboard.series import RANGES, plot_of, rate_of, since_of, sparks_of
from outbox_api.requests import ApiRequest
from outbox_api.routes.alerts import acknowledge
from outbox_api.routes.monitoring import health_of
from outbox_api.routes.queues import QueueStats, stats_of
from outbox_api.runtime import runtime_of

EVERY_S = 2.0
CAUGHT_SHOWN = 6


class PlotQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How far back, and of which queue."""

    range: Literal["15m", "24h", "30d"] = "15m"
    queue: str | None = None


class QueueLine(msgspec.Struct, frozen=True, kw_only=True):
    """A queue as the overview shows it. `eta_s`: until what waits is done, at today's rate."""

    stats: QueueStats
    concerns: list[str]
    line: list[int]
    per_s: float
    eta_s: float | None
    dispatchers: int


async def queue_lines(
    request: ApiRequest, queue: str | None = None
) -> tuple[list[QueueLine], list[DispatcherRow]]:
    """Return the queues as the caller may see them, and the dispatchers. Counts roll-ups alone."""
    chosen, now = RANGES["15m"], datetime.now(UTC)
    tenant = request.auth.tenant
    rows: list[QueueRow] = []
    if queue is None and tenant is None:
        # One look for all who look: counting a deep backlog costs, and never more than a part.
        rows = list((await runtime_of(request).gauges.look()).queues.values())
    async with runtime_of(request).database.transaction(
        request.auth.sees, read_only=True
    ) as connection:
        if queue is not None or tenant is not None:
            rows = await queues.stats(connection, tenant=tenant, queue=queue)
        sent = await operate.sparks(
            connection,
            tenant=tenant,
            queue=queue,
            since=since_of(chosen, now),
            step_s=chosen.step_s,
        )
        alive = await operate.dispatchers(connection)
    sparks = sparks_of(sent, chosen, now)
    empty = [0] * chosen.steps
    return [_line(row, sparks.get(row.queue, empty)) for row in rows], alive


def _line(row: QueueRow, line: list[int]) -> QueueLine:
    per_s = rate_of(line, RANGES["15m"])
    eta_s = None
    if row.waiting and per_s and not row.paused:
        eta_s = row.waiting / per_s
    return QueueLine(
        stats=stats_of(row),
        concerns=health_of(row).concerns,
        line=line,
        per_s=per_s,
        eta_s=eta_s,
        dispatchers=row.dispatchers,
    )


async def _part(request: ApiRequest) -> str:
    lines, dispatchers = await queue_lines(request)
    found = []
    if request.auth.tenant is None:  # alerts are of the whole service
        async with runtime_of(request).database.transaction(
            request.auth.sees, read_only=True
        ) as connection:
            found = await alerts.list_alerts(connection)
    return await render(
        request,
        "part_overview",
        lines=lines,
        dispatchers=dispatchers,
        alerts=[(each, RULES.get(each.rule)) for each in found if each.state == "open"],
    )


@page_route(
    "POST", "/alerts/{alert_id:str}/acknowledge", summary="Look after an alert", needs="admin"
)
async def acknowledge_alert(request: ApiRequest, alert_id: FromPath[str]) -> ASGIResponse:
    """Say that somebody looks after it."""
    await read_form(request)
    await acknowledge.fn(request, alert_id)
    return told("Acknowledged: it is yours.")


@page_route("GET", "/", summary="Show every queue", needs="jobs:read")
async def overview(request: ApiRequest) -> ASGIResponse:
    """Show how everything is; a test key, its jobs."""
    if request.auth.test:
        return goes("/jobs")
    tenant = request.auth.tenant
    part = await _part(request)
    async with runtime_of(request).database.transaction(
        request.auth.sees, read_only=True
    ) as connection:
        caught = await sink.sink(
            connection, SinkFilter(tenant_id=tenant), before=None, limit=CAUGHT_SHOWN
        )
    return await page(
        request, "overview", here="overview", part=part, ranges=RANGES, messages=caught
    )


@page_route("GET", "/live/overview", summary="Follow every queue", needs="jobs:read")
async def follow(request: ApiRequest) -> ASGIResponse:
    """Follow the figures."""
    return live_part(request, "overview", lambda: _part(request), every_s=EVERY_S)


@page_route("GET", "/plots", summary="Show what a plot draws", needs="jobs:read")
async def plots(request: ApiRequest) -> ASGIResponse:
    """Show throughput and latency over time, as JSON."""
    query = query_of(request, PlotQuery)
    chosen, now = RANGES[query.range], datetime.now(UTC)
    async with runtime_of(request).database.transaction(
        request.auth.sees, read_only=True
    ) as connection:
        rows = await operate.series(
            connection,
            tenant=request.auth.tenant,
            queue=query.queue,
            since=since_of(chosen, now),
            step_s=chosen.step_s,
        )
    headers = {"cache-control": f"private, max-age={int(chosen.fresh_s)}"}
    return answer(plot_of(rows, chosen, now), headers=headers)


ROUTES = [acknowledge_alert, overview, follow, plots]
