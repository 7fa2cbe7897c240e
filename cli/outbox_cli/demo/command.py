"""`outbox demo`: watch notifications arrive, in one command on a fresh machine."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import secrets
import shlex
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from uuid import UUID, uuid5

import typer

from outbox_cli.exits import FAILED, say

if TYPE_CHECKING:
    from outbox.store.pool import Database
    from outbox_cli.demo.receivers import Receivers
    from outbox_cli.demo.screen import Screen
    from outbox_cli.demo.service import Service
    from outbox_cli.demo.story import Act

SETTLE_S_MAX = 45.0
TENANT = "default"
RULES_NAMESPACE = UUID("5d5f5f2b-0d1c-5a55-8a44-0a6a1b7a6a10")


def demo(
    once: Annotated[
        bool,
        typer.Option("--once", help="End when all is delivered; exit 0 only if it all was."),
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="With --once: print JSON.")] = False,
) -> None:
    """Watch real notifications arrive: Postgres, API, dispatcher and receivers, all of it here."""
    if json and not once:
        raise typer.BadParameter("--json needs --once")
    acts = asyncio.run(_run(once=once, json=json))
    if json:
        _print_json(acts)
    if not all(act.is_as_expected for act in acts):
        raise typer.Exit(FAILED)


async def _run(*, once: bool, json: bool) -> list[Act]:
    # rich, aiohttp, aiosmtpd: the other commands do without.
    from outbox_cli.demo.receivers import receiving
    from outbox_cli.demo.screen import Screen

    if os.environ.get("OUTBOX_DATABASE_URL"):
        say("the demo has a Postgres of its own; OUTBOX_DATABASE_URL is left alone.")
    screen = Screen(quiet=json)
    secret = "whsec_" + base64.b64encode(secrets.token_bytes(24)).decode()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    async with receiving(secret) as receivers:
        work = asyncio.create_task(_play(receivers, screen, stop, once=once))
        for number in (signal.SIGINT, signal.SIGTERM):
            # Before all is sent there is nothing to keep running for: give up, but tidily.
            loop.add_signal_handler(number, _interrupt, work, stop)
        try:
            return await work
        except asyncio.CancelledError:
            raise KeyboardInterrupt from None


def _interrupt(work: asyncio.Task[list[Act]], stop: asyncio.Event) -> None:
    if stop.is_set():
        return
    stop.set()
    if not work.get_name().endswith("waiting"):
        work.cancel()


async def _play(
    receivers: Receivers, screen: Screen, stop: asyncio.Event, *, once: bool
) -> list[Act]:
    from outbox_cli.demo.service import data_dir_of
    from outbox_cli.demo.story import Story

    data_dir = data_dir_of(os.environ)
    with screen:
        async with _service(receivers, screen, data_dir) as (service, database):
            screen.doing("putting templates, recipients and rules in place")
            await _prepare(database)
            async with Story(service.url, receivers) as story:
                screen.doing("sending")
                await story.play()
                screen.doing("watching them arrive")
                await story.settle(
                    within_s=SETTLE_S_MAX, changed=lambda: screen.changed(story.acts)
                )
            screen.close()
            screen.finish(story.acts)
            if not once:
                _say_where(screen, service, data_dir)
                task = asyncio.current_task()
                assert task is not None
                task.set_name("demo waiting")
                await _until_stopped(service, stop)
            return story.acts


@contextlib.asynccontextmanager
async def _service(
    receivers: Receivers, screen: Screen, data_dir: Path
) -> AsyncIterator[tuple[Service, Database]]:
    """Have `outbox serve` run on the demo's own database, which receivers write to as well."""
    from outbox.embedded import EmbeddedServer
    from outbox.store.pool import Database
    from outbox_cli.demo.service import environment, is_made, refuse_if_in_use, serving

    environ = environment(receivers, os.environ)
    fresh = not is_made(data_dir)
    screen.doing(f"{'making' if fresh else 'starting'} an embedded Postgres in {data_dir}")
    # Held from here on, so that it outlives `serve` and its children.
    with EmbeddedServer.acquire(data_dir) as server:
        if not fresh:
            await refuse_if_in_use(server.url, data_dir)
        screen.doing("migrating it, and starting `outbox serve`")
        async with serving(environ, data_dir / "demo.log") as service:
            async with Database(server.url, size_max=4, acquire_s_max=5.0) as database:
                receivers.database = database
                try:
                    yield service, database
                finally:
                    receivers.database = None


async def _prepare(database: Database) -> None:
    """Push the examples' templates, recipients and rules; twice changes nothing."""
    from outbox.store import events
    from outbox_cli.demo.samples import examples_folder, sample_rules
    from outbox_cli.recipients import put_recipients, read_recipients
    from outbox_cli.templates import put_templates, read_folder

    folder = examples_folder()
    people = read_recipients(str(folder / "recipients.json"))
    async with database.transaction(TENANT) as connection:
        templates = list(read_folder(folder / "templates"))
        await put_templates(connection, templates, tenant=TENANT, by="outbox demo")
        await put_recipients(connection, people, tenant=TENANT)
        for rule in sample_rules():
            parts = events.RuleParts(
                name=rule.name,
                event_type=rule.event_type,
                condition=None if rule.condition is None else bytes(rule.condition).decode(),
                template_code=rule.template_code,
                channels=rule.channels,
                delay_s=rule.delay_s,
                expires_after_s=rule.expires_after_s,
                priority=rule.priority,
                enabled=rule.enabled,
            )
            rule_id = uuid5(RULES_NAMESPACE, rule.name)
            await events.put_rule(connection, rule_id, parts, tenant=TENANT)


def _say_where(screen: Screen, service: Service, data_dir: Path) -> None:
    screen.tell("")
    screen.tell(f"Look at the mails and webhooks that were caught: {service.url}/sink")
    screen.tell(f"The dashboard: {service.url}/")
    screen.tell(f"API: {service.url}/schema")
    screen.tell("The command line, in another window:")
    screen.tell(f"    OUTBOX_DATA_DIR={shlex.quote(str(data_dir))} {_how_called()} jobs ls")
    screen.tell(f"Data and log are in {data_dir}. Ctrl-C ends the demo.")


def _how_called() -> str:
    """Return what a person types for `outbox` here: it need not be on the PATH."""
    called = Path(sys.argv[0])
    found = shutil.which(called.name)
    if called.name == "__main__.py":
        return f"{shlex.quote(sys.executable)} -m outbox_cli"
    if found is not None and Path(found).samefile(called):
        return called.name
    return shlex.quote(str(called))


async def _until_stopped(service: Service, stop: asyncio.Event) -> None:
    ended = asyncio.create_task(service.ended())
    stopped = asyncio.create_task(stop.wait())
    done, _ = await asyncio.wait({ended, stopped}, return_when=asyncio.FIRST_COMPLETED)
    for task in (ended, stopped):
        task.cancel()
    if stopped not in done:
        raise ended.result()


def _print_json(acts: list[Act]) -> None:
    from outbox_cli.shown import print_json

    print_json(
        [
            {
                "title": act.title,
                "job_id": act.job_id,
                "channel": act.channel,
                "expected": act.wanted,
                "status": act.status,
                "as_expected": act.is_as_expected,
                "recipient": act.recipient,
                "arrived": act.said,
                "faults": act.faults,
            }
            for act in acts
        ]
    )
