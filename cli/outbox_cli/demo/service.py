"""`outbox serve` as the demo's child: the real thing, with settings of the demo's own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from pathlib import Path

import msgspec

from outbox.errors import ConfigError, StoreUnavailable
from outbox.store.pool import EVERY_TENANT, Database, fetch_one
from outbox_cli.demo.receivers import HOST, Receivers
from outbox_cli.exits import Failure

DATA_DIR = ".outbox-demo"
"""Not that of `outbox serve`: nobody's own jobs shall be mixed up with the demo's."""
START_S_MAX = 90.0
STOP_S_MAX = 20.0
LOG_LINES_SHOWN = 15
PORTS_TRIED = 100
KEPT = ("OUTBOX_DATA_DIR", "OUTBOX_PORT", "OUTBOX_LOG_LEVEL", "OUTBOX_LOG_FORMAT")
"""What of the surrounding settings the demo takes over: no provider, no database, no key."""
HEARTBEAT_AGE_S = 3.0


def environment(receivers: Receivers, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment for `outbox serve`. Raises ConfigError."""
    kept = {k: v for k, v in environ.items() if not k.startswith("OUTBOX_") or k in KEPT}
    kept.setdefault("OUTBOX_DATA_DIR", DATA_DIR)
    kept["OUTBOX_PORT"] = str(free_port(_wanted_port(environ)))
    return kept | {
        "OUTBOX_HOST": HOST,
        "OUTBOX_AUTH": "off",
        "OUTBOX_SMTP_URL": f"smtp://{HOST}:{receivers.smtp_port}",
        "OUTBOX_MAIL_FROM": "Cinema <hello@cinema.example>",
        "OUTBOX_WEBHOOK_SECRET": receivers.webhook_secret,
        "OUTBOX_WEBHOOK_ALLOW": f"{HOST}:{receivers.http_port}",
        "OUTBOX_LOG_FORMAT": environ.get("OUTBOX_LOG_FORMAT", "json"),
        "OUTBOX_DRAIN_S": "5",
    }


def free_port(wanted: int) -> int:
    """Return `wanted`, or the next port above it that nobody listens on."""
    for port in range(wanted, min(wanted + PORTS_TRIED, 65_536)):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port
    raise Failure(f"No port from {wanted} to {wanted + PORTS_TRIED - 1} is free.")


def _wanted_port(environ: Mapping[str, str]) -> int:
    given = environ.get("OUTBOX_PORT", "").strip() or "8080"
    if not given.isdecimal() or not 1 <= int(given) <= 65_535:
        raise ConfigError("OUTBOX_PORT must be a whole number from 1 to 65535.")
    return int(given)


class Service:
    """A running `outbox serve`."""

    def __init__(self, process: asyncio.subprocess.Process, url: str, log: Path) -> None:
        self._process = process
        self.url = url
        self._log = log

    async def ended(self) -> Failure:
        """Wait until it ends by itself, and say so."""
        code = await self._process.wait()
        return Failure(f"`outbox serve` has ended ({code}).{log_tail(self._log)}")


@contextlib.asynccontextmanager
async def serving(environ: Mapping[str, str], log: Path) -> AsyncIterator[Service]:
    """Start `outbox serve`, wait until it is ready, and stop it afterwards. Raises Failure."""
    with log.open("ab") as log_file:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            "-m",
            "outbox_cli",
            "serve",
            "--with-parent",
            env=environ,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=log_file,
            process_group=0,
        )
    try:
        yield Service(process, await _until_ready(process, log), log)
    finally:
        await _stop(process)


async def _until_ready(process: asyncio.subprocess.Process, log: Path) -> str:
    assert process.stdout is not None
    try:
        async with asyncio.timeout(START_S_MAX):
            line = (await process.stdout.readline()).decode()
    except TimeoutError:
        raise Failure(
            f"`outbox serve` was not ready within {START_S_MAX:.0f} s.{log_tail(log)}"
        ) from None
    word, _, url = line.strip().partition(" ")
    if word != "ready":
        raise Failure(f"`outbox serve` did not start.{log_tail(log)}")
    return url


async def _stop(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(STOP_S_MAX):
            await process.wait()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def log_tail(log: Path) -> str:
    """Return the log's last lines, for a failure's sentence."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return f" Its log, {log}, ends:\n" + "\n".join(lines[-LOG_LINES_SHOWN:])


class _Heartbeat(msgspec.Struct, frozen=True):
    at: datetime
    age_s: float


async def refuse_if_in_use(url: str, data_dir: Path) -> None:
    """Raise Failure when a dispatcher that isn't ours works on this database.

    One that was killed has left a heartbeat behind, too; only a living one's moves on.
    """
    async with Database(url, size_max=2) as database:
        try:
            first = await _heartbeat(database)
        except StoreUnavailable:
            return  # not migrated yet: nobody can be at work
        if first is None or first.age_s > HEARTBEAT_AGE_S:
            return
        await asyncio.sleep(HEARTBEAT_AGE_S / 2)
        second = await _heartbeat(database)
    if second is not None and second.at != first.at:
        raise Failure(
            f"Another Outbox is at work in {data_dir}, and would deliver the demo's mail for "
            "real: stop it, or set OUTBOX_DATA_DIR to a folder of the demo's own."
        )


async def _heartbeat(database: Database) -> _Heartbeat | None:
    async with database.transaction(EVERY_TENANT, read_only=True) as connection:
        return await fetch_one(connection, _Heartbeat, "newest_heartbeat", {})


def data_dir_of(environ: Mapping[str, str]) -> Path:
    """Return the demo's data directory."""
    return Path(environ.get("OUTBOX_DATA_DIR", "").strip() or DATA_DIR)


def is_made(data_dir: Path) -> bool:
    """Tell whether there is a cluster already."""
    return os.path.exists(data_dir / "postgres" / "data" / "PG_VERSION")
