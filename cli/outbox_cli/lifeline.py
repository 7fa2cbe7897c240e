"""A child's side of being supervised: it ends with its parent, whatever ends that.

The parent holds the other end of our stdin and never writes to it: end of file means that it is
gone, also by a kill -9. Then we stop as on any SIGTERM, and are gone for certain when the grace
time is over. (The kernel's own PR_SET_PDEATHSIG would be a second SIGTERM, and the second one
finds no handler any more: it could cut off the goodbye.)

Our stdout is the parent's: one line `ready` goes there. Whatever else prints to stdout (the
channel provider `log` does) goes to stderr, so that `outbox serve` prints one line and no more.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable

READY = b"ready\n"


def follow_parent(*, grace_s: float) -> None:
    """Have this process stop when whoever started it, and holds its stdin, is gone."""
    watcher = threading.Thread(target=_watch, args=(grace_s,), name="lifeline", daemon=True)
    watcher.start()


def take_stdout() -> Callable[[], None]:
    """Keep stdout for the one line `ready`; return what writes it."""
    status_fd = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def ready() -> None:
        os.write(status_fd, READY)

    return ready


def _watch(grace_s: float) -> None:
    """Wait for the parent's end; then ask ourselves to stop, and see to it."""
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(grace_s)
    os.kill(os.getpid(), signal.SIGKILL)
