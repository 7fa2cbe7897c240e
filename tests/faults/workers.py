"""Dispatcher processes of fault tests, and what they delivered."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from uuid import UUID

ROOT = Path(__file__).parents[2]


class Workers:
    """Dispatcher processes, and the file that their receiver writes."""

    def __init__(self, url: str, folder: Path) -> None:
        self._url = url
        self.deliveries = folder / "deliveries"
        self.deliveries.touch()
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, *options: object) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.worker", self._url,
             str(self.deliveries), *map(str, options)],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self.processes.append(process)
        return process

    def delivered(self) -> list[tuple[UUID, int]]:
        lines = self.deliveries.read_text().splitlines()
        return [(UUID(line.split()[0]), int(line.split()[1])) for line in lines]

    def stop(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
            process.wait()
