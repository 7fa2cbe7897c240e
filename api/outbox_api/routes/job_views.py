"""Looking at jobs: one, a page of them, their history, and why they wait."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

import msgspec
from litestar.params import FromPath
from litestar.response.base import ASGIResponse
from msgspec import Meta

from outbox.errors import Fault
from outbox.message import JobStatus
from outbox.store import jobs
from outbox.store.jobs import (
    DeliveryRow,
    FoundJob,
    FullJobRow,
    HistoryRow,
    JobColumns,
    JobFilter,
    JobRow,
    Progress,
)
from outbox.store.pool import Connection
from outbox_api import samples
from outbox_api.answers import JsonObject, Page, answer, raw, read_cursor, write_cursor
from outbox_api.explanations import ExplainedJob, explain
from outbox_api.operations import Answer, operation
from outbox_api.paging import Limit, Moment, as_id_time
from outbox_api.problems import Problem, invalid, not_found
from outbox_api.requests import ApiRequest, read_query
from outbox_api.runtime import runtime_of
from outbox_api.tenancy import TenantId, TenantQuery, tenant_filter
from outbox_api.waiting import common_status

Text = Annotated[str, Meta(max_length=255)]


class JobQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which jobs. `since` and `until` bound the time of acceptance.

    `recipient`: an address that an attempt went to.
    """

    status: JobStatus | None = None
    queue: Text | None = None
    channel: Text | None = None
    tenant_id: TenantId | None = None
    user_id: Text | None = None
    event_id: Text | None = None
    campaign_id: Text | None = None
    template_code: Text | None = None
    recipient: Text | None = None
    since: Moment | None = None
    until: Moment | None = None
    limit: Limit = 50
    cursor: Text | None = None


class JobView(JobColumns, frozen=True, kw_only=True):
    """A job as it stands."""


class FullJobView(JobView, frozen=True, kw_only=True):
    """A job as it stands, with what its producer wrote. `progress` is the running attempt's."""

    progress: Progress | None
    job: JsonObject


class ListedJobView(msgspec.Struct, frozen=True, kw_only=True):
    """One job of a list of addresses."""

    job_id: UUID
    status: str


class ListView(msgspec.Struct, frozen=True, kw_only=True):
    """A list of addresses: the jobs that it was made into. `status` is theirs where they agree."""

    job_id: UUID
    tenant_id: str
    status: str
    job_ids: list[UUID]
    jobs: list[ListedJobView]


class Deliveries(msgspec.Struct, frozen=True, kw_only=True):
    """Every attempt and terminal event, and every change of state."""

    items: list[DeliveryRow]
    history: list[HistoryRow]
    next_cursor: None = None


async def locate(
    connection: Connection, request: ApiRequest, job_id: UUID, tenant_id: str | None
) -> FoundJob:
    """Find a job, or the id of a list of addresses. Raises Problem 404, 409."""
    found = await jobs.find(connection, job_id, tenant=tenant_filter(request.auth, tenant_id))
    if not found:
        raise not_found("job")
    if len(found) > 1:
        raise Problem(
            409,
            "Several tenants have a job with this id: say whose by ?tenant_id=.",
            errors=[Fault("/query/tenant_id", "is needed to tell two jobs apart")],
        )
    return found[0]


async def locate_job(
    connection: Connection, request: ApiRequest, job_id: UUID, tenant_id: str | None
) -> FoundJob:
    """Find a job of its own. Raises Problem 404, 409."""
    found = await locate(connection, request, job_id, tenant_id)
    if found.is_list:
        raise Problem(409, "This is a list of addresses: name one of its jobs.")
    return found


@operation(
    "GET",
    "/jobs/{job_id:uuid}",
    summary="Show a job",
    tag="jobs",
    needs="jobs:read",
    query=TenantQuery,
    answers={200: Answer(FullJobView, "The job as it stands.", samples.FULL_JOB_VIEW)},
    problems=(404, 409),
    path_examples={"job_id": samples.JOB_ID},
)
async def show_job(request: ApiRequest, job_id: FromPath[UUID]) -> ASGIResponse:
    """Show a job with its status; a list of addresses with its jobs'."""
    tenant_id = read_query(request, TenantQuery).tenant_id
    database = runtime_of(request).database
    async with database.transaction(request.auth.sees, read_only=True) as connection:
        found = await locate(connection, request, job_id, tenant_id)
        if found.is_list:
            return answer(await _list_view(connection, job_id, found.tenant_id))
        row = await jobs.show(connection, found.id)
    if row is None:
        raise not_found("job")
    return answer(_full_view(row))


def _full_view(row: FullJobRow) -> FullJobView:
    fields = msgspec.structs.asdict(row)
    for name in ("id", "traceparent", "done", "total", "note", "told_at"):
        fields.pop(name)
    fields["progress"] = row.progress
    fields["job"] = raw(row.job)
    return FullJobView(**fields)


