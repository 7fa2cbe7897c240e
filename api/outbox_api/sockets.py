"""The sockets of users in this process: messages go to them, acknowledgements come back.

What comes for them lies in the store, put there by dispatchers. While any socket is open the
process looks a few times a second, once for all of them; what a client acknowledges is written
down in the same round.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Literal
from uuid import UUID

import msgspec
import structlog

from outbox.errors import StoreUnavailable
from outbox.store import sockets
from outbox.store.pool import EVERY_TENANT, Database
from outbox.store.sockets import SocketMessage
from outbox_api.presence import Presence

ROUND_S_MIN = 0.03
ROUND_S_MAX = 0.15
RETRY_S = 1.0
WAITING_MAX = 64
"""So many messages wait for a client that is slow; the next find no socket there."""
UNACKNOWLEDGED_MAX = 256
TEXT_CHARS_MAX = 4_096
QUIET_S = 25.0

_log = structlog.get_logger("outbox.api.sockets")


class Ack(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a client says: it has the message of this id."""

    ack: UUID


class Said(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a client is told besides messages."""

    type: Literal["hello", "ping", "error"]
    user_id: str | None = None
    unread: int | None = None
    detail: str | None = None


class UserSocket:
    """One socket: what waits for it, and what it has not acknowledged."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._texts: asyncio.Queue[str] = asyncio.Queue(WAITING_MAX)
        self._sent: OrderedDict[UUID, list[int]] = OrderedDict()

    def give(self, message: SocketMessage) -> bool:
        """Tell whether it takes one more message."""
        if self._texts.full():
            return False
        self._texts.put_nowait(message.body)
        self._sent.setdefault(message.job_id, []).append(message.message_id)
        if len(self._sent) > UNACKNOWLEDGED_MAX:
            self._sent.popitem(last=False)
        return True

    async def took(self, text: str) -> None:
        """Take in what the client says."""
        try:
            if len(text) > TEXT_CHARS_MAX:
                raise ValueError("too long")
            ack = msgspec.json.decode(text, type=Ack)
        except ValueError:  # msgspec's too
            said = Said("error", detail='A client says {"ack": "<id of a message>"}, and no more.')
            with contextlib.suppress(asyncio.QueueFull):
                self._texts.put_nowait(_text(said))
            return
        self._hub.acknowledge(self._sent.pop(ack.ack, []))

    async def texts(self, user: str, unread: int) -> AsyncGenerator[str, None]:
        """Yield what the client gets."""
        yield _text(Said("hello", user_id=user, unread=unread))
        while True:
            try:
                async with asyncio.timeout(QUIET_S):
                    text = await self._texts.get()
            except TimeoutError:
                text = _text(Said("ping"))
            yield text


class Hub:
    """All of them, under the number that the process's heartbeat has."""

    def __init__(self, database: Database, presence: Presence) -> None:
        self._database = database
        self._presence = presence
        self._process_id = presence.process_id
        self._open: dict[tuple[str, str], set[UserSocket]] = {}
        self._taken: list[int] = []
        self._refused: list[int] = []
        self._acknowledged = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @contextlib.asynccontextmanager
    async def socket(self, tenant: str, user: str) -> AsyncIterator[UserSocket]:
        """Keep a user's socket for as long as it is open. Raises StoreUnavailable."""
        own = UserSocket(self)
        others = self._open.setdefault((tenant, user), set())
        others.add(own)
        try:
            await self._presence.known()  # sockets of a process that nobody knows get nothing
            async with self._database.transaction(EVERY_TENANT) as connection:
                await sockets.put(connection, self._process_id, tenant, user)
            if self._task is None:
                self._task = asyncio.create_task(self._run(), name="sockets")
            yield own
        finally:
            others.discard(own)
            if not others:
                self._open.pop((tenant, user), None)
                await self._forget(tenant, user)

    def acknowledge(self, message_ids: list[int]) -> None:
        """Note that a client has them."""
        self._taken += message_ids
        self._acknowledged.set()

    async def close(self) -> None:
        """Stop, and say that no socket is open here."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            with contextlib.suppress(StoreUnavailable):
                await self._answer()
                async with self._database.transaction(EVERY_TENANT) as connection:
                    await sockets.delete(connection, self._process_id)

    async def _forget(self, tenant: str, user: str) -> None:
        with contextlib.suppress(StoreUnavailable):
            async with self._database.transaction(EVERY_TENANT) as connection:
                await sockets.delete(connection, self._process_id, tenant, user)
            if (tenant, user) in self._open:  # one came meanwhile
                async with self._database.transaction(EVERY_TENANT) as connection:
                    await sockets.put(connection, self._process_id, tenant, user)

    async def _run(self) -> None:
        pause_s = ROUND_S_MIN
        while True:
            try:
                if await self._round():
                    pause_s = ROUND_S_MIN
                else:
                    pause_s = min(pause_s * 1.5, ROUND_S_MAX)
            except StoreUnavailable:
                await asyncio.sleep(RETRY_S)
            except Exception:  # a fault of ours must not silence every socket
                _log.exception("sockets failed")
                await asyncio.sleep(RETRY_S)
            if not self._open and not self._taken and not self._refused:
                self._task = None
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._acknowledged.wait()

    async def _round(self) -> bool:
        await self._answer()
        async with self._database.transaction(EVERY_TENANT) as connection:
            come = await sockets.take(connection, self._process_id)
        for message in come:
            open_ones = self._open.get((message.tenant_id, message.user_id), ())
            if not any([socket.give(message) for socket in open_ones]):
                self._refused.append(message.message_id)
        return bool(come)

    async def _answer(self) -> None:
        self._acknowledged.clear()
        taken, refused = self._taken, self._refused
        if not taken and not refused:
            return
        self._taken, self._refused = [], []
        try:
            async with self._database.transaction(EVERY_TENANT) as connection:
                await sockets.answer(connection, self._process_id, taken=taken, refused=refused)
        except StoreUnavailable:
            self._taken += taken
            self._refused += refused
            raise


def _text(said: Said) -> str:
    return msgspec.json.encode(said).decode()
