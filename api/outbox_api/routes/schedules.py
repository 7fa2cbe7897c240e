"""Schedules: what comes by the clock (docs/schedules.md)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal
from uuid import UUID

import msgspec
from litestar.params import FromPath
from litestar.response.base import ASGIResponse
from msgspec import Meta

from outbox.errors import Fault
from outbox.store import catalog, queues, schedules
from outbox.store.schedules import CleanJobs, ScheduleRow
from outbox.triggers import BadTrigger, Timetable, Trigger
from outbox_api import samples
from outbox_api.answers import JsonObject, Page, answer, left_out, no_content, raw, written
from outbox_api.operations import Answer, Body, operation
from outbox_api.paging import Limit, Moment
from outbox_api.problems import NO_SEGMENT, UNREACHABLE, invalid, not_found
from outbox_api.requests import ApiRequest, read_query, read_struct
from outbox_api.runtime import runtime_of
from outbox_api.tenancy import TenantQuery, one_tenant, tenant_filter
from outbox_api.text_cursors import read_text_cursor, write_text_cursor

NAME_CHARS_MAX = 128
NEXT_SHOWN = 5

Text = Annotated[str, Meta(min_length=1, max_length=255)]


class ScheduleParts(msgspec.Struct, frozen=True, kw_only=True):
    """A schedule, whole. It hands in a `job`, or it does a `clean`.

    `misfire` says what becomes of fires that nobody was there for within `misfire_grace_s`.
    """

    trigger: Trigger
    timezone: Text = "UTC"
    job: JsonObject = msgspec.field(default_factory=left_out)
    clean: CleanJobs | None = None
    expires_after_s: Annotated[int, Meta(ge=1, le=31_536_000)] | None = None
    misfire: Literal["skip", "once", "all"] = "once"
    misfire_grace_s: Annotated[int, Meta(ge=1, le=86_400)] = 60


class ScheduleView(msgspec.Struct, frozen=True, kw_only=True):
    """A schedule, what it did, and when it fires next."""

    name: str
    tenant_id: str
    trigger: Trigger
    timezone: str
    job: JsonObject | None
    clean: JsonObject | None
    expires_after_s: int | None
    misfire: str
    misfire_grace_s: int
    enabled: bool
    next_at: datetime | None
    next_fires: list[datetime]
    fired_at: datetime | None
    last_job_id: UUID | None
    last_error: str | None
    last_error_at: datetime | None
    fires: int
    missed: int
    updated_at: datetime
    updated_by: str


class PreviewWanted(msgspec.Struct, frozen=True, kw_only=True):
    """Which fires to show: those after `after`, by default from now on."""

    trigger: Trigger
    timezone: Text = "UTC"
    count: Annotated[int, Meta(ge=1, le=100)] = 10
    after: Moment | None = None


class Preview(msgspec.Struct, frozen=True, kw_only=True):
    """The next fires, in UTC."""

    fires: list[datetime]


class SchedulesQuery(TenantQuery, frozen=True, kw_only=True):
    """Whose schedules."""

    limit: Limit = 50
    cursor: Text | None = None


_PUT = {
    "trigger": {"cron": "0 9 * * 1-5"},
    "timezone": "Asia/Almaty",
    "job": {
        "channel": "email",
        "to": "team@example.com",
        "content": "Good morning",
        "data": {},
        "meta": {"event_type": "digest"},
    },
    "expires_after_s": 3600,
}
_CLEAN = {
    "trigger": {"every_s": 3600},
    "clean": {"queue": "email", "status": "sent", "keep_last": 10_000},
}
_VIEW = _PUT | {
    "name": "digest",
    "tenant_id": "default",
    "clean": None,
    "misfire": "once",
    "misfire_grace_s": 60,
    "enabled": True,
    "next_at": samples.AT,
    "next_fires": [samples.AT],
    "fired_at": None,
    "last_job_id": None,
    "last_error": None,
    "last_error_at": None,
    "fires": 0,
    "missed": 0,
    "updated_at": samples.AT,
    "updated_by": "ann",
}
_PATH = {"name": "digest"}


@operation(
    "GET",
    "/schedules",
    summary="List schedules",
    tag="schedules",
    needs="jobs:read",
    query=SchedulesQuery,
    answers={200: Answer(Page[ScheduleView], "A page.", {"items": [_VIEW], "next_cursor": None})},
    problems=(400,),
)
async def list_schedules(request: ApiRequest) -> ASGIResponse:
    """List schedules by tenant and name, with their next fires and last errors."""
    query = read_query(request, SchedulesQuery)
    after_tenant, after_name, _ = read_text_cursor(query.cursor)
    async with runtime_of(request).database.transaction(
        request.auth.sees, read_only=True
    ) as connection:
        rows = await schedules.page(
            connection,
            tenant=tenant_filter(request.auth, query.tenant_id),
            after=(after_tenant, after_name),
            limit=query.limit + 1,
        )
    shown = rows[: query.limit]
    more = None
    if len(rows) > query.limit:
        more = write_text_cursor(shown[-1].tenant_id, shown[-1].name, "")
    return answer(Page(items=[schedule_view(row) for row in shown], next_cursor=more))


@operation(
    "GET",
    "/schedules/{name:str}",
    summary="Show a schedule",
    tag="schedules",
    needs="jobs:read",
    query=TenantQuery,
    answers={200: Answer(ScheduleView, "The schedule.", _VIEW)},
    problems=(400, 404),
    path_examples=_PATH,
)
async def show_schedule(request: ApiRequest, name: FromPath[str]) -> ASGIResponse:
    """Show one with its next fires, and the error of its last fire if that failed."""
    tenant = one_tenant(request.auth, read_query(request, TenantQuery).tenant_id)
    return answer(schedule_view(await stored_schedule(request, tenant, name)))


@operation(
    "PUT",
    "/schedules/{name:str}",
    summary="Make a schedule, or change it",
    tag="schedules",
    needs="admin",
    query=TenantQuery,
    body=Body(kind=ScheduleParts, examples={"digest": _PUT, "keep the last": _CLEAN}),
    answers={200: Answer(ScheduleView, "As it stands now.", _VIEW)},
    problems=(400, 413, 415, 422),
    path_examples=_PATH,
)
async def put_schedule(request: ApiRequest, name: FromPath[str]) -> ASGIResponse:
    """Store a schedule whole. One whose job would be refused, or that never fires, is refused."""
    tenant = one_tenant(request.auth, read_query(request, TenantQuery).tenant_id)
    return answer(
        await store_schedule(request, name, tenant, await read_struct(request, ScheduleParts))
    )


async def store_schedule(
    request: ApiRequest, name: str, tenant: str, parts: ScheduleParts
) -> ScheduleView:
    """Store a schedule whole, and write down who did. Raises Problem 422 with every fault."""
    faults: list[Fault] = []
    if len(name) > NAME_CHARS_MAX or not name.strip():
        told = f"must have 1 to {NAME_CHARS_MAX} characters, and not be blank"
        faults.append(Fault("/path/name", told))
    elif name in UNREACHABLE:
        faults.append(Fault("/path/name", NO_SEGMENT))
    job = written(parts.job)
    if (job is None) == (parts.clean is None):
        faults.append(Fault("", "must have one of job and clean"))
    next_at = None
    try:
        next_at = Timetable(parts.trigger, parts.timezone).next_after(datetime.now(UTC))
        if next_at is None:
            faults.append(Fault("/trigger/at", "lies in the past"))
    except BadTrigger as bad:
        faults.extend(bad.faults)
    fields: dict[str, object] = {}
    if job is not None:
        try:
            fields = msgspec.json.decode(job, type=dict[str, object])
        except msgspec.ValidationError:
            faults.append(Fault("/job", "must be an object"))
            job = None
    async with runtime_of(request).database.transaction(request.auth.sees) as connection:
        if job is not None:
            found = await schedules.check_job(connection, fields, tenant=tenant)
            faults += [Fault(f"/job{fault.pointer}", fault.message) for fault in found]
        if parts.clean is not None and not await queues.is_known(connection, parts.clean.queue):
            faults.append(Fault("/clean/queue", "is no queue: it has no handler, and had no job"))
        if faults:
            raise invalid(faults)
        row = await schedules.put(
            connection,
            tenant=tenant,
            name=name,
            trigger=msgspec.json.encode(parts.trigger).decode(),
            timezone=parts.timezone,
            job=job,
            clean=None if parts.clean is None else msgspec.json.encode(parts.clean).decode(),
            expires_after_s=parts.expires_after_s,
            misfire=parts.misfire,
            misfire_grace_s=parts.misfire_grace_s,
            next_at=next_at,
            actor=request.auth.name,
        )
        await catalog.note_action(
            connection,
            actor=request.auth.name,
            action="schedule.put",
            tenant=tenant,
            detail={"name": name, "trigger": parts.trigger, "timezone": parts.timezone},
        )
    return schedule_view(row)


@operation(
    "DELETE",
    "/schedules/{name:str}",
    summary="Forget a schedule",
    tag="schedules",
    needs="admin",
    query=TenantQuery,
    answers={204: Answer(None, "Forgotten; the jobs that it made stay.")},
    problems=(400, 404),
    path_examples=_PATH,
)
async def delete_schedule(request: ApiRequest, name: FromPath[str]) -> ASGIResponse:
    """Forget a schedule."""
    tenant = one_tenant(request.auth, read_query(request, TenantQuery).tenant_id)
    async with runtime_of(request).database.transaction(request.auth.sees) as connection:
        if not await schedules.delete(connection, tenant=tenant, name=name):
            raise not_found("schedule")
        await catalog.note_action(
            connection,
            actor=request.auth.name,
            action="schedule.delete",
            tenant=tenant,
            detail={"name": name},
        )
    return no_content()


@operation(
    "POST",
    "/schedules/{name:str}/pause",
    summary="Pause a schedule",
    tag="schedules",
    needs="admin",
    query=TenantQuery,
    answers={200: Answer(ScheduleView, "It fires no more.", _VIEW | {"enabled": False})},
    problems=(400, 404),
    path_examples=_PATH,
)
async def pause_schedule(request: ApiRequest, name: FromPath[str]) -> ASGIResponse:
    """Fire no more until it is resumed."""
    return await _enable(request, name, enabled=False)


@operation(
    "POST",
    "/schedules/{name:str}/resume",
    summary="Let a schedule go on",
    tag="schedules",
    needs="admin",
    query=TenantQuery,
    answers={200: Answer(ScheduleView, "It fires again.", _VIEW)},
    problems=(400, 404),
    path_examples=_PATH,
)
async def resume_schedule(request: ApiRequest, name: FromPath[str]) -> ASGIResponse:
    """Go on with the next fire from now; what a pause left out is not made up for."""
    return await _enable(request, name, enabled=True)


async def _enable(request: ApiRequest, name: str, *, enabled: bool) -> ASGIResponse:
    tenant = one_tenant(request.auth, read_query(request, TenantQuery).tenant_id)
    async with runtime_of(request).database.transaction(request.auth.sees) as connection:
        row = await schedules.show(connection, tenant=tenant, name=name)
        if row is None:
            raise not_found("schedule")
        row = await schedules.enable(
            connection,
            tenant=tenant,
            name=name,
            enabled=enabled,
            next_at=_timetable(row).next_after(datetime.now(UTC)),
            actor=request.auth.name,
        )
        if row is None:
            raise not_found("schedule")
        await catalog.note_action(
            connection,
            actor=request.auth.name,
            action="schedule.resume" if enabled else "schedule.pause",
            tenant=tenant,
            detail={"name": name},
        )
    return answer(schedule_view(row))


@operation(
    "POST",
    "/schedule-previews",
    summary="Show when a trigger would fire",
    tag="schedules",
    needs="jobs:read",
    body=Body(
        kind=PreviewWanted,
        examples={"cron": {"trigger": {"cron": "0 9 * * 1-5"}, "timezone": "Asia/Almaty"}},
    ),
    answers={200: Answer(Preview, "The next fires.", {"fires": [samples.AT]})},
    problems=(400, 413, 415, 422),
)
async def preview_schedule(request: ApiRequest) -> ASGIResponse:
    """Show the next fires of a trigger in a time zone. Nothing is stored."""
    wanted = await read_struct(request, PreviewWanted)
    try:
        table = Timetable(wanted.trigger, wanted.timezone)
    except BadTrigger as bad:
        raise invalid(bad.faults) from None
    after = wanted.after or datetime.now(UTC)
    if not 1971 <= after.year <= 9000:
        raise invalid([Fault("/after", "must lie between 1971 and 9000")])
    return answer(Preview(fires=table.preview(after.astimezone(UTC), wanted.count)))


def _timetable(row: ScheduleRow) -> Timetable:
    return Timetable(msgspec.json.decode(row.trigger, type=Trigger), row.timezone)


async def stored_schedule(request: ApiRequest, tenant: str, name: str) -> ScheduleRow:
    """Return a schedule as it is stored. Raises Problem 404."""
    async with runtime_of(request).database.transaction(
        request.auth.sees, read_only=True
    ) as connection:
        row = await schedules.show(connection, tenant=tenant, name=name)
    if row is None:
        raise not_found("schedule")
    return row


def schedule_view(row: ScheduleRow) -> ScheduleView:
    """Return a schedule as it is shown, with its next fires."""
    fires: list[datetime] = []
    if row.enabled and row.next_at is not None:
        fires = [row.next_at, *_timetable(row).preview(row.next_at, NEXT_SHOWN - 1)]
    return ScheduleView(
        name=row.name,
        tenant_id=row.tenant_id,
        trigger=msgspec.json.decode(row.trigger, type=Trigger),
        timezone=row.timezone,
        job=raw(row.job),
        clean=raw(row.clean),
        expires_after_s=row.expires_after_s,
        misfire=row.misfire,
        misfire_grace_s=row.misfire_grace_s,
        enabled=row.enabled,
        next_at=row.next_at if row.enabled else None,
        next_fires=fires,
        fired_at=row.fired_at,
        last_job_id=row.last_job_id,
        last_error=row.last_error,
        last_error_at=row.last_error_at,
        fires=row.fires,
        missed=row.missed,
        updated_at=row.updated_at,
        updated_by=row.updated_by,
    )


ROUTES = [
    list_schedules,
    show_schedule,
    put_schedule,
    delete_schedule,
    pause_schedule,
    resume_schedule,
    preview_schedule,
]
