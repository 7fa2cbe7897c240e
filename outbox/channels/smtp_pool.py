"""A bounded pool of SMTP sessions.

At most `size` sessions exist at once. A session goes back only after a transaction without any
error; any other is dropped, so none is ever in a state that we only believe to know. Idle ones
are closed after `idle_s_max`; one that the server closed meanwhile is not handed out.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import NamedTuple

import aiosmtplib

from outbox.channels.guard import Guard
from outbox.channels.smtp_session import Progress, open_session, tls_contexts
from outbox.channels.smtp_url import SmtpServer, TlsMode

IDLE_S_MAX = 60.0


class Lease(NamedTuple):
    """A session for one transaction. `reused`: it had been idle, so it may be stale."""

    client: aiosmtplib.SMTP
    reused: bool


class SmtpPool:
    """Sessions with one server, for the loop that uses them."""

    def __init__(
        self,
        server: SmtpServer,
        *,
        size: int,
        idle_s_max: float = IDLE_S_MAX,
        guard: Guard | None = None,
    ) -> None:
        self._server = server
        self._guard = guard
        self._idle_s_max = idle_s_max
        self._slots = asyncio.Semaphore(size)
        self._idle: list[tuple[aiosmtplib.SMTP, float]] = []
        self._contexts: dict[TlsMode, ssl.SSLContext] = {}
        self._reaper: asyncio.TimerHandle | None = None

    async def open(self) -> None:
        """Read the system's certificates, in a thread."""
        self._contexts = await asyncio.to_thread(tls_contexts)

    async def take(self, progress: Progress, *, fresh: bool = False) -> Lease:
        """Wait for a slot and return a session: an idle one, or (always if `fresh`) a new one.

        Raises what `open_session` raises; then no slot is taken.
        """
        await self._slots.acquire()
        try:
            if not fresh:
                client = self._newest_idle()
                if client is not None:
                    return Lease(client, reused=True)
            client = await open_session(self._server, self._contexts, progress, guard=self._guard)
            return Lease(client, reused=False)
        except BaseException:
            self._slots.release()
            raise

    def give_back(self, client: aiosmtplib.SMTP) -> None:
        """Keep a session whose transaction went through."""
        self._slots.release()
        if not client.is_connected:
            return
        self._idle.append((client, self._now()))
        if self._reaper is None:
            self._wake_reaper_at(self._now() + self._idle_s_max)

    def drop(self, client: aiosmtplib.SMTP) -> None:
        """Close a session that saw an error."""
        self._slots.release()
        _say_goodbye(client)

    def drop_idle(self) -> None:
        """Close all idle sessions: the server has just shown that it forgot one of them."""
        while self._idle:
            _say_goodbye(self._idle.pop()[0])

    def close(self) -> None:
        """Close what is idle, and stop the timer."""
        if self._reaper is not None:
            self._reaper.cancel()
            self._reaper = None
        self.drop_idle()
        if self._guard is not None:
            self._guard.close()

    def _newest_idle(self) -> aiosmtplib.SMTP | None:
        # The newest first: under a falling load the oldest ones get their rest and are closed.
        while self._idle:
            client, since = self._idle.pop()
            if client.is_connected and self._now() - since < self._idle_s_max:
                return client
            _say_goodbye(client)
        return None

    def _reap(self) -> None:
        self._reaper = None
        now = self._now()
        while self._idle and now - self._idle[0][1] >= self._idle_s_max:
            _say_goodbye(self._idle.pop(0)[0])
        if self._idle:
            self._wake_reaper_at(self._idle[0][1] + self._idle_s_max)

    def _wake_reaper_at(self, when: float) -> None:
        self._reaper = asyncio.get_running_loop().call_at(when, self._reap)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


def _say_goodbye(client: aiosmtplib.SMTP) -> None:
    """Send QUIT without waiting for the answer, and close."""
    if client.protocol is not None and client.is_connected:
        client.protocol.write(b"QUIT\r\n")
    client.close()
