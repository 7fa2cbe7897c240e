"""What may be done to jobs that were accepted: cancel, retry, promote, resend."""

from __future__ import annotations

import time
from typing import Annotated
from uuid import UUID

import msgspec
from litestar.params import FromPath
from litestar.response.base import ASGIResponse
from msgspec import Meta

from outbox.errors import Fault
from outbox.message import uuid7
from outbox.store import catalog, jobs
from outbox.store.jobs import Enqueued, FoundJob, LiveJobFilter
from outbox.store.pool import Connection
from outbox_api import samples
from outbox_api.answers import answer
from outbox_api.identity import idempotent_id
from outbox_api.operations import PREFIX, Answer, Body, operation
from outbox_api.problems import Problem, invalid
from outbox_api.requests import ApiRequest, idempotency_key, read_query, read_struct
from outbox_api.routes.job_views import locate_job
from outbox_api.routes.jobs import conflict, refusal, traceparent_of
from outbox_api.runtime import Runtime, runtime_of
from outbox_api.tenancy import TenantId, TenantQuery, tenant_filter

CANCEL_SLICE = 1_000
CANCEL_S_MAX = 20.0
"""A long cancel says `complete: false` after this; the same call goes on with the rest."""

Text = Annotated[str, Meta(min_length=1, max_length=255)]
Reason = Annotated[str, Meta(max_length=500)]


class CancelQuery(TenantQuery, frozen=True, kw_only=True):
    """Why, for the history."""

    reason: Reason | None = None


class JobNow(msgspec.Struct, frozen=True, kw_only=True):
    """A job's status after what was done to it."""

    job_id: UUID
    status: str


class CancelWanted(msgspec.Struct, frozen=True, kw_only=True):
    """Which jobs to withdraw: all members given must fit, and one must be given."""

    campaign_id: Text | None = None
    event_id: Text | None = None
    template_code: Text | None = None
    queue: Text | None = None
    user_id: Text | None = None
    tenant_id: TenantId | None = None
    reason: Reason | None = None
    dry_run: bool = False


class CancelDone(msgspec.Struct, frozen=True, kw_only=True):
    """What a cancel by filter did, or would do. `processing` jobs end after their attempt."""

    dry_run: bool
    matched: int
    cancelled: int
    processing: int
    complete: bool


class Resent(msgspec.Struct, frozen=True, kw_only=True):
    """The new job."""

    job_id: UUID
    status: str
    resend_of: UUID
    duplicate: bool


_NOW = {"job_id": samples.JOB_ID, "status": "cancelled"}


@operation(
    "POST",
    "/jobs/{job_id:uuid}/cancel",
    summary="Withdraw a job that was not claimed yet",
    tag="jobs",
    needs="jobs:write",
    query=CancelQuery,
    answers={
        200: Answer(
            JobNow,
            "Withdrawn; or failed, and what it kept back by its ordering_key goes on.",
            _NOW,
        )
    },
    problems=(400, 404, 409),
    path_examples={"job_id": samples.JOB_ID},
)
async def cancel_job(request: ApiRequest, job_id: FromPath[UUID]) -> ASGIResponse:
    """Withdraw a waiting job. One whose attempt is running is left alone: 409.

    One that failed and keeps others with its ordering_key back is given up: they go on.
    """
    query = read_query(request, CancelQuery)
    return answer(await withdraw(request, job_id, query.tenant_id, reason=query.reason))


async def withdraw(
    request: ApiRequest, job_id: UUID, tenant_id: str | None, *, reason: str | None
) -> JobNow:
    """Withdraw one job. Raises Problem 409 where it is too late."""
    async with runtime_of(request).database.transaction(request.auth.sees) as connection:
        found = await locate_job(connection, request, job_id, tenant_id)
        results = await jobs.cancel(connection, [found.id], actor=request.auth.name, reason=reason)
        match results[found.id]:
            case "cancelled":
                pass
            case "processing":
                # Raising rolls back: one attempt must not be marked where the answer says no.
                raise Problem(409, "An attempt of this job is running.")
            case "released":
                return JobNow(job_id=job_id, status="failed")
            case "ended":
                row = await jobs.show(connection, found.id)
                if row is None or row.status != "cancelled":
                    raise Problem(409, "This job has ended already.")
    return JobNow(job_id=job_id, status="cancelled")


