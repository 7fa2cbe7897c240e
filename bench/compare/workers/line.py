"""A worker's line to `rounds.py`: JSON lines on stdout; what else is printed goes to stderr.

    worker fill URL N     install the peer's schema, hand N jobs in by its bulk call
    worker work URL       tell {"ready": true}, wait for a line, work until SIGTERM or end of stdin
    worker submit URL     for each line on stdin (an id) hand one job in

`work` tells {"handled": n} a few times a second and {"started": id, "at_ns": …} for each job that
has an id; `submit` tells {"id": …, "at_ns": …}, taken right before the commit.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Iterator

TEXT = "x" * 400
TELL_S = 0.02

_out_fd = os.dup(1)
os.dup2(2, 1)


def tell(**told: object) -> None:
    os.write(_out_fd, json.dumps(told).encode() + b"\n")


class Work:
    """Counts what was handled; a thread tells it, so that the handler costs next to nothing."""

    def __init__(self) -> None:
        self.handled = 0

    def ready_and_go(self) -> None:
        tell(ready=True)
        if not sys.stdin.readline():
            sys.exit(0)
        threading.Thread(target=self._tell, daemon=True).start()
        threading.Thread(target=self._watch, daemon=True).start()

    def started(self, job_id: str | None) -> None:
        if job_id is not None:
            tell(started=job_id, at_ns=time.time_ns())
        self.handled += 1

    def _tell(self) -> None:
        told = 0
        while True:
            time.sleep(TELL_S)
            if self.handled != told:
                told = self.handled
                tell(handled=told)

    def _watch(self) -> None:
        sys.stdin.read()
        os._exit(0)


def ids() -> Iterator[str]:
    tell(ready=True)
    while line := sys.stdin.readline():
        yield line.strip()


def arguments() -> tuple[str, str, int]:
    """Return the mode, the URL, and for `fill` how many."""
    mode, url, *rest = sys.argv[1:]
    return mode, url, int(rest[0]) if rest else 0
