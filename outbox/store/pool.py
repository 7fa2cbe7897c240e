"""The API's way to Postgres: a pool, and transactions that see one tenant.

Every transaction takes the role `outbox_api` and a tenant ('*': all of them) before anything
else, so row-level security stands behind every query, whatever the query forgets.

A database that is away is told at once: a connection is waited for `acquire_s_max` at most, after
a failure the next callers don't wait at all for a moment, and a server that has stopped answering
gets its socket shut after `hang_s_max`, and nobody waits for its other connections. Raises
StoreUnavailable for all of that.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import TypeAlias, TypeVar

import psycopg
import psycopg.errors as pg
from psycopg import AsyncConnection, sql
from psycopg.rows import TupleRow, class_row
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout, TooManyRequests

from outbox.errors import StoreUnavailable
from outbox.store.pooler import prepare_only_where_it_lasts
from outbox_sql import query

Connection: TypeAlias = AsyncConnection[TupleRow]
T = TypeVar("T")

EVERY_TENANT = "*"
BEFORE_COMMIT: ContextVar[Callable[[Connection], Awaitable[object]] | None] = ContextVar(
    "BEFORE_COMMIT", default=None
)
"""What transactions do last: who acts, writes down what they did, or it is not done."""
REASON: ContextVar[str] = ContextVar("REASON", default="")
"""Why whoever acts does so: it goes into the log with what they do."""
TEST_MODE: ContextVar[bool] = ContextVar("TEST_MODE", default=False)
"""Whether whoever acts has a test key: sees test jobs alone, and makes no other."""
DOWN_PAUSE_S = 0.2
"""After a failed attempt to connect, callers are refused at once for this long."""
BEGIN_S_MAX = 3.0
"""A server that has not begun a transaction by then hangs."""
RECONNECT_S = 0.25
"""How long psycopg's pool goes on trying by itself; after that the next caller tries."""

_BEGIN = sql.SQL(
    "begin{mode}; select set_config('role', 'outbox_api', true),"
    " set_config('outbox.tenant', {tenant}, true), set_config('outbox.mode', {job_mode}, true),"
    " set_config('outbox.reason', {reason}, true), set_config('timezone', 'UTC', true),"
    " set_config('lock_timeout', {lock_ms}, true),"
    " set_config('statement_timeout', {statement_ms}, true)"
)

_TRY_LATER: tuple[type[psycopg.Error], ...] = (
    psycopg.OperationalError,  # cut connections, shutdowns, too many connections, lock timeouts,
    pg.InvalidSchemaName,  # serialization failures, statement timeouts
    pg.UndefinedTable,
    pg.UndefinedFunction,
    pg.ReadOnlySqlTransaction,
    pg.InFailedSqlTransaction,
    psycopg.InterfaceError,
)