@operation(
    "POST",
    "/jobs/cancel",
    summary="Withdraw jobs by a filter",
    tag="jobs",
    needs="jobs:write",
    body=Body(
        kind=CancelWanted,
        examples={"campaign": {"campaign_id": "bf_loyal_customers_2025", "dry_run": True}},
    ),
    answers={
        200: Answer(
            CancelDone,
            "How many there were. Those that are processing end after their attempt.",
            {"dry_run": True, "matched": 912, "cancelled": 0, "processing": 10, "complete": True},
        )
    },
    problems=(400, 413, 415, 422),
)
async def cancel_jobs(request: ApiRequest) -> ASGIResponse:
    """Stop a campaign, an event's jobs, a template's, a queue's or a user's."""
    wanted = await read_struct(request, CancelWanted)
    live = LiveJobFilter(
        queue=wanted.queue,
        user_id=wanted.user_id,
        event_id=wanted.event_id,
        campaign_id=wanted.campaign_id,
        template_code=wanted.template_code,
    )
    if live == LiveJobFilter():
        raise invalid(
            [Fault("", "must name one of campaign_id, event_id, template_code, queue, user_id")]
        )
    return answer(await _cancel_all(runtime_of(request), request, wanted, live))


async def _cancel_all(
    runtime: Runtime, request: ApiRequest, wanted: CancelWanted, live: LiveJobFilter
) -> CancelDone:
    """Go through the live jobs in slices, a transaction each: none holds many locks for long."""
    tenant = tenant_filter(request.auth, wanted.tenant_id)
    matched = cancelled = processing = after = 0
    end_s = time.monotonic() + CANCEL_S_MAX
    while True:
        async with runtime.database.transaction(
            request.auth.sees, read_only=wanted.dry_run
        ) as connection:
            found = await jobs.live_matching(
                connection, live, tenant=tenant, after=after, limit=CANCEL_SLICE
            )
            matched += len(found)
            if wanted.dry_run:
                processing += sum(is_processing for _, is_processing in found)
            elif found:
                results = await jobs.cancel(
                    connection,
                    [id_ for id_, _ in found],
                    actor=request.auth.name,
                    reason=wanted.reason,
                )
                said = list(results.values())
                cancelled += said.count("cancelled")
                processing += said.count("processing")
        complete = len(found) < CANCEL_SLICE
        if complete or time.monotonic() > end_s:
            break
        after = found[-1][0]
    return CancelDone(
        dry_run=wanted.dry_run,
        matched=matched,
        cancelled=cancelled,
        processing=processing,
        complete=complete,
    )


@operation(
    "POST",
    "/jobs/{job_id:uuid}/retry",
    summary="Begin a new series for a failed job",
    tag="jobs",
    needs="jobs:write",
    query=TenantQuery,
    answers={202: Answer(JobNow, "It is pending again.", _NOW | {"status": "pending"})},
    problems=(400, 404, 409),
    path_examples={"job_id": samples.JOB_ID},
)
async def retry_job(request: ApiRequest, job_id: FromPath[UUID]) -> ASGIResponse:
    """Try a failed job again; its dead letter is stamped as replayed."""
    return await _retry(request, job_id, read_query(request, TenantQuery).tenant_id)


async def _retry(request: ApiRequest, job_id: UUID, tenant_id: str | None) -> ASGIResponse:
    runtime = runtime_of(request)
    async with runtime.database.transaction(request.auth.sees) as connection:
        found = await locate_job(connection, request, job_id, tenant_id)
        result = await jobs.retry(connection, found.id, actor=request.auth.name)
        require_retried(result)
    runtime.bell.ring()
    return answer(JobNow(job_id=job_id, status="pending"), status=202)


def require_retried(result: str) -> None:
    """Raise Problem 409 unless a new series has begun."""
    match result:
        case "retried":
            return
        case "live":
            raise Problem(409, "This job has not ended: it needs no retry.")
        case "expired":
            raise Problem(409, "This job's expires_at has passed: it would never be sent.")
        case "erased":
            raise Problem(409, "What this job said has been erased: there is nothing to send.")
        case "gone":
            raise Problem(
                409, "This job is no longer kept: send the dead letter's copy as a new job."
            )
        case _:
            raise Problem(409, "This job has not failed. To send again what was sent, resend it.")


@operation(
    "POST",
    "/jobs/{job_id:uuid}/promote",
    summary="Don't wait any longer",
    tag="jobs",
    needs="jobs:write",
    query=TenantQuery,
    answers={202: Answer(JobNow, "It is due now.", _NOW | {"status": "pending"})},
    problems=(400, 404, 409),
    path_examples={"job_id": samples.JOB_ID},
)
async def promote_job(request: ApiRequest, job_id: FromPath[UUID]) -> ASGIResponse:
    """Make a job due that waits for its send_after or a backoff."""
    tenant_id = read_query(request, TenantQuery).tenant_id
    runtime = runtime_of(request)
    async with runtime.database.transaction(request.auth.sees) as connection:
        found = await locate_job(connection, request, job_id, tenant_id)
        match await jobs.promote(connection, found.id, actor=request.auth.name):
            case "processing":
                raise Problem(409, "An attempt of this job is running.")
            case "ended":
                raise Problem(409, "This job has ended already.")
            case "follows":
                raise Problem(409, "It follows others with its ordering_key: promote the first.")
            case _:  # promoted, or due anyway
                pass
    runtime.bell.ring()
    return answer(JobNow(job_id=job_id, status="pending"), status=202)


