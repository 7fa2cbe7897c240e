"""The Python door: hand jobs over on your own connection, inside your own transaction.

    with psycopg.connect(url) as connection:
        connection.execute("insert into orders …")
        outbox.enqueue(connection, {"job_id": …, "channel": "email", …})
    # both are committed here, or neither

Any of these will do, sync or async: psycopg 3 (a connection, or one of its cursors), SQLAlchemy
(Connection, Session, AsyncConnection, AsyncSession, and the scoped ones), asyncpg (a connection,
or one that a pool lent). On an async connection, await the answer.

- Nothing is committed here, no connection is opened, and any number of jobs costs one statement.
- In autocommit (psycopg's `autocommit=True`, SQLAlchemy's AUTOCOMMIT, asyncpg outside of
  `connection.transaction()`) that statement is a transaction of its own.
- What Python can see to be unstorable raises InvalidJob before anything is sent. What the database
  refuses raises InvalidJob, JobConflict or NotPermitted, and leaves your transaction as Postgres
  leaves it after any error: aborted. Who wants to go on takes a savepoint around the call
  (`connection.transaction()`, `session.begin_nested()`), or `on_conflict="skip"`.
- At REPEATABLE READ and above, a rival that commits the same job_id meanwhile is a serialization
  failure (SQLSTATE 40001): it passes through as the driver raises it. Try the transaction again.
"""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any, Literal, Protocol, TypeAlias, overload
from uuid import UUID

import msgspec

from outbox import jsontext
from outbox.drivers import Runner, Statement, hide_parameters, runner_of, told_by
from outbox.errors import Fault, InvalidJob, JobConflict, NotPermitted, OutboxError
from outbox.message import Job
from outbox.tracecontext import current_traceparent, is_traceparent

JobInput: TypeAlias = Job | Mapping[str, object] | str | bytes
"""A job: typed, as a mapping, or as JSON text, whose numbers keep every digit."""
OnConflict: TypeAlias = Literal["raise", "skip"]

BATCH_BYTES_MAX = 32 * 1024 * 1024
IDEMPOTENCY_NAMESPACE = UUID("6b2f9a52-8f3d-5c1e-9d0a-2f1f6d1c7a10")
"""Of the UUIDv5 that stands for a tenant's idempotency key, in the SQL of the store too."""


