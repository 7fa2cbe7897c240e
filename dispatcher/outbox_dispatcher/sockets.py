"""The channel `ws`: to the user's open WebSockets, on whichever API process they are.

An attempt is handed over by way of the store, to every process that has a socket of the user, and
is delivered when one socket has acknowledged it. All attempts of a dispatcher share one connection
and one round of statements.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from enum import Enum
from types import TracebackType
from typing import Self
from uuid import UUID, uuid4

import msgspec
import psycopg

from outbox.channels.captured import said, sent_by
from outbox.channels.provider_errors import WS_TABLE, classify, find_row
from outbox.message import Message
from outbox.outcome import Delivered, InboxRow, Outcome, Rejected
from outbox.store import sockets
from outbox.store.engine import Connection
from outbox.store.sockets import Outgoing
from outbox_dispatcher.links import open_link

ROUND_S = 0.03
MARGIN_S = 0.5
"""So long before an attempt's own end its message is withdrawn."""


class Reached(Enum):
    """What became of an attempt."""

    TAKEN = "a socket acknowledged it"
    NOBODY = "no socket is open"
    SILENT = "a socket was open, and no acknowledgement came"


class _Waiting(msgspec.Struct, eq=False):
    outgoing: Outgoing
    until_s: float
    reached: asyncio.Future[Reached]


class SocketChannel:
    """Settings: `WS_FALLBACK` (`retry`, `inbox`), `WS_ACK_S`."""

    def __init__(self, url: str, settings: Mapping[str, str]) -> None:
        self._url = url
        self._falls_back = settings.get("WS_FALLBACK", "retry") == "inbox"
        self._ack_s = float(settings.get("WS_ACK_S", "5"))
        self._new: list[_Waiting] = []
        self._handed: dict[UUID, _Waiting] = {}
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name="ws")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def deliver(self, message: Message, *, timeout_s: float) -> Outcome:
        """Wait until a socket has acknowledged it, or nobody will. Raises psycopg.Error."""
        user_id = message.user_id or message.to
        if not user_id:
            return Rejected(code="recipient.no_address", reason="User has no sockets")
        loop = asyncio.get_running_loop()
        wait_s = max(min(self._ack_s, timeout_s - MARGIN_S), 0.1)
        waiting = _Waiting(_outgoing(message, user_id), loop.time() + wait_s, loop.create_future())
        self._new.append(waiting)
        self._wake.set()
        try:
            reached = await waiting.reached
        finally:
            waiting.until_s = 0.0  # cut off: the next round withdraws it
            self._wake.set()
        return self._outcome(message, user_id, reached)

    def _outcome(self, message: Message, user_id: str, reached: Reached) -> Outcome:
        if reached is Reached.TAKEN:
            return Delivered(sent=sent_by("ws", message))
        if self._falls_back and reached is Reached.NOBODY:
            row = InboxRow(
                user_id=user_id,
                subject=message.subject,
                body=said(message) if message.text or message.html else "",
                data_json=message.data_json.decode("utf-8", "replace"),
            )
            return Delivered(effects=(row,), sent=sent_by("inbox", message))
        code = "unacknowledged" if reached is Reached.SILENT else "no_socket"
        rule = find_row(WS_TABLE, code)
        assert rule is not None
        sent = sent_by("ws", message)
        return classify(rule, code=f"ws.{code}", reason=reached.value, sent=sent)

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            try:
                async with open_link(self._url, "ws") as connection:
                    await self._rounds(connection)
            except psycopg.Error as error:
                for waiting in [*self._new, *self._handed.values()]:
                    if not waiting.reached.done():
                        waiting.reached.set_exception(error)
                self._new.clear()
                self._handed.clear()
                await asyncio.sleep(1.0)

    async def _rounds(self, connection: Connection) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._new or self._handed:
                async with connection.transaction():
                    await self._round(connection)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(ROUND_S):
                        await self._wake.wait()
                self._wake.clear()

    async def _round(self, connection: Connection) -> None:
        new, self._new = self._new, []
        if new:
            reached = await sockets.send(connection, [waiting.outgoing for waiting in new])
            for waiting in new:
                if waiting.outgoing.attempt_id in reached:
                    self._handed[waiting.outgoing.attempt_id] = waiting
                else:
                    _tell(waiting, Reached.NOBODY)
        if not self._handed:
            return
        now_s = asyncio.get_running_loop().time()
        found = await sockets.progress(connection, list(self._handed))
        finished = []
        for attempt, waiting in self._handed.items():
            progress = found.get(attempt)
            if progress is None:
                _tell(waiting, Reached.NOBODY)
            elif progress.taken:
                _tell(waiting, Reached.TAKEN)
            elif waiting.until_s <= now_s:
                _tell(waiting, Reached.SILENT if progress.handed else Reached.NOBODY)
            else:
                continue
            finished.append(attempt)
        if finished:
            await sockets.over(connection, finished)
        for attempt in finished:
            del self._handed[attempt]


def _tell(waiting: _Waiting, reached: Reached) -> None:
    if not waiting.reached.done():
        waiting.reached.set_result(reached)


def _outgoing(message: Message, user_id: str) -> Outgoing:
    """Return what the user's client gets. Its `id` is the job's: the same over all retries."""
    body = {
        "type": "message",
        "id": message.key,
        "event_type": message.event_type,
        "created_at": message.created_at,
        "subject": message.subject,
        "text": message.text,
        "html": message.html,
        "data": msgspec.Raw(message.data_json),
    }
    return Outgoing(
        attempt_id=uuid4(),
        job_id=message.key,
        tenant_id=message.tenant_id,
        user_id=user_id,
        body=msgspec.json.encode(body).decode(),
    )
