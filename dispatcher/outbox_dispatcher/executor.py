"""Attempts: the last look before the start, the delivery itself, and its outcome."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from time import monotonic
from typing import Any, get_args

import structlog

from outbox.channels.captured import refused_test
from outbox.error_rules import overridden
from outbox.message import Lease, Message
from outbox.outcome import Outcome, Retryable
from outbox_dispatcher.gates import Gates
from outbox_dispatcher.lanes import LaneBook
from outbox_dispatcher.life import Life
from outbox_dispatcher.progress import ProgressBook, reports
from outbox_dispatcher.sandbox import Contained, contained
from outbox_dispatcher.slots import Item, Slots

LEASE_MARGIN_S = 5.0
"""An attempt starts only if its lease outlasts its timeout by so much."""
OUTCOMES: tuple[type, ...] = get_args(Outcome)
TIMEOUT_LOOK_S = 0.05
YIELD_EVERY = 32
"""A handler that never waits must not keep the heartbeat from its turn."""

log = structlog.get_logger(__name__)


class Executor:
    """Runs the slots of all queues. Every item that enters leaves by one of the callables."""

    def __init__(
        self,
        *,
        life: Life,
        lanes: LaneBook,
        finish: Callable[[Item, Outcome, datetime, float], None],
        expire: Callable[[Item], None],
        release: Callable[[Item], None],
        lose: Callable[[Item], None],
        gates: Gates,
        progress: ProgressBook,
    ) -> None:
        self._life = life
        self._lanes = lanes
        self._finish = finish
        self._expire = expire
        self._release = release
        self._lose = lose
        self._gates = gates
        self._progress = progress
        self.running: dict[Lease, Item] = {}
        self.stopping = False
        self.cut_off = False

    async def watch_timeouts(self) -> None:
        """Cancel attempts that have outlived their timeout, until cancelled.

        One look at all of them now and then costs less than a timer for each.
        """
        while True:
            await asyncio.sleep(TIMEOUT_LOOK_S)
            now = monotonic()
            for item in self.running.values():
                if item.times_out_at <= now and item.task is not None and not item.timed_out:
                    item.timed_out = True
                    item.task.cancel()

    async def work(self, slots: Slots) -> None:
        """Be one slot of a queue, until cancelled."""
        since_yield = 0
        task = asyncio.current_task()
        while True:
            item = await slots.take()
            item.task = task
            try:
                await self._run(item)
            except Exception as error:
                self._account_for(item, error)
            if self.cut_off:
                return
            since_yield += 1
            if since_yield >= YIELD_EVERY:
                since_yield = 0
                await asyncio.sleep(0)

    async def _run(self, item: Item) -> None:
        claimed = item.claimed
        if not self._may_start(item):
            self._release(item)
            return
        started_at = self._life.db_now()
        if claimed.expires_at is not None and started_at >= claimed.expires_at:
            self._expire(item)
            return
        began = monotonic()
        if item.decided is not None:
            self._finish(item, item.decided, started_at, began)
            return
        if self._gates.any and not claimed.test and self._gates.holds_back(item):
            return
        item.times_out_at = began + item.timeout_s
        lease = claimed.lease
        self.running[lease] = item
        try:
            outcome = await self._deliver(item)
        finally:
            self.running.pop(lease, None)
        if not claimed.test:
            self._gates.saw(item, outcome)
        if item.error_rules:
            outcome = overridden(outcome, item.error_rules, claimed.channel)
            if claimed.test:
                outcome = contained(outcome)
        self._finish(item, outcome, started_at, began)

    def _account_for(self, item: Item, error: Exception) -> None:
        """Have an outcome for an item that an error of our own, or a plugin's, has fallen upon.

        The slot lives on: a mistake over one job must not stop those behind it.
        """
        where = " > ".join(
            f"{Path(frame.filename).name}:{frame.lineno} {frame.name}"
            for frame in traceback.extract_tb(error.__traceback__)
        )
        log.error(
            "unexpected error around a delivery",
            queue=item.slots.queue,
            job_id=str(item.claimed.job_id),
            error=type(error).__name__,
            where=where,
        )
        reason = f"an unexpected error in the dispatcher: {type(error).__name__}"
        outcome = Retryable(code="dispatcher.error", reason=reason, ambiguous=True)
        try:
            self._finish(item, outcome, self._life.db_now(), monotonic())
        except Exception as again:
            # Its lease runs out, and whoever rescues it counts a crash against it.
            log.error("no outcome for a job", error=type(again).__name__)
            self._lose(item)

    def _may_start(self, item: Item) -> bool:
        """Pause, hold, fence and lease are looked at again right before an attempt starts."""
        claimed = item.claimed
        lane = self._lanes.get(claimed.lane_id)
        return (
            not self.stopping
            and claimed.epoch == self._life.epoch
            and self._life.may_start()
            and lane is not None
            and not lane.lane.paused
            and (not lane.lane.held or item.probe)
            and monotonic() + item.timeout_s + LEASE_MARGIN_S < item.lease_ends
        )

    async def _deliver(self, item: Item) -> Outcome:
        message = item.message
        assert message is not None
        assert item.handler is not None
        if message.test and not isinstance(item.handler, Contained):
            # Plugins' providers may know of no test jobs.
            refused = refused_test(message)
            assert refused is not None
            return refused
        try:
            if reports(type(item.handler)):
                outcome = await self._deliver_reporting(item, message)
            else:
                outcome = await item.handler.deliver(message, timeout_s=item.timeout_s)
        except asyncio.CancelledError as error:
            assert item.task is not None
            if item.timed_out:
                item.task.uncancel()
                reason = f"no outcome within {item.timeout_s:g} s"
                return Retryable(code="delivery.timeout", reason=reason, ambiguous=True)
            if not item.task.cancelling():
                # Nobody has cancelled us: what the handler itself was waiting for was cancelled.
                return _handler_failed(item, error)
            if not self.cut_off:
                raise
            return Retryable(
                code="dispatcher.stopped",
                reason="the dispatcher stopped before the delivery ended",
                retry_after_s=0.0,
                ambiguous=True,
            )
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            return _handler_failed(item, error)
        if not isinstance(outcome, OUTCOMES):
            return _no_outcome(item, outcome)
        return outcome

    async def _deliver_reporting(self, item: Item, message: Message) -> Outcome:
        handler: Any = item.handler
        progress = self._progress.begin(item.claimed)
        try:
            outcome: Outcome = await handler.deliver(
                message, timeout_s=item.timeout_s, progress=progress
            )
        finally:
            self._progress.end(progress)
        return outcome


def _handler_failed(item: Item, error: BaseException) -> Outcome:
    kind = type(error).__name__
    _say_of_handler("handler raised", item, error=kind)
    return Retryable(code="handler.error", reason=f"{kind}: {error}")


def _no_outcome(item: Item, returned: object) -> Outcome:
    # It may well have delivered, and forgotten to say so.
    kind = type(returned).__name__
    _say_of_handler("handler returned no outcome", item, returned=kind)
    reason = f"the handler returned {kind} instead of an outcome"
    return Retryable(code="handler.error", reason=reason, ambiguous=True)


def _say_of_handler(event: str, item: Item, **what: str) -> None:
    log.warning(event, queue=item.slots.queue, job_id=str(item.claimed.job_id), **what)
