"""How fast the mail and webhook channels are by themselves, against sinks on this machine.

    python bench/parts_channels.py [--seconds 5] [--concurrency 20] [--loop asyncio|uvloop]

Prints a JSON object per case: messages per second, and this process's CPU time per message. The
sinks are as small as they can be (they take anything), in a process of their own.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import time
from collections.abc import Callable
from datetime import UTC, datetime
from multiprocessing.connection import Connection

import uvloop

from outbox.channels import Handler
from outbox.channels.addresses import parse_mailbox
from outbox.channels.email import EmailChannel
from outbox.channels.mime import build_mail, parse_sender
from outbox.channels.webhook import WebhookChannel
from outbox.message import Message, uuid7
from outbox.outcome import Delivered
from outbox_bench.sinks import HookSink, MailSink

TEXT = "Здравствуйте, Айдана!\n\nСпасибо, что вы с нами. Вход: https://cinema.example/\n" * 4
HTML = "<p>Здравствуйте, <b>Айдана</b>!</p>\n<p>Спасибо, что вы с нами.</p>\n" * 6
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
DATA = json.dumps({"first_name": "Айдана", "note": "x" * 500}).encode()


def run_sinks(ports: Connection) -> None:
    async def serve() -> None:
        loop = asyncio.get_running_loop()
        mail = await loop.create_server(MailSink, "127.0.0.1", 0)
        hooks = await loop.create_server(HookSink, "127.0.0.1", 0)
        ports.send([server.sockets[0].getsockname()[1] for server in (mail, hooks)])
        await asyncio.Event().wait()

    uvloop.run(serve())


def mail_message() -> Message:
    return Message(
        key=uuid7(),
        tenant_id="default",
        queue="email",
        to="aidana@example.com",
        subject="Добро пожаловать, Айдана!",
        text=TEXT,
        html=HTML,
        created_at=datetime.now(UTC),
    )


def hook_message(port: int) -> Message:
    return Message(
        key=uuid7(),
        tenant_id="default",
        queue="webhook",
        to=f"http://127.0.0.1:{port}/hook",
        event_type="user_registered",
        data_json=DATA,
        created_at=datetime.now(UTC),
        secrets=(SECRET,),
    )


async def drive(
    name: str, channel: Handler, make: Callable[[], Message], *, concurrency: int, seconds: float
) -> None:
    async with channel:
        until = time.perf_counter() + seconds

        async def one_after_another() -> int:
            done = 0
            while time.perf_counter() < until:
                outcome = await channel.deliver(make(), timeout_s=30)
                if not isinstance(outcome, Delivered):
                    raise RuntimeError(f"{name}: {getattr(outcome, 'reason', outcome)}")
                done += 1
            return done

        began, cpu = time.perf_counter(), time.process_time()
        done = sum(await asyncio.gather(*(one_after_another() for _ in range(concurrency))))
        took, used = time.perf_counter() - began, time.process_time() - cpu
    print(
        json.dumps(
            {
                "case": name,
                "per_s": round(done / took),
                "cpu_us": round(used / done * 1e6),
                "concurrency": concurrency,
            }
        )
    )


def build_mails(seconds: float) -> None:
    sender, recipient = parse_sender("Кинотеатр <noreply@cinema.kz>"), parse_mailbox("a@b.kz")
    done, cpu, until = 0, time.process_time(), time.perf_counter() + seconds
    while time.perf_counter() < until:
        build_mail(
            sender=sender,
            recipient=recipient,
            subject="Добро пожаловать, Айдана!",
            text=TEXT,
            html=HTML,
            message_id=f"{done}@cinema.kz",
            date=datetime.now(UTC),
            headers={},
        )
        done += 1
    print(json.dumps({"case": "mime", "cpu_us": round((time.process_time() - cpu) / done * 1e6)}))


async def measure(options: argparse.Namespace, mail_port: int, hook_port: int) -> None:
    mail_settings = {
        "SMTP_URL": f"smtp://127.0.0.1:{mail_port}",
        "MAIL_FROM": "Кинотеатр <noreply@cinema.kz>",
        "SMTP_POOL_SIZE": str(options.concurrency),
    }
    drive_for = {"concurrency": options.concurrency, "seconds": options.seconds}
    await drive("mail", EmailChannel(mail_settings), mail_message, **drive_for)
    await drive(
        "webhook",
        WebhookChannel({"WEBHOOK_ALLOW": "127.0.0.1"}),
        lambda: hook_message(hook_port),
        **drive_for,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--concurrency", type=int, default=20)
    parser.add_argument("--loop", choices=["asyncio", "uvloop"], default="uvloop")
    options = parser.parse_args()
    ours, theirs = multiprocessing.Pipe()
    sinks = multiprocessing.get_context("spawn").Process(
        target=run_sinks, args=(theirs,), daemon=True
    )
    sinks.start()
    try:
        mail_port, hook_port = ours.recv()
        build_mails(min(options.seconds, 1.0))
        factory = uvloop.new_event_loop if options.loop == "uvloop" else None
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(measure(options, mail_port, hook_port))
    finally:
        sinks.terminate()
        sinks.join()


if __name__ == "__main__":
    main()
