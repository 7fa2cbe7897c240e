"""The connections of one dispatcher session: opened together, lost together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from outbox.store.engine import Connection
from outbox.store.pool import answered_within
from outbox.store.pooler import SettledConnection

CONNECT_TIMEOUT_S = 5
SILENT_MS_MAX = 5_000
"""A host that acknowledges nothing for so long is gone: it was switched off, or cut off."""


@dataclass(frozen=True)
class Links:
    """One connection a purpose, so that claim, record and heartbeat never wait for each other.

    `bell` goes past any pooler, where we know how: then it holds the advisory lock and listens.
    `side` serves look-ups and upkeep, one statement at a time under `side_lock`.
    """

    claim: Connection
    record: Connection
    beat: Connection
    side: Connection
    bell: SettledConnection
    side_lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def answer_within(self, hang_s_max: float) -> AbstractContextManager[None]:
        """End all waiting for answers if this takes longer: they may never come."""
        links = (self.claim, self.record, self.beat, self.side, self.bell)
        return answered_within(hang_s_max, *links)


@asynccontextmanager
async def open_links(url: str, direct_url: str | None) -> AsyncIterator[Links]:
    """Open the connections. Raises psycopg.OperationalError."""
    async with AsyncExitStack() as stack:

        async def opened(purpose: str, at: str = url) -> SettledConnection:
            return await stack.enter_async_context(_Closing(await _connect(at, purpose)))

        yield Links(
            claim=await opened("claim"),
            record=await opened("record"),
            beat=await opened("beat"),
            side=await opened("side"),
            bell=await opened("bell", direct_url or url),
        )


@asynccontextmanager
async def open_link(url: str, purpose: str, **settings: str) -> AsyncIterator[Connection]:
    """Open one more connection, for as long as it is needed. Raises psycopg.OperationalError."""
    async with _Closing(await _connect(url, purpose, **settings)) as connection:
        yield connection


class _Closing:
    """Closes without a farewell to a server that may be gone."""

    def __init__(self, connection: SettledConnection) -> None:
        self._connection = connection

    async def __aenter__(self) -> SettledConnection:
        return self._connection

    async def __aexit__(self, *_: object) -> None:
        await self._connection.close()


async def _connect(url: str, purpose: str, **settings: str) -> SettledConnection:
    connection = await SettledConnection.connect(
        url,
        autocommit=True,
        connect_timeout=CONNECT_TIMEOUT_S,
        application_name=f"outbox dispatcher {purpose}",
        keepalives_idle=5,
        keepalives_interval=2,
        keepalives_count=3,
        tcp_user_timeout=SILENT_MS_MAX,
    )
    # The tables grow from empty to millions between two ANALYZEs: never let a plan of the
    # engine's statements depend on what they last looked like.
    try:
        await connection.settle(
            role="outbox_dispatcher",
            enable_seqscan="on" if purpose in ("beat", "side", "keep") else "off",
            jit="off",
            plan_cache_mode="force_generic_plan",
            **settings,
        )
    except BaseException:  # cancelled as well: nobody else knows of it yet
        await connection.close()
        raise
    return connection
