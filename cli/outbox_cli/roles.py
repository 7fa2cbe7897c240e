"""What a supervised child is told: an argument of its command line, as JSON."""

from __future__ import annotations

from typing import Literal

import msgspec

GRACE_MARGIN_S = 10.0
"""Beyond the drain time: to record, to say goodbye, to stop the embedded server."""


class Role(msgspec.Struct, frozen=True, kw_only=True):
    """One child. `number` counts from 1 among its kind; `drain`: it ends by itself."""

    kind: Literal["api", "dispatcher"]
    number: int = 1
    queues: tuple[str, ...] | None = None
    drain: bool = False
    start_paused: bool = False

    @property
    def name(self) -> str:
        """What it is called in the log."""
        return f"{self.kind}-{self.number}"
