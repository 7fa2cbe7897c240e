"""Replays of many dead letters: a plan, then a run that shows its progress and can be stopped."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

import msgspec
from litestar.params import FromPath
from litestar.response.base import ASGIResponse
from msgspec import Meta

from outbox.errors import Fault
from outbox.message import uuid7
from outbox.store import replays
from outbox.store.pool import EVERY_TENANT
from outbox.store.replays import ReplayFilter, ReplayPlan, ReplayRun
from outbox_api import samples
from outbox_api.answers import JsonObject, Page, answer
from outbox_api.identity import idempotent_id
from outbox_api.operations import PREFIX, Answer, Body, operation
from outbox_api.paging import Limit, Moment
from outbox_api.problems import Problem, invalid, not_found
from outbox_api.requests import ApiRequest, idempotency_key, read_query, read_struct
from outbox_api.runtime import runtime_of
from outbox_api.tenancy import TenantId, tenant_filter
from outbox_api.text_cursors import read_text_cursor, write_text_cursor

Text = Annotated[str, Meta(min_length=1, max_length=255)]


class ReplayWanted(msgspec.Struct, frozen=True, kw_only=True):
    """Which dead letters, and how fast. Without any filter, all of them.

    `rate_per_s` bounds the jobs that are sent in a second, over all dispatchers; `limit` how many
    are sent at all, the oldest failures first.
    """

    queue: Text | None = None
    tenant_id: TenantId | None = None
    reason: Literal["exhausted", "permanent", "invalid", "manual"] | None = None
    error_class: Text | None = None
    error_code: Text | None = None
    template_code: Text | None = None
    campaign_id: Text | None = None
    since: Moment | None = None
    until: Moment | None = None
    dry_run: bool = False
    rate_per_s: Annotated[float, Meta(ge=0.001, le=100_000)] | None = None
    limit: Annotated[int, Meta(ge=1, le=10_000_000)] | None = None
    why: Annotated[str, Meta(max_length=500)] | None = None


class ReplayView(msgspec.Struct, frozen=True, kw_only=True):
    """A replay and how far it has come.

    `plan` is what was foreseen when it began. `dispatchers`: how many are alive to go on with it.
    """

    run_id: UUID
    state: Literal["running", "done", "stopped"]
    tenant_id: str | None
    filter: JsonObject
    rate_per_s: float | None
    limit: int | None
    plan: ReplayPlan
    replayed: int
    expired: int
    duplicate: int
    suppressed: int
    gone: int
    begun_at: datetime
    begun_by: str
    why: str | None
    ended_at: datetime | None
    stopped_by: str | None
    dispatchers: int


class Planned(msgspec.Struct, frozen=True, kw_only=True):
    """What a replay would do, and the run that does it; a dry run has none, and did nothing."""

    dry_run: bool
    plan: ReplayPlan
    run: ReplayView | None = None


class ReplaysQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which replays."""

    tenant_id: TenantId | None = None
    state: Literal["running", "done", "stopped"] | None = None
    limit: Limit = 50
    cursor: Text | None = None


_PLAN = {
    "matched": 500,
    "looked_at": 500,
    "complete": True,
    "would_send": 488,
    "expired": 9,
    "duplicate": 2,
    "suppressed": 1,
    "gone": 0,
    "sample": [
        {
            "dead_letter_id": 17,
            "verdict": "would_send",
            "job_id": samples.JOB_ID,
            "queue": "email",
            "template_code": "welcome_email",
            "error_code": "smtp.5xx",
            "failed_at": samples.AT,
        }
    ],
}
_RUN_ID = "0193281c-6e5b-7b0e-9a43-7f6a1d4cb002"
_RUN = {
    "run_id": _RUN_ID,
    "state": "running",
    "tenant_id": None,
    "filter": {"queue": "email", "error_code": "smtp.5xx"},
    "rate_per_s": 20.0,
    "limit": None,
    "plan": _PLAN,
    "replayed": 120,
    "expired": 3,
    "duplicate": 0,
    "suppressed": 0,
    "gone": 0,
    "begun_at": samples.AT,
    "begun_by": "ann",
    "why": "the relay is back",
    "ended_at": None,
    "stopped_by": None,
    "dispatchers": 3,
}
_PATH = {"run_id": _RUN_ID}


@operation(
    "POST",
    "/dead-letters/replay",
    summary="Replay dead letters by a filter",
    tag="dead letters",
    needs="jobs:write",
    headers=("Idempotency-Key",),
    body=Body(
        kind=ReplayWanted,
        examples={
            "plan": {"queue": "email", "error_code": "smtp.5xx", "dry_run": True},
            "run": {"queue": "email", "error_code": "smtp.5xx", "rate_per_s": 20},
        },
    ),
    answers={
        200: Answer(
            Planned,
            "The plan of a dry run; or the run that was begun before under this Idempotency-Key.",
            {"dry_run": True, "plan": _PLAN, "run": None},
        ),
        202: Answer(
            Planned,
            "It has begun; any dispatcher goes on with it.",
            {"dry_run": False, "plan": _PLAN, "run": _RUN},
        ),
    },
    problems=(400, 409, 413, 415, 422),
)
async def replay_dead_letters(request: ApiRequest) -> ASGIResponse:
    """Plan a replay (`dry_run`), or begin one; look at it, or stop it, under `/replays`."""
    order = await read_struct(request, ReplayWanted)
    planned, is_known = await replay(request, order, key=idempotency_key(request))
    if planned.run is None:
        return answer(planned)
    return answer(
        planned,
        status=200 if is_known else 202,
        headers={"location": f"{PREFIX}/replays/{planned.run.run_id}"},
    )


