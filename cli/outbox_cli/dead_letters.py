"""`outbox dead-letters`: what will not be tried again by itself."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

import msgspec
import typer

from outbox.store import dead_letters as store
from outbox.store import jobs as jobs_store
from outbox.store.pool import EVERY_TENANT, Connection, Database
from outbox.store.replays import ReplayFilter
from outbox_cli import jobs, replaying
from outbox_cli.acting import acting, refused
from outbox_cli.database import actor, in_database, in_transaction, ring
from outbox_cli.exits import FAILED, Failure
from outbox_cli.groups import Json, Tenant, group
from outbox_cli.jobs import LIMIT_MAX, PAGE, Time, aware
from outbox_cli.shown import as_object, print_fields, print_json, print_table

app = group()

REASONS = ("exhausted", "permanent", "invalid", "manual")
NUMBER_MAX = 2**63 - 1


@app.command("ls")
def ls(
    queue: Annotated[str | None, typer.Option()] = None,
    tenant: Tenant = None,
    reason: Annotated[
        str | None, typer.Option(help="exhausted, permanent, invalid or manual")
    ] = None,
    error_code: Annotated[str | None, typer.Option()] = None,
    template: Annotated[str | None, typer.Option()] = None,
    job: Annotated[UUID | None, typer.Option()] = None,
    replayed: Annotated[bool | None, typer.Option("--replayed/--not-replayed")] = None,
    since: Time = None,
    until: Time = None,
    limit: Annotated[int, typer.Option(min=1, max=LIMIT_MAX)] = 50,
    json: Json = False,
) -> None:
    """List dead letters, newest first."""
    if reason is not None and reason not in REASONS:
        raise typer.BadParameter(f"no reason is called {reason!r}: {', '.join(REASONS)}")
    wanted = store.DeadLetterFilter(
        tenant_id=tenant,
        queue=queue,
        reason=reason,
        error_code=error_code,
        template_code=template,
        job_id=job,
        replayed=replayed,
        since=aware(since),
        until=aware(until),
    )

    async def read(connection: Connection) -> list[store.DeadLetterRow]:
        rows: list[store.DeadLetterRow] = []
        before: int | None = None
        while len(rows) < limit:
            size = min(PAGE, limit - len(rows))
            page = await store.page(connection, wanted, before=before, limit=size)
            rows += page
            if len(page) < size:
                break
            before = page[-1].dead_letter_id
        return rows

    rows = in_transaction(read, tenant=tenant, read_only=True)
    if json:
        print_json([_view(row) for row in rows])
        return
    print_table(
        ("NUMBER", "FAILED", "QUEUE", "REASON", "CODE", "TRIES", "ERROR", "REPLAYED"),
        (
            (
                row.dead_letter_id,
                row.failed_at,
                row.queue,
                row.reason,
                row.error_code,
                row.attempts,
                row.error_message,
                row.replayed_at,
            )
            for row in rows
        ),
        empty="No dead letter fits.",
    )


@app.command("show")
def show(
    wanted: Annotated[
        str, typer.Argument(metavar="NUMBER|JOB_ID", help="One by its number, or a job's newest.")
    ],
    tenant: Tenant = None,
    json: Json = False,
) -> None:
    """Show one dead letter with its whole job."""
    number, job_id = _number_or_job(wanted)

    async def read(connection: Connection) -> store.FullDeadLetterRow | None:
        id_ = None
        if job_id is not None:
            id_ = (await jobs.find(connection, job_id, tenant)).id
        return await store.show(connection, tenant=tenant, number=number, id_=id_)

    row = in_transaction(read, tenant=tenant, read_only=True)
    if row is None:
        raise Failure(f"There is no dead letter {wanted}.")
    if json:
        print_json(_view(row))
        return
    print_fields(as_object(row, without=("id", "job", "newest_series")).items())
    if row.job is not None:
        print(msgspec.json.format(row.job.encode(), indent=2).decode())


app.command("runs")(replaying.runs)
app.command("follow")(replaying.follow)
app.command("stop")(replaying.stop)


@app.command("replay")
def replay(
    numbers: Annotated[
        list[int] | None, typer.Argument(metavar="[NUMBER]...", min=1, max=NUMBER_MAX)
    ] = None,
    queue: Annotated[str | None, typer.Option(help="Those of this queue.")] = None,
    reason: Annotated[
        str | None, typer.Option(help="exhausted, permanent, invalid or manual")
    ] = None,
    error: Annotated[
        str | None, typer.Option("--error", "--error-code", help="Those with this error code.")
    ] = None,
    error_class: Annotated[str | None, typer.Option(help="Those with this class.")] = None,
    template: Annotated[str | None, typer.Option(help="Those of this template.")] = None,
    campaign: Annotated[str | None, typer.Option(help="Those of this campaign.")] = None,
    since: Time = None,
    until: Time = None,
    everything: Annotated[bool, typer.Option("--all", help="All that there are.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be.")] = False,
    rate: Annotated[
        float | None, typer.Option(min=0.001, max=100_000, help="Jobs a second at most.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, max=10_000_000, help="Jobs at most, oldest first.")
    ] = None,
    why: Annotated[str | None, typer.Option(help="For the operator log.")] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Don't wait for its end.")] = False,
    tenant: Tenant = None,
    json: Json = False,
) -> None:
    """Begin a new series of the jobs behind these dead letters, which are kept.

    By number, at once; or by a filter: a plan first, then a run that dispatchers go through in
    the background. Ctrl-C leaves it running; `dead-letters stop` ends it.
    """
    if reason is not None and reason not in REASONS:
        raise typer.BadParameter(f"no reason is called {reason!r}: {', '.join(REASONS)}")
    wanted = ReplayFilter(
        queue=queue,
        reason=reason,
        error_class=error_class,
        error_code=error,
        template_code=template,
        campaign_id=campaign,
        since=aware(since),
        until=aware(until),
    )
    by_filter = everything or wanted != ReplayFilter()
    if numbers and (by_filter or dry_run or rate is not None or limit is not None or detach):
        raise typer.BadParameter("give numbers, or a filter with its --rate and --limit: not both")
    if numbers:
        _replay_numbers(numbers, tenant=tenant, why=why, json=json)
    elif by_filter:
        order = replaying.Order(
            wanted=wanted, tenant=tenant, rate_per_s=rate, jobs_max=limit, why=why
        )
        replaying.replay(order, dry_run=dry_run, detach=detach, json=json)
    else:
        raise typer.BadParameter("which? Give numbers, a filter such as --queue, or --all")


def _replay_numbers(
    numbers: list[int], *, tenant: str | None, why: str | None, json: bool
) -> None:

    async def one(database: Database, number: int) -> str:
        async with database.transaction(tenant or EVERY_TENANT) as connection:
            row = await store.show(connection, tenant=tenant, number=number)
            if row is None:
                return "unknown"
            if row.id is None:
                return "no job"  # a raw input that never was one
            if row.newest_series is not None and row.newest_series != row.series:
                return "a later series exists"
            return await jobs_store.retry(
                connection, row.id, actor=actor(), action="replay", dead_letter=number
            )

    async def work(database: Database) -> list[tuple[int, str]]:
        results = [(number, await one(database, number)) for number in numbers]
        await ring(database)
        return results

    with acting("replay", tenant=tenant, why=why):
        results = in_database(work)
    for number, result in results:
        if result != "retried":
            refused("replay", tenant=tenant, because=result, detail={"dead_letter_id": number})
    if json:
        print_json([{"dead_letter_id": number, "result": result} for number, result in results])
    else:
        print_table(("NUMBER", "RESULT"), results, empty="")
    if any(result != "retried" for _, result in results):
        raise typer.Exit(FAILED)


def _number_or_job(text: str) -> tuple[int | None, UUID | None]:
    if text.isascii() and text.isdecimal() and int(text[:20]) <= NUMBER_MAX:
        return int(text), None
    try:
        return None, UUID(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is neither a number nor a job's id") from None


def _view(row: store.DeadLetterRow) -> dict[str, object]:
    """Return one as the API has it (docs/contracts.md 3): a job, or what was none."""
    shown = as_object(row, raw=("job",), without=("dead_letter_id", "id", "newest_series"))
    del shown["raw_value" if row.raw_value is None else "job"]
    return {"id": row.dead_letter_id, **shown}
