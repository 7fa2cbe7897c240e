"""Users' open WebSockets: which API process has them, and messages on their way there and back.

A dispatcher hands a message to each process that has a socket of its user; the process gives it
to the sockets, and writes down that one acknowledged it, or that there was none left to take it.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import msgspec

from outbox.store import revisions
from outbox.store.pool import Connection, execute, fetch


class SocketMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A message for a user's sockets. `body` is the text that they get."""

    message_id: int
    tenant_id: str
    user_id: str
    job_id: UUID
    body: str


class Outgoing(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt to reach a user's sockets."""

    attempt_id: UUID
    job_id: UUID
    tenant_id: str
    user_id: str
    body: str


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far an attempt is."""

    attempt_id: UUID
    taken: bool
    handed: bool


class _Attempt(msgspec.Struct):
    attempt_id: UUID


async def put(connection: Connection, process_id: int, tenant: str, user: str) -> None:
    """Say that a process has a socket of the user open."""
    values = {"process_id": process_id, "tenant": tenant, "user": user}
    await execute(connection, "socket_put", values)


async def delete(
    connection: Connection, process_id: int, tenant: str | None = None, user: str | None = None
) -> None:
    """Say that it has none of the user's any more, or none at all."""
    values = {"process_id": process_id, "tenant": tenant, "user": user}
    await execute(connection, "socket_delete", values)


async def take(connection: Connection, process_id: int) -> list[SocketMessage]:
    """Return what has come for a process's sockets."""
    return await fetch(connection, SocketMessage, "socket_take", {"process_id": process_id})


async def answer(
    connection: Connection, process_id: int, *, taken: Sequence[int], refused: Sequence[int]
) -> None:
    """Say which messages a socket has acknowledged, and which none could take."""
    values = {"process_id": process_id, "taken": list(taken), "refused": list(refused)}
    await execute(connection, "socket_answer", values)


async def send(connection: Connection, messages: Sequence[Outgoing]) -> set[UUID]:
    """Hand messages over; return the attempts that some process with a socket has got."""
    values = {
        "messages": msgspec.json.encode(messages).decode(),
        "silent_s": revisions.API_SILENT_S,
    }
    rows = await fetch(connection, _Attempt, "socket_send", values)
    return {row.attempt_id for row in rows}


async def progress(connection: Connection, attempts: Sequence[UUID]) -> dict[UUID, Progress]:
    """Return how far attempts are; one that is missing was refused by every process."""
    rows = await fetch(connection, Progress, "socket_outcomes", {"attempts": list(attempts)})
    return {row.attempt_id: row for row in rows}


async def over(connection: Connection, attempts: Sequence[UUID]) -> None:
    """Withdraw what is left of attempts."""
    await execute(connection, "socket_over", {"attempts": list(attempts)})
