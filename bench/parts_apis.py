"""How fast the channels over HTTP APIs are by themselves, beside a bare client's loop.

    python bench/parts_apis.py [--seconds 3] [--concurrency 20] [sms gateway telegram …]

For each channel, rounds of the channel and of a bare aiohttp loop alternate; the loop sends the
very body and headers that the channel sent first, over and over. Prints a JSON object a channel:
medians a second, their ratio, and this process's CPU time per message. The sink takes anything,
in a process of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import statistics
import time
from base64 import urlsafe_b64encode
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing.connection import Connection

import aiohttp
import uvloop
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from outbox.channels.api_client import ApiClient
from outbox.channels.browser import BrowserChannel
from outbox.channels.email import EmailChannel
from outbox.channels.http_client import HttpAnswer, HttpFailure
from outbox.channels.push import PushChannel
from outbox.channels.sms import SmsChannel
from outbox.channels.telegram import TelegramChannel
from outbox.message import Device, Message, uuid7
from outbox.outcome import Delivered
from outbox_bench.sinks import HookSink

TEXT = "Здравствуйте, Айдана! Ваши билеты готовы: https://cinema.example/t/7"
HTML = "<p>Здравствуйте, <b>Айдана</b>!</p>\n<p>Спасибо, что вы с нами.</p>\n" * 6
ROUNDS = 3
ANSWER = json.dumps(
    {"ok": True, "result": {"message_id": 1}, "access_token": "t", "expires_in": 3600}
).encode()


class ApiSink(HookSink):
    """Says yes in the words of every provider at once."""

    reply = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(ANSWER), ANSWER)


def run_sink(port: Connection) -> None:
    async def serve() -> None:
        sink = await asyncio.get_running_loop().create_server(ApiSink, "127.0.0.1", 0)
        port.send(sink.sockets[0].getsockname()[1])
        await asyncio.Event().wait()

    uvloop.run(serve())


@dataclass(frozen=True)
class Case:
    """A channel, made anew for each round, and its messages."""

    make: Callable[[], SmsChannel | TelegramChannel | PushChannel | BrowserChannel | EmailChannel]
    message: Callable[[], Message]


def cases(port: int) -> dict[str, Case]:
    place = f"127.0.0.1:{port}"
    sms = {"SMS_FROM": "+15005550006"}
    mail = {"MAIL_FROM": "Кинотеатр <noreply@cinema.kz>"}
    rsa_key = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
    account = {
        "project_id": "p",
        "client_email": "s@p",
        "private_key": rsa_key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ).decode(),
        "token_uri": f"http://{place}/token",
    }
    browser = {
        "BROWSER_KEY": base64(os.urandom(31).rjust(32, b"\1")),
        "BROWSER_SUBJECT": "mailto:ops@cinema.example",
        "WEBHOOK_ALLOW": place,
    }
    point = ec.generate_private_key(ec.SECP256R1()).public_key()
    raw = point.public_bytes(
        serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
    )
    device = Device(f"http://{place}/send/1", p256dh=base64(raw), auth=base64(os.urandom(16)))
    return {
        "sms": Case(
            lambda: SmsChannel({"SMS_URL": f"twilio+http://a:b@{place}", **sms}),
            lambda: message(to="+77011234567", text=TEXT),
        ),
        "gateway": Case(
            lambda: SmsChannel({"SMS_URL": f"gateway+http://{place}/send", **sms}),
            lambda: message(to="+77011234567", text=TEXT),
        ),
        "telegram": Case(
            lambda: TelegramChannel({"TELEGRAM_URL": f"telegram+http://1:b@{place}"}),
            lambda: message(to="42", html=TEXT),
        ),
        "push": Case(
            lambda: PushChannel(
                {"PUSH_KEY": json.dumps(account), "PUSH_URL": f"fcm+http://{place}"}
            ),
            lambda: message(devices=(Device("token"),), subject="Билеты", text=TEXT),
        ),
        "browser": Case(
            lambda: BrowserChannel(browser),
            lambda: message(devices=(device,), subject="Билеты", text=TEXT),
        ),
        "postmark": Case(
            lambda: EmailChannel({"EMAIL_URL": f"postmark+http://:t@{place}", **mail}),
            lambda: message(to="a@example.com", subject="Билеты", text=TEXT, html=HTML),
        ),
        "sendgrid": Case(
            lambda: EmailChannel({"EMAIL_URL": f"sendgrid+http://:t@{place}", **mail}),
            lambda: message(to="a@example.com", subject="Билеты", text=TEXT, html=HTML),
        ),
    }


def base64(raw: bytes) -> str:
    return urlsafe_b64encode(raw).decode().rstrip("=")


def message(
    *,
    to: str | None = None,
    subject: str | None = None,
    text: str | None = None,
    html: str | None = None,
    devices: tuple[Device, ...] = (),
) -> Message:
    return Message(
        key=uuid7(),
        tenant_id="default",
        queue="bench",
        to=to,
        subject=subject,
        text=text,
        html=html,
        devices=devices,
        created_at=datetime.now(UTC),
    )


@dataclass
class Request:
    """What a channel asks of its provider."""

    url: str
    headers: Mapping[str, str]
    body: bytes


async def first_request(case: Case) -> Request:
    """Return the request that carries a message; a token's exchange comes before it."""
    seen: list[Request] = []
    post = ApiClient.post

    async def watched(
        self: ApiClient, url: str, *, headers: Mapping[str, str], body: bytes, timeout_s: float
    ) -> HttpAnswer | HttpFailure:
        seen.append(Request(url, headers, body))
        return await post(self, url, headers=headers, body=body, timeout_s=timeout_s)

    ApiClient.post = watched  # type: ignore[method-assign]
    try:
        async with case.make() as channel:
            await channel.deliver(case.message(), timeout_s=30)
    finally:
        ApiClient.post = post  # type: ignore[method-assign]
    return seen[-1]


