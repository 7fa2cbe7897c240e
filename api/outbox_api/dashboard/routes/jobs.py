"""Jobs: found by any of their keys, and one job with all that happened to it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal
from urllib.parse import urlencode
from uuid import UUID

import msgspec
from litestar.params import FromPath
from litestar.response.base import ASGIResponse
from msgspec import Meta

from outbox.message import JobStatus
from outbox.store import catalog, jobs, queues
from outbox.store.jobs import FullJobRow, JobFilter, JobPage
from outbox.store.pool import Connection
from outbox.tracecontext import trace_id_of
from outbox_api.answers import write_cursor
from outbox_api.dashboard.humane import masked_json
from outbox_api.dashboard.live import live_part
from outbox_api.dashboard.rendering import (
    framed,
    goes,
    page,
    page_route,
    query_of,
    read_form,
    render,
    told,
)
from outbox_api.explanations import explain
from outbox_api.problems import not_found
from outbox_api.requests import ApiRequest, read_query
from outbox_api.routes import job_actions
from outbox_api.routes.contents import content_of
from outbox_api.routes.job_views import cursor_number, locate_job
from outbox_api.runtime import runtime_of
from outbox_api.tenancy import TenantQuery, tenant_filter

SHOWN = 50
EVERY_S = 0.7
REASON_CHARS_MAX = 500

Text = Annotated[str, Meta(max_length=255)]
KEYS = ("user_id", "event_id", "campaign_id", "recipient", "template_code")
PATH = "/jobs/{job_id:uuid}"


class JobsQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to look for. `q` is any key; `by` says which one."""

    q: Text | None = None
    by: Literal["any", "user_id", "event_id", "campaign_id", "recipient", "template_code"] = "any"
    status: JobStatus | None = None
    queue: Text | None = None
    back: Literal["1h", "24h", "7d"] | None = None
    tenant_id: Text | None = None
    cursor: Text | None = None


BACK = {"1h": timedelta(hours=1), "24h": timedelta(days=1), "7d": timedelta(days=7)}


@page_route("GET", "/jobs", summary="Search jobs", needs="jobs:read")
async def list_jobs(request: ApiRequest) -> ASGIResponse:
    """Show jobs, newest first."""
    query = query_of(request, JobsQuery)
    text = (query.q or "").strip()
    tenant = tenant_filter(request.auth, query.tenant_id)
    wanted = JobFilter(
        tenant_id=tenant,
        status=query.status,
        queue=query.queue,
        since=datetime.now(UTC) - BACK[query.back] if query.back else None,
    )
    before = cursor_number(query.cursor)
    async with runtime_of(request).database.transaction(
        request.auth.sees, read_only=True
    ) as connection:
        if text and query.by == "any" and (job_id := _as_uuid(text)) is not None:
            if await jobs.find(connection, job_id, tenant=tenant):
                return goes(f"/jobs/{job_id}")
        (rows, before), by = await _search(connection, wanted, text, query.by, before)
        known = await queues.names(connection, tenant=request.auth.tenant)
    older = None
    if before is not None:
        kept = {name: text for name, text in request.query_params.items() if text}
        older = "/jobs?" + urlencode(kept | {"by": by or "any", "cursor": write_cursor(before)})
    return await page(
        request,
        "jobs",
        here="jobs",
        queues=known,
        back=BACK,
        keys=KEYS,
        query=query,
        rows=rows,
        older=older,
        by=by if text else None,
    )


async def _search(
    connection: Connection, wanted: JobFilter, text: str, by: str, before: int | None
) -> tuple[JobPage, str | None]:
    """Return what has that key: of any of them, the first that somebody has."""
    if not text:
        return await jobs.page(connection, wanted, before=before, limit=SHOWN), None
    keys = KEYS if by == "any" else (by,)
    for key in keys:
        narrow = {key: text}
        chosen = msgspec.structs.replace(wanted, **narrow)
        found = await jobs.page(connection, chosen, before=before, limit=SHOWN)
        if found.rows or (found.before is not None and key == keys[-1]):
            return found, key
    return JobPage([], None), by


def _as_uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


