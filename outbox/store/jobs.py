"""Jobs as the API sees them: enqueue, look up, list, withdraw, retry.

Every function runs on a connection that `Database.transaction` has given a role and a tenant,
except `enqueue`, which takes both by itself, in its one statement. `tenant` is None for a caller
who acts for all tenants.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Literal, NamedTuple, TypeAlias
from uuid import UUID

import msgspec
import psycopg.errors

from outbox.errors import Fault, InvalidJob, JobConflict, NotPermitted
from outbox.message import JobStatus, Mode
from outbox.store.pool import EVERY_TENANT, TEST_MODE, Connection, fetch, fetch_one
from outbox_sql import query

LIVE = frozenset({"scheduled", "pending", "processing", "retrying"})
OWN_KEYS = ("user_id", "event_id", "campaign_id", "recipient")
"""The statuses of a job that has not ended."""
AHEAD_MAX = 10_000
"""A place in line is counted up to here."""
LOOKED_THROUGH_MAX = 250_000
"""So many jobs, in whole days, are looked through for a page that no index leads to."""

EnqueueResult: TypeAlias = Literal["new", "duplicate", "conflict", "invalid"]
CancelResult: TypeAlias = Literal["cancelled", "processing", "released", "ended"]


class IndexedFault(Fault, frozen=True):
    """A fault of one job of a batch; `index` counts from 0."""

    index: int


class Clash(IndexedFault, frozen=True):
    """A job of a batch whose `job_id` stands for other content."""

    job_id: UUID


class InvalidBatch(InvalidJob):
    """Jobs of a batch break the contract; nothing was stored. `faults` are `IndexedFault`s."""

    faults: tuple[IndexedFault, ...]

    def __init__(self, message: str, faults: Sequence[IndexedFault]) -> None:
        super().__init__(faults)
        self.message = message


class Enqueued(msgspec.Struct, frozen=True, gc=False):
    """What became of one job that was handed in. `status` is None when nothing was stored."""

    job_id: str | None
    status: JobStatus | None
    result: EnqueueResult
    job_ids: tuple[str, ...] | None = None
    faults: tuple[Fault, ...] = ()


class JobColumns(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the view `notification`, as anybody may see it. Times are UTC."""

    job_id: UUID
    tenant_id: str
    status: str
    waiting_for: str | None
    channel: str | None
    queue: str
    user_id: str | None
    template_code: str | None
    locale: str | None
    event_id: str | None
    campaign_id: str | None
    category: str | None
    priority: str
    created_at: datetime
    accepted_at: datetime
    send_after: datetime | None
    expires_at: datetime | None
    due_at: datetime | None
    next_attempt_at: datetime | None
    finished_at: datetime | None
    series: int | None
    attempts: int | None
    max_attempts: int | None
    last_error_class: str | None
    last_error_code: str | None
    last_error: str | None
    receipt_status: str | None
    receipt_at: datetime | None
    resend_of: UUID | None
    list_job_id: UUID | None
    mode: Mode


class JobRow(JobColumns, frozen=True, kw_only=True):
    """With the internal id, which pages are cut by."""

    id: int


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far the attempt that runs says it has come: `done` of `total`, `fraction` is 0 to 1."""

    fraction: float
    done: float
    total: float
    text: str | None
    at: datetime


class FullJobRow(JobRow, frozen=True, kw_only=True):
    """With the whole NotificationJob, as JSON text, and the trace that it came with.

    `done`, `total`, `note` and `told_at` are what `progress` is made of.
    """

    done: float | None
    total: float | None
    note: str | None
    told_at: datetime | None
    traceparent: str | None
    job: str

    @property
    def progress(self) -> Progress | None:
        """What the attempt that runs has reported, if anything."""
        return progress_of(self.done, self.total, self.note, self.told_at)


class DeliveryRow(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the view `notification_delivery`."""

    series: int
    attempt: int
    lease_no: int
    late: bool
    status: str
    provider: str | None
    provider_message_id: str | None
    recipient: str | None
    subject: str | None
    content_sha256: str | None
    template_code: str | None
    template_version: int | None
    locale: str | None
    error_class: str | None
    error_code: str | None
    error_message: str | None
    started_at: datetime | None
    finished_at: datetime
    duration_ms: int | None
    next_attempt_at: datetime | None


