"""`outbox dead-letters replay` by a filter: plan, begin, follow with a progress bar, stop."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated
from uuid import UUID

import msgspec
import typer

from outbox.message import uuid7
from outbox.store import replays as store
from outbox.store.pool import EVERY_TENANT, Connection, Database
from outbox_cli.acting import Why, acting
from outbox_cli.database import actor, in_database, in_transaction
from outbox_cli.exits import FAILED, Failure, say
from outbox_cli.groups import Json, Tenant
from outbox_cli.shown import as_object, print_fields, print_json, print_table

LOOK_S = 0.25

RunId = Annotated[UUID, typer.Argument(metavar="RUN_ID")]


@dataclass(frozen=True, kw_only=True)
class Order:
    """Which dead letters, how fast, and why."""

    wanted: store.ReplayFilter
    tenant: str | None
    rate_per_s: float | None
    jobs_max: int | None
    why: str | None


def replay(order: Order, *, dry_run: bool, detach: bool, json: bool) -> None:
    """Plan, and unless it is a dry run begin and follow."""
    tenant = order.tenant or EVERY_TENANT

    async def work(database: Database) -> tuple[store.ReplayPlan, store.ReplayRun | None]:
        async with database.transaction(tenant, read_only=dry_run) as connection:
            planned = await store.plan(
                connection, order.wanted, tenant=tenant, jobs_max=order.jobs_max
            )
            if dry_run:
                return planned, None
            run_id = uuid7()
            await store.begin(
                connection,
                run_id,
                order.wanted,
                tenant=tenant,
                rate_per_s=order.rate_per_s,
                jobs_max=order.jobs_max,
                planned=planned,
                actor=actor(),
                reason=order.why,
            )
            begun = await store.show(connection, run_id)
        if not json:
            _say_plan(planned)
            say(f"replay {run_id} has begun.")
        if begun is None or detach:
            return planned, begun
        return planned, await _follow(database, begun, quiet=json)

    with acting("replay.begin", tenant=order.tenant, why=order.why):
        planned, run = in_database(work)
    if json:
        print_json({"plan": planned, "run": None if run is None else _view(run)})
    elif run is None:
        _say_plan(planned)
        _print_sample(planned)
    elif not detach:
        _say_end(run)
    if run is not None and run.state == "stopped":
        raise typer.Exit(FAILED)


def runs(tenant: Tenant = None, json: Json = False) -> None:
    """List replays by filter, newest first."""

    async def read(connection: Connection) -> list[store.ReplayRun]:
        return await store.page(connection, tenant=tenant, state=None, before=None, limit=100)

    rows = in_transaction(read, tenant=tenant, read_only=True)
    if json:
        print_json([_view(row) for row in rows])
        return
    print_table(
        ("RUN", "BEGUN", "BY", "STATE", "REPLAYED", "LEFT OUT", "FILTER", "WHY"),
        (
            (
                row.run_id,
                row.begun_at,
                row.begun_by,
                row.state,
                row.replayed,
                _dealt_with(row) - row.replayed,
                row.filter,
                row.reason,
            )
            for row in rows
        ),
        empty="Nothing was replayed by a filter.",
    )


def follow(run_id: RunId, json: Json = False) -> None:
    """Watch a replay until it ends; Ctrl-C leaves it running."""

    async def work(database: Database) -> store.ReplayRun:
        return await _follow(database, await _look(database, run_id), quiet=json)

    run = in_database(work)
    if json:
        print_json(_view(run))
    else:
        _say_end(run)


def stop(run_id: RunId, why: Why = None, json: Json = False) -> None:
    """Stop a replay where it is; what was replayed stays so."""

    async def work(database: Database) -> tuple[str, store.ReplayRun]:
        async with database.transaction(EVERY_TENANT) as connection:
            said = await store.stop(connection, run_id, actor=actor())
        return said, await _look(database, run_id)

    with acting("replay.stop", why=why, run_id=str(run_id)):
        said, run = in_database(work)
        if said == "ended":
            raise Failure(f"This replay has ended already: it is {run.state}.")
    if json:
        print_json(_view(run))
    else:
        _say_end(run)


async def _look(database: Database, run_id: UUID) -> store.ReplayRun:
    async with database.transaction(EVERY_TENANT, read_only=True) as connection:
        run = await store.show(connection, run_id)
    if run is None:
        raise Failure(f"There is no replay {run_id}.")
    return run


async def _follow(database: Database, run: store.ReplayRun, *, quiet: bool) -> store.ReplayRun:
    plan = msgspec.json.decode(run.plan, type=store.ReplayPlan)
    said_alone = False
    with _progress(plan, quiet=quiet) as advance:
        try:
            while run.state == "running":
                advance(run)
                if run.dispatchers == 0 and not said_alone:
                    say("no dispatcher is alive: it goes on when one is.")
                    said_alone = True
                await asyncio.sleep(LOOK_S)
                run = await _look(database, run.run_id)
            advance(run)
        except asyncio.CancelledError:
            say(f"it goes on; `outbox dead-letters stop {run.run_id}` ends it.")
            raise
    return run


@contextlib.contextmanager
def _progress(
    plan: store.ReplayPlan, *, quiet: bool
) -> Iterator[Callable[[store.ReplayRun], None]]:
    """Show how far it is, where somebody sits at a terminal."""
    if quiet or not sys.stderr.isatty():
        yield lambda run: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (
        TextColumn("replaying"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[sent]} sent"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("replaying", total=plan.matched, sent=0)
        yield lambda run: bar.update(task, completed=_dealt_with(run), sent=run.replayed)


def _dealt_with(run: store.ReplayRun) -> int:
    return run.replayed + run.expired + run.duplicate + run.suppressed + run.gone


def _say_plan(plan: store.ReplayPlan) -> None:
    looked = "" if plan.complete else f" (of the oldest {plan.looked_at} that were looked at)"
    say(
        f"{plan.matched} dead letters fit: {plan.would_send} would be sent{looked}, "
        f"{plan.expired} have expired, {plan.duplicate} were replayed or ended otherwise, "
        f"{plan.suppressed} are suppressed, {plan.gone} have no job any more."
    )


def _print_sample(plan: store.ReplayPlan) -> None:
    print_table(
        ("NUMBER", "WOULD BE", "FAILED", "QUEUE", "TEMPLATE", "CODE", "JOB"),
        (
            (
                line.dead_letter_id,
                line.verdict.replace("would_send", "sent"),
                line.failed_at,
                line.queue,
                line.template_code,
                line.error_code,
                line.job_id,
            )
            for line in plan.sample
        ),
        empty="Nothing fits.",
    )


def _say_end(run: store.ReplayRun) -> None:
    print_fields(as_object(run, without=("filter", "plan", "dispatchers", "jobs_max")).items())


def _view(run: store.ReplayRun) -> dict[str, object]:
    shown = as_object(run, raw=("filter", "plan"), without=("tenant_id", "jobs_max", "reason"))
    tenant = None if run.tenant_id == EVERY_TENANT else run.tenant_id
    return shown | {"tenant_id": tenant, "limit": run.jobs_max, "why": run.reason}
