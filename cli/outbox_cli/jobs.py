"""`outbox jobs`: look at jobs, withdraw them, try them again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Annotated, get_args
from uuid import UUID

import msgspec
import typer

from outbox.errors import NotPermitted
from outbox.message import JobStatus, uuid7
from outbox.store import catalog
from outbox.store import jobs as store
from outbox.store.pool import EVERY_TENANT, Connection, Database
from outbox_cli.acting import Why, acting, refused
from outbox_cli.database import actor, in_database, in_transaction, ring
from outbox_cli.exits import FAILED, Failure, say
from outbox_cli.groups import Json, Tenant, group
from outbox_cli.shown import as_object, print_fields, print_json, print_table

PAGE = 500
LIMIT_MAX = 100_000
STATUSES = get_args(JobStatus)
SETTLED = frozenset({"cancelled", "processing", "released", "retried", "promoted", "resent"})

OF_PROGRESS = ("done", "total", "note", "told_at")
"""Columns that are shown together, as `progress`."""

app = group()

JobIds = Annotated[list[UUID], typer.Argument(metavar="JOB_ID...", help="One job or several.")]
Time = Annotated[
    datetime | None,
    typer.Option(
        formats=["%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%dT%H:%M:%S%z", "%Y-%m-%d"],
        help="A time, UTC unless it has an offset.",
    ),
]


@app.command("ls")
def ls(
    status: Annotated[str | None, typer.Option(help="pending, sent, failed, …")] = None,
    queue: Annotated[str | None, typer.Option()] = None,
    channel: Annotated[str | None, typer.Option()] = None,
    tenant: Tenant = None,
    user: Annotated[str | None, typer.Option()] = None,
    event: Annotated[str | None, typer.Option()] = None,
    campaign: Annotated[str | None, typer.Option()] = None,
    template: Annotated[str | None, typer.Option()] = None,
    since: Time = None,
    until: Time = None,
    limit: Annotated[int, typer.Option(min=1, max=LIMIT_MAX)] = 50,
    json: Json = False,
) -> None:
    """List jobs, newest first."""
    if status is not None and status not in STATUSES:
        raise typer.BadParameter(f"no status is called {status!r}: {', '.join(STATUSES)}")
    wanted = store.JobFilter(
        tenant_id=tenant,
        status=status,
        queue=queue,
        channel=channel,
        user_id=user,
        event_id=event,
        campaign_id=campaign,
        template_code=template,
        since=aware(since),
        until=aware(until),
    )

    async def read(connection: Connection) -> list[store.JobRow]:
        rows: list[store.JobRow] = []
        before: int | None = None
        while len(rows) < limit:
            size = min(PAGE, limit - len(rows))
            page = await store.page(connection, wanted, before=before, limit=size)
            rows += page.rows
            before = page.before
            if before is None:
                break
        return rows

    rows = in_transaction(read, tenant=tenant, read_only=True)
    if json:
        print_json([as_object(row, without=("id",)) for row in rows])
        return
    print_table(
        ("JOB", "STATUS", "QUEUE", "TEMPLATE", "USER", "TRIES", "ACCEPTED", "WHY"),
        (
            (
                row.job_id,
                row.status,
                row.queue,
                row.template_code,
                row.user_id,
                row.attempts,
                row.accepted_at,
                row.waiting_for or row.last_error,
            )
            for row in rows
        ),
        empty="No job fits.",
    )


@app.command("show")
def show(
    job_id: Annotated[UUID, typer.Argument(metavar="JOB_ID")],
    tenant: Tenant = None,
    json: Json = False,
) -> None:
    """Show a job with its attempts and every change of its state."""

    async def read(
        connection: Connection,
    ) -> tuple[store.FullJobRow, list[store.DeliveryRow], list[store.HistoryRow]]:
        found = await find(connection, job_id, tenant)
        if found.is_list:
            members = await store.show_list(connection, job_id, tenant=found.tenant_id)
            named = ", ".join(str(member.job_id) for member in members)
            raise Failure(f"{job_id} is a list of addresses; its jobs are {named}.")
        job = await store.show(connection, found.id)
        if job is None:
            raise _unknown(job_id)
        deliveries = await store.deliveries(connection, found.id)
        return job, deliveries, await store.history(connection, found.id)

    job, deliveries, history = in_transaction(read, tenant=tenant, read_only=True)
    if json:
        shown = as_object(job, raw=("job",), without=("id", *OF_PROGRESS))
        shown["progress"] = job.progress
        shown["deliveries"] = [as_object(row) for row in deliveries]
        shown["history"] = [as_object(row) for row in history]
        print_json(shown)
        return
    print_fields(as_object(job, without=("id", "job", *OF_PROGRESS)).items())
    if job.progress is not None:
        print_fields([("progress", _how_far(job.progress))])
    print()
    print_table(
        ("SERIES", "TRY", "OUTCOME", "LATE", "PROVIDER", "STARTED", "MS", "ERROR"),
        (
            (
                row.series,
                row.attempt,
                row.status,
                row.late,
                row.provider,
                row.started_at,
                row.duration_ms,
                row.error_message,
            )
            for row in deliveries
        ),
        empty="No attempt yet.",
    )
    print()
    print_table(
        ("STATE", "AT", "TRY", "ERROR"),
        ((row.status, row.at, row.attempt, row.error) for row in history),
        empty="No history.",
    )


def _how_far(progress: store.Progress) -> str:
    of = "" if progress.total == 1 else f" ({progress.done:g} of {progress.total:g})"
    text = f": {progress.text}" if progress.text else ""
    at = progress.at.astimezone(UTC)
    return f"{int(progress.fraction * 100)} %{of}{text}, at {at:%H:%M:%S}Z"


@app.command("explain")
def explain(
    job_id: Annotated[UUID, typer.Argument(metavar="JOB_ID")],
    tenant: Tenant = None,
    json: Json = False,
) -> None:
    """Say why a job is where it is, and what happens next."""
    from outbox_api.explanations import ExplainedJob
    from outbox_api.explanations import explain as explain_job

    async def read(connection: Connection) -> ExplainedJob | None:
        return await explain_job(connection, (await find(connection, job_id, tenant)).id)

    explained = in_transaction(read, tenant=tenant, read_only=True)
    if explained is None:
        raise _unknown(job_id)
    if json:
        print_json(explained)
    else:
        print(explained.explanation)


@app.command("cancel")
def cancel(
    job_ids: JobIds = [],  # noqa: B006  (typer reads it, nobody changes it)
    queue: Annotated[str | None, typer.Option(help="By filter: all live jobs of …")] = None,
    user: Annotated[str | None, typer.Option()] = None,
    event: Annotated[str | None, typer.Option()] = None,
    campaign: Annotated[str | None, typer.Option()] = None,
    template: Annotated[str | None, typer.Option()] = None,
    tenant: Tenant = None,
    reason: Annotated[
        str | None,
        typer.Option("--why", "--reason", help="Goes into the history and the operator log."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count.")] = False,
    json: Json = False,
) -> None:
    """Withdraw jobs that were not sent yet; what is processing ends after its attempt.

    One that failed, named by its id, releases those that it keeps back by its ordering_key.
    """
    wanted = store.LiveJobFilter(
        queue=queue,
        user_id=user,
        event_id=event,
        campaign_id=campaign,
        template_code=template,
    )
    by_filter = wanted != store.LiveJobFilter()
    if by_filter == bool(job_ids):
        raise typer.BadParameter("name jobs, or a filter, and not both")
    if not by_filter:
        _each(
            "cancel",
            job_ids,
            tenant,
            lambda connection, job: _cancel_one(connection, job, reason),
            reason,
            json,
        )
        return
    with acting("cancel", tenant=tenant, why=reason):
        counts = in_database(
            lambda database: _cancel_matching(database, wanted, tenant, reason, dry_run)
        )
    if json:
        print_json(counts | {"dry_run": dry_run})
        return
    verb = "would be withdrawn" if dry_run else "withdrawn"
    say(f"{counts['waiting']} {verb}, {counts['processing']} end after their attempt.")


@app.command("retry")
def retry(job_ids: JobIds, tenant: Tenant = None, why: Why = None, json: Json = False) -> None:
    """Begin a new series of a failed job."""

    async def one(connection: Connection, job: store.FoundJob) -> str:
        return await store.retry(connection, job.id, actor=actor())

    _each("retry", job_ids, tenant, one, why, json)


@app.command("promote")
def promote(job_ids: JobIds, tenant: Tenant = None, why: Why = None, json: Json = False) -> None:
    """Make a job due now, whatever it waits for."""

    async def one(connection: Connection, job: store.FoundJob) -> str:
        return await store.promote(connection, job.id, actor=actor())

    _each("promote", job_ids, tenant, one, why, json)


@app.command("release")
def release(job_ids: JobIds, tenant: Tenant = None, why: Why = None, json: Json = False) -> None:
    """Send a job that is held because it may have been delivered already."""

    async def one(connection: Connection, job: store.FoundJob) -> str:
        return await store.release(connection, job.id, actor=actor())

    _each("release", job_ids, tenant, one, why, json)


@app.command("resend")
def resend(
    job_id: Annotated[UUID, typer.Argument(metavar="JOB_ID")],
    tenant: Tenant = None,
    why: Why = None,
    json: Json = False,
) -> None:
    """Make a new job like one that was sent."""

    async def work(database: Database) -> store.Enqueued:
        async with database.transaction(tenant or EVERY_TENANT) as connection:
            found = await find(connection, job_id, tenant)
            source = await store.resend_source(connection, found.id)
            if source.erased:
                raise Failure("its data was erased; there is nothing left to send.")
            if source.status in store.LIVE:
                raise Failure(f"it is {source.status}: it has not ended yet.")
            copy = msgspec.json.decode(source.job.encode(), type=dict[str, msgspec.Raw])
            copy["job_id"] = msgspec.Raw(msgspec.json.encode(uuid7()))
            text = msgspec.json.encode([copy]).decode()
            (result,) = await store.enqueue(
                connection,
                text,
                tenant=found.tenant_id,
                skip_bad=False,
                resend_of=job_id,
                test=source.test,
            )
            await catalog.note_resend(
                connection,
                actor=actor(),
                tenant=found.tenant_id,
                job_id=job_id,
                status=source.status,
                made=result,
            )
        await ring(database)
        return result

    with acting("resend", tenant=tenant, why=why, job_id=str(job_id)):
        result = in_database(work)
    if json:
        print_json({"job_id": result.job_id, "status": result.status, "resend_of": job_id})
    else:
        print(result.job_id)


async def find(connection: Connection, job_id: UUID, tenant: str | None) -> store.FoundJob:
    """Return where a job lies. Raises Failure when it is unknown, or several tenants have it."""
    match await store.find(connection, job_id, tenant=tenant):
        case []:
            raise _unknown(job_id)
        case [found]:
            return found
        case several:
            names = " and ".join(job.tenant_id for job in several)
            raise Failure(f"Several tenants have {job_id} ({names}, …): pass --tenant.")


def _each(
    action: str,
    job_ids: list[UUID],
    tenant: str | None,
    act: Callable[[Connection, store.FoundJob], Awaitable[str]],
    why: str | None,
    json: bool,
) -> None:
    """Do something to each job, in a transaction of its own; exit 1 unless it worked for all."""

    async def one(database: Database, job_id: UUID) -> str:
        try:
            async with database.transaction(tenant or EVERY_TENANT) as connection:
                return await act(connection, await find(connection, job_id, tenant))
        except (Failure, NotPermitted) as error:
            return str(error)

    async def work(database: Database) -> list[tuple[UUID, str]]:
        results = [(job_id, await one(database, job_id)) for job_id in job_ids]
        await ring(database)
        return results

    with acting(action, tenant=tenant, why=why):
        results = in_database(work)
    for job_id, result in results:
        if result not in SETTLED:
            refused(action, tenant=tenant, because=result, detail={"job_id": str(job_id)})
    if json:
        print_json([{"job_id": job_id, "result": result} for job_id, result in results])
    else:
        print_table(("JOB", "RESULT"), results, empty="")
    if any(result not in SETTLED for _, result in results):
        raise typer.Exit(FAILED)


async def _cancel_one(
    connection: Connection, job: store.FoundJob, reason: str | None
) -> store.CancelResult:
    results = await store.cancel(connection, [job.id], actor=actor(), reason=reason)
    return results[job.id]


async def _cancel_matching(
    database: Database,
    wanted: store.LiveJobFilter,
    tenant: str | None,
    reason: str | None,
    dry_run: bool,
) -> dict[str, int]:
    """Withdraw what fits, a page a transaction: a campaign of millions must not lock at once."""
    counts = {"waiting": 0, "processing": 0}
    after = 0
    while True:
        async with database.transaction(tenant or EVERY_TENANT) as connection:
            page = await store.live_matching(
                connection, wanted, tenant=tenant, after=after, limit=PAGE
            )
            if page and not dry_run:
                ids = [id_ for id_, _ in page]
                done = await store.cancel(connection, ids, actor=actor(), reason=reason)
                counts["waiting"] += sum(1 for result in done.values() if result == "cancelled")
                counts["processing"] += sum(1 for r in done.values() if r == "processing")
        if dry_run:
            counts["waiting"] += sum(1 for _, processing in page if not processing)
            counts["processing"] += sum(1 for _, processing in page if processing)
        if len(page) < PAGE:
            return counts
        after = page[-1][0]


def _unknown(job_id: UUID) -> Failure:
    return Failure(f"There is no job {job_id}.")


def aware(time: datetime | None) -> datetime | None:
    """Return a time with an offset: UTC where the person gave none."""
    if time is None:
        return None
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)