class Database:
    """A pool of connections. Enter it in the event loop that uses it; a dead server is no error.

    `size_max` connections at most, one of them kept open. Times are in seconds.
    """

    def __init__(
        self,
        url: str,
        *,
        size_max: int = 8,
        acquire_s_max: float = 0.8,
        statement_s_max: float = 5.0,
        lock_s_max: float = 2.0,
    ) -> None:
        self._url = url
        self._size_max = size_max
        self._acquire_s_max = acquire_s_max
        self._statement_s_max = statement_s_max
        self._lock_s_max = lock_s_max
        self._hang_s_max = statement_s_max + 1.0
        self._down_until = 0.0
        self._pool: AsyncConnectionPool[Connection] | None = None

    @property
    def size_max(self) -> int:
        """How many connections there may be."""
        return self._size_max

    @property
    def url(self) -> str:
        """The URL; it holds a password."""
        return self._url

    async def __aenter__(self) -> Database:
        self._pool = AsyncConnectionPool(
            self._url,
            kwargs={
                "autocommit": True,
                "connect_timeout": 2,
                "application_name": "outbox-api",
                "tcp_user_timeout": int(self._hang_s_max * 1000),
            },
            min_size=1,
            max_size=self._size_max,
            open=False,
            timeout=self._acquire_s_max,
            configure=prepare_only_where_it_lasts,
            max_waiting=10_000,
            reconnect_timeout=RECONNECT_S,
        )
        await self._pool.open(wait=False)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._pool is not None:
            await self._pool.close(timeout=2.0)

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Lend a connection in autocommit mode, under the login's own rights.

        It may turn out to be dead: psycopg's errors come through as they are.
        """
        connection = await self._acquire()
        try:
            with answered_within(self._hang_s_max, connection, on_cut=self._hangs):
                yield connection
        finally:
            await self._release(connection)

    @contextlib.asynccontextmanager
    async def transaction(
        self, tenant: str, *, read_only: bool = False
    ) -> AsyncIterator[Connection]:
        """Run a transaction that sees `tenant` alone, or all of them for '*'.

        A connection that turns out to be dead before anything was done is replaced in silence.
        """
        connection = await self._begin(tenant, read_only=read_only)
        try:
            with (
                answered_within(self._hang_s_max, connection, on_cut=self._hangs),
                told_apart(),
            ):
                try:
                    yield connection
                    before_commit = BEFORE_COMMIT.get()
                    if before_commit is not None and not read_only:
                        await before_commit(connection)
                except BaseException:
                    if not connection.closed:
                        with contextlib.suppress(psycopg.Error):
                            await connection.execute("rollback", prepare=False)
                    raise
                await connection.execute("commit", prepare=False)
        finally:
            await self._release(connection)

    async def _begin(self, tenant: str, *, read_only: bool) -> Connection:
        statement = _BEGIN.format(
            mode=sql.SQL(" read only" if read_only else ""),
            tenant=sql.Literal(tenant),
            reason=sql.Literal(REASON.get()),
            job_mode=sql.Literal("test" if TEST_MODE.get() else ""),
            lock_ms=sql.Literal(str(int(self._lock_s_max * 1000))),
            statement_ms=sql.Literal(str(int(self._statement_s_max * 1000))),
        )
        for last in [False] * self._size_max + [True]:
            connection = await self._acquire()
            try:
                with answered_within(BEGIN_S_MAX, connection, on_cut=self._hangs):
                    await connection.execute(statement, prepare=False)
                return connection
            except pg.InvalidParameterValue as error:
                await self._release(connection)
                raise StoreUnavailable("the database is not migrated") from error
            except psycopg.Error as error:
                broken = connection.closed
                await self._release(connection)
                if last or not broken:
                    raise StoreUnavailable("Postgres cannot start a transaction") from error
            except BaseException:
                await self._release(connection)
                raise
        raise AssertionError("unreachable")

    async def _acquire(self) -> Connection:
        if self._pool is None:
            raise StoreUnavailable("the pool is not open")
        if time.monotonic() < self._down_until:
            raise StoreUnavailable("Postgres cannot be reached")
        try:
            connection = await self._pool.getconn()
        except (PoolTimeout, TooManyRequests, PoolClosed) as error:
            if self._pool.get_stats()["pool_size"] == 0:
                self._down_until = time.monotonic() + DOWN_PAUSE_S
                raise StoreUnavailable("Postgres cannot be reached") from error
            raise StoreUnavailable("no connection to Postgres became free in time") from error
        self._down_until = 0.0
        return connection

    def _hangs(self) -> None:
        """Ask nothing for a while: each connection of a server that hangs would be waited for."""
        self._down_until = time.monotonic() + DOWN_PAUSE_S

    async def _release(self, connection: Connection) -> None:
        if self._pool is not None:
            await asyncio.shield(self._pool.putconn(connection))


@contextlib.contextmanager
def answered_within(
    hang_s_max: float, *connections: Connection, on_cut: Callable[[], None] | None = None
) -> Iterator[None]:
    """Shut the connections' sockets if this takes too long: a hung server sends no error.

    Whoever waits for an answer then gets an OperationalError at once.
    """

    def cut() -> None:
        if on_cut is not None:
            on_cut()
        for connection in connections:
            if not connection.closed:
                _cut(connection)

    timer = asyncio.get_running_loop().call_later(hang_s_max, cut)
    try:
        yield
    finally:
        timer.cancel()


@contextlib.contextmanager
def told_apart() -> Iterator[None]:
    """Turn what passes by itself (an outage, a lock, a restart) into StoreUnavailable."""
    try:
        yield
    except psycopg.Error as error:
        meant = as_unavailable(error)
        if meant is error:
            raise
        raise meant from error


def as_unavailable(error: psycopg.Error) -> Exception:
    """Return StoreUnavailable for what may pass by itself, else the error."""
    never = (pg.ProgramLimitExceeded, pg.StatementTooComplex)  # OperationalErrors too
    if isinstance(error, _TRY_LATER) and not isinstance(error, never):
        return StoreUnavailable(f"Postgres cannot do it now ({error.sqlstate})")
    return error


async def fetch(
    connection: Connection,
    row: type[T],
    name: str,
    parameters: Mapping[str, object],
    *,
    prepare: bool | None = None,
) -> list[T]:
    """Run `queries/<name>.sql`; its columns are the fields of `row`, by name.

    `prepare=False` where the plan must know the parameters: filters that may be null.
    """
    cursor = connection.cursor(row_factory=class_row(row))
    await cursor.execute(query(name), parameters, prepare=prepare)
    return await cursor.fetchall()


async def fetch_one(
    connection: Connection, row: type[T], name: str, parameters: Mapping[str, object]
) -> T | None:
    """Return the first row of `fetch`, or None."""
    cursor = connection.cursor(row_factory=class_row(row))
    await cursor.execute(query(name), parameters)
    return await cursor.fetchone()


async def fetch_own(
    connection: Connection, row: type[T], name: str, parameters: Mapping[str, object]
) -> T | None:
    """Return the row that an upsert stored, or None where the id is another tenant's.

    The statement's own condition says so on Postgres 18. Older ones ask row-level security
    first, which raises: after a None, the transaction must be rolled back.
    """
    try:
        return await fetch_one(connection, row, name, parameters)
    except psycopg.errors.InsufficientPrivilege as error:
        if error.diag.source_function != "ExecWithCheckOptions":
            raise
        return None


async def execute(connection: Connection, name: str, parameters: Mapping[str, object]) -> int:
    """Run `queries/<name>.sql`; return how many rows it touched."""
    cursor = await connection.execute(query(name), parameters)
    return cursor.rowcount


def _cut(connection: Connection) -> None:
    with contextlib.suppress(OSError, psycopg.Error):
        with socket.socket(fileno=connection.fileno()) as borrowed:
            try:
                borrowed.shutdown(socket.SHUT_RDWR)
            finally:
                borrowed.detach()
