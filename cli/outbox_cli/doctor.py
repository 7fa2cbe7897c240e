"""`outbox doctor`: is everything as it should be, and if not, what to do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, TypeAlias

import msgspec
import psycopg
import typer

from outbox.config import Config
from outbox.errors import StoreUnavailable
from outbox.store.pool import EVERY_TENANT, Database, fetch_one
from outbox_cli.database import (
    database_settings,
    first_line,
    in_database,
    is_migrated,
    open_place,
    settings,
)
from outbox_cli.exits import DATABASE, FAILED
from outbox_cli.groups import Json
from outbox_cli.shown import print_json, print_table

VERSIONS = range(15, 19)
SKEW_S_MAX = 1.0
PARTITION_DAYS_MIN = 7
RETENTION_LAG_DAYS_MAX = 2
TRANSACTION_S_MAX = 300.0
PREPARED_S_MAX = 60.0
"""Two-phase commits take moments; what is older was forgotten."""
SLOT_BYTES_MAX = 4 * 1024**3
SLOT_XIDS_MAX = 5_000_000
"""What a replication slot in use may keep back: WAL, and dead rows of so many transactions."""
WAITING_S_MAX = 60.0

State: TypeAlias = Literal["ok", "warning", "fault"]
STYLES: dict[State, str] = {"ok": "green", "warning": "yellow", "fault": "red"}


@dataclass(frozen=True)
class Check:
    """One thing that was looked at. `advice` says what to do about it."""

    name: str
    state: State
    found: str
    advice: str = ""


class Findings(msgspec.Struct, frozen=True, kw_only=True):
    """queries/doctor.sql."""

    now: datetime
    login: str
    is_superuser: bool
    may_dispatch: bool
    may_audit: bool
    is_durable: bool
    has_autovacuum: bool
    partition_days_left: int
    retention_lag_days: int | None
    retention_lag_live: bool | None
    job_bytes_max: int
    batch_jobs_max: int
    retention_s: int
    dead_letter_retention_s: int
    timeout_s_max: int
    template_check: bool
    default_locale: str
    ordering_on_failure: str
    held_orderings: int
    stuck_orderings: int
    dispatchers: int
    versions: list[str]
    paused_queues: list[str]
    paused_lanes: list[str]
    held_lanes: list[str]
    oldest_waiting_s: float | None
    shut_destinations: list[str]
    limited_lanes: list[str]
    unserved: list[str]
    dead_letters: int
    has_keys: bool
    slots: list[str]
    prepared: list[str]
    oldest_pid: int | None
    oldest_transaction_s: float | None


def doctor(json: Json = False) -> None:
    """Look at the settings, the database and the dispatchers; say what to do about what is wrong.

    Exits 1 if there is a fault; a warning alone is 0.
    """
    config = settings()
    checks = list(_examine(config))
    if json:
        print_json(checks)
    else:
        from rich.text import Text

        print_table(
            ("CHECK", "", "FOUND", "WHAT TO DO"),
            (
                (check.name, Text(check.state, STYLES[check.state]), check.found, check.advice)
                for check in checks
            ),
            empty="",
        )
    if any(check.state == "fault" for check in checks):
        reachable = any(check.name == "migrations" for check in checks)
        raise typer.Exit(FAILED if reachable else DATABASE)


def _examine(config: Config) -> Iterator[Check]:
    yield Check("settings", "ok", f"{len(config.sources)} set, the others are defaults")
    with open_place(config) as place:
        try:
            version = _server_version(place.url)
        except StoreUnavailable as error:
            yield Check("database", "fault", str(error), "Start it, or mend OUTBOX_DATABASE_URL.")
            return
        major = version // 10_000
        supported = major in VERSIONS
        yield Check(
            "database",
            "ok" if supported else "fault",
            f"Postgres {major}.{version % 10_000}",
            "" if supported else f"Use Postgres {VERSIONS[0]} to {VERSIONS[-1]}.",
        )
        if not is_migrated(place.url):
            yield Check("migrations", "fault", "none was run", "Run `outbox migrate`.")
            return
        yield _migrations(place.admin_url or place.url)
    found = in_database(_look, config=config)
    if isinstance(found, str):
        yield Check("privileges", "fault", found, "Run `outbox migrate` as the schema's owner.")
        return
    yield from _privileges(found.row)
    yield from _clock(found.skew_s)
    yield from _enforced(config, found.row)
    yield from _upkeep(found.row)
    yield from _work(found.row)
    yield from _doors(config, found.row)


def _server_version(url: str) -> int:
    try:
        with psycopg.connect(url, connect_timeout=5) as connection:
            return connection.info.server_version
    except psycopg.OperationalError as error:
        raise StoreUnavailable(first_line(error)) from error


def _migrations(url: str) -> Check:
    from outbox.migrate import missing_revisions, objection

    try:
        missing = missing_revisions(url)
        cannot = objection(url)
    except psycopg.errors.InsufficientPrivilege:
        # The table of revisions is the owner's; the store itself is looked at below.
        return Check("migrations", "ok", "run; this login may not see which")
    if cannot is not None and not missing:
        return Check("migrations", "fault", cannot, "Run the version that migrated it.")
    if missing:
        state: State = "warning" if cannot is None else "fault"
        advice = "Run `outbox migrate`; a `post` part, when no older process is left."
        return Check("migrations", state, f"missing: {', '.join(missing)}", advice)
    return Check("migrations", "ok", "up to date")


@dataclass(frozen=True)
class _Found:
    row: Findings
    skew_s: float


async def _look(database: Database) -> _Found | str:
    try:
        async with database.transaction(EVERY_TENANT, read_only=True) as connection:
            before = datetime.now(UTC)
            bounds = {
                "alive_s": 10.0,
                "slot_bytes": SLOT_BYTES_MAX,
                "slot_xids": SLOT_XIDS_MAX,
                "prepared_s": PREPARED_S_MAX,
            }
            row = await fetch_one(connection, Findings, "doctor", bounds)
            after = datetime.now(UTC)
    except psycopg.errors.InsufficientPrivilege as error:
        return first_line(error)
    assert row is not None
    # Somewhere in the round trip: what lies outside of it is skew.
    skew_s = max((before - row.now).total_seconds(), (row.now - after).total_seconds(), 0.0)
    return _Found(row, skew_s)


def _privileges(row: Findings) -> Iterator[Check]:
    missing = [
        role
        for role, has in (
            ("outbox_dispatcher", row.may_dispatch),
            ("outbox_auditor", row.may_audit),
        )
        if not has
    ]
    if missing:
        yield Check(
            "privileges",
            "fault",
            f"{row.login} is no member of {' and '.join(missing)}",
            "Run `outbox migrate --admin-url …`, which grants it.",
        )
    elif row.is_superuser:
        yield Check(
            "privileges",
            "warning",
            f"{row.login} is a superuser",
            "Use a login of its own: row-level security doesn't hold a superuser back.",
        )
    else:
        yield Check("privileges", "ok", f"{row.login} has what it needs, and is no superuser")


def _clock(skew_s: float) -> Iterator[Check]:
    if skew_s > SKEW_S_MAX:
        yield Check(
            "clock",
            "warning",
            f"{skew_s:.1f} s away from the database's",
            "Run NTP here or there: Outbox goes by the database's clock, producers by their own.",
        )
    else:
        yield Check("clock", "ok", f"within {SKEW_S_MAX:.0f} s of the database's")


def _enforced(config: Config, row: Findings) -> Iterator[Check]:
    wanted = database_settings(config)
    differing = [
        f"{name} {getattr(row, name)} (here {getattr(wanted, name)})"
        for name in vars(wanted)
        if getattr(row, name) != getattr(wanted, name)
    ]
    if differing:
        yield Check(
            "limits",
            "warning",
            f"the database has other settings than this process: {', '.join(differing)}",
            "Run `outbox migrate` with the settings that shall hold: it writes them.",
        )
    else:
        yield Check("limits", "ok", "the database enforces the settings of this process")
    if row.is_durable:
        yield Check("durability", "ok", "fsync, full_page_writes and synchronous_commit are on")
    else:
        yield Check(
            "durability",
            "fault",
            "fsync, full_page_writes or synchronous_commit is off",
            "Turn them on: without them a power cut loses what was acknowledged.",
        )


def _upkeep(row: Findings) -> Iterator[Check]:
    days = row.partition_days_left
    state: State = "ok" if days >= PARTITION_DAYS_MIN else "warning" if days > 0 else "fault"
    advice = "" if state == "ok" else "Have a dispatcher running: it makes them, once an hour."
    yield Check("partitions", state, f"{days} days ahead", advice)
    yield _retention(row)
    if not row.has_autovacuum:
        yield Check("autovacuum", "fault", "is off", "Turn it on: the queue's table needs it.")
    else:
        yield Check("autovacuum", "ok", "is on")
    age_s = row.oldest_transaction_s or 0.0
    if age_s > TRANSACTION_S_MAX:
        yield Check(
            "transactions",
            "warning",
            f"process {row.oldest_pid} has held one open for {age_s:.0f} s",
            f"See what it does (pg_stat_activity), and end it: "
            f"select pg_terminate_backend({row.oldest_pid}).",
        )
    else:
        yield Check("transactions", "ok", f"the oldest is {age_s:.0f} s old")
    yield from _kept_back(row)


def _kept_back(row: Findings) -> Iterator[Check]:
    """Look at what no session shows: it outlives them all, and a restart."""
    for slot in row.slots:
        name = slot.split(" ", 1)[0]
        advice = (
            f"Start what reads it, or: select pg_drop_replication_slot('{name}'). "
            "max_slot_wal_keep_size bounds what a slot can keep."
        )
        yield Check("replication slots", "warning", slot, advice)
    if not row.slots:
        yield Check("replication slots", "ok", "none keeps WAL or dead rows back")
    for prepared in row.prepared:
        gid = prepared.rsplit(" of ", 1)[0]
        advice = (
            f"It keeps its locks and every dead row since. Ask its transaction manager, "
            f"then: commit prepared {gid}, or rollback prepared {gid}."
        )
        yield Check("prepared transactions", "warning", prepared, advice)
    if not row.prepared:
        yield Check("prepared transactions", "ok", "none was left behind")


def _retention(row: Findings) -> Check:
    days = row.retention_lag_days or 0
    if days <= RETENTION_LAG_DAYS_MAX:
        return Check("retention", "ok", "nothing is kept past its age")
    found = f"the oldest day is {days} days past OUTBOX_RETENTION_S"
    if row.retention_lag_live:
        advice = "Jobs accepted then still wait: `outbox queues ls`, a lane may be paused or held."
        return Check("retention", "warning", f"{found}, and has live jobs", advice)
    advice = "Have a dispatcher running, and see which session holds a lock on outbox.job."
    return Check("retention", "warning", found, advice)


def _work(row: Findings) -> Iterator[Check]:
    waiting_s = row.oldest_waiting_s or 0.0
    if row.dispatchers:
        found = f"{row.dispatchers} alive, version {', '.join(sorted(row.versions))}"
        yield Check("dispatchers", "ok", found)
    else:
        state: State = "fault" if waiting_s > WAITING_S_MAX else "warning"
        advice = "Start `outbox serve` or `outbox dispatcher`."
        yield Check("dispatchers", state, "none is alive", advice)
    if waiting_s > WAITING_S_MAX:
        yield Check(
            "backlog",
            "warning",
            f"the oldest due job waits for {waiting_s:.0f} s",
            "See `outbox queues ls`; more dispatchers, or more OUTBOX_QUEUE_…_CONCURRENCY.",
        )
    else:
        yield Check("backlog", "ok", "nothing due waits for long")
    if row.unserved and row.dispatchers:
        advice = "Start a dispatcher that has it, or install its package where one runs."
        found = f"jobs are due, and no live dispatcher serves: {', '.join(row.unserved)}"
        yield Check("handlers", "fault", found, advice)
    for limited in row.limited_lanes:
        advice = "`outbox queues limit QUEUE --tenant …`, if it may have more."
        yield Check("limits reached", "warning", limited, advice)
    if row.paused_queues:
        advice = "`outbox queues resume QUEUE` when it may go on."
        yield Check("paused", "warning", ", ".join(row.paused_queues), advice)
    if row.paused_lanes:
        advice = "`outbox queues resume QUEUE --tenant TENANT` when that tenant's part may go on."
        yield Check("lanes paused", "warning", ", ".join(row.paused_lanes), advice)
    for held in row.held_lanes:
        advice = "Mend what it says; a probe finds out, and the rest follows."
        if "(ambiguous)" in held:
            advice = "Nobody tries these: `outbox jobs release`, or `outbox jobs cancel`."
        yield Check("held", "warning", held, advice)
    for shut in row.shut_destinations:
        advice = "It goes on by itself; `outbox destinations resume NAME` if it may at once."
        yield Check("destination", "warning", shut, advice)
    if row.dead_letters:
        advice = "`outbox dead-letters ls`, and replay what can be."
        yield Check("dead letters", "warning", f"{row.dead_letters} not replayed", advice)
    yield from _orderings(row)


def _orderings(row: Findings) -> Iterator[Check]:
    if row.held_orderings:
        found = f"{row.held_orderings} ordering_keys wait for a dead letter to be dealt with"
        advice = "`outbox dead-letters ls`: replay it, or `outbox jobs cancel` lets them go on."
        yield Check("order", "warning", found, advice)
    if row.stuck_orderings:
        found = f"{row.stuck_orderings} ordering_keys have not gone on for a minute"
        advice = "Start a dispatcher, or end the producer's transaction that holds them."
        yield Check("order", "warning", found, advice)


def _doors(config: Config, row: Findings) -> Iterator[Check]:
    if config.auth and config.admin_key is None and not row.has_keys:
        advice = "`outbox keys create NAME --tenant default --scope jobs:write`."
        yield Check("API keys", "warning", "there is none, so nobody can use HTTP", advice)
    if config.mode == "live" and config.smtp_url is None and config.email_provider is None:
        advice = "Set OUTBOX_SMTP_URL and OUTBOX_MAIL_FROM, or OUTBOX_EMAIL_PROVIDER=sink."
        yield Check("mail", "warning", "no provider: mail would be held", advice)
