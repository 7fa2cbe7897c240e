"""Every kind of connection that the Python door takes, sync and async."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from importlib.metadata import requires
from typing import Any
from uuid import UUID

import asyncpg  # type: ignore[import-untyped]
import psycopg
import pytest
import sqlalchemy
from psycopg import pq
from psycopg.rows import TupleRow, dict_row
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, create_async_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker
from sqlalchemy.pool import NullPool

import outbox
from tests.contract_cases import addressed, job
from tests.postgres import Database

CONTENT_OF_A_LIFE = "ann.surname@example.com"


def good(**changes: object) -> dict[str, object]:
    return addressed(job_id=str(outbox.uuid7()), to=CONTENT_OF_A_LIFE, **changes)


def stored(database: Database, job_id: UUID) -> bool:
    with database.admin_connect() as admin:
        found = admin.execute("select from outbox.job where job_id = %s", (job_id,)).fetchone()
    return found is not None


def alchemy_url(database: Database, driver: str) -> str:
    return database.url.replace("postgresql://", f"postgresql+{driver}://")


# -- sync: each yields (connection, commit, rollback) ---------------------------------------------

SyncHandle = tuple[Any, Callable[[], None], Callable[[], None]]


@contextmanager
def psycopg_connection(database: Database) -> Iterator[SyncHandle]:
    with database.connect() as connection:
        yield connection, connection.commit, connection.rollback


@contextmanager
def psycopg_cursor(database: Database) -> Iterator[SyncHandle]:
    with database.connect() as connection, connection.cursor() as cursor:
        yield cursor, connection.commit, connection.rollback


@contextmanager
def psycopg_with_rows_as_dicts(database: Database) -> Iterator[SyncHandle]:
    with psycopg.connect(
        database.url, row_factory=dict_row, cursor_factory=psycopg.ClientCursor
    ) as connection:
        yield connection, connection.commit, connection.rollback


@contextmanager
def psycopg_with_raw_queries_in_latin_1(database: Database) -> Iterator[SyncHandle]:
    with psycopg.connect(
        database.url, cursor_factory=psycopg.RawCursor, client_encoding="latin1"
    ) as connection:
        yield connection, connection.commit, connection.rollback


@contextmanager
def psycopg_in_a_pipeline(database: Database) -> Iterator[SyncHandle]:
    with database.connect() as connection, connection.pipeline():
        yield connection, connection.commit, connection.rollback


@contextmanager
def alchemy_connection(database: Database) -> Iterator[SyncHandle]:
    engine = sqlalchemy.create_engine(alchemy_url(database, "psycopg"), poolclass=NullPool)
    with engine.connect() as connection:
        yield connection, connection.commit, connection.rollback


@contextmanager
def alchemy_session(database: Database) -> Iterator[SyncHandle]:
    engine = sqlalchemy.create_engine(alchemy_url(database, "psycopg"), poolclass=NullPool)
    with Session(engine) as session:
        yield session, session.commit, session.rollback


@contextmanager
def alchemy_scoped_session(database: Database) -> Iterator[SyncHandle]:
    engine = sqlalchemy.create_engine(alchemy_url(database, "psycopg"), poolclass=NullPool)
    session = scoped_session(sessionmaker(engine))
    yield session, session.commit, session.rollback
    session.remove()


SYNC = (
    psycopg_connection,
    psycopg_cursor,
    psycopg_with_rows_as_dicts,
    psycopg_with_raw_queries_in_latin_1,
    psycopg_in_a_pipeline,
    alchemy_connection,
    alchemy_session,
    alchemy_scoped_session,
)
sync_doors = pytest.mark.parametrize("door", SYNC, ids=lambda door: door.__name__)

# -- async ----------------------------------------------------------------------------------------

AsyncHandle = tuple[Any, Callable[[], Awaitable[Any]], Callable[[], Awaitable[Any]]]


@asynccontextmanager
async def psycopg_async(database: Database) -> AsyncIterator[AsyncHandle]:
    async with await psycopg.AsyncConnection.connect(database.url) as connection:
        yield connection, connection.commit, connection.rollback


@asynccontextmanager
async def psycopg_async_cursor(database: Database) -> AsyncIterator[AsyncHandle]:
    async with await psycopg.AsyncConnection.connect(database.url) as connection:
        yield connection.cursor(), connection.commit, connection.rollback


@asynccontextmanager
async def alchemy_async_connection(database: Database) -> AsyncIterator[AsyncHandle]:
    engine = create_async_engine(alchemy_url(database, "psycopg"), poolclass=NullPool)
    async with engine.connect() as connection:
        yield connection, connection.commit, connection.rollback


@asynccontextmanager
async def alchemy_async_session(database: Database) -> AsyncIterator[AsyncHandle]:
    engine = create_async_engine(alchemy_url(database, "psycopg"), poolclass=NullPool)
    async with AsyncSession(engine) as session:
        yield session, session.commit, session.rollback


@asynccontextmanager
async def alchemy_async_session_over_asyncpg(database: Database) -> AsyncIterator[AsyncHandle]:
    engine = create_async_engine(alchemy_url(database, "asyncpg"), poolclass=NullPool)
    async with AsyncSession(engine) as session:
        yield session, session.commit, session.rollback


@asynccontextmanager
async def asyncpg_connection(database: Database) -> AsyncIterator[AsyncHandle]:
    connection = await asyncpg.connect(database.url)
    transaction = connection.transaction()
    await transaction.start()
    yield connection, transaction.commit, transaction.rollback
    await connection.close()


@asynccontextmanager
async def asyncpg_lent_by_a_pool(database: Database) -> AsyncIterator[AsyncHandle]:
    async with asyncpg.create_pool(database.url, min_size=1, max_size=1) as pool:
        async with pool.acquire() as connection:
            transaction = connection.transaction()
            await transaction.start()
            yield connection, transaction.commit, transaction.rollback


ASYNC = (
    psycopg_async,
    psycopg_async_cursor,
    alchemy_async_connection,
    alchemy_async_session,
    alchemy_async_session_over_asyncpg,
    asyncpg_connection,
    asyncpg_lent_by_a_pool,
)
async_doors = pytest.mark.parametrize("door", ASYNC, ids=lambda door: door.__name__)


@sync_doors
def test_a_job_is_there_once_the_callers_transaction_commits(door: Any, doors: Database) -> None:
    with door(doors) as (connection, commit, _):
        result = outbox.enqueue(connection, good(data={"имя": "Нуржан ✈"}))
        assert not stored(doors, result.job_id)
        commit()
        assert stored(doors, result.job_id)
        assert (result.status, result.duplicate, result.conflict) == ("pending", False, False)


@sync_doors
def test_a_job_is_gone_when_the_callers_transaction_rolls_back(door: Any, doors: Database) -> None:
    with door(doors) as (connection, _, rollback):
        results = outbox.enqueue(connection, good(), good())
        rollback()
        assert not any(stored(doors, result.job_id) for result in results)


@sync_doors
def test_a_refusal_is_the_same_error_whatever_the_driver(door: Any, doors: Database) -> None:
    with door(doors) as (connection, commit, rollback):
        with pytest.raises(outbox.InvalidJob) as invalid:
            outbox.enqueue_many(connection, [good(), good(user_id=7, headers={"a b": "1"})])
        assert [f.pointer for f in invalid.value.faults] == ["/1/headers/a b", "/1/user_id"]
        rollback()
        first = good()
        outbox.enqueue(connection, first)
        commit()
        with pytest.raises(outbox.JobConflict) as conflict:
            outbox.enqueue(connection, {**first, "content": "other"})
        assert conflict.value.job_ids == (UUID(str(first["job_id"])),)
        rollback()
        restrict(connection)
        with pytest.raises(outbox.NotPermitted, match="may not enqueue for tenant"):
            outbox.enqueue(connection, good(), tenant="a tenant of nobody's")
        rollback()


def restrict(connection: Any) -> None:
    """Act as a producer, who may enqueue for the tenant `default` alone."""
    statement = "set local role outbox_producer"
    if type(connection).__module__.startswith("sqlalchemy"):
        connection.execute(sqlalchemy.text(statement))
    elif isinstance(connection, psycopg.Cursor):
        connection.connection.execute(statement)
    else:
        connection.execute(statement)


@async_doors
async def test_an_async_job_is_there_once_the_transaction_commits(
    door: Any, doors: Database
) -> None:
    async with door(doors) as (connection, commit, _):
        result = await outbox.enqueue(connection, good(data={"имя": "Нуржан ✈"}))
        assert not stored(doors, result.job_id)
        await commit()
        assert stored(doors, result.job_id)


@async_doors
async def test_an_async_job_is_gone_when_the_transaction_rolls_back(
    door: Any, doors: Database
) -> None:
    async with door(doors) as (connection, _, rollback):
        results = await outbox.enqueue_many(connection, [good(), good()])
        await rollback()
        assert not any(stored(doors, result.job_id) for result in results)


@async_doors
async def test_an_async_refusal_is_the_same_error_whatever_the_driver(
    door: Any, doors: Database
) -> None:
    async with door(doors) as (connection, _, rollback):
        first = good()
        await outbox.enqueue(connection, first)
        (skipped,) = await outbox.enqueue_many(
            connection, [{**first, "content": "other"}], on_conflict="skip"
        )
        assert (skipped.conflict, skipped.status) == (True, None)
        with pytest.raises(outbox.InvalidJob) as invalid:
            await outbox.enqueue(connection, good(user_id=7))
        assert [f.pointer for f in invalid.value.faults] == ["/user_id"]
        await rollback()


@async_doors
async def test_an_async_conflict_names_the_job(door: Any, doors: Database) -> None:
    async with door(doors) as (connection, _, rollback):
        first = good()
        await outbox.enqueue(connection, first)
        with pytest.raises(outbox.JobConflict) as conflict:
            await outbox.enqueue(connection, {**first, "content": "other"})
        assert conflict.value.job_ids == (UUID(str(first["job_id"])),)
        await rollback()


async def test_typed_overloads_tell_sync_from_async(doors: Database) -> None:
    """For mypy more than for pytest: each assignment below is checked."""
    with doors.connect() as sync:
        one: outbox.EnqueueResult = outbox.enqueue(sync, good())
        two: list[outbox.EnqueueResult] = outbox.enqueue(sync.cursor(), good(), good())
        many: list[outbox.EnqueueResult] = outbox.enqueue_many(sync, [good()])
        assert [one, *two, *many]
    raw: asyncpg.Connection = await asyncpg.connect(doors.url)
    later: outbox.EnqueueResult = await outbox.enqueue(raw, good())
    assert later.job_id
    await raw.close()
    engine = create_async_engine(alchemy_url(doors, "psycopg"), poolclass=NullPool)
    async with engine.begin() as begun, AsyncSession(begun) as session:
        assert isinstance(begun, AsyncConnection)
        from_session: list[outbox.EnqueueResult] = await outbox.enqueue(session, good(), good())
        assert len(from_session) == 2


def test_in_autocommit_the_one_statement_is_a_transaction_of_its_own(doors: Database) -> None:
    with doors.connect(autocommit=True) as connection:
        result = outbox.enqueue(connection, good())
        assert connection.info.transaction_status == pq.TransactionStatus.IDLE
        assert stored(doors, result.job_id)


def test_any_number_of_jobs_costs_one_statement_and_no_commit(doors: Database) -> None:
    with doors.connect() as connection, tempfile.TemporaryFile("w+") as trace:
        connection.execute("select 1")  # the driver's BEGIN
        connection.pgconn.trace(trace.fileno())
        outbox.enqueue_many(connection, [good() for _ in range(300)])
        connection.pgconn.untrace()
        trace.seek(0)
        # A line of the trace: time, F for what the frontend sent, length, kind, contents.
        sent = re.findall(r"^[^\t]*\tF\t\d+\t(\w+)", trace.read(), re.MULTILINE)
        assert sent.count("Execute") + sent.count("Query") == 1
        assert connection.info.transaction_status == pq.TransactionStatus.INTRANS
        connection.rollback()


def test_no_jobs_cost_no_statement(doors: Database) -> None:
    with doors.connect() as connection:
        assert outbox.enqueue_many(connection, []) == []
        assert connection.info.transaction_status == pq.TransactionStatus.IDLE


async def test_no_jobs_cost_no_statement_on_an_async_connection(doors: Database) -> None:
    async with await psycopg.AsyncConnection.connect(doors.url) as connection:
        assert await outbox.enqueue_many(connection, []) == []
        assert connection.info.transaction_status == pq.TransactionStatus.IDLE


def test_the_door_opens_no_connection_of_its_own(doors: Database) -> None:
    def backends(admin: psycopg.Connection[TupleRow]) -> int:
        row = admin.execute(
            "select count(*) from pg_stat_activity where datname = current_database()"
        ).fetchone()
        assert row is not None
        return int(row[0])

    with doors.admin_connect(autocommit=True) as admin, doors.connect() as connection:
        connection.execute("select 1")
        before = backends(admin)
        outbox.enqueue(connection, good(), notify=True)
        assert backends(admin) == before
        connection.rollback()


def test_after_a_refusal_the_transaction_is_aborted_but_a_savepoint_lets_it_go_on(
    doors: Database,
) -> None:
    with doors.connect() as connection:
        connection.execute("select 1")
        with pytest.raises(outbox.InvalidJob), connection.transaction():
            outbox.enqueue(connection, good(user_id=7))
        result = outbox.enqueue(connection, good())
        connection.commit()
        assert stored(doors, result.job_id)
        with pytest.raises(outbox.InvalidJob):
            outbox.enqueue(connection, good(user_id=7))
        assert connection.info.transaction_status == pq.TransactionStatus.INERROR
        with pytest.raises(psycopg.errors.InFailedSqlTransaction):
            outbox.enqueue(connection, good())


def test_what_python_can_see_is_refused_before_anything_is_sent(doors: Database) -> None:
    with doors.connect() as connection:
        with pytest.raises(outbox.InvalidJob):
            outbox.enqueue(connection, good(data={"a": float("nan")}))
        assert connection.info.transaction_status == pq.TransactionStatus.IDLE


def test_an_error_of_the_database_does_not_print_the_jobs(doors: Database) -> None:
    engine = sqlalchemy.create_engine(alchemy_url(doors, "psycopg"), poolclass=NullPool)
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text("set local statement_timeout = 1"))
        with pytest.raises(sqlalchemy.exc.DBAPIError) as error:
            outbox.enqueue_many(connection, [good() for _ in range(2000)])
        assert CONTENT_OF_A_LIFE not in str(error.value)
        assert error.value.__cause__ is error.value.orig


def test_what_is_no_connection_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="needs a connection of psycopg, SQLAlchemy or asyncpg"):
        outbox.enqueue(object(), job())  # type: ignore[call-overload]


def test_importing_the_library_loads_no_driver_and_no_server() -> None:
    heavy = (
        "psycopg sqlalchemy asyncpg litestar httpx aiohttp aiosmtplib apscheduler jinja2 "
        "alembic structlog uvloop uvicorn"
    ).split()
    code = (
        "import sys, outbox; outbox.Job(channel='email');"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_installing_the_library_brings_msgspec_alone() -> None:
    plain = [r for r in requires("outbox") or [] if "extra ==" not in r]
    assert [requirement.split(">")[0] for requirement in plain] == ["msgspec"]


def test_the_library_works_where_nothing_but_msgspec_and_a_driver_is_installed(
    doors: Database,
) -> None:
    code = f"""
import sys
class OnlyThese:
    def find_spec(self, name, path=None, target=None):
        root = name.partition('.')[0]
        allowed = 'outbox outbox_sql msgspec psycopg psycopg_binary typing_extensions'.split()
        if root not in sys.stdlib_module_names and root not in allowed and root[0] != '_':
            raise ImportError(name)
sys.meta_path.insert(0, OnlyThese())
import outbox, psycopg
with psycopg.connect({doors.url!r}) as connection:
    job = outbox.Job(channel='email', to='a@b.com', content='x', data={{}}, meta={{}})
    print(outbox.enqueue(connection, job).status)
    connection.rollback()
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.stdout.strip() == "pending", ran.stderr
