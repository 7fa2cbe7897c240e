"""The line of requests before the workers: fair between calls, bounded, redone where need be."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator, Sequence

from outbox.render.wire import Answer, RenderRequest


class Slot:
    """One request on its way to an answer."""

    __slots__ = ("batch", "deaths", "index", "mode", "redone", "request")

    def __init__(self, batch: Batch, index: int, mode: int, request: RenderRequest) -> None:
        self.batch = batch
        self.index = index
        self.mode = mode
        self.request = request
        self.deaths = 0
        """How many workers died, for no reason that they gave, while they worked on this."""
        self.redone = 0
        """How often it was lost with a worker that another request brought down."""


class Batch:
    """One call's requests; `done` is set when all have their answers."""

    __slots__ = ("answers", "done", "in_line", "left", "waiting")

    def __init__(self, mode: int, requests: Sequence[RenderRequest]) -> None:
        self.answers: list[Answer | None] = [None] * len(requests)
        self.waiting = deque(Slot(self, i, mode, request) for i, request in enumerate(requests))
        self.left = len(requests)
        self.in_line = False
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class Line:
    """Slots that wait for a worker. Calls take turns, so a campaign doesn't hold up one mail."""

    def __init__(self, *, slots_max: int) -> None:
        self._slots_max = slots_max
        self._turns: deque[Batch] = deque()
        self._again: deque[Slot] = deque()
        self._waiting = 0
        self._door = asyncio.Lock()
        self._room = asyncio.Event()

    def __len__(self) -> int:
        return self._waiting

    async def enter(self, batch: Batch) -> None:
        """Join the line, when there is room; in the order of arrival.

        A batch larger than the whole line is let in when the line is empty; one that has been
        answered meanwhile stays out.
        """
        async with self._door:
            while self._waiting and self._waiting + batch.left > self._slots_max:
                if batch.done.done():
                    return
                self._room.clear()
                await self._room.wait()
            batch.in_line = True
            self._waiting += batch.left
            self._turns.append(batch)

    def again(self, slots: Sequence[Slot]) -> None:
        """Put slots that were lost before all others, in their order."""
        self._again.extendleft(reversed(slots))
        self._waiting += len(slots)

    def take(self, slots_max: int) -> Iterator[Slot]:
        """Yield up to so many slots, whose requests have somebody waiting for them.

        One turn is one call of this: whose batch has more goes to the end.
        """
        taken = 0
        while taken < slots_max and self._again:
            slot = self._again.popleft()
            self._left(1)
            if not slot.batch.done.done():
                taken += 1
                yield slot
        while taken < slots_max and self._turns:
            batch = self._turns.popleft()
            try:
                while taken < slots_max and batch.waiting:
                    slot = batch.waiting.popleft()
                    self._left(1)
                    taken += 1
                    yield slot
            finally:
                if batch.waiting:
                    self._turns.append(batch)

    def leave(self, batch: Batch) -> None:
        """Forget the requests of a call that was given up."""
        if batch.in_line:
            self._left(len(batch.waiting))
        batch.waiting.clear()

    def wake(self) -> None:
        """Let those who wait for room look again at whether they still want it."""
        self._room.set()

    def drain(self) -> Iterator[Slot]:
        """Yield all that waits: there will be no worker."""
        yield from self.take(self._waiting)

    def _left(self, count: int) -> None:
        self._waiting -= count
        self._room.set()