@operation(
    "POST",
    "/jobs/{job_id:uuid}/release",
    summary="Send what may have been delivered already",
    tag="jobs",
    needs="jobs:write",
    query=TenantQuery,
    answers={202: Answer(JobNow, "It is due now.", _NOW | {"status": "pending"})},
    problems=(400, 404, 409),
    path_examples={"job_id": samples.JOB_ID},
)
async def release_job(request: ApiRequest, job_id: FromPath[UUID]) -> ASGIResponse:
    """Send a job that its template's `on_ambiguous: hold` has stopped. To drop it, cancel it."""
    tenant_id = read_query(request, TenantQuery).tenant_id
    runtime = runtime_of(request)
    async with runtime.database.transaction(request.auth.sees) as connection:
        found = await locate_job(connection, request, job_id, tenant_id)
        match await jobs.release(connection, found.id, actor=request.auth.name):
            case "not held":
                raise Problem(409, "This job is not held for an outcome that nobody knows.")
            case "ended":
                raise Problem(409, "This job has ended already.")
            case _:
                pass
    runtime.bell.ring()
    return answer(JobNow(job_id=job_id, status="pending"), status=202)


@operation(
    "POST",
    "/jobs/{job_id:uuid}/resend",
    summary="Send again what was sent",
    tag="jobs",
    needs="jobs:write",
    query=TenantQuery,
    headers=("Idempotency-Key", "traceparent"),
    answers={
        202: Answer(
            Resent,
            "The new job; its send_after and expires_at are dropped.",
            {
                "job_id": "0193281c-6e5b-7b0e-9a43-7f6a1d4cb001",
                "status": "pending",
                "resend_of": samples.JOB_ID,
                "duplicate": False,
            },
        ),
        200: Answer(Resent, "Made before, under the same Idempotency-Key."),
    },
    problems=(400, 404, 409, 422),
    path_examples={"job_id": samples.JOB_ID},
)
async def resend_job(request: ApiRequest, job_id: FromPath[UUID]) -> ASGIResponse:
    """Make a new job like one that has ended."""
    tenant_id = read_query(request, TenantQuery).tenant_id
    key = idempotency_key(request)
    runtime = runtime_of(request)
    async with runtime.database.transaction(request.auth.sees) as connection:
        found = await locate_job(connection, request, job_id, tenant_id)
        source = await jobs.resend_source(connection, found.id)
        if source.erased:
            raise Problem(409, "What this job said has been erased.")
        if source.status in jobs.LIVE:
            raise Problem(409, "This job has not ended: it will still be sent.")
        new_id = uuid7() if key is None else idempotent_id(found.tenant_id, key)
        (stored,) = await jobs.enqueue(
            connection,
            f'[{source.job[:-1]}, "job_id": "{new_id}"}}]',
            tenant=request.auth.tenant,
            skip_bad=True,
            traceparents=[traceparent_of(request)],
            resend_of=job_id,
            test=source.test,
        )
        if stored.result == "invalid":
            raise refusal(stored)
        if stored.result == "conflict":
            raise conflict("/header/idempotency-key", stored.job_id)
        if stored.result == "duplicate" and not await _is_of(connection, found, stored, job_id):
            raise Problem(
                409,
                "The Idempotency-Key was used for the resend of another job, or for a new one.",
                errors=[Fault("/header/idempotency-key", "was used for something else")],
            )
        if stored.result == "new":
            await catalog.note_resend(
                connection,
                actor=request.auth.name,
                tenant=found.tenant_id,
                job_id=job_id,
                status=source.status,
                made=stored,
            )
    runtime.bell.ring()
    resent = Resent(
        job_id=new_id,
        status=stored.status or "pending",
        resend_of=job_id,
        duplicate=stored.result == "duplicate",
    )
    return answer(
        resent,
        status=200 if resent.duplicate else 202,
        headers={"location": f"{PREFIX}/jobs/{new_id}"},
    )


async def _is_of(connection: Connection, source: FoundJob, stored: Enqueued, job_id: UUID) -> bool:
    """Tell whether a job that was there already is a resend of this one."""
    assert stored.job_id is not None
    for there in await jobs.find(connection, UUID(stored.job_id), tenant=source.tenant_id):
        row = await jobs.show(connection, there.id)
        return row is None or row.resend_of == job_id  # (None: no longer kept)
    return True


ROUTES = [cancel_job, cancel_jobs, retry_job, promote_job, release_job, resend_job]