class EnqueueResult(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one job.

    `status` is `scheduled`, `pending` or `expired`, or a duplicate's present one; None beside a
    conflict. `duplicate`: accepted before with the same content, and not stored again. `conflict`
    (only with `on_conflict="skip"`): accepted before with other content. `job_ids` are the jobs
    that a list of addresses made.
    """

    job_id: UUID
    status: str | None
    duplicate: bool = False
    conflict: bool = False
    job_ids: tuple[UUID, ...] = ()


class SyncTransaction(Protocol):
    """A psycopg Connection, or SQLAlchemy's Connection or Session: told by `commit`."""

    def commit(self) -> None:
        """End the transaction."""


class AsyncTransaction(Protocol):
    """A psycopg AsyncConnection, or SQLAlchemy's AsyncConnection or AsyncSession."""

    def commit(self) -> Coroutine[Any, Any, None]:
        """End the transaction."""


class AsyncpgConnection(Protocol):
    """An asyncpg connection, which has no `commit` at all."""

    @property
    def fetchval(self) -> Callable[..., Coroutine[Any, Any, Any]]:
        """Run a query and return one value."""


class SyncCursor(Protocol):
    """A cursor of psycopg's: its connection is meant."""

    @property
    def connection(self) -> SyncTransaction:
        """The connection."""


class AsyncCursor(Protocol):
    """An async cursor of psycopg's: its connection is meant."""

    @property
    def connection(self) -> AsyncTransaction:
        """The connection."""


SyncConnection: TypeAlias = SyncTransaction | SyncCursor
AsyncConnection: TypeAlias = AsyncTransaction | AsyncCursor | AsyncpgConnection


@overload
def enqueue(
    connection: SyncConnection,
    job: JobInput,
    /,
    *,
    tenant: str = "default",
    notify: bool = False,
    on_conflict: OnConflict = "raise",
    traceparent: str | None = None,
) -> EnqueueResult: ...
@overload
def enqueue(
    connection: AsyncConnection,
    job: JobInput,
    /,
    *,
    tenant: str = "default",
    notify: bool = False,
    on_conflict: OnConflict = "raise",
    traceparent: str | None = None,
) -> Awaitable[EnqueueResult]: ...
@overload
def enqueue(
    connection: SyncConnection,
    job: JobInput,
    second_job: JobInput,
    /,
    *more_jobs: JobInput,
    tenant: str = "default",
    notify: bool = False,
    on_conflict: OnConflict = "raise",
    traceparent: str | None = None,
) -> list[EnqueueResult]: ...
@overload
def enqueue(
    connection: AsyncConnection,
    job: JobInput,
    second_job: JobInput,
    /,
    *more_jobs: JobInput,
    tenant: str = "default",
    notify: bool = False,
    on_conflict: OnConflict = "raise",
    traceparent: str | None = None,
) -> Awaitable[list[EnqueueResult]]: ...
def enqueue(
    connection: SyncConnection | AsyncConnection,
    job: JobInput,
    /,
    *more_jobs: JobInput,
    tenant: str = "default",
    notify: bool = False,
    on_conflict: OnConflict = "raise",
    traceparent: str | None = None,
) -> (
    EnqueueResult | list[EnqueueResult] | Awaitable[EnqueueResult] | Awaitable[list[EnqueueResult]]
):
    """Accept a job in the caller's transaction; with several jobs, return a list of results.

    `traceparent` (W3C) leads a trace on to the receiver; where you use OpenTelemetry yourself, it
    is your present span's. `notify` wakes dispatchers at commit, by a NOTIFY inside this
    transaction: it takes a lock of the whole database at commit, so leave it out where many
    transactions commit at once, and let the dispatchers' polling find the job. Raises InvalidJob,
    JobConflict, NotPermitted, TypeError for what is no connection, and whatever the driver raises.
    """
    if more_jobs:
        batch = (job, *more_jobs)
        return enqueue_many(
            connection,
            batch,
            tenant=tenant,
            notify=notify,
            on_conflict=on_conflict,
            traceparent=traceparent,
        )
    call = _prepare([job], tenant, notify, on_conflict, traceparent, alone=True)
    answer: EnqueueResult | Awaitable[EnqueueResult] = _run(connection, call, lambda all: all[0])
    return answer


@overload
def enqueue_many(
    connection: SyncConnection,
    jobs: Iterable[JobInput],
    /,
    *,
    tenant: str = "default",
    notify: bool = False,
    on_conflict: OnConflict = "raise",
    traceparent: str | None = None,
) -> list[EnqueueResult]: ...
@overload
def enqueue_many(
    connection: AsyncConnection,
    jobs: Iterable[JobInput],
    /,
    *,
    tenant: str = "default",
    notify: bool = False,
    on_conflict: OnConflict = "raise",
    traceparent: str | None = None,
) -> Awaitable[list[EnqueueResult]]: ...
def enqueue_many(
    connection: SyncConnection | AsyncConnection,
    jobs: Iterable[JobInput],
    /,
    *,
    tenant: str = "default",
    notify: bool = False,
    on_conflict: OnConflict = "raise",
    traceparent: str | None = None,
) -> list[EnqueueResult] | Awaitable[list[EnqueueResult]]:
    """Accept jobs, all or none of them, by one statement; return their results in order.

    A fault's pointer begins with the job's index: `/3/user_id`. At most 10,000 jobs and 32 MiB.
    See `enqueue`.
    """
    call = _prepare(list(jobs), tenant, notify, on_conflict, traceparent, alone=False)
    answer: list[EnqueueResult] | Awaitable[list[EnqueueResult]]
    answer = _run(connection, call, lambda all: all)
    return answer


# -- what is sent, and what comes back ---------------------------------------------------------


class _Call(msgspec.Struct, frozen=True):
    statement: Statement
    alone: bool
    is_empty: bool


def _prepare(
    jobs: Sequence[JobInput],
    tenant: str,
    notify: bool,
    on_conflict: OnConflict,
    traceparent: str | None,
    *,
    alone: bool,
) -> _Call:
    """Write the jobs as one JSON list. Raises InvalidJob with the faults of all of them."""
    texts: list[bytes] = []
    faults: list[Fault] = []
    for index, job in enumerate(jobs):
        try:
            texts.append(_job_text(job, tenant))
        except jsontext.BadJson as error:
            faults += _placed(error.faults, None if alone else index)
        except jsontext.NotJson as error:
            faults += _placed([Fault("", str(error))], None if alone else index)
        if len(faults) >= 1000:
            break
    if faults:
        raise InvalidJob(faults)
    if sum(map(len, texts)) > BATCH_BYTES_MAX:
        raise InvalidJob([Fault("", "a batch has at most 32 MiB")])
    if traceparent is None:
        traceparent = current_traceparent()
    elif not is_traceparent(traceparent):
        raise ValueError("traceparent must be a W3C trace context of version 00")
    parameters: dict[str, str | bool] = {
        "jobs": texts[0].decode() if alone else f"[{b','.join(texts).decode()}]",
        "tenant": tenant,
        "on_conflict": on_conflict,
        "fill_created": any(isinstance(job, Job) and job.created_at is None for job in jobs),
        "notify": notify,
        "traceparent": traceparent or "",
    }
    name = "producer_enqueue_one" if alone else "producer_enqueue"
    return _Call(Statement(name, parameters), alone, is_empty=not texts)


def _job_text(job: JobInput, tenant: str) -> bytes:
    if isinstance(job, str | bytes):
        return _checked_text(job)
    members: dict[str, object]
    if isinstance(job, Job):
        said = ((name, getattr(job, name)) for name in Job.__struct_fields__)
        members = {name: value for name, value in said if value is not None}
    elif isinstance(job, Mapping):
        members = dict(job)
    else:
        raise jsontext.BadJson([Fault("", "must be an object")])
    key = members.get("idempotency_key")
    if key and isinstance(key, str) and members.get("job_id") is None:
        # The database would find the same id, by a SHA-1 written in plpgsql: 0.2 ms.
        if len(key) <= 255 and key.isprintable():
            members["job_id"] = uuid.uuid5(IDEMPOTENCY_NAMESPACE, f"{tenant}:{key}")
    return jsontext.write(members)


def _checked_text(text: str | bytes) -> bytes:
    if isinstance(text, str):
        try:
            text = text.encode()
        except UnicodeEncodeError:
            raise jsontext.BadJson([Fault("", "must not contain a lone surrogate")]) from None
    if len(text) > BATCH_BYTES_MAX:
        raise jsontext.BadJson([Fault("", "a batch has at most 32 MiB")])
    jsontext.read(text)
    return text


def _placed(faults: Iterable[Fault], index: int | None) -> list[Fault]:
    if index is None:
        return list(faults)
    return [Fault(f"/{index}{fault.pointer}", fault.message) for fault in faults]


_Answer: TypeAlias = tuple[UUID, str | None, str, list[UUID] | None]
_one_decoder = msgspec.json.Decoder(_Answer)
_all_decoder = msgspec.json.Decoder(list[_Answer])


def _results(answer: str, call: _Call) -> list[EnqueueResult]:
    rows = [_one_decoder.decode(answer)] if call.alone else _all_decoder.decode(answer)
    return [
        EnqueueResult(
            job_id=job_id,
            status=status,
            duplicate=result == "duplicate",
            conflict=result == "conflict",
            job_ids=tuple(job_ids or ()),
        )
        for job_id, status, result, job_ids in rows
    ]


class _Listed(msgspec.Struct):
    """One fault as OBX01's DETAIL lists it."""

    pointer: str
    message: str
    index: int = 0


class _Clash(_Listed, kw_only=True):
    """An element of the DETAIL of OBX02."""

    job_id: UUID


def _refusal(error: Exception, call: _Call) -> OutboxError | None:
    """Return what an error of any driver means, where the store itself raised it."""
    state, message, detail = told_by(error)
    if state == "OBX01":
        listed = msgspec.json.decode(detail or "[]", type=list[_Listed])
        faults = [
            _placed([Fault(fault.pointer, fault.message)], None if call.alone else fault.index)[0]
            for fault in listed
        ]
        return InvalidJob(faults or [Fault("", message)])
    if state == "OBX02":
        clashes = msgspec.json.decode(detail or "[]", type=list[_Clash])
        faults = [
            _placed([Fault(clash.pointer, clash.message)], None if call.alone else clash.index)[0]
            for clash in clashes
        ]
        return JobConflict([clash.job_id for clash in clashes], faults)
    if state == "OBX03":
        return NotPermitted(message)
    hide_parameters(error)
    return None


def _run(connection: Any, call: _Call, pick: Callable[[list[EnqueueResult]], Any]) -> Any:
    """Return what `pick` makes of the results; on an async connection, an awaitable of it."""
    runner, is_async = runner_of(type(connection))
    if is_async:
        return _run_async(runner, connection, call, pick)
    if call.is_empty:
        return pick([])
    try:
        answer = runner(connection, call.statement)
    except Exception as error:
        refusal = _refusal(error, call)
        if refusal is None:
            raise
        raise refusal from None
    return pick(_results(answer, call))


async def _run_async(
    runner: Runner, connection: object, call: _Call, pick: Callable[[list[EnqueueResult]], Any]
) -> Any:
    if call.is_empty:
        return pick([])
    try:
        answer = await runner(connection, call.statement)
    except Exception as error:
        refusal = _refusal(error, call)
        if refusal is None:
            raise
        raise refusal from None
    return pick(_results(answer, call))
