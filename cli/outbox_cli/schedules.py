"""`outbox schedules`: what comes by the clock."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from outbox.errors import Fault, InvalidJob
from outbox.store import schedules as store
from outbox.store.pool import Connection
from outbox.triggers import BadTrigger, Misfire, Timetable, Trigger
from outbox_cli.acting import Why, acting
from outbox_cli.database import actor, in_transaction
from outbox_cli.exits import Failure, say
from outbox_cli.groups import Json, Tenant, group
from outbox_cli.shown import as_object, print_json, print_table

app = group()

Name = Annotated[str, typer.Argument(metavar="NAME")]
Whose = Annotated[str, typer.Option("--tenant", help="Whose schedule.")]


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    trigger: Trigger
    timezone: str = "UTC"
    job: dict[str, object] | None = None
    clean: store.CleanJobs | None = None
    expires_after_s: Annotated[int, msgspec.Meta(ge=1, le=31_536_000)] | None = None
    misfire: Misfire = "once"
    misfire_grace_s: Annotated[int, msgspec.Meta(ge=1, le=86_400)] = 60


@app.command("ls")
def ls(tenant: Tenant = None, json: Json = False) -> None:
    """List schedules with their next fire and last error."""

    async def read(connection: Connection) -> list[store.ScheduleRow]:
        return await store.page(connection, tenant=tenant, limit=10_000)

    rows = in_transaction(read, tenant=tenant, read_only=True)
    if json:
        print_json([_view(row) for row in rows])
        return
    print_table(
        ("NAME", "TENANT", "TRIGGER", "ZONE", "NEXT", "FIRED", "FIRES", "MISSED", "LAST ERROR"),
        (
            (
                row.name,
                row.tenant_id,
                " ".join(str(v) for v in msgspec.json.decode(row.trigger).values()),
                row.timezone,
                row.next_at if row.enabled else "paused",
                row.fired_at,
                row.fires,
                row.missed,
                row.last_error,
            )
            for row in rows
        ),
        empty="There is no schedule.",
    )


@app.command("put")
def put(
    name: Name,
    file: Annotated[str, typer.Argument(metavar="FILE|-", help="JSON, as the API takes it.")],
    tenant: Whose = "default",
    why: Why = None,
    json: Json = False,
) -> None:
    """Make a schedule, or change it whole; one that could never work is refused."""
    try:
        text = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        parts = msgspec.json.decode(text, type=_File)
    except msgspec.MsgspecError as error:
        raise Failure(f"{file} is no schedule: {error}.") from None
    if not 1 <= len(name) <= 128:
        raise typer.BadParameter("a name has 1 to 128 characters")
    faults: list[Fault] = []
    if (parts.job is None) == (parts.clean is None):
        faults.append(Fault("", "must have one of job and clean"))
    next_at = None
    try:
        next_at = Timetable(parts.trigger, parts.timezone).next_after(datetime.now(UTC))
        if next_at is None:
            faults.append(Fault("/trigger/at", "lies in the past"))
    except BadTrigger as bad:
        faults += bad.faults

    async def work(connection: Connection) -> store.ScheduleRow:
        if parts.job is not None:
            found = await store.check_job(connection, parts.job, tenant=tenant)
            faults.extend(Fault(f"/job{f.pointer}", f.message) for f in found)
        if faults:
            raise InvalidJob(faults)
        row = await store.put(
            connection,
            tenant=tenant,
            name=name,
            trigger=msgspec.json.encode(parts.trigger).decode(),
            timezone=parts.timezone,
            job=None if parts.job is None else msgspec.json.encode(parts.job).decode(),
            clean=None if parts.clean is None else msgspec.json.encode(parts.clean).decode(),
            expires_after_s=parts.expires_after_s,
            misfire=parts.misfire,
            misfire_grace_s=parts.misfire_grace_s,
            next_at=next_at,
            actor=actor(),
        )
        return row

    with acting("schedule.put", tenant=tenant, why=why, name=name):
        row = in_transaction(work, tenant=tenant)
    if json:
        print_json(_view(row))
    else:
        say(f"{name} fires next at {row.next_at}.")


@app.command("delete")
def delete(name: Name, tenant: Whose = "default", why: Why = None, json: Json = False) -> None:
    """Forget a schedule; the jobs that it made stay."""

    async def work(connection: Connection) -> bool:
        return await store.delete(connection, tenant=tenant, name=name)

    with acting("schedule.delete", tenant=tenant, why=why, name=name):
        if not in_transaction(work, tenant=tenant):
            raise Failure(f"There is no schedule {name!r} of {tenant}.")
    if json:
        print_json({"name": name, "tenant_id": tenant, "deleted": True})
        return
    say(f"{name} is forgotten.")


@app.command("pause")
def pause(name: Name, tenant: Whose = "default", why: Why = None, json: Json = False) -> None:
    """Fire no more until it is resumed."""
    _enable(name, tenant, enabled=False, why=why, json=json)


@app.command("resume")
def resume(name: Name, tenant: Whose = "default", why: Why = None, json: Json = False) -> None:
    """Go on with the next fire from now."""
    _enable(name, tenant, enabled=True, why=why, json=json)


@app.command("preview")
def preview(
    cron: Annotated[str | None, typer.Argument(metavar="[CRON]")] = None,
    every: Annotated[int | None, typer.Option(help="Every so many seconds instead.")] = None,
    at: Annotated[str | None, typer.Option(help="Once, at this time, instead.")] = None,
    timezone: Annotated[str, typer.Option(help="Whose clock.")] = "UTC",
    count: Annotated[int, typer.Option(min=1, max=100)] = 10,
    json: Json = False,
) -> None:
    """Show when a trigger would fire."""
    try:
        table = Timetable(Trigger(cron=cron, every_s=every, at=at), timezone)
    except BadTrigger as bad:
        raise Failure(f"{bad}.") from None
    fires = table.preview(datetime.now(UTC), count)
    if json:
        print_json(fires)
    else:
        print_table(("FIRES",), ((fire,) for fire in fires), empty="It fires no more.")


def _enable(name: str, tenant: str, *, enabled: bool, why: str | None, json: bool) -> None:
    async def work(connection: Connection) -> store.ScheduleRow | None:
        row = await store.show(connection, tenant=tenant, name=name)
        if row is None:
            return None
        trigger = msgspec.json.decode(row.trigger, type=Trigger)
        return await store.enable(
            connection,
            tenant=tenant,
            name=name,
            enabled=enabled,
            next_at=Timetable(trigger, row.timezone).next_after(datetime.now(UTC)),
            actor=actor(),
        )

    action = "schedule.resume" if enabled else "schedule.pause"
    with acting(action, tenant=tenant, why=why, name=name):
        row = in_transaction(work, tenant=tenant)
        if row is None:
            raise Failure(f"There is no schedule {name!r} of {tenant}.")
    if json:
        print_json(_view(row))
    else:
        say(f"{name} is {'resumed' if enabled else 'paused'}.")


def _view(row: store.ScheduleRow) -> dict[str, object]:
    return as_object(row, raw=("trigger", "job", "clean"), without=("schedule_id",))
