"""Queues: figures, pause and resume by queue or by one tenant's lane, and cleaning."""

from __future__ import annotations

import asyncio
import re
import time
from typing import Annotated, Literal, TypeAlias

import msgspec
from litestar.params import FromPath
from litestar.response.base import ASGIResponse

from outbox.errors import Fault, QueuePaused
from outbox.store import queues
from outbox.store.queues import QueueRow
from outbox.telemetry import quantile_s
from outbox_api.answers import Page, answer
from outbox_api.operations import Answer, Body, operation
from outbox_api.problems import Problem, invalid, no_such_queue, not_found
from outbox_api.requests import ApiRequest, read_query, read_struct
from outbox_api.runtime import runtime_of
from outbox_api.tenancy import TenantQuery, tenant_filter

WINDOW_S = 900
PAUSE_S_MAX = 10.0
"""How long a pause waits for dispatchers to see it."""
PAUSE_POLL_S = 0.05
CLEAN_JOBS_MAX = 10_000

_QUEUE = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


Estimated: TypeAlias = list[Literal["waiting", "active", "delayed", "oldest_waiting_s"]]


class QueueStats(msgspec.Struct, frozen=True, kw_only=True):
    """A queue's figures: live jobs now, ended ones over the last 15 minutes, totals of all time.

    Times of processing are null where nothing was processed. `estimated` is there only where
    figures of live jobs are estimates, because there are very many, and names which.
    """

    queue: str
    waiting: int
    active: int
    delayed: int
    completed: int
    failed: int
    expired: int
    paused: bool
    held: bool
    processing_time_ms: float | None
    processing_time_p95_ms: float | None
    throughput_per_min: float
    error_rate: float
    oldest_waiting_s: float
    total_completed: int
    total_failed: int
    type: str = "postgres"
    estimated: Estimated | msgspec.UnsetType = msgspec.UNSET

    @property
    def estimates(self) -> list[str]:
        """The figures that are estimated, by name."""
        return [] if self.estimated is msgspec.UNSET else list(self.estimated)


class PauseDone(msgspec.Struct, frozen=True, kw_only=True):
    """A pause or its end. `effective`: every live dispatcher has seen it."""

    queue: str
    tenant_id: str | None
    paused: bool
    effective: bool
    unseen_dispatchers: int


class CleanOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which ended jobs go: those of a status whose end is so long ago, the oldest first."""

    status: Literal["sent", "failed", "expired", "cancelled"]
    older_than_s: Annotated[float, msgspec.Meta(ge=0, le=315_360_000)]
    keep_last: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=CLEAN_JOBS_MAX)] = 1_000


class Cleaned(msgspec.Struct, frozen=True, kw_only=True):
    """How many jobs went."""

    deleted: int


STATS_EXAMPLE = {
    "queue": "email",
    "waiting": 12,
    "active": 10,
    "delayed": 3,
    "completed": 5210,
    "failed": 4,
    "expired": 0,
    "paused": False,
    "held": False,
    "processing_time_ms": 84.2,
    "processing_time_p95_ms": 250.0,
    "throughput_per_min": 347.3,
    "error_rate": 0.0008,
    "oldest_waiting_s": 0.4,
    "total_completed": 90_123,
    "total_failed": 71,
    "type": "postgres",
}
_PAUSED = {
    "queue": "email",
    "tenant_id": None,
    "paused": True,
    "effective": True,
    "unseen_dispatchers": 0,
}
_PATH = {"queue": "email"}
_LANE = {"tenant_id": "default", "queue": "email"}


def stats_of(row: QueueRow) -> QueueStats:
    """Return the figures as they are shown."""
    ended = row.completed + row.failed
    p95_s = quantile_s(row.durations, 0.95) if row.durations else None
    return QueueStats(
        queue=row.queue,
        waiting=row.waiting,
        active=row.active,
        delayed=row.delayed,
        completed=row.completed,
        failed=row.failed,
        expired=row.expired,
        paused=row.paused,
        held=row.held > 0,
        processing_time_ms=round(row.duration_ms_sum / row.attempts, 3) if row.attempts else None,
        processing_time_p95_ms=p95_s * 1000 if p95_s is not None else None,
        throughput_per_min=round(row.completed / (WINDOW_S / 60), 3),
        error_rate=round(row.failed / ended, 6) if ended else 0.0,
        oldest_waiting_s=round(row.oldest_waiting_s or 0.0, 3),
        total_completed=row.total_completed,
        total_failed=row.total_failed,
        estimated=msgspec.convert(row.estimated, Estimated) or msgspec.UNSET,
    )


async def read_stats(request: ApiRequest, queue: str) -> QueueStats:
    """Return one queue's figures as the caller may see them. Raises Problem 404."""
    tenant = tenant_filter(request.auth, read_query(request, TenantQuery).tenant_id)
    if not _QUEUE.fullmatch(queue):
        raise not_found("queue")
    async with runtime_of(request).database.transaction(
        request.auth.sees, read_only=True
    ) as connection:
        rows = await queues.stats(connection, tenant=tenant, queue=queue)
    if not rows:
        raise not_found("queue")
    return stats_of(rows[0])


