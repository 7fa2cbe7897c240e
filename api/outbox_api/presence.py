"""An API process says that it lives, and which schema it knows: `post` migrations wait for it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
from importlib.metadata import version

import psycopg
import structlog

from outbox.errors import StoreUnavailable
from outbox.store import revisions
from outbox.store.pool import EVERY_TENANT, Database

KNOWN_S_MAX = 5.0
FIRST_S = 0.5
"""Between heartbeats until one has been stored."""

_log = structlog.get_logger("outbox.api.presence")


class Presence:
    """The heartbeat of one API process. No job depends on it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._process = revisions.ApiProcess(
            process_id=secrets.randbits(62) + 1,
            name=socket.gethostname(),
            version=version("outbox"),
            schema_revision=revisions.known_revision(),
            pid=os.getpid(),
        )
        self._task: asyncio.Task[None] | None = None
        self._known = asyncio.Event()

    @property
    def process_id(self) -> int:
        """What the heartbeat calls this process."""
        return self._process.process_id

    async def known(self) -> None:
        """Wait until the store knows of this process. Raises StoreUnavailable."""
        try:
            async with asyncio.timeout(KNOWN_S_MAX):
                await self._known.wait()
        except TimeoutError:
            raise StoreUnavailable("no heartbeat could be written") from None

    def start(self) -> None:
        """Begin; needs the running loop."""
        self._task = asyncio.create_task(self._run(), name="presence")

    async def close(self) -> None:
        """Say that this process has gone."""
        if self._task is None:
            return
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        # Where it cannot be said, silence will.
        with contextlib.suppress(StoreUnavailable, psycopg.Error):
            async with self._database.transaction(EVERY_TENANT) as connection:
                await revisions.api_gone(connection, self._process)

    async def _run(self) -> None:
        while True:
            try:
                async with self._database.transaction(EVERY_TENANT) as connection:
                    post = await revisions.api_beat(connection, self._process)
                self._known.set()
                if post > self._process.schema_revision:
                    _log.error("migrated past this version", post=post)
            except StoreUnavailable:
                pass  # whoever needs the database says so
            except psycopg.Error as error:
                _log.error("no heartbeat", sqlstate=error.sqlstate)
            await asyncio.sleep(revisions.API_BEAT_S if self._known.is_set() else FIRST_S)
