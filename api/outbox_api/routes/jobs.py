"""Handing jobs in, one or many (api.md 2)."""

from __future__ import annotations

import asyncio
import re
from typing import Literal, cast

import msgspec
from litestar.response.base import ASGIResponse

from outbox.errors import Fault, JobConflict
from outbox.store import jobs
from outbox.store.jobs import Enqueued, IndexedFault, InvalidBatch
from outbox_api import samples
from outbox_api.answers import answer, raw_answer
from outbox_api.auth import Principal
from outbox_api.backpressure import require_room
from outbox_api.batches import Batch, gather
from outbox_api.identity import needs_id, new_id, tenant_of, with_id
from outbox_api.operations import PREFIX, Answer, Body, Operation, operation, operation_of
from outbox_api.problems import Problem, invalid
from outbox_api.requests import (
    ApiRequest,
    Incoming,
    header,
    idempotency_key,
    is_ndjson,
    parse,
    read_body,
    read_query,
    require_json,
)
from outbox_api.runtime import Runtime, runtime_of
from outbox_api.waiting import common_status, wait_s_of

_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_CONFLICT = "was accepted before with other content"


class Accepted(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What became of a job. `job_ids`: those that a list of addresses was made into."""

    job_id: str
    status: str
    duplicate: bool = msgspec.field(default_factory=bool)  # always written
    job_ids: tuple[str, ...] | None = None


class BatchItem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What became of one job of a batch; `index` counts from 0."""

    index: int = msgspec.field(default_factory=int)
    result: Literal["new", "duplicate", "conflict", "invalid"]
    job_id: str | None = None
    status: str | None = None
    duplicate: bool | None = None
    job_ids: tuple[str, ...] | None = None
    errors: tuple[Fault, ...] = ()


class BatchAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A result for each job, in their order."""

    items: list[BatchItem]
    accepted: int
    duplicates: int
    refused: int


class BatchQuery(msgspec.Struct, frozen=True, kw_only=True):
    """`atomic=false` stores the good jobs and tells the faults of the others."""

    atomic: bool = True


def traceparent_of(request: Incoming) -> str | None:
    """Return the W3C trace context that came along, if it is one."""
    given = header(request, b"traceparent")
    return given if given is not None and _TRACEPARENT.fullmatch(given) else None


_ACCEPTED = {"job_id": samples.JOB_ID, "status": "pending", "duplicate": False}


@operation(
    "POST",
    "/jobs",
    summary="Hand in one job",
    tag="jobs",
    needs="jobs:write",
    headers=("Idempotency-Key", "Prefer", "traceparent"),
    body=Body(kind="NotificationJob", examples={"welcome": samples.JOB}),
    answers={
        202: Answer(Accepted, "Stored; it will be delivered or accounted for.", _ACCEPTED),
        200: Answer(
            Accepted,
            "Known already with the same content; or it ended while `Prefer: wait` waited.",
            _ACCEPTED | {"status": "sent", "duplicate": True},
        ),
    },
    problems=(400, 409, 413, 415, 422, 429),
)
async def post_job(request: ApiRequest) -> ASGIResponse:
    """Store one job; the answer comes after the commit."""
    return await take_job(request)


async def take_job(request: Incoming) -> ASGIResponse:
    """Store one job, as the hot path calls it too (outbox_api.hotpath)."""
    runtime = runtime_of(request)
    require_json(request)
    key = idempotency_key(request)
    body = await read_body(request, runtime.config.job_bytes_max)
    job = parse(body)
    if not isinstance(job, dict):
        raise invalid([Fault("", "must be an object")])
    queue = job.get("queue") or job.get("channel")
    if isinstance(queue, str):
        require_room(runtime, request.auth, (queue,))
    key_tenant = request.auth.tenant
    tenant = tenant_of(job, key_tenant)
    text = body.decode()
    fresh = False
    if needs_id(job):
        text = with_id(text, job, new_id(tenant, key))
        fresh = key is None
    stored = await runtime.intake.submit(
        key_tenant, text, traceparent_of(request), fresh=fresh, test=request.auth.test
    )
    return await _answer_one(request, runtime, stored, tenant)


async def _answer_one(
    request: Incoming, runtime: Runtime, stored: Enqueued, tenant: str
) -> ASGIResponse:
    if stored.result == "invalid":
        raise refusal(stored)
    if stored.result == "conflict":
        raise conflict("/job_id", stored.job_id)
    assert stored.job_id is not None
    assert stored.status is not None
    location = f"{PREFIX}/jobs/{stored.job_id}"
    status: str = stored.status
    code = 202 if stored.result == "new" else 200
    headers = {"location": location}
    prefer = header(request, b"prefer")
    wait_s = wait_s_of(prefer) if prefer is not None else None
    if wait_s is not None:
        known = status if stored.job_ids is None else "pending"  # a list's is its first job's
        ended = (
            runtime.waiting.until_ended(tenant, job_id, status=known, wait_s=wait_s)
            for job_id in stored.job_ids or [stored.job_id]
        )
        status = common_status(await asyncio.gather(*ended))
        headers["preference-applied"] = f"wait={wait_s:g}"
        if status not in jobs.LIVE:
            code = 200
    if stored.job_ids is None:
        duplicate = b"false" if stored.result == "new" else b"true"
        body = b'{"job_id":"%b","status":"%b","duplicate":%b}' % (
            stored.job_id.encode(), status.encode(), duplicate,
        )  # fmt: skip
        return raw_answer(body, status=code, headers=headers)
    accepted = Accepted(
        job_id=stored.job_id,
        status=status,
        duplicate=stored.result == "duplicate",
        job_ids=stored.job_ids,
    )
    return answer(accepted, status=code, headers=headers)


def refusal(stored: Enqueued) -> Problem:
    """Return what is wrong with a job: 413 where it is too long, else 422."""
    too_long = any(
        fault.pointer == "" and "bytes long" in fault.message for fault in stored.faults
    )
    return invalid(stored.faults, status=413 if too_long else 422)


def conflict(pointer: str, job_id: str | None) -> Problem:
    """Return the 409 for an id that stands for another content."""
    return Problem(409, f"The job_id {job_id} {_CONFLICT}.", errors=[Fault(pointer, _CONFLICT)])


@operation(
    "POST",
    "/jobs/batch",
    summary="Hand in many jobs",
    tag="jobs",
    needs="jobs:write",
    query=BatchQuery,
    headers=("Idempotency-Key", "traceparent"),
    body=Body(
        kind="Batch",
        examples={"two": samples.TWO_JOBS},
        media_types=("application/json", "application/x-ndjson"),
    ),
    answers={
        202: Answer(
            BatchAnswer,
            "A result for each job, in their order. By default all are stored, or none.",
            {
                "items": [_ACCEPTED | {"index": 0, "result": "new"}],
                "accepted": 1,
                "duplicates": 0,
                "refused": 0,
            },
        )
    },
    problems=(400, 409, 413, 415, 422, 429),
)
async def post_batch(request: ApiRequest) -> ASGIResponse:
    """Store many jobs in one transaction."""
    runtime = runtime_of(request)
    ndjson = is_ndjson(request)
    atomic = read_query(request, BatchQuery).atomic
    body = await read_body(request, runtime.config.batch_bytes_max)
    batch = gather(
        body,
        ndjson=ndjson,
        jobs_max=runtime.config.batch_jobs_max,
        job_bytes_max=runtime.config.job_bytes_max,
        tenant=request.auth.tenant,
        idempotency_key=idempotency_key(request),
    )
    del body
    require_room(runtime, request.auth, batch.queues)
    results = await _store_batch(
        runtime, request.auth, batch, atomic=atomic, traceparent=traceparent_of(request)
    )
    if batch.count and all(stored.result in ("conflict", "invalid") for stored in results):
        raise _nothing_stored(batch, results)
    runtime.bell.ring()
    return raw_answer(_batch_json(batch, results), status=202)


async def _store_batch(
    runtime: Runtime, principal: Principal, batch: Batch, *, atomic: bool, traceparent: str | None
) -> list[Enqueued]:
    try:
        async with runtime.database.transaction(principal.sees) as connection:
            results = await jobs.enqueue(
                connection,
                batch.jobs_json,
                tenant=principal.tenant,
                skip_bad=not atomic,
                traceparents=[traceparent] * batch.count if traceparent is not None else None,
            )
            # What we found ourselves was sent as a null, so the database has refused it too.
            assert not (atomic and batch.faults)
            return results
    except InvalidBatch as error:
        told = [(index, fault) for index, found in batch.faults.items() for fault in found]
        told += [(fault.index, fault) for fault in error.faults if fault.index not in batch.faults]
        told.sort(key=lambda item: item[0])
        faults = [Fault(f"/{index}{fault.pointer}", fault.message) for index, fault in told]
        raise invalid(
            faults or [Fault("", error.message)], status=400 if batch.has_no_json else 422
        ) from error
    except JobConflict as error:
        faults = [
            Fault(f"/{fault.index}{fault.pointer}", fault.message)
            for fault in error.faults
            if isinstance(fault, IndexedFault)
        ]
        detail = f"{len(faults)} of the jobs: {error}"[:999] + "."
        raise invalid(faults, detail=detail, status=409) from error


def _batch_json(batch: Batch, results: list[Enqueued]) -> bytes:
    """Write the answer by hand: at ten thousand jobs, structs would cost as much as SQL."""
    items: list[bytes] = []
    accepted = duplicates = 0
    for index, stored in enumerate(results):
        if stored.job_ids is None and stored.result in ("new", "duplicate"):
            is_duplicate = stored.result == "duplicate"
            items.append(
                f'{{"index":{index},"result":"{stored.result}","job_id":"{stored.job_id}",'
                f'"status":"{stored.status}","duplicate":{"true" if is_duplicate else "false"}}}'
                .encode()
            )  # fmt: skip
        else:
            items.append(msgspec.json.encode(_item(index, stored, batch.faults.get(index))))
        accepted += stored.result == "new"
        duplicates += stored.result == "duplicate"
    refused = len(results) - accepted - duplicates
    return b'{"items":[%b],"accepted":%d,"duplicates":%d,"refused":%d}' % (
        b",".join(items), accepted, duplicates, refused,
    )  # fmt: skip


def _nothing_stored(batch: Batch, results: list[Enqueued]) -> Problem:
    """Return what to say where not one job of a batch was good, and none had to be."""
    faults = [
        fault
        for index, stored in enumerate(results)
        for fault in _item(index, stored, batch.faults.get(index)).errors
    ]
    all_known = all(stored.result == "conflict" for stored in results)
    status = 409 if all_known else 400 if batch.has_no_json else 422
    return invalid(faults, status=status)


def _item(index: int, stored: Enqueued, ours: list[Fault] | None) -> BatchItem:
    faults: tuple[Fault, ...] = ()
    if stored.result == "invalid":
        faults = tuple(ours) if ours is not None else stored.faults
    elif stored.result == "conflict":
        faults = (Fault("/job_id", _CONFLICT),)
    return BatchItem(
        index=index,
        result=stored.result,
        job_id=stored.job_id if stored.result != "invalid" else None,
        status=stored.status,
        duplicate=stored.result == "duplicate" if not faults else None,
        job_ids=stored.job_ids,
        errors=tuple(Fault(f"/{index}{fault.pointer}", fault.message) for fault in faults),
    )


ROUTES = [post_job, post_batch]
POST_JOB = cast(Operation, operation_of(post_job))
