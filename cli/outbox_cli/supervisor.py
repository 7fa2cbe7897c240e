"""Runs API and dispatchers as children: starts them, starts them again, stops them in time.

    start → ready (a line on the child's stdout) → … → SIGTERM → drained → gone
              │ dies before it ever was ready: everything stops, with its exit code
              └ dies later: started again, after a pause that doubles up to 10 s

Children end with us even if we are killed with -9 (see lifeline). They have process groups of
their own, so a Ctrl-C in the terminal reaches us alone, and we pass it on once, in order.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import Callable, Sequence
from time import monotonic
from typing import TYPE_CHECKING

import msgspec
import psycopg
import structlog

from outbox.config import Config
from outbox.errors import StoreUnavailable
from outbox_cli.exits import FAILED, OK, USAGE, leave
from outbox_cli.lifeline import READY
from outbox_cli.roles import GRACE_MARGIN_S, Role

if TYPE_CHECKING:
    from outbox.embedded import EmbeddedServer

PAUSE_S_MIN = 0.1
PAUSE_S_MAX = 10.0
STEADY_S = 30.0
"""A child that lived so long starts again at once, and its pauses begin anew."""
LOOK_AGAIN_S = 1.0

log = structlog.get_logger("outbox.supervisor")


class Supervisor:
    """Keeps one process per role. Use `run` once."""

    def __init__(
        self, roles: Sequence[Role], *, drain_s: float, on_ready: Callable[[], None]
    ) -> None:
        self._roles = roles
        self._grace_s = drain_s + GRACE_MARGIN_S
        self._on_ready = on_ready
        self._ready: set[Role] = set()
        self._children: dict[Role, asyncio.subprocess.Process] = {}
        self._stopping = asyncio.Event()
        self._killing = asyncio.Event()
        self._code = OK

    async def run(self) -> int:
        """Run until a signal, or until all have drained. Return the exit code."""
        loop = asyncio.get_running_loop()
        signals = [signal.SIGTERM, signal.SIGINT]
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # `nohup` ignores it for us
            signals.append(signal.SIGHUP)
        for number in signals:
            loop.add_signal_handler(number, self._on_signal, number)
        try:
            async with asyncio.TaskGroup() as tasks:
                stopper = tasks.create_task(self._stop_in_time())
                keepers = [tasks.create_task(self._keep(role)) for role in self._roles]
                await asyncio.gather(*keepers)
                stopper.cancel()
        finally:
            for number in signals:
                loop.remove_signal_handler(number)
        return self._code

    def stop(self, code: int = OK) -> None:
        """Stop all children; the first code that isn't 0 is the one that is returned."""
        self._code = self._code or code
        self._stopping.set()

    def restart(self) -> None:
        """Have every child started again: what they were given no longer holds."""
        for child in self._children.values():
            _signal(child, signal.SIGTERM)

    def _on_signal(self, number: signal.Signals) -> None:
        if self._stopping.is_set() and number == signal.SIGINT:
            self._killing.set()
        log.info("stopping", signal=number.name)
        self.stop()

    async def _keep(self, role: Role) -> None:
        pause_s = PAUSE_S_MIN
        while not self._stopping.is_set():
            began = monotonic()
            code = await self._run_child(role)
            if self._stopping.is_set() or (role.drain and code == OK):
                return
            if role not in self._ready or code == USAGE:
                # It has said why, on stderr. What cannot start once will not start twice.
                self.stop(code if code > 0 else FAILED)
                return
            if monotonic() - began > STEADY_S:
                pause_s = PAUSE_S_MIN
            log.warning(
                "a process died; starting it again",
                name=role.name,
                how=_how(code),
                again_in_s=pause_s,
            )
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._stopping.wait()
            pause_s = min(pause_s * 2, PAUSE_S_MAX)

    async def _run_child(self, role: Role) -> int:
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",  # whatever lies in the working directory is none of our modules
            "-m",
            "outbox_cli.child",
            msgspec.json.encode(role).decode(),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            process_group=0,
        )
        self._children[role] = child
        log.info("started", name=role.name, pid=child.pid)
        if self._stopping.is_set():
            _signal(child, signal.SIGTERM)
        assert child.stdout is not None
        try:
            while line := await child.stdout.readline():
                if line == READY:
                    self._note_ready(role)
            return await child.wait()
        finally:
            del self._children[role]

    def _note_ready(self, role: Role) -> None:
        if role in self._ready:
            log.info("ready again", name=role.name)
            return
        self._ready.add(role)
        if len(self._ready) == len(self._roles) and not self._stopping.is_set():
            self._on_ready()

    async def _stop_in_time(self) -> None:
        """Pass the order to stop on; kill who has not obeyed when the grace time is over."""
        await self._stopping.wait()
        for child in self._children.values():
            _signal(child, signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._grace_s):
                await self._killing.wait()
        for role, child in self._children.items():
            log.warning("killed: it did not stop in time", name=role.name, pid=child.pid)
            _signal(child, signal.SIGKILL)


def supervise(
    roles: list[Role],
    config: Config,
    embedded: EmbeddedServer | None,
    *,
    on_ready: Callable[[], None],
) -> None:
    """Run the roles until a signal, and an embedded server with them; exit if they failed."""

    async def run() -> int:
        supervisor = Supervisor(roles, drain_s=config.leave_s + config.drain_s, on_ready=on_ready)
        watch = None
        if embedded is not None:
            watch = asyncio.create_task(_keep_embedded(embedded, supervisor))
        try:
            return await supervisor.run()
        finally:
            if watch is not None:
                watch.cancel()
                await asyncio.gather(watch, return_exceptions=True)

    code = asyncio.run(run())
    leave()
    if code != OK:
        sys.exit(code)


async def _keep_embedded(server: EmbeddedServer, supervisor: Supervisor) -> None:
    """Start the embedded server again when it dies, as the processes that need it are."""
    while True:
        port = server.port
        with contextlib.suppress(psycopg.OperationalError):
            async with await psycopg.AsyncConnection.connect(
                server.url, autocommit=True, application_name="outbox supervisor"
            ) as connection:
                async for _ in connection.notifies():  # none will come: it ends with the server
                    pass
        log.warning("the embedded Postgres is gone; starting it again")
        try:
            await asyncio.to_thread(server.start)
        except StoreUnavailable as error:
            log.error("the embedded Postgres does not start", error=str(error))
            await asyncio.sleep(LOOK_AGAIN_S)
            continue
        if server.port != port:
            # Children know the old port; started again, they ask for the new one.
            supervisor.restart()


def _signal(child: asyncio.subprocess.Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        child.send_signal(number)


def _how(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