class ContentRow(msgspec.Struct, frozen=True, kw_only=True):
    """What one attempt said, and the job that it said it for. `job` is JSON text."""

    lease_no: int
    attempt: int
    recipient: str | None
    subject: str | None
    template_code: str | None
    template_version: int | None
    locale: str | None
    content_sha256: str | None
    started_at: datetime | None
    content: bytes | None
    tenant_id: str
    channel: str | None
    user_id: str | None
    created_at: datetime
    job_id: UUID
    job: str


class HistoryRow(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the view `notification_history`."""

    status: str
    at: datetime
    attempt: int
    error: str | None
    series: int


class FoundJob(msgspec.Struct, frozen=True):
    """Where a job lies. `is_list`: the id of a list of addresses, which has no job of its own."""

    id: int
    tenant_id: str
    is_list: bool


class ListedJob(msgspec.Struct, frozen=True):
    """One job of a list of addresses."""

    job_id: UUID
    status: str


class JobFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which jobs; None is any. `since` and `until` bound the time of acceptance.

    `recipient`: an address that an attempt went to.
    """

    tenant_id: str | None = None
    status: str | None = None
    queue: str | None = None
    channel: str | None = None
    user_id: str | None = None
    event_id: str | None = None
    campaign_id: str | None = None
    template_code: str | None = None
    recipient: str | None = None
    since: datetime | None = None
    until: datetime | None = None


class JobPage(NamedTuple):
    """Jobs, and below which internal id older ones are to be looked for; None: there are none."""

    rows: list[JobRow]
    before: int | None


class _Window(msgspec.Struct, frozen=True, kw_only=True):
    """How far down to look: an internal id, and its time."""

    low: int
    since: datetime


class LiveJobFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which live jobs to withdraw; None is any."""

    queue: str | None = None
    user_id: str | None = None
    event_id: str | None = None
    campaign_id: str | None = None
    template_code: str | None = None


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """A live job's entry and lane. `ahead` is None while it is claimed.

    `follows`: it waits for `head_job_id`, the first of its ordering_key (None: a moment between
    two heads), which has failed for good where `head_is_dead`.
    """

    available_at: datetime
    waits: int
    priority: int
    attempt: int
    series: int
    crashes: int
    cancel: bool
    lease_until: datetime | None
    claimed_at: datetime | None
    claimed_by: str | None
    tenant_id: str
    queue: str
    scope: str
    paused_at: datetime | None
    paused_by: str | None
    held_at: datetime | None
    hold_code: str | None
    hold_reason: str | None
    probe_at: datetime | None
    ahead: int | None
    dispatchers_alive: int
    handlers_alive: int
    channel: str | None
    concurrency_max: int | None
    places_taken: int
    rate_per_s: float | None
    tokens: float | None
    destination: str | None
    destination_rate_per_s: float | None
    destination_tokens: float | None
    destination_paused_until: datetime | None
    destination_open_until: datetime | None
    destination_opened_at: datetime | None
    follows: bool
    head_job_id: UUID | None
    head_is_dead: bool
    now: datetime


class LastDelivery(msgspec.Struct, frozen=True, kw_only=True):
    """The newest row of a job's history."""

    status: str
    provider: str | None
    template_version: int | None
    recipient: str | None
    error_class: str | None
    error_code: str | None
    error_message: str | None
    finished_at: datetime
    next_attempt_at: datetime | None


class ResendSource(msgspec.Struct, frozen=True):
    """A job without its identity and times, as JSON text."""

    job: str
    erased: bool
    status: str
    test: bool


def progress_of(
    done: float | None, total: float | None, note: str | None, at: datetime | None
) -> Progress | None:
    """Return a report as it is shown; None where there is none."""
    if done is None or total is None or at is None:
        return None
    return Progress(fraction=done / total, done=done, total=total, text=note, at=at)


async def enqueue(
    connection: Connection,
    jobs_json: str,
    *,
    tenant: str | None,
    skip_bad: bool,
    traceparents: Sequence[str | None] | None = None,
    resend_of: UUID | None = None,
    lock_ms_max: int = 2_000,
    test: bool | None = None,
) -> list[Enqueued]:
    """Accept a JSON list of jobs: a result each, in order.

    With `skip_bad`, faults and conflicts are results; else they raise InvalidBatch and
    JobConflict, and nothing is stored. Raises NotPermitted, and psycopg's errors.
    `test`: they go to the sink alone; None: as whoever acts may (`pool.TEST_MODE`).
    """
    on_bad = "skip" if skip_bad else "raise"
    in_test = TEST_MODE.get() if test is None else test
    try:
        cursor = await connection.execute(
            query("job_enqueue"),
            {
                "sees": tenant or EVERY_TENANT,
                "tenant": tenant,
                "jobs": jobs_json,
                "on_conflict": on_bad,
                "on_fault": on_bad,
                "mode": "test" if in_test else "",
                "traceparents": list(traceparents) if traceparents is not None else None,
                "resend_of": resend_of,
                "lock_ms": str(lock_ms_max),
            },
        )
    except psycopg.Error as error:
        raise _refusal(error) or error from error
    return [
        Enqueued(
            row[1],
            row[2],
            row[3],
            tuple(row[4]) if row[4] is not None else None,
            msgspec.json.decode(row[5], type=tuple[Fault, ...]) if row[5] is not None else (),
        )
        for row in await cursor.fetchall()
    ]


def _refusal(error: psycopg.Error) -> Exception | None:
    """Return what enqueue_many_v1's own SQLSTATEs mean; None for any other."""
    detail = error.diag.message_detail or "[]"
    message = error.diag.message_primary or "refused"
    match error.sqlstate:
        case "OBX01":
            return InvalidBatch(message, msgspec.json.decode(detail, type=list[IndexedFault]))
        case "OBX02":
            clashes = msgspec.json.decode(detail, type=list[Clash])
            return JobConflict([clash.job_id for clash in clashes], clashes)
        case "OBX03":
            return NotPermitted(message)
        case _:
            return None


async def find(connection: Connection, job_id: UUID, *, tenant: str | None) -> list[FoundJob]:
    """Return where the job lies: none, one, or two when several tenants have this id."""
    return await fetch(connection, FoundJob, "job_find", {"job_id": job_id, "tenant": tenant})


async def show(connection: Connection, id_: int) -> FullJobRow | None:
    """Return the job with that internal id."""
    return await fetch_one(connection, FullJobRow, "job_show", {"id": id_})


async def show_list(connection: Connection, job_id: UUID, *, tenant: str) -> list[ListedJob]:
    """Return the jobs that a list of addresses was made into."""
    parameters = {"job_id": job_id, "tenant": tenant}
    return await fetch(connection, ListedJob, "job_show_list", parameters)


async def page(
    connection: Connection, wanted: JobFilter, *, before: int | None, limit: int
) -> JobPage:
    """Return up to `limit` jobs with an internal id below `before`, newest first.

    Where no index leads to them, it may be fewer, even none, with older ones left: a filter that
    fits few jobs, or a tenant that has few, must not search all of history at one go.
    """
    parameters = msgspec.structs.asdict(wanted) | {"before": before, "limit": limit + 1}
    parameters["tenant"] = parameters.pop("tenant_id")
    name, window = "job_list", None
    # A key of its own leads to few jobs; without one, a rare status is the best way in.
    if not any(parameters[key] for key in OWN_KEYS):
        if wanted.status in LIVE:
            name = "job_list_live"
        else:
            name = "job_list" if wanted.status in (None, "sent") else "job_list_ended"
            window = await _window(connection, wanted, before)
    if window is not None:
        parameters["since"] = window.since
    rows = await fetch(connection, JobRow, name, parameters, prepare=False)
    if len(rows) > limit:
        return JobPage(rows[:limit], rows[limit - 1].id)
    return JobPage(rows, None if window is None else window.low)


async def _window(connection: Connection, wanted: JobFilter, before: int | None) -> _Window | None:
    """Return how far down to look, None: to the end of what is wanted."""
    parameters = {"before": before, "until": wanted.until, "rows_max": LOOKED_THROUGH_MAX}
    found = await fetch_one(connection, _Window, "job_window", parameters)
    if found is None or (wanted.since is not None and wanted.since >= found.since):
        return None
    return found


async def deliveries(connection: Connection, id_: int) -> list[DeliveryRow]:
    """Return a job's attempts and terminal events, in their order."""
    return await fetch(connection, DeliveryRow, "job_deliveries", {"id": id_})


async def history(connection: Connection, id_: int) -> list[HistoryRow]:
    """Return every change of a job's state, oldest first."""
    return await fetch(connection, HistoryRow, "job_history", {"id": id_})


async def statuses(
    connection: Connection, wanted: Sequence[tuple[str, str]]
) -> dict[tuple[str, str], str]:
    """Return the statuses of the jobs (tenant, job id) that exist."""
    cursor = await connection.execute(
        query("job_ended"),
        {"tenants": [w[0] for w in wanted], "job_ids": [w[1] for w in wanted]},
    )
    return {(row[1], row[0]): row[2] for row in await cursor.fetchall()}


async def cancel(
    connection: Connection, ids: Sequence[int], *, actor: str, reason: str | None
) -> dict[int, CancelResult]:
    """Withdraw jobs: what waits ends now, what is processing ends after its attempt.

    `released`: it had failed, and those that it kept back by its ordering_key go on.
    """
    cursor = await connection.execute(
        query("job_cancel"), {"ids": list(ids), "actor": actor, "reason": reason}
    )
    return {row[0]: row[1] for row in await cursor.fetchall()}


async def live_matching(
    connection: Connection,
    wanted: LiveJobFilter,
    *,
    tenant: str | None,
    after: int,
    limit: int,
) -> list[tuple[int, bool]]:
    """Return live jobs above `after`, by internal id: (id, whether it is processing)."""
    cursor = await connection.execute(
        query("job_live_matching"),
        msgspec.structs.asdict(wanted) | {"tenant": tenant, "after": after, "limit": limit},
        prepare=False,
    )
    return [(row[0], row[1]) for row in await cursor.fetchall()]


async def retry(
    connection: Connection,
    id_: int,
    *,
    actor: str,
    action: Literal["retry", "replay"] = "retry",
    dead_letter: int | None = None,
) -> str:
    """Begin a new series: `retried`, or why not: `live`, `not failed`, `expired`, `gone`."""
    parameters = {"id": id_, "actor": actor, "action": action, "dead_letter": dead_letter}
    return await _text(connection, "job_retry", parameters)


async def promote(connection: Connection, id_: int, *, actor: str) -> str:
    """Make a waiting job due: `promoted`, or why not: `processing`, `due`, `follows`, `ended`."""
    return await _text(connection, "job_promote", {"id": id_, "actor": actor})


async def release(connection: Connection, id_: int, *, actor: str) -> str:
    """Send what nobody knows to be delivered: `released`, or why not: `not held`, `ended`."""
    return await _text(connection, "job_release", {"id": id_, "actor": actor})


async def content(connection: Connection, id_: int, lease_no: int) -> ContentRow | None:
    """Return what one attempt said, as far as that was kept."""
    return await fetch_one(
        connection, ContentRow, "job_content", {"id": id_, "lease_no": lease_no}
    )


async def explain(connection: Connection, id_: int) -> Explanation | None:
    """Return why a live job is where it is; None for one that has ended."""
    parameters = {"id": id_, "ahead_max": AHEAD_MAX}
    return await fetch_one(connection, Explanation, "job_explain", parameters)


async def last_delivery(connection: Connection, id_: int) -> LastDelivery | None:
    """Return the newest row of a job's history."""
    return await fetch_one(connection, LastDelivery, "job_last_delivery", {"id": id_})


async def resend_source(connection: Connection, id_: int) -> ResendSource:
    """Return what a resend copies."""
    (row,) = await fetch(connection, ResendSource, "job_resend_source", {"id": id_})
    return row


async def _text(connection: Connection, name: str, parameters: Mapping[str, object]) -> str:
    cursor = await connection.execute(query(name), parameters)
    row = await cursor.fetchone()
    assert row is not None
    text: str = row[0]
    return text
