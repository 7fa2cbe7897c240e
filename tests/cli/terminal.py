"""A command in a real pseudo-terminal, and what somebody sees who sits there."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import time
from types import TracebackType
from typing import Self

from tests.cli.shell import COMMAND, Shell

WAIT_S_MAX = 60.0
_STEERING = re.compile(rb"\x1b\[[0-9;?]*[a-zA-Z]")


class Terminal:
    """Begins with the command; `with` ends it."""

    def __init__(self, shell: Shell, *arguments: str) -> None:
        self._master, slave = pty.openpty()
        self.process = subprocess.Popen(
            [*COMMAND, *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=shell.folder,
            env=shell.environ | {"TERM": "xterm", "COLUMNS": "120", "LINES": "40"},
        )
        os.close(slave)
        self.shown = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)

    def see(self, words: bytes) -> None:
        """Read until these words come, colours and the like left out; what follows is kept."""
        deadline = time.monotonic() + WAIT_S_MAX
        while words not in self.shown:
            assert self._read(deadline - time.monotonic()), self.shown[-2_000:]
        self.shown = self.shown[self.shown.index(words) + len(words) :]

    def press(self, keys: bytes) -> None:
        """Type."""
        os.write(self._master, keys)

    def look_away(self) -> None:
        """Read what there is: a command that nobody reads cannot go on."""
        while self._read(0):
            pass

    def end(self) -> tuple[int, str]:
        """Return the exit code, and all that was shown since it was last looked for."""
        deadline = time.monotonic() + WAIT_S_MAX
        while self._read(deadline - time.monotonic()):
            pass
        return self.process.wait(WAIT_S_MAX), self.shown.decode()

    def _read(self, wait_s: float) -> bool:
        ready, _, _ = select.select([self._master], [], [], max(wait_s, 0))
        if not ready:
            return False
        try:
            told = os.read(self._master, 65_536)
        except OSError:  # Linux says so when the last who wrote is gone
            return False
        self.shown += _STEERING.sub(b"", told)
        return bool(told)