@operation(
    "GET",
    "/queues",
    summary="List queues with their figures",
    tag="queues",
    needs="jobs:read",
    query=TenantQuery,
    answers={
        200: Answer(
            Page[QueueStats], "Every queue.", {"items": [STATS_EXAMPLE], "next_cursor": None}
        )
    },
    problems=(400,),
)
async def list_queues(request: ApiRequest) -> ASGIResponse:
    """List the queues that have a handler, or have had a job."""
    tenant = tenant_filter(request.auth, read_query(request, TenantQuery).tenant_id)
    async with runtime_of(request).database.transaction(
        request.auth.sees, read_only=True
    ) as connection:
        rows = await queues.stats(connection, tenant=tenant)
    return answer(Page(items=[stats_of(row) for row in rows]))


@operation(
    "GET",
    "/queues/{queue:str}/stats",
    summary="Show a queue's figures",
    tag="queues",
    needs="jobs:read",
    query=TenantQuery,
    answers={200: Answer(QueueStats, "The figures.", STATS_EXAMPLE)},
    problems=(400, 404),
    path_examples=_PATH,
)
async def queue_stats(request: ApiRequest, queue: FromPath[str]) -> ASGIResponse:
    """Show one queue's figures."""
    return answer(await read_stats(request, queue))


@operation(
    "POST",
    "/queues/{queue:str}/pause",
    summary="Pause a queue",
    tag="queues",
    needs="admin",
    answers={
        200: Answer(PauseDone, "Nothing of it starts any more.", _PAUSED),
        202: Answer(
            PauseDone,
            "Stored, but a dispatcher has not seen it within ten seconds.",
            _PAUSED | {"effective": False, "unseen_dispatchers": 1},
        ),
    },
    problems=(404, 422),
    path_examples=_PATH,
)
async def pause_queue(request: ApiRequest, queue: FromPath[str]) -> ASGIResponse:
    """Pause a queue for all tenants. Answers when every live dispatcher has seen it."""
    return await _set_queue(request, queue, paused=True)


@operation(
    "POST",
    "/queues/{queue:str}/resume",
    summary="Resume a queue",
    tag="queues",
    needs="admin",
    answers={200: Answer(PauseDone, "It goes on.", _PAUSED | {"paused": False})},
    problems=(404, 422),
    path_examples=_PATH,
)
async def resume_queue(request: ApiRequest, queue: FromPath[str]) -> ASGIResponse:
    """Resume a queue for all tenants."""
    return await _set_queue(request, queue, paused=False)


@operation(
    "POST",
    "/queues/{queue:str}/clean",
    summary="Delete ended jobs of a queue",
    tag="queues",
    needs="admin",
    query=TenantQuery,
    body=Body(kind=CleanOrder, examples={"sent": {"status": "sent", "older_than_s": 604_800}}),
    answers={200: Answer(Cleaned, "So many jobs went.", {"deleted": 1_000})},
    problems=(400, 413, 422),
    path_examples=_PATH,
)
async def clean_queue(request: ApiRequest, queue: FromPath[str]) -> ASGIResponse:
    """Delete ended jobs with their history and keys, the oldest first. It is written down.

    Their `job_id`s are forgotten: handed in again, they are new jobs. Dead letters stay.
    """
    tenant = tenant_filter(request.auth, read_query(request, TenantQuery).tenant_id)
    order = await read_struct(request, CleanOrder)
    if not _QUEUE.fullmatch(queue):
        raise invalid([Fault("/path/queue", "must be 1 to 63 of a-z, 0-9, '.', '_', '-'")])
    async with runtime_of(request).database.transaction(request.auth.sees) as connection:
        if not await queues.is_known(connection, queue):
            raise no_such_queue()
        deleted = await queues.clean(
            connection,
            queue,
            tenant=tenant,
            status=order.status,
            older_than_s=order.older_than_s,
            limit=order.limit,
            actor=request.auth.name,
            keep_last=order.keep_last,
        )
    return answer(Cleaned(deleted=deleted))


