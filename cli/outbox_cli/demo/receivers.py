"""The demo's receivers: a real SMTP server and a real HTTP server, on free ports of this machine.

What they catch goes into `outbox.sink_message`, where the page and the API show it, and only then
is it acknowledged: a receiver that forgets what it took would be a bad example.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from email import policy
from email.message import EmailMessage
from email.parser import BytesParser
from typing import Literal
from uuid import UUID

import msgspec
from aiohttp import web
from aiosmtpd.smtp import SMTP, Envelope, Session
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from outbox.errors import StoreUnavailable
from outbox.store.pool import Database, execute

TENANT = "default"
MAIL_BYTES_MAX = 10 * 1024 * 1024
HOOK_BYTES_MAX = 1024 * 1024
HOST = "127.0.0.1"
SHUTDOWN_S = 0.2


@dataclass(frozen=True)
class Caught:
    """One message that arrived. `parts` are a mail's bodies by type, and a webhook's `json`."""

    by: Literal["smtp", "http"]
    job_id: UUID | None
    recipient: str
    subject: str
    parts: Mapping[str, str]
    signed: bool = False


@dataclass
class Receivers:
    """Both servers, and what they caught."""

    webhook_secret: str
    smtp_port: int = 0
    http_port: int = 0
    caught: list[Caught] = field(default_factory=list)
    refused: int = 0
    database: Database | None = None

    def of(self, job_id: UUID) -> list[Caught]:
        """Return what arrived of a job."""
        return [one for one in self.caught if one.job_id == job_id]

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        """Take one mail (aiosmtpd calls this)."""
        content = envelope.original_content or b""
        mail = BytesParser(policy=policy.default).parsebytes(content)
        parts = _bodies(mail)
        headers = {name: str(value) for name, value in mail.items()}
        caught = Caught(
            by="smtp",
            job_id=_job_id_of(mail),
            recipient=", ".join(str(to) for to in envelope.rcpt_tos),
            subject=str(mail["subject"] or ""),
            parts=parts,
        )
        if "text/html" in parts and "text/plain" in parts:
            headers["html"] = parts["text/html"]
        body = parts.get("text/plain") or parts.get("text/html") or ""
        if not await self._keep(caught, "email", body, headers):
            return "451 4.3.0 The demo's database is away: try again"
        return "250 2.0.0 Caught"

    async def handle_hook(self, request: web.Request) -> web.Response:
        """Take one webhook; refuse one whose signature is wrong."""
        body = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        try:
            Webhook(self.webhook_secret).verify(body, headers, json_parse=False)
        except WebhookVerificationError:
            self.refused += 1
            return web.json_response({"error": "wrong signature"}, status=401)
        caught = Caught(
            by="http",
            job_id=_uuid(headers.get("webhook-id", "")),
            recipient=str(request.url),
            subject="",
            parts={"json": body.decode("utf-8", "replace")},
            signed=True,
        )
        if not await self._keep(caught, "webhook", caught.parts["json"], headers):
            return web.json_response({"error": "the demo's database is away"}, status=503)
        return web.json_response({"status": "caught"})

    async def _keep(
        self, caught: Caught, channel: str, body: str, headers: Mapping[str, str]
    ) -> bool:
        if self.database is None:
            return False
        try:
            async with self.database.transaction(TENANT) as connection:
                await execute(
                    connection,
                    "sink_put",
                    {
                        "tenant": TENANT,
                        "caught_by": caught.by,
                        "channel": channel,
                        "job_id": caught.job_id,
                        "recipient": caught.recipient,
                        "subject": caught.subject,
                        "body": body,
                        "headers": msgspec.json.encode(headers).decode(),
                    },
                )
        except StoreUnavailable:
            return False
        self.caught.append(caught)
        return True


@contextlib.asynccontextmanager
async def receiving(webhook_secret: str) -> AsyncIterator[Receivers]:
    """Run both servers. Until `database` is set, they ask senders to come back."""
    receivers = Receivers(webhook_secret)
    loop = asyncio.get_running_loop()
    sessions: list[SMTP] = []

    def session() -> SMTP:
        smtp = SMTP(
            receivers,
            hostname="outbox-demo",
            ident="Outbox demo",
            enable_SMTPUTF8=True,
            data_size_limit=MAIL_BYTES_MAX,
            loop=loop,
        )
        sessions.append(smtp)
        return smtp

    mail = await loop.create_server(session, HOST, 0)
    receivers.smtp_port = mail.sockets[0].getsockname()[1]
    app = web.Application(client_max_size=HOOK_BYTES_MAX)
    app.router.add_post("/{path:.*}", receivers.handle_hook)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_S)
    await runner.setup()
    try:
        await web.TCPSite(runner, HOST, 0).start()
        receivers.http_port = runner.addresses[0][1]
        yield receivers
    finally:
        await runner.cleanup()
        mail.close()
        for smtp in sessions:
            if smtp.transport is not None:
                smtp.transport.close()


def _bodies(mail: EmailMessage) -> dict[str, str]:
    found: dict[str, str] = {}
    for part in mail.walk():
        kind = part.get_content_type()
        if kind in ("text/plain", "text/html") and not part.is_attachment():
            content = part.get_content()
            if isinstance(content, str):
                found.setdefault(kind, content)
    return found


def _job_id_of(mail: EmailMessage) -> UUID | None:
    """Return the job's id: the Message-ID is `<job id@domain>`."""
    return _uuid(str(mail["message-id"] or "").strip("<>").partition("@")[0])


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
