"""A real SMTP server (aiosmtpd) that can be told to misbehave at any stage."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from email import policy
from email.message import EmailMessage
from email.parser import BytesParser
from typing import Any, AnyStr, Final

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, Session

DROP: Final = "DROP"
HANG: Final = "HANG"
"""Instead of an answer: cut the connection; say nothing, until the client goes away."""


@dataclass
class Received:
    """One mail that arrived, as it came over the wire."""

    sender: str
    recipients: list[str]
    options: list[str]
    content: bytes

    def parsed(self) -> EmailMessage:
        return BytesParser(policy=policy.default).parsebytes(self.content)


@dataclass
class MailServer:
    """What the server does, and what it saw."""

    port: int = 0
    answers: dict[str, deque[str]] = field(default_factory=dict)
    mails: list[Received] = field(default_factory=list)
    logins: list[tuple[str, str]] = field(default_factory=list)
    open_now: int = 0
    open_most: int = 0
    opened: int = 0
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    sessions: list[Scripted] = field(default_factory=list)
    hold: asyncio.Event | None = None
    accepts_login: bool = True

    def answer(self, stage: str, *answers: str) -> None:
        """Give these answers at `stage`, one a time, and then the usual ones again."""
        self.answers.setdefault(stage, deque()).extend(answers)

    def forget_sessions(self) -> None:
        """Close every connection, as a server does after an idle time."""
        for session in list(self.sessions):
            if session.transport is not None:
                session.transport.close()

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        if self.hold is not None:
            await self.hold.wait()
        content = envelope.original_content
        assert content is not None
        self.mails.append(
            Received(
                envelope.mail_from or "",
                [str(recipient) for recipient in envelope.rcpt_tos],
                [str(option) for option in envelope.mail_options],
                content,
            )
        )
        assert isinstance(server, Scripted)
        scripted = await server.next_answer("body")
        return scripted or "250 2.0.0 Ok: queued as 4F9D195432C"

    def authenticate(
        self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any
    ) -> AuthResult:
        self.logins.append((data.login.decode(), data.password.decode()))
        return AuthResult(success=self.accepts_login, handled=False)


class Scripted(SMTP):
    """One session, which asks the script before every command."""

    script: MailServer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self.transport is None:
            self.script.opened += 1
            self.script.open_now += 1
            self.script.open_most = max(self.script.open_most, self.script.open_now)
            self.script.sessions.append(self)
        super().connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        if self in self.script.sessions:
            self.script.sessions.remove(self)
            self.script.open_now -= 1
            self.script.closed.set()
        super().connection_lost(error)

    async def next_answer(self, stage: str) -> str | None:
        """Return what to say at `stage`; None for the usual. Drops or hangs by itself."""
        waiting = self.script.answers.get(stage)
        if not waiting:
            return None
        answer = waiting.popleft()
        self.script.reached.set()
        if answer == DROP:
            assert self.transport is not None
            self.transport.close()
            await asyncio.Event().wait()
        elif answer == HANG:
            await asyncio.Event().wait()
        return answer

    async def push(self, status: AnyStr) -> None:
        if isinstance(status, str) and status.startswith(f"220 {self.hostname}"):
            await super().push(await self.next_answer("connect") or str(status))
        else:
            await super().push(status)

    async def _scripted(self, stage: str) -> bool:
        answer = await self.next_answer(stage)
        if answer is not None:
            await super().push(answer)
        return answer is not None

    async def smtp_EHLO(self, hostname: str) -> None:
        if not await self._scripted("ehlo"):
            await super().smtp_EHLO(hostname)

    async def smtp_STARTTLS(self, arg: str) -> None:
        if not await self._scripted("starttls"):
            await super().smtp_STARTTLS(arg)

    async def smtp_AUTH(self, arg: str) -> None:
        if not await self._scripted("auth"):
            await super().smtp_AUTH(arg)

    async def smtp_MAIL(self, arg: str | None) -> None:
        if not await self._scripted("mail"):
            await super().smtp_MAIL(arg)

    async def smtp_RCPT(self, arg: str | None) -> None:
        if not await self._scripted("rcpt"):
            await super().smtp_RCPT(arg)

    async def smtp_DATA(self, arg: str) -> None:
        if not await self._scripted("data"):
            await super().smtp_DATA(arg)


@contextlib.asynccontextmanager
async def mail_server(
    *,
    implicit_tls: ssl.SSLContext | None = None,
    starttls: ssl.SSLContext | None = None,
    offers_login: bool = False,
    smtputf8: bool = True,
) -> AsyncIterator[MailServer]:
    """Run a server on a free port of this machine."""
    script = MailServer()
    loop = asyncio.get_running_loop()

    def session() -> Scripted:
        protocol = Scripted(
            script,
            hostname="mail.test",
            enable_SMTPUTF8=smtputf8,
            tls_context=starttls,
            auth_require_tls=not offers_login,
            authenticator=script.authenticate,
            loop=loop,
        )
        protocol.script = script
        return protocol

    server = await loop.create_server(session, "127.0.0.1", 0, ssl=implicit_tls)
    script.port = server.sockets[0].getsockname()[1]
    try:
        yield script
    finally:
        server.close()
        tasks = [one._handler_coroutine for one in script.sessions if one._handler_coroutine]
        script.forget_sessions()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
