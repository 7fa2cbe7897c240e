"""Outcomes on their way into the store: buffered for a moment, recorded in one statement.

Nothing leaves the buffer before Postgres has answered. When the reply of a commit was lost, the
same outcomes are recorded again, which changes nothing where they had arrived.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import re
from base64 import b64encode
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from time import monotonic
from typing import Literal

import psycopg
import structlog

from outbox.backoff import Backoff
from outbox.lifecycle import Again, Attempt, Ended, Held, Transition, next_transition
from outbox.message import EntryId, Epoch, LaneId, Lease
from outbox.outcome import Delivered, Outcome, Rejected, Retryable, Sent, Snoozed
from outbox.store import engine, limits
from outbox.store.engine import (
    Connection,
    EndpointGone,
    Recorded,
    StoreEffect,
    Suppression,
)
from outbox.tracecontext import trace_id_of
from outbox_dispatcher.histograms import Timed, arrival_s, histograms_of
from outbox_dispatcher.life import Life
from outbox_dispatcher.slots import Item, Slots

BATCH_MAX = 500
GATHER_S = 0.002
"""So long a batch waits for company while other attempts are running."""
CONTENT_BYTES_KEPT_MAX = 256 * 1024
DURATION_MS_MAX = 2_147_483_647
COMPLETED_LINES_MAX = 20
"""Of one batch; where more end together, one line tells how many."""
DESTINATION_PAUSED, NO_HANDLER = 3, 4
"""What a job that was handed back waits for (`entry.waits`)."""

log = structlog.get_logger(__name__)


@dataclass(slots=True, eq=False)
class Pending:
    """One outcome in the buffer, with what has to happen around its recording."""

    item: Item
    recorded: Recorded
    effects: tuple[StoreEffect, ...] = ()
    hold: Held | None = None
    ends_hold: bool = False
    own_scope: str | None = None
    said: Literal["well", "wrong"] | None = None
    timed: Timed | None = None
    tried: int = field(default=0)


class Recorder:
    """One loop that flushes; `finish`, `expire` and `release` fill the buffer."""

    def __init__(
        self,
        *,
        life: Life,
        backoff_of: Callable[[str | None], Backoff],
        probe_s: float,
        on_recorded: Callable[[Sequence[Pending]], None],
        on_next_heads: Callable[[set[EntryId], Sequence[Pending]], None],
        mask: Callable[[str], str],
    ) -> None:
        self._life = life
        self._backoff_of = backoff_of
        self._probe_s = probe_s
        self.on_recorded = on_recorded
        self._on_next_heads = on_next_heads
        self._mask = mask
        self._buffer: list[Pending] = []
        self._in_flight: list[Pending] = []
        self._event = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        self._put_total = 0
        self._stored_total = 0
        self._barriers: list[tuple[int, asyncio.Future[None]]] = []
        self.stopping = False

    def finish(self, item: Item, outcome: Outcome, started_at: datetime, began: float) -> None:
        """Take an attempt's outcome. `began`: monotonic seconds."""
        now = self._life.db_now()
        claimed = item.claimed
        backoff = self._backoff_of(claimed.channel)
        attempt = Attempt(
            number=claimed.attempt,
            attempts_max=claimed.attempts_max or backoff.attempts,
            expires_at=claimed.expires_at,
            now=now,
        )
        decided = next_transition(
            outcome,
            attempt=attempt,
            backoff=backoff,
            draw=random.random(),
            on_ambiguous=item.on_ambiguous,
        )
        if _was_stopped(outcome) and isinstance(decided, Again):
            decided = Again(
                now,
                claimed.attempt - 1,
                "backoff",
                "temporary",
                decided.error_code,
                decided.error_message,
            )
        duration_s = monotonic() - began
        recorded = self._recorded(item, decided, outcome, started_at, now, duration_s)
        if recorded.status == "FAILED" or recorded.error_class == "held":
            _log_trouble(item, recorded)
        self._put(
            Pending(
                item,
                recorded,
                effects=_effects(item, outcome),
                hold=decided if isinstance(decided, Held) else None,
                ends_hold=item.probe and isinstance(outcome, Delivered | Rejected),
                own_scope=_scope_in_trouble(item, outcome),
                said="well" if isinstance(outcome, Delivered | Rejected) else "wrong",
                timed=Timed(
                    duration_s=duration_s,
                    pickup_s=max((started_at - claimed.available_at).total_seconds(), 0.0),
                    arrival_s=arrival_s(claimed, now) if recorded.status == "SENT" else None,
                ),
            )
        )

    def expire(self, item: Item) -> None:
        """Take an item whose `expires_at` came before its attempt could start."""
        recorded = _recorded_of(item, "end", attempt=item.claimed.attempt - 1)
        recorded.status = "EXPIRED"
        recorded.finished_at = self._life.db_now()
        recorded.error_class = "expired"
        recorded.error_code = "job.expired"
        recorded.error_message = "expires_at passed before it could be delivered"
        self._put(Pending(item, recorded))

    def release(
        self,
        item: Item,
        *,
        delay_s: float | None = None,
        waits: int | None = None,
        lane: LaneId | None = None,
    ) -> None:
        """Give an item back that was not started; its try with it. `waits`: why for `delay_s`."""
        recorded = _recorded_of(item, "release", attempt=item.claimed.attempt)
        recorded.next_attempt = item.claimed.attempt - 1
        recorded.next_lane = lane
        if delay_s is not None:
            recorded.next_at = self._life.db_now() + timedelta(seconds=delay_s)
            recorded.waits = waits
        self._put(Pending(item, recorded))

    def known(self) -> list[Lease]:
        """Return the claims whose outcomes are not stored yet."""
        return [p.item.claimed.lease for p in (*self._buffer, *self._in_flight)]

    def adopted(self, leases: set[Lease], epoch: Epoch) -> None:
        """Note that these claims stand under a new epoch of this process now."""
        for pending in (*self._buffer, *self._in_flight):
            if pending.item.claimed.lease in leases:
                pending.recorded.epoch = epoch

    def outstanding(self) -> dict[Slots, int]:
        """Return how many outcomes of each queue are not stored yet."""
        return count_by_slots((*self._buffer, *self._in_flight))

    def items(self) -> list[Item]:
        """Return the items whose outcomes are not stored yet."""
        return [p.item for p in (*self._buffer, *self._in_flight)]

    async def drained(self) -> None:
        """Wait until everything is stored."""
        await self._empty.wait()

    async def barrier(self) -> None:
        """Wait until all that is in the buffer now is stored, whatever comes after it."""
        if self._stored_total < self._put_total:
            stored = asyncio.get_running_loop().create_future()
            self._barriers.append((self._put_total, stored))
            await stored

    def _put(self, pending: Pending) -> None:
        self._buffer.append(pending)
        self._put_total += 1
        self._empty.clear()
        self._event.set()

    async def run(self, connection: Connection, busy: Callable[[], bool]) -> None:
        """Flush until cancelled. Lets psycopg's OperationalError out, with nothing lost."""
        if self._in_flight:
            await self._store(connection, self._in_flight)
            self._settle()
        while True:
            await self._event.wait()
            if len(self._buffer) < BATCH_MAX and busy() and not self.stopping:
                await asyncio.sleep(GATHER_S)
            self._in_flight = self._buffer[:BATCH_MAX]
            del self._buffer[:BATCH_MAX]
            if not self._buffer:
                self._event.clear()
            if self._in_flight:
                await self._store(connection, self._in_flight)
                self._settle()

    def _settle(self) -> None:
        done, self._in_flight = self._in_flight, []
        self._stored_total += len(done)
        while self._barriers and self._barriers[0][0] <= self._stored_total:
            stored = self._barriers.pop(0)[1]
            if not stored.done():
                stored.set_result(None)
        _log_completed(done)
        self.on_recorded(done)
        if not self._buffer:
            self._empty.set()

    async def _store(self, connection: Connection, batch: list[Pending]) -> None:
        for pending in batch:
            await self._around_hold(connection, pending)
        try:
            await self._record(connection, batch)
        except psycopg.OperationalError:
            raise
        except psycopg.Error as error:
            await self._halve(connection, batch, error)

    async def _record(self, connection: Connection, batch: Sequence[Pending]) -> None:
        unexpected = await engine.record(
            connection,
            [p.recorded for p in batch],
            histograms_of(
                (p.recorded, p.recorded.next_lane or p.item.claimed.lane_id, p.timed)
                for p in batch
            ),
            [(p.recorded, p.effects) for p in batch if p.effects],
            epoch=self._life.epoch,
        )
        if heads := {u.id for u in unexpected if u.ordered}:
            self._on_next_heads(heads, batch)
        for odd in (u for u in unexpected if u.refused and not u.repeated):
            log.warning(
                "outcome came after its lease had moved on"
                if odd.late
                else "cancelled while it ran",
                entry=odd.id,
                lease_no=odd.lease_no,
            )

    async def _halve(
        self, connection: Connection, batch: list[Pending], error: psycopg.Error
    ) -> None:
        """One bad outcome must not stop its neighbours: find it, and record it as failed."""
        if len(batch) > 1:
            middle = len(batch) // 2
            await self._store_part(connection, batch[:middle])
            await self._store_part(connection, batch[middle:])
            return
        pending = batch[0]
        log.error(
            "outcome cannot be stored", entry=pending.item.claimed.id, error=type(error).__name__
        )
        failed = _recorded_of(pending.item, "end", attempt=pending.item.claimed.attempt)
        failed.status = "FAILED"
        failed.started_at = pending.recorded.started_at
        failed.finished_at = self._life.db_now()
        failed.error_class = "permanent"
        failed.error_code = "record.failed"
        failed.error_message = f"the outcome could not be stored: {type(error).__name__}"
        failed.dead_reason = "permanent"
        pending.recorded, pending.effects = failed, ()
        await self._record(connection, [pending])

    async def _store_part(self, connection: Connection, part: list[Pending]) -> None:
        try:
            await self._record(connection, part)
        except psycopg.OperationalError:
            raise
        except psycopg.Error as error:
            await self._halve(connection, part, error)

    async def _around_hold(self, connection: Connection, pending: Pending) -> None:
        claimed = pending.item.claimed
        if pending.ends_hold:
            await engine.end_hold(connection, claimed.lane_id)
        elif pending.item.probe and pending.hold is None:
            await engine.end_probe(connection, claimed.lane_id)
        if pending.own_scope is not None and pending.recorded.op == "again":
            pending.recorded.next_lane = await limits.scope_lane(
                connection,
                tenant_id=claimed.tenant_id,
                queue=claimed.queue,
                scope=pending.own_scope,
            )
        hold = pending.hold
        if hold is None:
            return
        apart = "test:" if claimed.test else ""  # outbox.is_test_lane
        if hold.scope == "ambiguous":
            # Nobody probes it: that would be sending it again.
            pending.recorded.next_lane = await engine.hold_lane(
                connection,
                tenant_id=claimed.tenant_id,
                queue=claimed.queue,
                scope=f"{apart}ambiguous",
                code="delivery.ambiguous",
                reason="It may have been delivered: release it, or withdraw it",
                probe_s=None,
            )
            return
        key = hold.scope_key or claimed.job_id
        scope = "" if hold.scope == "lane" else f"{apart}{hold.scope}:{key}"
        lane = await engine.hold_lane(
            connection,
            tenant_id=claimed.tenant_id,
            queue=claimed.queue,
            scope=scope,
            code=hold.error_code,
            reason=self._hold_reason(pending.item, hold),
            probe_s=self._probe_s,
        )
        pending.recorded.next_lane = lane

    def _hold_reason(self, item: Item, hold: Held) -> str:
        """Return why a lane is held: no secret, and not whose message it was that showed it."""
        reason = self._mask(hold.error_message)
        message = item.message
        if message is None or message.channel == "webhook" or not message.to:
            return reason
        return re.sub(re.escape(message.to), "***", reason, flags=re.IGNORECASE)

    def _recorded(
        self,
        item: Item,
        decided: Transition,
        outcome: Outcome,
        started_at: datetime,
        now: datetime,
        duration_s: float,
    ) -> Recorded:
        recorded = _recorded_of(item, "end", attempt=item.claimed.attempt)
        recorded.started_at = started_at
        recorded.finished_at = now
        recorded.duration_ms = min(int(duration_s * 1000), DURATION_MS_MAX)
        match decided:
            case Ended():
                recorded.status = decided.status
                recorded.error_class = decided.error_class
                recorded.error_code = decided.error_code
                recorded.dead_reason = decided.dead_reason
                message = decided.error_message
            case Again():
                recorded.op = "again"
                recorded.status = "RETRYING"
                recorded.next_at = decided.at
                recorded.next_attempt = decided.attempts_used
                recorded.waits = 1 if decided.waits_for == "backoff" else 2
                recorded.error_class = decided.error_class
                recorded.error_code = decided.error_code
                message = decided.error_message
            case Held():
                recorded.op = "again"
                recorded.status = "RETRYING"
                recorded.next_at = decided.at
                recorded.next_attempt = decided.attempts_used
                recorded.error_class = "held"
                recorded.error_code = decided.error_code
                message = decided.error_message
        recorded.error_message = None if message is None else self._mask(message)
        if isinstance(outcome, Delivered):
            recorded.provider_message_id = outcome.provider_message_id
        _say_what_was_sent(recorded, item, getattr(outcome, "sent", None))
        return recorded