async def _list_view(connection: Connection, job_id: UUID, tenant: str) -> ListView:
    listed = await jobs.show_list(connection, job_id, tenant=tenant)
    return ListView(
        job_id=job_id,
        tenant_id=tenant,
        status=common_status([item.status for item in listed]),
        job_ids=[item.job_id for item in listed],
        jobs=[ListedJobView(job_id=item.job_id, status=item.status) for item in listed],
    )


@operation(
    "GET",
    "/jobs",
    summary="List jobs, newest first",
    tag="jobs",
    needs="jobs:read",
    query=JobQuery,
    answers={
        200: Answer(
            Page[JobView], "A page of jobs.", {"items": [samples.JOB_VIEW], "next_cursor": None}
        )
    },
    problems=(400,),
)
async def list_jobs(request: ApiRequest) -> ASGIResponse:
    """List jobs by any of their keys.

    A page may be short, even empty, with a cursor: without `user_id`, `event_id`, `campaign_id` or
    `recipient`, some days are looked through at a time. Go on until there is no cursor.
    """
    query = read_query(request, JobQuery)
    wanted = JobFilter(
        tenant_id=tenant_filter(request.auth, query.tenant_id),
        status=query.status,
        queue=query.queue,
        channel="inbox" if query.channel == "database" else query.channel,
        user_id=query.user_id,
        event_id=query.event_id,
        campaign_id=query.campaign_id,
        template_code=query.template_code,
        recipient=query.recipient,
        since=as_id_time(query.since),
        until=as_id_time(query.until),
    )
    before = cursor_number(query.cursor)
    database = runtime_of(request).database
    async with database.transaction(request.auth.sees, read_only=True) as connection:
        rows, older = await jobs.page(connection, wanted, before=before, limit=query.limit)
    more = None if older is None else write_cursor(older)
    return answer(Page(items=[_view(row) for row in rows], next_cursor=more))


def cursor_number(cursor: str | None) -> int | None:
    """Return where a page begins. Raises Problem 400."""
    if cursor is None:
        return None
    number = read_cursor(cursor)
    if number is None:
        raise invalid([Fault("/query/cursor", "is no cursor that was given out")], status=400)
    return number


def _view(row: JobRow) -> JobView:
    fields = msgspec.structs.asdict(row)
    fields.pop("id")
    return JobView(**fields)


@operation(
    "GET",
    "/jobs/{job_id:uuid}/deliveries",
    summary="Show a job's history",
    tag="jobs",
    needs="jobs:read",
    query=TenantQuery,
    answers={
        200: Answer(
            Deliveries,
            "Every attempt and terminal event, and every change of state, oldest first.",
            {"items": [samples.DELIVERY], "history": samples.HISTORY, "next_cursor": None},
        )
    },
    problems=(404, 409),
    path_examples={"job_id": samples.JOB_ID},
)
async def list_deliveries(request: ApiRequest, job_id: FromPath[UUID]) -> ASGIResponse:
    """Show what was tried, and what came of it."""
    tenant_id = read_query(request, TenantQuery).tenant_id
    database = runtime_of(request).database
    async with database.transaction(request.auth.sees, read_only=True) as connection:
        found = await locate_job(connection, request, job_id, tenant_id)
        items = await jobs.deliveries(connection, found.id)
        history = await jobs.history(connection, found.id)
    return answer(Deliveries(items=items, history=history))


@operation(
    "GET",
    "/jobs/{job_id:uuid}/explain",
    summary="Explain why a job is where it is",
    tag="jobs",
    needs="jobs:read",
    query=TenantQuery,
    answers={
        200: Answer(
            ExplainedJob,
            "What it waits for, what happens next, and when.",
            {
                "job_id": samples.JOB_ID,
                "status": "pending",
                "explanation": "It is due, and 12 jobs are ahead of it in its lane.",
                "waiting_for": "dispatcher",
                "since": samples.AT,
                "next_at": None,
                "ahead": 12,
                "dispatchers_alive": 2,
                "lane": {"tenant_id": "default", "queue": "email", "scope": ""},
                "progress": None,
                "template": {"code": "welcome_email", "version": None, "locale": "ru"},
                "last": None,
            },
        )
    },
    problems=(404, 409),
    path_examples={"job_id": samples.JOB_ID},
)
async def explain_job(request: ApiRequest, job_id: FromPath[UUID]) -> ASGIResponse:
    """Explain what a job waits for."""
    tenant_id = read_query(request, TenantQuery).tenant_id
    database = runtime_of(request).database
    async with database.transaction(request.auth.sees, read_only=True) as connection:
        found = await locate_job(connection, request, job_id, tenant_id)
        explained = await explain(connection, found.id)
    if explained is None:
        raise not_found("job")
    return answer(explained)


ROUTES = [show_job, list_jobs, list_deliveries, explain_job]