async def replay(
    request: ApiRequest, order: ReplayWanted, *, key: str | None = None
) -> tuple[Planned, bool]:
    """Plan a replay, or begin one; tell whether its key had begun it before. Raises Problem."""
    if order.since is not None and order.until is not None and order.since >= order.until:
        raise invalid([Fault("/until", "must lie after since")])
    if order.tenant_id == EVERY_TENANT:
        raise invalid([Fault("/tenant_id", "is no tenant; leave it out for all")])
    tenant = tenant_filter(request.auth, order.tenant_id) or EVERY_TENANT
    wanted = _filter_of(order)
    run_id = uuid7() if key is None else idempotent_id(tenant, f"replay:{key}")
    async with runtime_of(request).database.transaction(
        request.auth.sees, read_only=order.dry_run
    ) as connection:
        planned = await replays.plan(connection, wanted, tenant=tenant, jobs_max=order.limit)
        if order.dry_run:
            return Planned(dry_run=True, plan=planned), False
        begun = await replays.begin(
            connection,
            run_id,
            wanted,
            tenant=tenant,
            rate_per_s=order.rate_per_s,
            jobs_max=order.limit,
            planned=planned,
            actor=request.auth.name,
            reason=order.why,
        )
        if begun == "other":
            fault = Fault("/header/idempotency-key", "was used for another replay")
            raise Problem(409, "This key stands for another replay.", errors=[fault])
        run = await replays.show(connection, run_id)
    if run is None:
        raise not_found("replay")
    view = _view(run)
    return Planned(dry_run=False, plan=view.plan, run=view), begun == "known"


@operation(
    "GET",
    "/replays",
    summary="List replays, newest first",
    tag="dead letters",
    needs="jobs:read",
    query=ReplaysQuery,
    answers={200: Answer(Page[ReplayView], "A page.", {"items": [_RUN], "next_cursor": None})},
    problems=(400,),
)
async def list_replays(request: ApiRequest) -> ASGIResponse:
    """List what was begun, and how far it has come."""
    query = read_query(request, ReplaysQuery)
    async with runtime_of(request).database.transaction(
        request.auth.sees, read_only=True
    ) as connection:
        rows = await replays.page(
            connection,
            tenant=tenant_filter(request.auth, query.tenant_id),
            state=query.state,
            before=_place(query.cursor),
            limit=query.limit + 1,
        )
    shown = rows[: query.limit]
    more = None
    if len(rows) > query.limit:
        more = write_text_cursor(shown[-1].begun_at.isoformat(), str(shown[-1].run_id), "")
    return answer(Page(items=[_view(row) for row in shown], next_cursor=more))


@operation(
    "GET",
    "/replays/{run_id:uuid}",
    summary="Show a replay and how far it has come",
    tag="dead letters",
    needs="jobs:read",
    answers={200: Answer(ReplayView, "The replay.", _RUN)},
    problems=(404,),
    path_examples=_PATH,
)
async def show_replay(request: ApiRequest, run_id: FromPath[UUID]) -> ASGIResponse:
    """Show one. The counts together are how many dead letters it has dealt with."""
    return answer(_view(await stored_replay(request, run_id)))


@operation(
    "POST",
    "/replays/{run_id:uuid}/stop",
    summary="Stop a replay",
    tag="dead letters",
    needs="jobs:write",
    answers={200: Answer(ReplayView, "It goes no further.", _RUN | {"state": "stopped"})},
    problems=(404, 409),
    path_examples=_PATH,
)
async def stop_replay(request: ApiRequest, run_id: FromPath[UUID]) -> ASGIResponse:
    """Stop where it is: what was replayed stays so. To go on, begin another."""
    async with runtime_of(request).database.transaction(request.auth.sees) as connection:
        said = await replays.stop(connection, run_id, actor=request.auth.name)
        run = await replays.show(connection, run_id)
    if run is None:
        raise not_found("replay")
    if said == "ended" and run.state == "done":
        raise Problem(409, "This replay has ended already.")
    return answer(_view(run))


async def stored_replay(request: ApiRequest, run_id: UUID) -> ReplayRun:
    """Return a run as it is stored. Raises Problem 404."""
    async with runtime_of(request).database.transaction(
        request.auth.sees, read_only=True
    ) as connection:
        run = await replays.show(connection, run_id)
    if run is None:
        raise not_found("replay")
    return run


def _filter_of(order: ReplayWanted) -> ReplayFilter:
    return ReplayFilter(
        queue=order.queue,
        reason=order.reason,
        error_class=order.error_class,
        error_code=order.error_code,
        template_code=order.template_code,
        campaign_id=order.campaign_id,
        since=order.since,
        until=order.until,
    )


def _place(cursor: str | None) -> tuple[datetime, UUID] | None:
    if cursor is None:
        return None
    try:
        at, run_id, _ = read_text_cursor(cursor)
        return datetime.fromisoformat(at), UUID(run_id)
    except ValueError:
        raise invalid([Fault("/query/cursor", "is no cursor")], status=400) from None


def _view(run: ReplayRun) -> ReplayView:
    return ReplayView(
        run_id=run.run_id,
        state=run.state,
        tenant_id=None if run.tenant_id == EVERY_TENANT else run.tenant_id,
        filter=msgspec.Raw(run.filter.encode()),
        rate_per_s=run.rate_per_s,
        limit=run.jobs_max,
        plan=msgspec.json.decode(run.plan, type=ReplayPlan),
        replayed=run.replayed,
        expired=run.expired,
        duplicate=run.duplicate,
        suppressed=run.suppressed,
        gone=run.gone,
        begun_at=run.begun_at,
        begun_by=run.begun_by,
        why=run.reason,
        ended_at=run.ended_at,
        stopped_by=run.stopped_by,
        dispatchers=run.dispatchers,
    )


ROUTES = [replay_dead_letters, list_replays, show_replay, stop_replay]
