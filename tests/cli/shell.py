"""Runs `outbox` in processes of its own, and waits for what they say and when they end."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar

COMMAND = (sys.executable, "-P", "-m", "outbox_cli")
WAIT_S_MAX = 60.0
POLL_S = 0.02

T = TypeVar("T")


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass
class Shell:
    """A working directory and an environment."""

    folder: Path
    environ: dict[str, str] = field(default_factory=dict)
    running: list[Running] = field(default_factory=list)

    def __enter__(self) -> Self:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("OUTBOX_")}
        self.environ = kept | {"OUTBOX_LOG_FORMAT": "json"}
        return self

    def __exit__(self, *_: object) -> None:
        for each in self.running:
            each.kill_all()

    def run(
        self,
        *arguments: str,
        stdin: str | bytes = b"",
        env: Mapping[str, str] | None = None,
        redirect: str = "",
    ) -> Done:
        """Run a command to its end; `redirect` is what a shell would have behind it."""
        given = stdin.encode() if isinstance(stdin, str) else stdin
        shell = ("sh", "-c", f'exec "$@" {redirect}', "sh") if redirect else ()
        done = subprocess.run(
            [*shell, *COMMAND, *arguments],
            cwd=self.folder,
            env=self.environ | dict(env or {}),
            input=given,
            capture_output=True,
            timeout=WAIT_S_MAX,
            check=False,
        )
        out, err = done.stdout.decode(), done.stderr.decode()
        assert "Traceback" not in err, err
        return Done(done.returncode, out, err)

    def start(self, *arguments: str, env: Mapping[str, str] | None = None) -> Running:
        """Start a command that stays."""
        log = self.folder / f"stderr-{len(self.running)}.log"
        with log.open("wb") as stderr:
            process = subprocess.Popen(
                [*COMMAND, *arguments],
                cwd=self.folder,
                env=self.environ | dict(env or {}),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                bufsize=0,  # a line that Python had read ahead would be waited for in vain
                start_new_session=True,
            )
        running = Running(process, log)
        self.running.append(running)
        return running


@dataclass
class Running:
    """A process that stays, and what its log says of its children."""

    process: subprocess.Popen[bytes]
    log: Path

    def line(self) -> str:
        """Return the next line of its stdout; "" at its end."""
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], WAIT_S_MAX)
        assert ready, f"nothing was printed within {WAIT_S_MAX:.0f} s: {self.log.read_text()}"
        return self.process.stdout.readline().decode().rstrip("\n")

    def rest(self) -> str:
        """Return what else it prints until it ends."""
        assert self.process.stdout is not None
        return self.process.stdout.read().decode()

    def ready(self) -> str:
        """Wait for the ready line; return the URL in it."""
        word, _, url = self.line().partition(" ")
        assert word == "ready", self.log.read_text()
        return url

    def stop(self) -> int:
        """Ask it to stop; return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(WAIT_S_MAX)

    def events(self, event: str) -> list[dict[str, Any]]:
        """Return the lines of its log, so far, that say `event`."""
        found = []
        for text in self.log.read_text().splitlines():
            with contextlib.suppress(ValueError):
                line = json.loads(text)
                if line.get("event") == event:
                    found.append(line)
        return found

    def children(self) -> dict[str, int]:
        """Return the newest child by name, with its process id."""
        return {line["name"]: line["pid"] for line in self.events("started")}

    def kill_all(self) -> None:
        """Kill it and every child, as an angry kernel would."""
        for pid in (self.process.pid, *(line["pid"] for line in self.events("started"))):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(WAIT_S_MAX)
        if self.process.stdout is not None:
            self.process.stdout.close()


def until(what: Callable[[], T | None], *, within_s: float = WAIT_S_MAX) -> T:
    """Wait until `what` returns something that is true, and return that."""
    deadline = time.monotonic() + within_s
    while True:
        found = what()
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {within_s:.0f} s"
        select.select([], [], [], POLL_S)


def gone(pid: int) -> bool:
    """Tell whether a process has ended (one that nobody has waited for counts)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
