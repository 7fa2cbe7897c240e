"""Schedules: what comes by the clock, when next, and a form for one."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from litestar.params import FromPath
from litestar.response.base import ASGIResponse
from msgspec import Meta

from outbox.errors import Fault
from outbox.store import schedules
from outbox.store.schedules import CleanJobs
from outbox.triggers import Trigger
from outbox_api.answers import left_out
from outbox_api.dashboard.rendering import (
    as_struct,
    page,
    page_route,
    query_of,
    read_form,
    told,
)
from outbox_api.problems import invalid
from outbox_api.requests import ApiRequest, decode_struct
from outbox_api.routes import schedules as api
from outbox_api.routes.schedules import ScheduleParts, schedule_view, stored_schedule
from outbox_api.runtime import runtime_of
from outbox_api.tenancy import one_tenant, tenant_filter

SHOWN = 200
PATH = "/schedules/{name:str}"

Text = Annotated[str, Meta(max_length=255)]


class WhoseQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whose schedules."""

    tenant_id: Text | None = None


class ScheduleForm(msgspec.Struct, frozen=True, kw_only=True):
    """A schedule as it is typed. One of `cron`, `every_s`, `at`; `job` and `clean` are JSON."""

    name: Annotated[str, Meta(max_length=128)]
    cron: Text | None = None
    every_s: int | None = None
    at: Text | None = None
    timezone: Text = "UTC"
    job: str | None = None
    clean: str | None = None
    expires_after_s: Annotated[int, Meta(ge=1, le=31_536_000)] | None = None
    misfire: Literal["skip", "once", "all"] = "once"
    misfire_grace_s: Annotated[int, Meta(ge=1, le=86_400)] = 60


@page_route("GET", "/schedules", summary="Show schedules", needs="jobs:read")
async def list_schedules(request: ApiRequest) -> ASGIResponse:
    """Show every schedule with its next fire."""
    tenant = tenant_filter(request.auth, query_of(request, WhoseQuery).tenant_id)
    async with runtime_of(request).database.transaction(
        request.auth.sees, read_only=True
    ) as connection:
        rows = await schedules.page(connection, tenant=tenant, limit=SHOWN)
    views = [schedule_view(row) for row in rows]
    return await page(request, "schedules", here="schedules", rows=views, s=None, whose="")


@page_route("GET", PATH, summary="Show a schedule", needs="jobs:read")
async def show_schedule(request: ApiRequest, name: FromPath[str]) -> ASGIResponse:
    """Show one: its next fires, what went wrong, and the form it was typed in."""
    tenant = one_tenant(request.auth, query_of(request, WhoseQuery).tenant_id)
    row = await stored_schedule(request, tenant, name)
    return await page(
        request, "schedule", here="schedules", s=schedule_view(row), whose=_at(request, tenant)
    )


def _at(request: ApiRequest, tenant: str) -> str:
    return "" if request.auth.tenant is not None else f"?tenant_id={tenant}"


@page_route("POST", "/schedules", summary="Store a schedule", needs="admin")
async def save(request: ApiRequest) -> ASGIResponse:
    """Make a schedule, or change it whole."""
    form = as_struct(await read_form(request), ScheduleForm)
    tenant = one_tenant(request.auth, query_of(request, WhoseQuery).tenant_id)
    parts = ScheduleParts(
        trigger=Trigger(cron=form.cron, every_s=form.every_s, at=form.at),
        timezone=form.timezone,
        job=msgspec.Raw(_json("job", form.job)) if form.job else left_out(),
        clean=decode_struct(_json("clean", form.clean), CleanJobs) if form.clean else None,
        expires_after_s=form.expires_after_s,
        misfire=form.misfire,
        misfire_grace_s=form.misfire_grace_s,
    )
    stored = await api.store_schedule(request, form.name, tenant, parts)
    return told(f"Stored. It fires next at {stored.next_at}.", go="/schedules")


def _json(name: str, text: str) -> bytes:
    try:
        msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    except msgspec.MsgspecError:
        raise invalid([Fault(f"/{name}", "must be a JSON object")]) from None
    return text.encode()


@page_route("POST", PATH + "/pause", summary="Pause a schedule", needs="admin")
async def pause(request: ApiRequest, name: FromPath[str]) -> ASGIResponse:
    """Fire no more."""
    await read_form(request)
    await api.pause_schedule.fn(request, name)
    return told("Paused: it fires no more.", go="/schedules")


@page_route("POST", PATH + "/resume", summary="Resume a schedule", needs="admin")
async def resume(request: ApiRequest, name: FromPath[str]) -> ASGIResponse:
    """Fire again."""
    await read_form(request)
    await api.resume_schedule.fn(request, name)
    return told("Resumed.", go="/schedules")


@page_route("POST", PATH + "/delete", summary="Forget a schedule", needs="admin")
async def forget(request: ApiRequest, name: FromPath[str]) -> ASGIResponse:
    """Forget it; the jobs that it made stay."""
    await read_form(request)
    await api.delete_schedule.fn(request, name)
    return told("Forgotten.", go="/schedules")


ROUTES = [list_schedules, show_schedule, save, pause, resume, forget]