def _recorded_of(item: Item, op: Literal["end", "release"], *, attempt: int) -> Recorded:
    claimed = item.claimed
    return Recorded(
        id=claimed.id,
        lease_no=claimed.lease_no,
        epoch=claimed.epoch,
        op=op,
        series=claimed.series,
        attempt=attempt,
        tenant_id=claimed.tenant_id,
    )


def _log_trouble(item: Item, recorded: Recorded) -> None:
    """Say that a job failed or is held: the code only, as a server's words may name an address."""
    is_held = recorded.error_class == "held"
    say = log.warning if is_held else log.error
    say(
        "job held" if is_held else "job failed",
        job_id=str(item.claimed.job_id),
        tenant=item.claimed.tenant_id,
        queue=item.claimed.queue,
        error_code=recorded.error_code,
        attempt=item.claimed.attempt,
        **_trace_of(item),
    )


def _trace_of(item: Item) -> dict[str, str]:
    trace_id = trace_id_of(item.claimed.traceparent)
    return {} if trace_id is None else {"trace_id": trace_id}


def _log_completed(batch: Sequence[Pending]) -> None:
    """Say what was sent: a line a job, or where many end together, one for all of them.

    Under load nobody reads a line a job, and writing them would cost as much as the jobs do.
    """
    sent = [p for p in batch if p.recorded.status == "SENT"]
    if len(sent) > COMPLETED_LINES_MAX:
        log.info(
            "jobs completed", jobs=len(sent), queues=Counter(p.item.slots.queue for p in sent)
        )
        return
    for pending in sent:
        claimed = pending.item.claimed
        log.info(
            "job completed",
            job_id=str(claimed.job_id),
            tenant=claimed.tenant_id,
            queue=claimed.queue,
            attempt=claimed.attempt,
            duration_ms=pending.recorded.duration_ms,
            **_trace_of(pending.item),
        )


