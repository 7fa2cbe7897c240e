"""Replays of whole groups: a dry run first, then a rate, progress, and a way to stop."""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

import msgspec
from litestar.params import FromPath
from litestar.response.base import ASGIResponse
from msgspec import Meta

from outbox.store import replays
from outbox.store.replays import ReplayPlan, ReplayRun
from outbox_api.dashboard.live import live_part
from outbox_api.dashboard.rendering import (
    as_struct,
    page,
    page_route,
    query_of,
    read_form,
    render,
    told,
)
from outbox_api.problems import not_found
from outbox_api.requests import ApiRequest
from outbox_api.routes.replays import ReplayWanted, replay, stop_replay, stored_replay
from outbox_api.runtime import runtime_of

EVERY_S = 0.5
SHOWN = 50

Text = Annotated[str, Meta(max_length=255)]


class GroupQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which dead letters."""

    queue: Text | None = None
    error_code: Text | None = None
    error_class: Text | None = None
    reason: Literal["exhausted", "permanent", "invalid", "manual"] | None = None
    template_code: Text | None = None


class BeginForm(GroupQuery, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How fast, how many, and why."""

    rate_per_s: Annotated[float, Meta(ge=0.001, le=100_000)] | None = None
    limit: Annotated[int, Meta(ge=1, le=10_000_000)] | None = None
    why: Annotated[str, Meta(max_length=500)] | None = None


@page_route("GET", "/dead-letters/replay", summary="Plan a replay", needs="jobs:write")
async def plan(request: ApiRequest) -> ASGIResponse:
    """Show what a replay would do: nothing is done yet."""
    query = query_of(request, GroupQuery)
    order = ReplayWanted(**msgspec.structs.asdict(query), dry_run=True)
    planned, _ = await replay(request, order)
    chosen = {name: value for name, value in msgspec.structs.asdict(query).items() if value}
    return await page(
        request, "replay_plan", here="dead-letters", plan=planned.plan, chosen=chosen
    )


@page_route("POST", "/dead-letters/replay", summary="Begin a replay", needs="jobs:write")
async def begin(request: ApiRequest) -> ASGIResponse:
    """Begin, and go where its progress is shown."""
    form = as_struct(await read_form(request), BeginForm)
    planned, _ = await replay(request, ReplayWanted(**msgspec.structs.asdict(form)))
    if planned.run is None:
        raise not_found("replay")
    return told("It has begun.", go=f"/replays/{planned.run.run_id}")


@page_route("GET", "/replays", summary="Show replays", needs="jobs:read")
async def list_replays(request: ApiRequest) -> ASGIResponse:
    """Show what was begun, newest first."""
    async with runtime_of(request).database.transaction(
        request.auth.sees, read_only=True
    ) as connection:
        rows = await replays.page(
            connection, tenant=request.auth.tenant, state=None, before=None, limit=SHOWN
        )
    listed = [(row, _filter(row), _done(row), _plan(row).matched) for row in rows]
    return await page(request, "replays", here="dead-letters", rows=listed)


def _filter(run: ReplayRun) -> dict[str, object]:
    return msgspec.json.decode(run.filter, type=dict[str, object])


def _plan(run: ReplayRun) -> ReplayPlan:
    return msgspec.json.decode(run.plan, type=ReplayPlan)


def _done(run: ReplayRun) -> int:
    return run.replayed + run.expired + run.duplicate + run.suppressed + run.gone


async def _part(request: ApiRequest, run_id: UUID) -> str:
    run = await stored_replay(request, run_id)
    matched = _plan(run).matched
    total = min(matched, run.jobs_max) if run.jobs_max else matched
    return await render(
        request, "part_replay", run=run, chosen=_filter(run), done=_done(run), total=total
    )


@page_route("GET", "/replays/{run_id:uuid}", summary="Show a replay", needs="jobs:read")
async def show(request: ApiRequest, run_id: FromPath[UUID]) -> ASGIResponse:
    """Show how far it has come."""
    part = await _part(request, run_id)
    return await page(request, "replay", here="dead-letters", run_id=run_id, part=part)


@page_route("GET", "/live/replays/{run_id:uuid}", summary="Follow a replay", needs="jobs:read")
async def follow(request: ApiRequest, run_id: FromPath[UUID]) -> ASGIResponse:
    """Follow its progress."""
    return live_part(request, "replay", lambda: _part(request, run_id), every_s=EVERY_S)


@page_route("POST", "/replays/{run_id:uuid}/stop", summary="Stop a replay", needs="jobs:write")
async def stop(request: ApiRequest, run_id: FromPath[UUID]) -> ASGIResponse:
    """Stop where it is."""
    await read_form(request)
    await stop_replay.fn(request, run_id)
    return told("Stopped: what was replayed stays so.")


ROUTES = [plan, begin, list_replays, show, follow, stop]
