"""One queue: how it does, what stands still and why, pause, limits, cleaning."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from litestar.params import FromPath
from litestar.response.base import ASGIResponse
from msgspec import Meta

from outbox.store import operate, queues
from outbox_api.dashboard.humane import count
from outbox_api.dashboard.live import live_part
from outbox_api.dashboard.rendering import as_struct, page, page_route, read_form, render, told
from outbox_api.dashboard.routes.overview import queue_lines
from outbox_api.dashboard.series import RANGES
from outbox_api.problems import Problem, no_such_queue, not_found
from outbox_api.requests import ApiRequest
from outbox_api.routes.queues import CLEAN_JOBS_MAX, PauseDone, set_paused
from outbox_api.runtime import runtime_of

LANES_SHOWN = 200
EVERY_S = 1.5


class PauseForm(msgspec.Struct, frozen=True, kw_only=True):
    """Which lane (left out: the whole queue), and why."""

    tenant_id: Annotated[str, Meta(max_length=128)] | None = None
    reason: Annotated[str, Meta(max_length=500)] | None = None


class CleanForm(msgspec.Struct, frozen=True, kw_only=True):
    """Which ended jobs go."""

    status: Literal["sent", "failed", "expired", "cancelled"]
    older_than_days: Annotated[float, Meta(ge=0, le=3_650)]
    limit: Annotated[int, Meta(ge=1, le=CLEAN_JOBS_MAX)] = 1_000


async def _part(request: ApiRequest, queue: str) -> str:
    lines, _ = await queue_lines(request, queue)
    if not lines:
        raise not_found("queue")
    async with runtime_of(request).database.transaction(
        request.auth.sees, read_only=True
    ) as connection:
        lanes = await operate.lanes(
            connection, queue, tenant=request.auth.tenant, limit=LANES_SHOWN
        )
    return await render(request, "part_queue", q=lines[0], queue=queue, lanes=lanes)


@page_route("GET", "/queues/{queue:str}", summary="Show a queue", needs="jobs:read")
async def show_queue(request: ApiRequest, queue: FromPath[str]) -> ASGIResponse:
    """Show one queue."""
    part = await _part(request, queue)
    return await page(request, "queue", here="overview", queue=queue, part=part, ranges=RANGES)


@page_route("GET", "/live/queues/{queue:str}", summary="Follow a queue", needs="jobs:read")
async def follow(request: ApiRequest, queue: FromPath[str]) -> ASGIResponse:
    """Follow a queue's figures."""
    return live_part(request, "queue", lambda: _part(request, queue), every_s=EVERY_S)


@page_route("POST", "/queues/{queue:str}/pause", summary="Pause", needs="admin")
async def pause(request: ApiRequest, queue: FromPath[str]) -> ASGIResponse:
    """Pause a queue, or one tenant's lane of it; tell whether everybody has seen it."""
    done = await _set(request, queue, paused=True)
    if not done.effective:
        return told(
            f"Paused, but {done.unseen_dispatchers} dispatcher(s) have not seen it within ten "
            "seconds: until they do, they may start jobs."
        )
    return told("Paused: every dispatcher has seen it, and nothing starts any more.")


@page_route("POST", "/queues/{queue:str}/resume", summary="Resume", needs="admin")
async def resume(request: ApiRequest, queue: FromPath[str]) -> ASGIResponse:
    """Let a queue or a lane go on."""
    await _set(request, queue, paused=False)
    return told("Resumed.")


async def _set(request: ApiRequest, queue: str, *, paused: bool) -> PauseDone:
    form = as_struct(await read_form(request), PauseForm)
    own = request.auth.tenant
    if form.tenant_id == "*" or (own is not None and form.tenant_id not in (None, own)):
        raise Problem(403, "The key acts for another tenant.")
    if own is not None and form.tenant_id is None:
        raise Problem(403, "A whole queue needs a service-wide key.")
    return await set_paused(request, queue, form.tenant_id, paused=paused, reason=form.reason)


@page_route("POST", "/queues/{queue:str}/clean", summary="Clean", needs="admin")
async def clean(request: ApiRequest, queue: FromPath[str]) -> ASGIResponse:
    """Delete ended jobs, the oldest first."""
    form = as_struct(await read_form(request), CleanForm)
    async with runtime_of(request).database.transaction(request.auth.sees) as connection:
        if not await queues.is_known(connection, queue):
            raise no_such_queue()
        deleted = await queues.clean(
            connection,
            queue,
            tenant=request.auth.tenant,
            status=form.status,
            older_than_s=form.older_than_days * 86_400,
            limit=form.limit,
            actor=request.auth.name,
        )
    return told(f"{count(deleted)} {form.status} jobs were deleted with their history.")


ROUTES = [show_queue, follow, pause, resume, clean]
