"""Dead letters: list, show, replay one (contracts.md 3)."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

import msgspec
from litestar.params import FromPath
from litestar.response.base import ASGIResponse
from msgspec import Meta

from outbox.store import dead_letters, jobs
from outbox.store.dead_letters import DeadLetterFilter, DeadLetterRow, FullDeadLetterRow
from outbox.store.pool import Connection
from outbox_api import samples
from outbox_api.answers import JsonObject, Page, answer, raw, write_cursor
from outbox_api.operations import Answer, operation
from outbox_api.paging import Limit, Moment
from outbox_api.problems import Problem, not_found
from outbox_api.requests import ApiRequest, read_query
from outbox_api.routes.job_actions import require_retried
from outbox_api.routes.job_views import cursor_number, locate_job
from outbox_api.runtime import runtime_of
from outbox_api.tenancy import TenantId, TenantQuery, tenant_filter

Text = Annotated[str, Meta(max_length=255)]
NUMBER_MAX = 2**63 - 1


class DeadLetterQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which dead letters. `since` and `until` bound the time of failure."""

    queue: Text | None = None
    reason: Literal["exhausted", "permanent", "invalid", "manual"] | None = None
    error_code: Text | None = None
    template_code: Text | None = None
    job_id: UUID | None = None
    tenant_id: TenantId | None = None
    replayed: bool | None = None
    since: Moment | None = None
    until: Moment | None = None
    limit: Limit = 50
    cursor: Text | None = None


class DeadLetterView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A job, or a raw input, that will not be tried again by itself.

    `replayed_at` and `replayed_by` are there once somebody has replayed it.
    """

    id: int
    job: JsonObject | msgspec.UnsetType = msgspec.UNSET
    raw_value: str | msgspec.UnsetType = msgspec.UNSET
    error_message: str
    failed_at: datetime
    error_class: str | msgspec.UnsetType | None = msgspec.UNSET
    error_code: str | msgspec.UnsetType | None = msgspec.UNSET
    attempts: int | msgspec.UnsetType | None = msgspec.UNSET
    reason: str | msgspec.UnsetType = msgspec.UNSET
    replayed_at: datetime | None = None
    replayed_by: str | None = None


class Replayed(msgspec.Struct, frozen=True, kw_only=True):
    """The job of a dead letter, pending again."""

    id: int
    job_id: UUID
    status: str


@operation(
    "GET",
    "/dead-letters",
    summary="List dead letters, newest first",
    tag="dead letters",
    needs="jobs:read",
    query=DeadLetterQuery,
    answers={
        200: Answer(
            Page[DeadLetterView],
            "A page of dead letters.",
            {"items": [samples.DEAD_LETTER], "next_cursor": None},
        )
    },
    problems=(400,),
)
async def list_dead_letters(request: ApiRequest) -> ASGIResponse:
    """List what will not be tried again by itself."""
    query = read_query(request, DeadLetterQuery)
    wanted = DeadLetterFilter(
        tenant_id=tenant_filter(request.auth, query.tenant_id),
        queue=query.queue,
        reason=query.reason,
        error_code=query.error_code,
        template_code=query.template_code,
        job_id=query.job_id,
        replayed=query.replayed,
        since=query.since,
        until=query.until,
    )
    before = cursor_number(query.cursor)
    async with runtime_of(request).database.transaction(
        request.auth.sees, read_only=True
    ) as connection:
        rows = await dead_letters.page(connection, wanted, before=before, limit=query.limit + 1)
    shown = rows[: query.limit]
    more = write_cursor(shown[-1].dead_letter_id) if len(rows) > query.limit else None
    return answer(Page(items=[_view(row) for row in shown], next_cursor=more))


@operation(
    "GET",
    "/dead-letters/{dead_letter_id:str}",
    summary="Show a dead letter",
    tag="dead letters",
    needs="jobs:read",
    query=TenantQuery,
    answers={200: Answer(DeadLetterView, "The dead letter.", samples.DEAD_LETTER)},
    problems=(404,),
    path_examples={"dead_letter_id": "17"},
)
async def show_dead_letter(request: ApiRequest, dead_letter_id: FromPath[str]) -> ASGIResponse:
    """Show one by its number, or the newest of a job by the job's id."""
    tenant_id = read_query(request, TenantQuery).tenant_id
    async with runtime_of(request).database.transaction(
        request.auth.sees, read_only=True
    ) as connection:
        row = await _find(connection, request, dead_letter_id, tenant_id)
    return answer(_view(row))


@operation(
    "POST",
    "/dead-letters/{dead_letter_id:str}/replay",
    summary="Replay a dead letter",
    tag="dead letters",
    needs="jobs:write",
    query=TenantQuery,
    answers={
        202: Answer(
            Replayed,
            "A new series of the same job has begun.",
            {"id": 17, "job_id": samples.JOB_ID, "status": "pending"},
        )
    },
    problems=(404, 409),
    path_examples={"dead_letter_id": "17"},
)
async def replay_dead_letter(request: ApiRequest, dead_letter_id: FromPath[str]) -> ASGIResponse:
    """Try its job again. The dead letter stays, stamped with when and by whom."""
    tenant_id = read_query(request, TenantQuery).tenant_id
    runtime = runtime_of(request)
    async with runtime.database.transaction(request.auth.sees) as connection:
        row = await _find(connection, request, dead_letter_id, tenant_id)
        if row.id is None or row.job is None:
            raise Problem(409, "This was no job: there is nothing to replay.")
        if row.series != row.newest_series:
            raise Problem(409, "A later series of this job has failed too: replay that one.")
        result = await jobs.retry(
            connection,
            row.id,
            actor=request.auth.name,
            action="replay",
            dead_letter=row.dead_letter_id,
        )
        require_retried(result)
        job = await jobs.show(connection, row.id)
    if job is None:
        raise not_found("job")
    runtime.bell.ring()
    replayed = Replayed(id=row.dead_letter_id, job_id=job.job_id, status="pending")
    return answer(replayed, status=202)


async def _find(
    connection: Connection, request: ApiRequest, given: str, tenant_id: str | None
) -> FullDeadLetterRow:
    tenant = tenant_filter(request.auth, tenant_id)
    row = None
    if given.isascii() and given.isdecimal() and int(given[:20]) <= NUMBER_MAX:
        row = await dead_letters.show(connection, tenant=tenant, number=int(given))
    else:
        try:
            job_id = UUID(given)
        except ValueError:
            raise not_found("dead letter") from None
        found = await locate_job(connection, request, job_id, tenant_id)
        row = await dead_letters.show(connection, tenant=tenant, id_=found.id)
    if row is None:
        raise not_found("dead letter")
    return row


def _view(row: DeadLetterRow) -> DeadLetterView:
    if row.raw_value is not None:
        return DeadLetterView(
            id=row.dead_letter_id,
            raw_value=row.raw_value,
            error_message=row.error_message,
            failed_at=row.failed_at,
        )
    return DeadLetterView(
        id=row.dead_letter_id,
        job=raw(row.job) or msgspec.UNSET,
        error_message=row.error_message,
        failed_at=row.failed_at,
        error_class=row.error_class,
        error_code=row.error_code,
        attempts=row.attempts,
        reason=row.reason,
        replayed_at=row.replayed_at,
        replayed_by=row.replayed_by,
    )


ROUTES = [list_dead_letters, show_dead_letter, replay_dead_letter]
