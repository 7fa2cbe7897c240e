"""The plainest clients that do a channel's work: one ready-made message, sent again and again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from itertools import count as counter

import uvloop

from outbox_bench.child import Line
from outbox_bench.orders import BareHooks, BareMail, Ready, Took

Send = Callable[[], Awaitable[None]]

TEXT = "Здравствуйте, Нуржан!\n\nСпасибо, что вы с нами. Войти: https://cinema.example/\n" * 3
HTML = "<p>Здравствуйте, <b>Нуржан</b>!</p>\n<p>Спасибо, что вы с нами.</p>\n" * 6


def send_mails(order: BareMail, line: Line) -> None:
    """Send over SMTP, one mail after another on each connection."""
    import aiosmtplib

    from outbox.channels.addresses import parse_mailbox
    from outbox.channels.mime import build_mail, parse_sender

    mail = build_mail(
        sender=parse_sender("Кинотеатр <noreply@cinema.example>"),
        recipient=parse_mailbox("user@example.com"),
        subject="Добро пожаловать, Нуржан!",
        text=TEXT,
        html=HTML,
        message_id="bench@cinema.example",
        date=datetime.now(UTC),
        headers={},
    )

    @asynccontextmanager
    async def opened() -> AsyncIterator[Send]:
        client = aiosmtplib.SMTP(
            hostname="127.0.0.1", port=order.port, start_tls=False, use_tls=False
        )
        async with client:

            async def send() -> None:
                await client.sendmail("noreply@cinema.example", ["user@example.com"], mail)

            yield send

    uvloop.run(_run(order.count, order.connections, opened, line))


def post_hooks(order: BareHooks, line: Line) -> None:
    """POST over HTTP, one request after another on each connection."""
    import aiohttp

    body = b'{"type":"order_paid","timestamp":"2026-01-01T00:00:00Z","data":"%b"}' % (b"x" * 430)
    url = f"http://127.0.0.1:{order.port}/hook"

    @asynccontextmanager
    async def opened() -> AsyncIterator[Send]:
        async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:

            async def send() -> None:
                async with session.post(url, data=body) as response:
                    await response.read()

            yield send

    uvloop.run(_run(order.count, order.connections, opened, line))


async def _run(
    count: int,
    connections: int,
    opened: Callable[[], AbstractAsyncContextManager[Send]],
    line: Line,
) -> None:
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(opened()) for _ in range(connections)]
        numbers = counter()

        async def work(send: Send) -> None:
            while next(numbers) < count:
                await send()

        line.tell(Ready())
        await asyncio.to_thread(line.wait_for_go)
        began, cpu = time.perf_counter(), time.process_time()
        await asyncio.gather(*map(work, clients))
        line.tell(Took(time.perf_counter() - began, time.process_time() - cpu))
