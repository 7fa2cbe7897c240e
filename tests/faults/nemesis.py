"""What goes wrong in a chaos run, and when: a plan drawn from a seed, and who carries it out.

The plan is a value: the same seed and length give the same plan, on any machine. What it meets
there (which job was in flight) is up to the machine.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Literal

from outbox.embedded import EmbeddedServer
from outbox.migrate import migrate
from tests.faults.checker import Struck
from tests.faults.proxy import Proxy

ROOT = Path(__file__).parents[2]

Kind = Literal[
    "kill", "freeze", "partition", "crash", "cut", "mute", "delay", "restart", "clock", "migrate"
]
WEIGHTS: Mapping[Kind, int] = {
    "kill": 4,
    "freeze": 1,
    "partition": 3,
    "crash": 2,
    "cut": 4,
    "mute": 4,
    "delay": 2,
    "restart": 2,
    "clock": 2,
    "migrate": 1,
}
PAUSE_S = 1.5


@dataclass(frozen=True)
class Fault:
    """One blow: `after_s` seconds of peace before it. `victim` counts dispatchers."""

    kind: Kind
    after_s: float
    lasts_s: float = 0.0
    victim: int = 0
    shift_s: int = 0


def plan_of(seed: int, *, length_s: float, dispatchers: int, lease_s: float) -> list[Fault]:
    """Return faults for about `length_s` seconds, each kind at least once where they fit."""
    draw = Random(seed)
    first: list[Kind] = list(WEIGHTS)
    draw.shuffle(first)
    plan: list[Fault] = []
    left_s = length_s
    while left_s > 0:
        kind = first.pop() if first else draw.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        lasts_s = {
            # Awake again while others run what was taken from it.
            "freeze": lease_s + draw.uniform(0.5, 2.5),
            "partition": draw.uniform(3, 4.5),
            "crash": draw.uniform(0, 3),
            "mute": draw.uniform(0, 0.5),
            "delay": draw.uniform(0.5, 2),
        }.get(kind, 0.0)
        fault = Fault(
            kind,
            round(draw.uniform(0.3, 2 * PAUSE_S), 3),
            round(lasts_s, 3),
            draw.randrange(dispatchers),
            draw.choice((-86_400, -3_600, -7, 7, 3_600, 86_400)) if kind == "clock" else 0,
        )
        plan.append(fault)
        left_s -= fault.after_s + fault.lasts_s
    return plan


class Fleet:
    """The dispatcher processes of a run; there are always as many."""

    def __init__(self, environ: Mapping[str, str], folder: Path, urls: Sequence[str]) -> None:
        self._environ = environ
        self._folder = folder
        self._urls = urls
        self._started = 0
        self.processes = [self._start(number, 0) for number in range(len(urls))]

    def _start(self, number: int, shift_s: int) -> subprocess.Popen[bytes]:
        self._started += 1
        with (self._folder / f"dispatcher-{self._started}.log").open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "tests.faults.clocked", str(shift_s)],
                cwd=ROOT,
                env={**self._environ, "OUTBOX_DATABASE_URL": self._urls[number]},
                stdout=log,
                stderr=log,
            )

    async def replace(self, victim: int, how: signal.Signals, *, shift_s: int = 0) -> None:
        """End one, and start another in its place."""
        process = self.processes[victim]
        process.send_signal(how)
        await asyncio.to_thread(process.wait)
        self.processes[victim] = self._start(victim, shift_s)

    def stop(self) -> None:
        """End all."""
        for process in self.processes:
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait()


class Nemesis:
    """Carries a plan out, and notes from when to when each fault could be felt."""

    def __init__(
        self, fleet: Fleet, server: EmbeddedServer, proxies: Sequence[Proxy], *, lease_s: float
    ) -> None:
        """`proxies`: one before each dispatcher, in their order, and one before all producers."""
        self._fleet = fleet
        self._server = server
        self._proxies = proxies
        self._lease_s = lease_s
        self.log: list[Struck] = []

    async def run(self, plan: list[Fault]) -> None:
        """Carry it out."""
        for fault in plan:
            await asyncio.sleep(fault.after_s)
            began = datetime.now(UTC)
            await self._strike(fault)
            # What it hit is noticed, at the latest, when its lease has run out.
            felt_until = datetime.now(UTC) + timedelta(seconds=2 * self._lease_s)
            self.log.append(Struck(fault.kind, began, felt_until))

    async def _strike(self, fault: Fault) -> None:
        process = self._fleet.processes[fault.victim]
        match fault.kind:
            case "kill":
                await self._fleet.replace(fault.victim, signal.SIGKILL)
            case "restart":
                await self._fleet.replace(fault.victim, signal.SIGTERM)
            case "clock":
                await self._fleet.replace(fault.victim, signal.SIGTERM, shift_s=fault.shift_s)
            case "freeze":
                os.kill(process.pid, signal.SIGSTOP)
                await asyncio.sleep(fault.lasts_s)
                os.kill(process.pid, signal.SIGCONT)
            case "crash":
                await asyncio.to_thread(self._server.stop_immediate)
                await asyncio.sleep(fault.lasts_s)
                await asyncio.to_thread(self._server.start)
            case "partition":
                proxy = self._proxies[fault.victim]
                proxy.refusing = True
                proxy.cut()
                await asyncio.sleep(fault.lasts_s)
                proxy.refusing = False
            case "cut":
                for proxy in self._proxies:
                    proxy.cut()
            case "mute":
                for proxy in self._proxies:
                    proxy.mute()
                await asyncio.sleep(fault.lasts_s)
                for proxy in self._proxies:
                    proxy.cut()
            case "delay":
                for proxy in self._proxies:
                    proxy.delay_s = 0.1
                await asyncio.sleep(fault.lasts_s)
                for proxy in self._proxies:
                    proxy.delay_s = 0.0
            case "migrate":
                await asyncio.to_thread(migrate, self._server.admin_url)
