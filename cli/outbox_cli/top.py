"""`outbox top`: queues, dispatchers and alerts as they move, with pause and resume at hand.

    ↑ ↓ or k j   choose a queue        p   pause it        r   resume it        q   leave

Where stdout is no terminal, or with --json, it shows one look and ends. A look counts what waits,
so the next one comes no sooner than twenty times what the last one took.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import sys
from collections.abc import Iterator
from time import monotonic
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from outbox.errors import StoreUnavailable
from outbox.store import alerts as alert_store
from outbox.store import queues as store
from outbox.store.alerts import Alert
from outbox.store.pool import EVERY_TENANT, Database
from outbox.telemetry import quantile_s
from outbox_cli.database import actor, in_database
from outbox_cli.groups import Json
from outbox_cli.shown import console, live_counts, print_json

if TYPE_CHECKING:
    from rich.console import RenderableType

COST_FACTOR = 20.0
_KEY = re.compile(rb"\x1b[\[O][A-Z]|.", re.DOTALL)
_KEYS = {
    b"q": "quit",
    b"\x03": "quit",
    b"p": "pause",
    b"r": "resume",
    b"j": "down",
    b"k": "up",
    b"\x1b[A": "up",
    b"\x1b[B": "down",
    b"\x1bOA": "up",
    b"\x1bOB": "down",
}


class QueueNow(msgspec.Struct, frozen=True, kw_only=True):
    """A queue at one look. Rates are None at the first one."""

    queue: str
    waiting: int
    active: int
    delayed: int
    estimated: list[str]
    sent_per_s: float | None
    failed_15_min: int
    oldest_waiting_s: float | None
    p95_ms: float | None
    eta_s: float | None
    paused: bool
    held: int


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """Everything at one look."""

    queues: list[QueueNow]
    dispatchers: int
    snapshot_age_s: float
    alerts: list[Alert]


class _Screen:
    """What is shown, and which queue is chosen."""

    def __init__(self) -> None:
        self.look: Look | None = None
        self.chosen = 0
        self.said = ""
        self._before: dict[str, tuple[float, int]] = {}

    async def read(self, database: Database) -> Look:
        async with database.transaction(EVERY_TENANT, read_only=True) as connection:
            rows = await store.stats(connection, tenant=None)
            gauges = await store.gauges(connection)
            alerts = await alert_store.list_alerts(connection, limit=10)
        self.look = Look(
            queues=[self._queue(row, monotonic()) for row in rows],
            dispatchers=gauges.dispatchers,
            snapshot_age_s=gauges.snapshot_age_s,
            alerts=alerts,
        )
        self.chosen = max(0, min(self.chosen, len(rows) - 1))
        return self.look

    def _queue(self, row: store.QueueRow, now: float) -> QueueNow:
        rate = None
        if (before := self._before.get(row.queue)) is not None and now > before[0]:
            rate = max(row.total_completed - before[1], 0) / (now - before[0])
        self._before[row.queue] = now, row.total_completed
        p95_s = quantile_s(row.durations, 0.95)
        return QueueNow(
            queue=row.queue,
            waiting=row.waiting,
            active=row.active,
            delayed=row.delayed,
            estimated=row.estimated,
            sent_per_s=rate,
            failed_15_min=row.failed,
            oldest_waiting_s=row.oldest_waiting_s,
            p95_ms=None if p95_s is None else p95_s * 1000,
            eta_s=row.waiting / rate if rate and row.waiting else None,
            paused=row.paused,
            held=row.held,
        )

    def shown(self, *, with_keys: bool) -> RenderableType:
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        look = self.look
        if look is None:
            return Text(self.said or "looking …")
        table = Table(box=None, pad_edge=False)
        for name in ("QUEUE", "WAITING", "ACTIVE", "DELAYED", "SENT/S", "FAILED", "OLDEST", "P95",
                     "EMPTY IN", "STATE"):  # fmt: skip
            table.add_column(name, justify="left" if name in ("QUEUE", "STATE") else "right")
        for place, row in enumerate(look.queues):
            state = "paused" if row.paused else f"held: {row.held}" if row.held else ""
            table.add_row(
                row.queue,
                *live_counts(
                    row.estimated,
                    waiting=row.waiting,
                    active=row.active,
                    delayed=row.delayed,
                ),
                "" if row.sent_per_s is None else f"{row.sent_per_s:.1f}",
                str(row.failed_15_min or ""),
                _seconds(row.oldest_waiting_s),
                "" if row.p95_ms is None else f"{row.p95_ms:.0f} ms",
                _seconds(row.eta_s),
                Text(state, "yellow"),
                style="reverse" if with_keys and place == self.chosen else "",
            )
        none = look.dispatchers == 0
        head = Text(f"dispatchers {look.dispatchers}", "red bold" if none else "")
        parts: list[RenderableType] = [head, Text(), table]
        if look.alerts:
            parts.append(Text())
        for alert in look.alerts:
            seen = " (acknowledged)" if alert.acknowledged_at else ""
            style = "red" if alert.severity == "critical" else "yellow"
            parts.append(Text(f"{alert.rule} {alert.subject}{seen}", style))
        if with_keys:
            keys = "↑↓ choose  p pause  r resume  q leave"
            parts += [Text(), Text(self.said or keys, "dim")]
        return Group(*parts)

    def chosen_queue(self) -> str | None:
        if self.look is None or not self.look.queues:
            return None
        return self.look.queues[self.chosen].queue


def top(
    every_s: Annotated[
        float, typer.Option("--every-s", min=0.2, max=3_600, help="Seconds between two looks.")
    ] = 1.0,
    json: Json = False,
) -> None:
    """Watch queues, dispatchers and alerts; pause and resume by a key. `q` leaves."""
    screen = _Screen()
    if json:
        print_json(in_database(screen.read))
    elif sys.stdin.isatty() and sys.stdout.isatty():
        in_database(lambda database: _live(database, screen, every_s))
    else:
        in_database(screen.read)
        console().print(screen.shown(with_keys=False))


async def _live(database: Database, screen: _Screen, every_s: float) -> None:
    from rich.live import Live

    pressed: asyncio.Queue[str] = asyncio.Queue()
    with (
        _keyboard(pressed),
        Live(
            screen.shown(with_keys=True), console=console(), screen=True, auto_refresh=False
        ) as live,
    ):
        while True:
            began = monotonic()
            try:
                await screen.read(database)
                screen.said = ""
            except StoreUnavailable as error:
                screen.said = f"{error}: trying again"
            live.update(screen.shown(with_keys=True), refresh=True)
            until = monotonic() + max(every_s, COST_FACTOR * (monotonic() - began))
            while (left := until - monotonic()) > 0:
                try:
                    key = await asyncio.wait_for(pressed.get(), left)
                except TimeoutError:
                    break
                if key == "quit":
                    return
                if await _obey(database, screen, key):
                    break
                live.update(screen.shown(with_keys=True), refresh=True)


async def _obey(database: Database, screen: _Screen, key: str) -> bool:
    """Do what a key asks for; return whether to look again at once."""
    queue = screen.chosen_queue()
    if queue is None:
        return False
    if key in ("up", "down"):
        assert screen.look is not None
        step = -1 if key == "up" else 1
        screen.chosen = (screen.chosen + step) % len(screen.look.queues)
        return False
    async with database.transaction(EVERY_TENANT) as connection:
        await store.set_paused(
            connection, queue, tenant=None, paused=key == "pause", actor=actor()
        )
    return True


@contextlib.contextmanager
def _keyboard(pressed: asyncio.Queue[str]) -> Iterator[None]:
    """Have each key as it is pressed, and the terminal as it was afterwards."""
    import termios
    import tty

    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)
    loop = asyncio.get_running_loop()

    def read() -> None:
        data = os.read(terminal, 64)
        if not data:
            pressed.put_nowait("quit")
        for key in _KEY.findall(data):
            if (meant := _KEYS.get(key)) is not None:
                pressed.put_nowait(meant)

    tty.setcbreak(terminal)
    loop.add_reader(terminal, read)
    try:
        yield
    finally:
        loop.remove_reader(terminal)
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)


def _seconds(seconds: float | None) -> str:
    if seconds is None:
        return ""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7_200 else f"{seconds / 3_600:.0f} h"
