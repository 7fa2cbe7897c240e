"""A real dispatcher process, by its settings alone, whose wall clock is off by so many seconds.

    python -m tests.faults.clocked SHIFT_S

`time.time` is shifted, and `datetime.now` where the channels use it. The monotonic clock, which
nobody can set, is not.
"""

from __future__ import annotations

import datetime
import os
import sys
import time
from importlib import import_module

from outbox.config import load_config
from outbox_dispatcher.process import Orders, run

CHANNELS = ("email", "http_errors", "inbox", "webhook")


class _AnyDatetime(type(datetime.datetime)):  # type: ignore[misc]
    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, datetime.date) and hasattr(value, "hour")


class Shifted(datetime.datetime, metaclass=_AnyDatetime):
    """The wall clock of a machine that has it wrong."""

    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> Shifted:
        return cls.fromtimestamp(time.time(), tz)


def shift_clock(by_s: float) -> None:
    """Move the wall clock of this process."""
    real_time, real_ns = time.time, time.time_ns
    time.time = lambda: real_time() + by_s
    time.time_ns = lambda: real_ns() + int(by_s * 1e9)
    for name in CHANNELS:
        module = import_module(f"outbox.channels.{name}")
        if hasattr(module, "datetime"):
            vars(module)["datetime"] = Shifted


def main() -> None:
    if shift_s := float(sys.argv[1]):
        shift_clock(shift_s)
    config = load_config(os.environ)
    assert config.database_url is not None
    run(config, config.database_url, Orders())


if __name__ == "__main__":
    main()