@page_route("GET", PATH, summary="Show a job", needs="jobs:read")
async def show_job(request: ApiRequest, job_id: FromPath[UUID]) -> ASGIResponse:
    """Show one job, or the jobs of a list of addresses."""
    tenant_id = read_query(request, TenantQuery).tenant_id
    async with runtime_of(request).database.transaction(
        request.auth.sees, read_only=True
    ) as connection:
        found = await jobs.find(connection, job_id, tenant=tenant_filter(request.auth, tenant_id))
        if not found:
            raise not_found("job")
        if len(found) > 1:
            return await page(request, "job_whose", here="jobs", job_id=job_id, found=found)
        if found[0].is_list:
            listed = await jobs.show_list(connection, job_id, tenant=found[0].tenant_id)
            return await page(request, "job_list", here="jobs", job_id=job_id, listed=listed)
        row = await jobs.show(connection, found[0].id)
    if row is None:
        raise not_found("job")
    part = await _part(request, job_id, tenant_id)
    masked = _pretty(masked_json(msgspec.json.decode(row.job)))
    trace_id = trace_id_of(row.traceparent)
    trace_url = runtime_of(request).config.trace_url
    return await page(
        request,
        "job",
        here="jobs",
        job=row,
        part=part,
        payload=masked,
        at=_at(tenant_id),
        trace_id=trace_id,
        trace_url=trace_url.replace("{trace_id}", trace_id) if trace_url and trace_id else None,
    )


def _pretty(value: object) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()


def _at(tenant_id: str | None) -> str:
    return f"?{urlencode({'tenant_id': tenant_id})}" if tenant_id else ""


async def _part(request: ApiRequest, job_id: UUID, tenant_id: str | None) -> str:
    async with runtime_of(request).database.transaction(
        request.auth.sees, read_only=True
    ) as connection:
        found = await locate_job(connection, request, job_id, tenant_id)
        row = await jobs.show(connection, found.id)
        why = await explain(connection, found.id)
        attempts = await jobs.deliveries(connection, found.id)
        history = await jobs.history(connection, found.id)
    if row is None or why is None:
        raise not_found("job")
    return await render(
        request,
        "part_job",
        job=row,
        why=why,
        attempts=attempts,
        history=history,
        can=_actions(row, why.lane.scope if why.lane is not None else ""),
        at=_at(tenant_id),
    )


def _actions(row: FullJobRow, scope: str) -> list[tuple[str, str]]:
    """Return what may be done to a job as it stands: (path's end, label)."""
    if row.status == "failed":
        return [("retry", "Retry"), ("resend", "Resend as new")]
    if row.status in ("sent", "expired", "cancelled"):
        return [("resend", "Resend as new")]
    actions = []
    if scope in ("ambiguous", "test:ambiguous"):
        actions.append(("release", "Send although in doubt"))
    if row.status in ("scheduled", "retrying"):
        actions.append(("promote", "Promote: do it now"))
    if row.status != "processing":
        actions.append(("cancel", "Cancel"))
    return actions


@page_route("GET", "/live" + PATH, summary="Follow a job", needs="jobs:read")
async def follow(request: ApiRequest, job_id: FromPath[UUID]) -> ASGIResponse:
    """Follow one job."""
    tenant_id = read_query(request, TenantQuery).tenant_id
    return live_part(request, "job", lambda: _part(request, job_id, tenant_id), every_s=EVERY_S)


@page_route("POST", PATH + "/reveal", summary="Show a job's payload", needs="jobs:write")
async def reveal(request: ApiRequest, job_id: FromPath[UUID]) -> ASGIResponse:
    """Show what is personal; that it was asked for is written down."""
    await read_form(request)
    tenant_id = read_query(request, TenantQuery).tenant_id
    async with runtime_of(request).database.transaction(request.auth.sees) as connection:
        found = await locate_job(connection, request, job_id, tenant_id)
        row = await jobs.show(connection, found.id)
        attempts = await jobs.deliveries(connection, found.id)
        await _note(connection, request, found.tenant_id, "job.reveal", job_id)
    if row is None:
        raise not_found("job")
    payload = msgspec.json.format(row.job, indent=2)
    return await page(request, "part_payload", job=row, payload=payload, attempts=attempts)