async def _set_queue(request: ApiRequest, queue: str, *, paused: bool) -> ASGIResponse:
    if request.auth.tenant is not None:
        raise Problem(403, "A whole queue needs a service-wide key; a tenant's lane is at /lanes.")
    return await _set_paused(request, queue, None, paused=paused)


@operation(
    "POST",
    "/lanes/{tenant_id:str}/{queue:str}/pause",
    summary="Pause one tenant's lane of a queue",
    tag="queues",
    needs="admin",
    answers={
        200: Answer(PauseDone, "Nothing of it starts any more.", _PAUSED | _LANE),
        202: Answer(
            PauseDone,
            "Stored, but a dispatcher has not seen it within ten seconds.",
            _PAUSED | _LANE | {"effective": False, "unseen_dispatchers": 1},
        ),
    },
    problems=(404, 422),
    path_examples=_LANE,
)
async def pause_lane(
    request: ApiRequest, tenant_id: FromPath[str], queue: FromPath[str]
) -> ASGIResponse:
    """Pause a lane. Answers when every live dispatcher has seen it."""
    return await _set_paused(request, queue, _lane_tenant(request, tenant_id), paused=True)


@operation(
    "POST",
    "/lanes/{tenant_id:str}/{queue:str}/resume",
    summary="Resume one tenant's lane of a queue",
    tag="queues",
    needs="admin",
    answers={200: Answer(PauseDone, "It goes on.", _PAUSED | _LANE | {"paused": False})},
    problems=(404, 409, 422),
    path_examples=_LANE,
)
async def resume_lane(
    request: ApiRequest, tenant_id: FromPath[str], queue: FromPath[str]
) -> ASGIResponse:
    """Resume a lane. 409 while its whole queue is paused."""
    return await _set_paused(request, queue, _lane_tenant(request, tenant_id), paused=False)


def _lane_tenant(request: ApiRequest, tenant_id: str) -> str:
    if request.auth.tenant not in (None, tenant_id):
        raise Problem(403, "The key acts for another tenant.")
    if tenant_id == "*" or len(tenant_id) > 128:
        raise invalid([Fault("/path/tenant_id", "must have 1 to 128 characters, and not be *")])
    return tenant_id


async def _set_paused(
    request: ApiRequest, queue: str, tenant: str | None, *, paused: bool
) -> ASGIResponse:
    done = await set_paused(request, queue, tenant, paused=paused)
    return answer(done, status=200 if done.effective else 202)


async def set_paused(
    request: ApiRequest,
    queue: str,
    tenant: str | None,
    *,
    paused: bool,
    reason: str | None = None,
) -> PauseDone:
    """Pause or resume, and wait until every live dispatcher has seen it.

    Raises Problem 404, 409, 422.
    """
    if not _QUEUE.fullmatch(queue):
        raise invalid([Fault("/path/queue", "must be 1 to 63 of a-z, 0-9, '.', '_', '-'")])
    runtime = runtime_of(request)
    async with runtime.database.transaction(request.auth.sees) as connection:
        # A typo must not leave the real queue running. A handler makes one known before any job.
        if not await queues.is_known(connection, queue):
            raise no_such_queue()
        try:
            version = await queues.set_paused(
                connection,
                queue,
                tenant=tenant,
                paused=paused,
                actor=request.auth.name,
                reason=reason,
            )
        except QueuePaused as error:
            text = str(error)
            raise Problem(409, f"{text[:1].upper()}{text[1:]}.") from error
    unseen = 0
    if paused:
        end_s = time.monotonic() + PAUSE_S_MAX
        while True:
            async with runtime.database.transaction(
                request.auth.sees, read_only=True
            ) as connection:
                unseen = await queues.unseen_by(connection, version)
            if unseen == 0 or time.monotonic() > end_s:
                break
            await asyncio.sleep(PAUSE_POLL_S)
    return PauseDone(
        queue=queue,
        tenant_id=tenant,
        paused=paused,
        effective=unseen == 0,
        unseen_dispatchers=unseen,
    )


ROUTES = [
    list_queues,
    queue_stats,
    pause_queue,
    resume_queue,
    pause_lane,
    resume_lane,
    clean_queue,
]