def _scope_in_trouble(item: Item, outcome: Outcome) -> str | None:
    """Return the part of the lane that waits by itself from now on, apart from the others."""
    message = item.message
    if message is None or message.endpoint is None or not isinstance(outcome, Retryable):
        return None
    if message.test:
        return None
    return f"endpoint:{message.endpoint}"


def _was_stopped(outcome: Outcome) -> bool:
    return getattr(outcome, "code", None) == "dispatcher.stopped"


def _effects(item: Item, outcome: Outcome) -> tuple[StoreEffect, ...]:
    message = item.message
    effects = outcome.effects if isinstance(outcome, Delivered) else ()
    if message is None or isinstance(outcome, Snoozed):
        return effects
    if isinstance(outcome, Rejected) and outcome.suppress and message.endpoint:
        return (EndpointGone(endpoint_id=message.endpoint, reason=outcome.reason),)
    gone = outcome.gone
    if isinstance(outcome, Rejected) and outcome.suppress and message.to:
        gone = (message.to, *gone)
    if not gone:
        return effects
    suppressions = (
        Suppression(
            channel=message.channel or message.queue,
            address=address,
            code=getattr(outcome, "code", "device.gone"),
            reason=getattr(outcome, "reason", ""),
        )
        for address in gone
    )
    return (*effects, *suppressions)


def _say_what_was_sent(recorded: Recorded, item: Item, sent: Sent | None) -> None:
    message = item.message
    if sent is not None:
        recorded.provider = sent.provider
        recorded.recipient = sent.recipient
        recorded.subject = sent.subject
        recorded.template_version = sent.template_version
        recorded.locale = None if message is None else message.locale
        if sent.content is not None and item.keep_content != "none":
            recorded.content_sha256 = hashlib.sha256(sent.content).hexdigest()
            if item.keep_content == "full":
                recorded.content = b64encode(sent.content[:CONTENT_BYTES_KEPT_MAX]).decode()
    elif message is not None and message.channel is not None:
        recorded.recipient = message.to
        recorded.subject = message.subject
        recorded.template_version = message.template_version
        recorded.locale = message.locale


def count_by_slots(batch: Sequence[Pending]) -> dict[Slots, int]:
    """Return how many of a batch belong to each queue's slots."""
    counts: dict[Slots, int] = defaultdict(int)
    for pending in batch:
        counts[pending.item.slots] += 1
    return counts