@page_route(
    "POST", PATH + "/said/{lease_no:int}", summary="Show what an attempt said", needs="jobs:write"
)
async def said(
    request: ApiRequest, job_id: FromPath[UUID], lease_no: FromPath[int]
) -> ASGIResponse:
    """Show what an attempt said; that it was asked for is written down."""
    await read_form(request)
    tenant_id = read_query(request, TenantQuery).tenant_id
    content = await content_of(request, job_id, lease_no, tenant_id)
    async with runtime_of(request).database.transaction(request.auth.sees) as connection:
        found = await locate_job(connection, request, job_id, tenant_id)
        await _note(connection, request, found.tenant_id, "job.reveal", job_id)
    return await page(
        request,
        "part_said",
        c=content,
        frame=f"/jobs/{job_id}/said/{lease_no}/html{_at(tenant_id)}",
    )


@page_route(
    "GET", PATH + "/said/{lease_no:int}/html", summary="Show an attempt's HTML", needs="jobs:write"
)
async def said_html(
    request: ApiRequest, job_id: FromPath[UUID], lease_no: FromPath[int]
) -> ASGIResponse:
    """Show a mail as it looks, for the sandboxed frame; that is written down, too."""
    tenant_id = read_query(request, TenantQuery).tenant_id
    content = await content_of(request, job_id, lease_no, tenant_id)
    if content.rendered is None or not content.rendered.html:
        raise not_found("HTML part")
    async with runtime_of(request).database.transaction(request.auth.sees) as connection:
        found = await locate_job(connection, request, job_id, tenant_id)
        await _note(connection, request, found.tenant_id, "job.reveal", job_id)
    return framed(content.rendered.html)


async def _note(
    connection: Connection, request: ApiRequest, tenant: str, action: str, job_id: UUID
) -> None:
    await catalog.note_action(
        connection,
        actor=request.auth.name,
        action=action,
        tenant=tenant,
        detail={"job_id": job_id},
    )


@page_route("POST", PATH + "/retry", summary="Retry", needs="jobs:write")
async def retry(request: ApiRequest, job_id: FromPath[UUID]) -> ASGIResponse:
    """Begin a new series."""
    await read_form(request)
    await job_actions.retry_job.fn(request, job_id)
    return told("Retried: a new series of attempts has begun.")


@page_route("POST", PATH + "/promote", summary="Promote", needs="jobs:write")
async def promote(request: ApiRequest, job_id: FromPath[UUID]) -> ASGIResponse:
    """Make it due now."""
    await read_form(request)
    await job_actions.promote_job.fn(request, job_id)
    return told("Promoted: it is due now.")


@page_route("POST", PATH + "/release", summary="Release", needs="jobs:write")
async def release(request: ApiRequest, job_id: FromPath[UUID]) -> ASGIResponse:
    """Send what may have been delivered already."""
    await read_form(request)
    await job_actions.release_job.fn(request, job_id)
    return told("Released: it is due now.")


@page_route("POST", PATH + "/cancel", summary="Cancel", needs="jobs:write")
async def cancel(request: ApiRequest, job_id: FromPath[UUID]) -> ASGIResponse:
    """Withdraw it, for a reason that the operator log keeps."""
    form = await read_form(request)
    tenant_id = read_query(request, TenantQuery).tenant_id
    reason = form.get("reason", "").strip()[:REASON_CHARS_MAX] or None
    now = await job_actions.withdraw(request, job_id, tenant_id, reason=reason)
    return told(
        "Cancelled." if now.status == "cancelled" else "Given up: what it kept back goes on."
    )


@page_route("POST", PATH + "/resend", summary="Resend", needs="jobs:write")
async def resend(request: ApiRequest, job_id: FromPath[UUID]) -> ASGIResponse:
    """Make a new job like it, and go there."""
    await read_form(request)
    answered = await job_actions.resend_job.fn(request, job_id)
    made = msgspec.json.decode(answered.body, type=job_actions.Resent)
    return told("A new job was made.", go=f"/jobs/{made.job_id}")


ROUTES = [
    list_jobs,
    show_job,
    follow,
    reveal,
    said,
    said_html,
    retry,
    promote,
    release,
    cancel,
    resend,
]
