"""A queue's slots in this process: how many run at once, and how many may wait behind them."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from time import monotonic

import msgspec

from outbox.channels import Handler
from outbox.error_rules import ErrorRule
from outbox.lifecycle import Ambiguity
from outbox.message import Epoch, LaneId, Message
from outbox.outcome import Outcome
from outbox.store.engine import Claimed
from outbox_dispatcher.directory import Person
from outbox_dispatcher.limits import Quota

PREFETCH_S = 0.1
"""A queue's prefetch is what it gets through in this time: enough to overlap claim and record."""
CLAIM_ROWS_MAX = 250
"""Of one queue at once. A claim of the whole prefetch would leave nothing to deliver meanwhile
(measured: 25,000 jobs a second with claims of 500, 36,000 with 250)."""


@dataclass(slots=True, eq=False)
class Item:
    """A claimed job on its way through this process. `lease_ends`: monotonic seconds."""

    claimed: Claimed
    slots: Slots
    lease_ends: float
    handler: Handler | None = None
    timeout_s: float = 0.0
    message: Message | None = None
    decided: Outcome | None = None
    divert_to: LaneId | None = None
    defer_s: float | None = None
    quotas: tuple[Quota, ...] = ()
    error_rules: tuple[ErrorRule, ...] = ()
    opt_out_link: str | None = None
    person: Person | None = None
    keep_content: str = "hash"
    on_ambiguous: Ambiguity = "resend"
    probe: bool = False
    task: asyncio.Task[None] | None = None
    times_out_at: float = 0.0
    timed_out: bool = False

    def adopt(self, epoch: Epoch) -> None:
        """Carry on under a new epoch of this process."""
        self.claimed = msgspec.structs.replace(self.claimed, epoch=epoch)


class Slots:
    """Bounded room for one queue. `outstanding` counts from claim to record."""

    def __init__(self, queue: str, *, concurrency: int, prefetch_max: int) -> None:
        self.queue = queue
        self.concurrency = concurrency
        self._prefetch_max = prefetch_max
        self.ready: deque[Item] = deque()
        self.outstanding = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._done = 0
        self._measured_at = monotonic()
        self._rate_per_s = 0.0

    @property
    def target(self) -> int:
        """How many may be outstanding: the slots, and a prefetch by the measured rate."""
        prefetch = min(int(self._rate_per_s * PREFETCH_S), self._prefetch_max)
        return self.concurrency + max(self.concurrency, prefetch)

    @property
    def room(self) -> int:
        """How many more may be claimed now; 0 while there is not enough room for a good batch."""
        target = self.target
        free = target - self.outstanding
        if self.outstanding >= self.concurrency and free < min(CLAIM_ROWS_MAX, target // 2):
            return 0
        return min(free, CLAIM_ROWS_MAX)

    def put(self, items: list[Item]) -> None:
        """Hand over items that are ready to start."""
        self.ready.extend(items)
        for _ in range(min(len(items), len(self._waiting))):
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)

    async def take(self) -> Item:
        """Wait for the next item."""
        while not self.ready:
            waiter = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            await waiter
        return self.ready.popleft()

    def finished(self, count: int) -> None:
        """Note that so many left this process (recorded or given back)."""
        self.outstanding -= count
        self._done += count
        now = monotonic()
        elapsed_s = now - self._measured_at
        if elapsed_s >= PREFETCH_S / 2:
            rate = self._done / elapsed_s
            self._rate_per_s = rate if rate > self._rate_per_s else (self._rate_per_s + rate) / 2
            self._done = 0
            self._measured_at = now
