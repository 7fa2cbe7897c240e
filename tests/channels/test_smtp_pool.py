from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from outbox.channels.addresses import parse_mailbox
from outbox.channels.smtp import Envelope, SmtpProvider
from outbox.channels.smtp_url import parse_smtp_url
from outbox.outcome import Delivered, Outcome, Rejected, Retryable, Sent
from tests.channels.mail_server import DROP, HANG, MailServer, mail_server

ENVELOPE = Envelope(
    sender=parse_mailbox("noreply@cinema.kz"),
    recipient=parse_mailbox("ann@example.com"),
    mail=b"From: noreply@cinema.kz\r\nTo: ann@example.com\r\n\r\nHello\r\n",
)


@contextlib.asynccontextmanager
async def provider(
    server: MailServer, *, size: int = 3, idle_s_max: float = 60.0
) -> AsyncIterator[SmtpProvider]:
    url = parse_smtp_url(f"smtp://127.0.0.1:{server.port}")
    smtp = SmtpProvider(url, pool_size=size, idle_s_max=idle_s_max)
    await smtp.open()
    try:
        yield smtp
    finally:
        smtp.close()


async def send(smtp: SmtpProvider, *, timeout_s: float = 30.0) -> Outcome:
    return await smtp.send(ENVELOPE, timeout_s=timeout_s, sent=Sent())


async def test_twenty_mails_at_once_use_no_more_connections_than_the_pool_has() -> None:
    async with mail_server() as server, provider(server, size=4) as smtp:
        outcomes = await asyncio.gather(*(send(smtp) for _ in range(20)))
        assert all(isinstance(outcome, Delivered) for outcome in outcomes)
        assert len(server.mails) == 20
        assert server.open_most == server.opened == 4


async def test_one_mail_after_another_uses_one_connection() -> None:
    async with mail_server() as server, provider(server) as smtp:
        for _ in range(5):
            assert isinstance(await send(smtp), Delivered)
        assert server.opened == 1


async def test_connections_that_the_server_closed_while_idle_cost_no_mail() -> None:
    async with mail_server() as server, provider(server) as smtp:
        server.hold = asyncio.Event()
        sending = asyncio.gather(*(send(smtp) for _ in range(3)))
        server.hold.set()
        await sending
        server.forget_sessions()
        outcomes = await asyncio.gather(*(send(smtp) for _ in range(6)))
        assert all(isinstance(outcome, Delivered) for outcome in outcomes)
        assert len(server.mails) == 9


async def test_a_connection_that_closes_at_the_first_command_costs_no_mail() -> None:
    async with mail_server() as server, provider(server) as smtp:
        for gone in (DROP, "421 4.4.2 idle for too long"):
            assert isinstance(await send(smtp), Delivered)
            server.answer("mail", gone)
            assert isinstance(await send(smtp), Delivered)
        assert len(server.mails) == 4


async def test_a_new_connection_that_closes_at_the_first_command_is_not_tried_again() -> None:
    async with mail_server() as server, provider(server) as smtp:
        server.answer("mail", DROP)
        assert isinstance(await send(smtp), Retryable)
        assert server.opened == 1


async def test_a_connection_that_saw_an_error_is_not_used_again() -> None:
    async with mail_server() as server, provider(server) as smtp:
        server.answer("rcpt", "550 5.1.1 unknown")
        assert isinstance(await send(smtp), Rejected)
        assert isinstance(await send(smtp), Delivered)
        assert server.opened == 2
        assert len(server.mails) == 1


async def test_an_idle_connection_is_closed_after_its_time() -> None:
    async with mail_server() as server, provider(server, idle_s_max=0.05) as smtp:
        assert isinstance(await send(smtp), Delivered)
        assert server.open_now == 1
        await server.closed.wait()
        assert server.open_now == 0


async def test_waiting_for_a_free_connection_counts_towards_the_deadline() -> None:
    async with mail_server() as server, provider(server, size=1) as smtp:
        server.answer("rcpt", HANG)
        hung = asyncio.create_task(send(smtp))
        await server.reached.wait()
        outcome = await send(smtp, timeout_s=0.1)
        assert isinstance(outcome, Retryable)
        assert (outcome.code, outcome.ambiguous) == ("smtp.timeout", False)
        hung.cancel()
        await asyncio.wait([hung])
        assert isinstance(await send(smtp), Delivered)


async def test_leaving_closes_every_connection() -> None:
    async with mail_server() as server:
        async with provider(server) as smtp:
            await send(smtp)
        await server.closed.wait()
        assert server.open_now == 0