async def timed(
    send: Callable[[], Awaitable[None]], *, concurrency: int, seconds: float
) -> tuple[float, float]:
    """Return messages a second, and CPU microseconds each."""
    until = time.perf_counter() + seconds

    async def one_after_another() -> int:
        done = 0
        while time.perf_counter() < until:
            await send()
            done += 1
        return done

    began, cpu = time.perf_counter(), time.process_time()
    done = sum(await asyncio.gather(*(one_after_another() for _ in range(concurrency))))
    took = time.perf_counter() - began
    return done / took, (time.process_time() - cpu) / done * 1e6


async def measure(name: str, case: Case, options: argparse.Namespace) -> None:
    request = await first_request(case)
    how = {"concurrency": options.concurrency, "seconds": options.seconds / ROUNDS}
    ours: list[tuple[float, float]] = []
    bare: list[tuple[float, float]] = []
    for _ in range(ROUNDS):
        async with case.make() as channel:

            async def deliver() -> None:
                outcome = await channel.deliver(case.message(), timeout_s=30)
                if not isinstance(outcome, Delivered):
                    raise RuntimeError(f"{name}: {outcome}")

            ours.append(await timed(deliver, **how))
        async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:

            async def post() -> None:
                async with session.post(
                    request.url, data=request.body, headers=request.headers
                ) as response:
                    await response.read()

            bare.append(await timed(post, **how))
    ours_per_s, cpu_us = (statistics.median(each) for each in zip(*ours, strict=True))
    bare_per_s, bare_cpu_us = (statistics.median(each) for each in zip(*bare, strict=True))
    told = {
        "channel": name,
        "per_s": round(ours_per_s),
        "bare_per_s": round(bare_per_s),
        "ratio": round(ours_per_s / bare_per_s, 2),
        "cpu_us": round(cpu_us),
        "bare_cpu_us": round(bare_cpu_us),
    }
    print(json.dumps(told), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("channels", nargs="*")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--concurrency", type=int, default=20)
    options = parser.parse_args()
    ours, theirs = multiprocessing.Pipe()
    sink = multiprocessing.get_context("spawn").Process(
        target=run_sink, args=(theirs,), daemon=True
    )
    sink.start()
    try:
        known = cases(ours.recv())
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            for name in options.channels or known:
                runner.run(measure(name, known[name], options))
    finally:
        sink.terminate()
        sink.join()


if __name__ == "__main__":
    main()
