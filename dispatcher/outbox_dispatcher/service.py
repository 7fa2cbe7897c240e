"""One dispatcher process: sessions against Postgres, one after the other, until told to stop.

    claim (short transaction, lease_no + 1) → prepare (address, template, rendering)
          → no transaction open → deliver → Outcome → next_transition (pure)
          → record (fenced by lease_no), with history

A session is what lies between two (re)connections: an epoch, its connections, its loops. When it
ends, attempts that run go on, and the next session adopts them; the rest is given back.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack
from datetime import datetime
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING

import psycopg
import structlog

from outbox.channels import Handler
from outbox.channels.registry import CONTRACT_CHANNELS
from outbox.channels.s3 import S3_SCOPE
from outbox.message import EntryId, Epoch, LaneId, Lease
from outbox.opting_out import OptOutLinks
from outbox.outcome import Outcome, Rejected, Retryable
from outbox.render import RenderPool
from outbox.sealing import Keyring
from outbox.store import dispatch, engine
from outbox.store.revisions import too_new
from outbox_dispatcher.claimer import Claimer
from outbox_dispatcher.endpoints import EndpointShelf
from outbox_dispatcher.executor import Executor
from outbox_dispatcher.facts import Facts
from outbox_dispatcher.gates import Gates
from outbox_dispatcher.keeper import keep
from outbox_dispatcher.lanes import LaneBook
from outbox_dispatcher.life import Life
from outbox_dispatcher.limits import Limits
from outbox_dispatcher.links import Links, open_links
from outbox_dispatcher.liveness import Fenced, Liveness, keep_leases
from outbox_dispatcher.preparer import Preparer
from outbox_dispatcher.progress import ProgressBook
from outbox_dispatcher.recorder import (
    DESTINATION_PAUSED,
    NO_HANDLER,
    Pending,
    Recorder,
    count_by_slots,
)
from outbox_dispatcher.replays import replay
from outbox_dispatcher.sandbox import Sandbox, contained
from outbox_dispatcher.schedules import fire_schedules
from outbox_dispatcher.settings import DispatcherSettings
from outbox_dispatcher.slots import Item, Slots
from outbox_dispatcher.tenants import TenantBook
from outbox_dispatcher.upkeep import upkeep
from outbox_dispatcher.wakeup import Wakeup
from outbox_dispatcher.watchman import watch

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

RECONNECT_S_MAX = 2.0
BEGIN_S_MAX = 30.0
FAREWELL_S_MAX = 2.0
"""Once a session is over: what is still being asked is answered by then, or not at all."""
NO_HANDLER_RETRY_S = 30.0
"""What this process cannot deliver waits so long before it is offered again."""

log = structlog.get_logger(__name__)


class Dispatcher:
    """Composes the parts. `run` returns when it was stopped, or drained."""

    def __init__(
        self,
        settings: DispatcherSettings,
        *,
        channels: Mapping[str, Handler],
        queues: Mapping[str, Handler],
        tracer: Tracer | None = None,
    ) -> None:
        self._settings = settings
        self._channels = channels
        self._queues = queues
        self._foreign_queues: set[str] = set()
        self._slots: dict[str, Slots] = {}
        self._workers: list[asyncio.Task[None]] = []
        self._careful: EntryId | None = None
        self._former: list[Epoch] = []
        self._stop = asyncio.Event()
        self._stopped_at = 0.0
        self._session: asyncio.TaskGroup | None = None
        self._links: Links | None = None
        self.life = Life()
        self.limits = Limits()
        self.lanes = LaneBook(settings.queues, self.limits)
        self.gates = Gates(
            limits=self.limits,
            lanes=self.lanes,
            life=self.life,
            release=self._turn_away,
            on_new_lane=lambda: self.liveness.control_changed(),
        )
        self.tenants = TenantBook(
            settings=settings.provider_settings,
            keyring=Keyring(settings.secret_key),
            now=self.life.db_now,
            gate=self.gates,
        )
        self.sandbox = Sandbox(settings.provider_settings)
        self.wakeup = Wakeup(poll_s_min=settings.poll_s_min, poll_s_max=settings.poll_s_max)
        self.recorder = Recorder(
            life=self.life,
            backoff_of=settings.backoff_of,
            probe_s=settings.probe_s,
            on_recorded=self._recorded,
            on_next_heads=self._next_heads,
            mask=self._mask,
        )
        self.progress = ProgressBook(life=self.life, mask=self._mask)
        executor: Callable[..., Executor] = Executor
        hand_over: Callable[[list[Item]], None] = self._hand_over
        finish: Callable[[Item, Outcome, datetime, float], None] = self.recorder.finish
        # Composed in, not asked for at each job: what is off costs nothing.
        self._tracing = None
        if tracer is not None:
            from outbox_dispatcher.tracing import TracedExecutor, Tracing

            self._tracing = Tracing(tracer, self.life)
            executor = partial(TracedExecutor, tracing=self._tracing)
            hand_over = self._tracing.on_claimed(hand_over)
            finish = self._tracing.on_finish(finish)
            self.recorder.on_recorded = self._tracing.on_recorded(self._recorded)
        self.executor = executor(
            life=self.life,
            lanes=self.lanes,
            finish=finish,
            expire=self.recorder.expire,
            release=self.recorder.release,
            lose=self._lose,
            gates=self.gates,
            progress=self.progress,
        )
        self.claimer = Claimer(
            life=self.life,
            lanes=self.lanes,
            limits=self.limits,
            slots=self._slots,
            wakeup=self.wakeup,
            lease_s=settings.lease_s,
            hand_over=hand_over,
            suspects_allowed=lambda: self._careful is None,
        )
        self.liveness = Liveness(
            life=self.life,
            lanes=self.lanes,
            wakeup=self.wakeup,
            heartbeat_s=settings.heartbeat_s,
            schema_revision=settings.schema_revision,
            on_lanes=self._lanes_changed,
            on_outdated=self._outdated,
            gates=self.gates,
        )
        self.ready = asyncio.Event()
        self.outdated: str | None = None
        """Why this version cannot go on, once somebody has migrated past it."""

    def stop(self) -> None:
        """Claim nothing more; finish what runs within the grace time; hand the rest back."""
        if not self._stop.is_set():
            self._stopped_at = monotonic()
            self._stop.set()

    async def run(self, *, drain: bool = False) -> None:
        """Deliver until stopped; with `drain`, until nothing is due."""
        async with AsyncExitStack() as stack:
            for handler in {
                id(h): h for h in (*self._channels.values(), *self._queues.values())
            }.values():
                await stack.enter_async_context(handler)
            await stack.enter_async_context(self.sandbox)
            stack.push_async_callback(self.tenants.close)
            render = await stack.enter_async_context(RenderPool(self._settings.render_workers))
            self._preparer = Preparer(
                render=render,
                default_locale=self._settings.default_locale,
                timeout_s=self._settings.timeout_s,
                held=self._own_lane,
                endpoints=EndpointShelf(Keyring(self._settings.secret_key)),
                now=self.life.db_now,
                tenants=self.tenants,
                links=OptOutLinks(self._settings.public_url, Keyring(self._settings.secret_key)),
            )
            self._prepare_batch: Callable[..., Awaitable[None]] = self._preparer.prepare
            if self._tracing is not None:
                self._prepare_batch = self._tracing.on_prepare(self._prepare_batch)
            watching = asyncio.create_task(self.executor.watch_timeouts())
            try:
                await self._sessions(drain=drain)
            finally:
                watching.cancel()
                for worker in self._workers:
                    worker.cancel()
                await asyncio.gather(*self._workers, return_exceptions=True)

    async def _sessions(self, *, drain: bool) -> None:
        pause_s = 0.05
        while True:
            self.life.turned()
            try:
                async with open_links(
                    self._settings.database_url, self._settings.direct_database_url
                ) as links:
                    with links.answer_within(BEGIN_S_MAX):
                        await self._begin(links)
                    pause_s = 0.05
                    await self._live(links, drain=drain)
                    return
            except* (psycopg.Error, Fenced, OSError) as group:
                self.life.fence()
                error = _first(group)
                log.warning("lost the database", error=type(error).__name__, again_in_s=pause_s)
            finally:
                self._drop_unstarted()
            _still_wanted()
            if self._stop.is_set() and self._may_give_up():
                return
            try:
                async with asyncio.timeout(pause_s * random.uniform(0.5, 1.0)):
                    await self._stop.wait()
                    await asyncio.sleep(pause_s)
            except TimeoutError:
                pass
            pause_s = min(pause_s * 2, RECONNECT_S_MAX)

    def _may_give_up(self) -> bool:
        """Return whether a stopped process can leave without the database."""
        unsaved = len(self.executor.running) + len(self.recorder.known())
        if unsaved and monotonic() < self._stopped_at + self._settings.drain_s:
            return False
        if unsaved:
            log.error("leaving without the database: others will rescue", entries=unsaved)
        return True

    async def _begin(self, links: Links) -> None:
        """Start an epoch, and carry over what still runs under the ones before."""
        settings = self._settings
        if self.life.epoch:
            self._former.append(self.life.epoch)
        epoch = self.life.begin()
        await engine.register(
            links.bell,
            epoch=epoch,
            name=settings.name,
            version=settings.code_version,
            schema_revision=settings.schema_revision,
            pid=os.getpid(),
            queues=None if settings.queues is None else sorted(settings.queues),
            lease_s=settings.lease_s,
            handlers=[f"channel:{name}" for name in self._channels]
            + [f"queue:{name}" for name in self._queues],
            locks=not links.bell.pooled,
        )
        self.limits.begin()
        # More than one where a session was lost again before it had adopted anything.
        while self._former:
            await self._adopt(links, self._former[0], epoch)
            del self._former[0]
        await dispatch.register_handlers(
            links.side, channels=list(self._channels), queues=list(self._queues)
        )
        self._foreign_queues = await engine.handled_queues(links.side) - set(self._queues)
        if settings.start_paused:
            names = sorted({*self._channels, *self._queues})
            await engine.pause_queues(links.side, names, actor="dispatcher --start-paused")
        await self.liveness.beat(links.beat)
        self.lanes.start_over()
        self._mention_unknown_queues()
        log.info("dispatching", epoch=epoch, lanes=len(self.lanes.open_lanes()))

    def _mention_unknown_queues(self) -> None:
        """Warn of names in --queues that nothing is known of: a typo would wait in silence."""
        known = {*self._channels, *self._queues, *(s.lane.queue for s in self.lanes.all())}
        unknown = sorted((self._settings.queues or frozenset()) - known)
        if unknown:
            log.warning(
                "--queues names what has no handler here and never had a job",
                queues=unknown,
                known=sorted(known),
            )

    async def _adopt(self, links: Links, old: Epoch, epoch: Epoch) -> None:
        running = list(self.executor.running.values())
        known = [*self.executor.running, *self.recorder.known()]
        adopted = await engine.adopt(links.side, known, old=old, new=epoch)
        for item in running:
            if item.claimed.lease in adopted:
                item.adopt(epoch)
        self.recorder.adopted(adopted, epoch)

    async def _live(self, links: Links, *, drain: bool) -> None:
        with ExitStack() as ending:
            async with asyncio.TaskGroup() as tasks:
                self._session, self._links = tasks, links
                try:
                    await self._work(tasks, links, drain=drain)
                finally:
                    ending.enter_context(links.answer_within(FAREWELL_S_MAX))
        with links.answer_within(FAREWELL_S_MAX):
            await engine.retire(links.side, epoch=self.life.epoch)

    async def _work(self, tasks: asyncio.TaskGroup, links: Links, *, drain: bool) -> None:
        """Have all loops run until told to stop, or until nothing is due; then wind down."""
        loops = [
            tasks.create_task(self.liveness.run(links.beat)),
            tasks.create_task(self._listen(links)),
            tasks.create_task(self.recorder.run(links.record, self._is_busy)),
            tasks.create_task(
                upkeep(
                    links.side,
                    links.side_lock,
                    life=self.life,
                    hold_max_s=self._settings.hold_max_s,
                    overdue_s=self._settings.receipt_overdue_s,
                )
            ),
            tasks.create_task(keep(self._settings.database_url)),
            tasks.create_task(
                watch(
                    links.side,
                    links.side_lock,
                    life=self.life,
                    url=self._settings.database_url,
                    webhook_url=self._settings.alert_webhook,
                )
            ),
            tasks.create_task(replay(links.side, links.side_lock, life=self.life)),
            tasks.create_task(
                fire_schedules(
                    links.side,
                    links.side_lock,
                    life=self.life,
                    url=self._settings.database_url,
                )
            ),
            tasks.create_task(self._keep_leases(links)),
            tasks.create_task(self.progress.run(links.side, links.side_lock)),
            tasks.create_task(self._probe_holds(links)),
            tasks.create_task(self.gates.run(links.side, links.side_lock)),
        ]
        claiming = tasks.create_task(self.claimer.run(links.claim))
        self.ready.set()
        if drain:
            await self._until_drained()
        else:
            await self._stop.wait()
        claiming.cancel()
        await self._wind_down(links)
        for loop in loops:
            loop.cancel()

    async def _until_drained(self) -> None:
        """Return when nothing is due, runs, or waits to be recorded; or when told to stop."""
        stopping = asyncio.create_task(self._stop.wait())
        while not self._stop.is_set():
            quiet = asyncio.create_task(self.claimer.nothing_due.wait())
            await asyncio.wait({quiet, stopping}, return_when=asyncio.FIRST_COMPLETED)
            quiet.cancel()
            await self.recorder.drained()
            if self.outstanding() == 0 and self.claimer.nothing_due.is_set():
                break
            await asyncio.sleep(0.005)
        stopping.cancel()

    async def _wind_down(self, links: Links) -> None:
        """Finish what runs, up to the grace time; hand the rest back and ring for it."""
        self.executor.stopping = self.recorder.stopping = True
        lanes: set[LaneId] = set()
        for slots in self._slots.values():
            while slots.ready:
                item = slots.ready.popleft()
                lanes.add(item.claimed.lane_id)
                self.recorder.release(item)
        deadline = asyncio.get_running_loop().time() + self._settings.drain_s
        while self.outstanding() and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.01)
        if self.executor.running:
            log.warning("grace time is over", running=len(self.executor.running))
            self.executor.cut_off = True
            for worker in self._workers:
                worker.cancel()
            await asyncio.gather(*self._workers, return_exceptions=True)
        await self.recorder.drained()
        known = self.recorder.known()
        async with links.side_lock:
            await engine.release_orphans(links.side, known, epoch=self.life.epoch)
            if lanes:
                await engine.ring(links.side, sorted(lanes))

    def _outdated(self, post: int) -> None:
        """End in order: the schema is about to be one that this code doesn't know."""
        if self.outdated is None:
            self.outdated = too_new(post)
            log.error("migrated past this version", post=post)
            self.stop()

    def outstanding(self) -> int:
        """Return how many jobs are between claim and record here."""
        return sum(slots.outstanding for slots in self._slots.values())

    def _is_busy(self) -> bool:
        return bool(self.executor.running) or any(s.ready for s in self._slots.values())

    def _lanes_changed(self) -> None:
        """Have slots and workers for every queue that has a lane."""
        for queue in {state.lane.queue for state in self.lanes.all()}:
            if queue in self._slots or not self._handles(queue):
                continue
            slots = Slots(
                queue,
                concurrency=self._settings.concurrency_of(queue, None),
                prefetch_max=self._settings.prefetch_max,
            )
            self._slots[queue] = slots
            self._workers += [
                asyncio.create_task(self.executor.work(slots)) for _ in range(slots.concurrency)
            ]

    def _handles(self, queue: str) -> bool:
        # A queue of another name carries channel jobs (bulk mail in a line of its own).
        if queue in self._queues or queue in self._channels:
            return True
        return queue not in self._foreign_queues and queue not in CONTRACT_CHANNELS

    def _handler_of(self, item: Item) -> Handler | None:
        channel = item.claimed.channel
        if item.claimed.test:
            return self.sandbox.handler_of(item.claimed)
        if channel is None:
            return self._queues.get(item.claimed.queue)
        return self._channels.get(channel)

    def _hand_over(self, items: list[Item]) -> None:
        """Send claimed items on: to their slots, through preparation, or back."""
        assert self._session is not None
        suspect: Item | None = None
        onward: list[Item] = []
        for item in items:
            item.handler = self._handler_of(item)
            if item.handler is None:
                self.recorder.release(item, delay_s=NO_HANDLER_RETRY_S, waits=NO_HANDLER)
            elif item.claimed.crashes == 0:
                onward.append(item)
            elif suspect is None and self._careful is None:
                suspect = item
                self._careful = item.claimed.id
                self.lanes.leave_out()
            else:
                self.recorder.release(item)
        self._send_on(onward)
        if suspect is not None:
            self._session.create_task(self._send_on_alone(suspect))

    async def _send_on_alone(self, suspect: Item) -> None:
        """Let suspects of a crash run one at a time, so that the culprit shows itself.

        The others must be back in the store first: a crash counts against all that are claimed.
        """
        await self.recorder.barrier()
        self._send_on([suspect])

    def _send_on(self, items: list[Item]) -> None:
        assert self._session is not None
        plain: dict[Slots, list[Item]] = {}
        channel: list[Item] = []
        for item in items:
            if item.claimed.channel is not None:
                channel.append(item)
                continue
            self._prepare_payload(item)
            plain.setdefault(item.slots, []).append(item)
        for slots, ready in plain.items():
            slots.put(ready)
        if channel:
            self._session.create_task(self._prepare(channel))

    def _prepare_payload(self, item: Item) -> None:
        try:
            self._preparer.prepare_payload(item)
        except Exception as error:
            item.decided = Rejected(
                code="job.unreadable", reason=f"{type(error).__name__}: {error}"
            )

    async def _prepare(self, items: Sequence[Item]) -> None:
        """Prepare items; those whose tenant has a directory of its own once that has answered."""
        assert self._links is not None
        assert self._session is not None
        async with self._links.side_lock:
            await self.tenants.load(
                self._links.side,
                {item.claimed.tenant_id for item in items},
                catalog=self.lanes.catalog,
            )
        known: list[Item] = []
        asked: dict[str, list[Item]] = {}
        for item in items:
            tenant = item.claimed.tenant_id
            if self.tenants.get(tenant).directory is None:
                known.append(item)
            else:
                asked.setdefault(tenant, []).append(item)
        for of_tenant in asked.values():
            self._session.create_task(self._look_up(of_tenant))
        if known:
            await self._prepare_known(known)

    async def _look_up(self, items: Sequence[Item]) -> None:
        await self._or_blame(self._preparer.look_up, items)
        await self._prepare_known(items)

    async def _prepare_known(self, items: Sequence[Item]) -> None:
        assert self._links is not None
        async with self._links.side_lock:
            await self._or_blame(self._prepare_messages, items)
            for item in items:
                if item.claimed.test and item.decided is not None:
                    item.decided = contained(item.decided)
            if self.gates.any:
                for item in items:
                    if item.divert_to is None and not item.claimed.test:
                        await self.gates.admit(self._links.side, item)
        by_slots: dict[Slots, list[Item]] = {}
        for item in items:
            if item.divert_to is not None:
                self.recorder.release(item, lane=item.divert_to)
            elif item.defer_s is not None:
                self._turn_away(item, item.defer_s, None)
            else:
                by_slots.setdefault(item.slots, []).append(item)
        for slots, ready in by_slots.items():
            slots.put(ready)

    async def _prepare_messages(self, items: Sequence[Item]) -> None:
        assert self._links is not None
        await self._prepare_batch(self._links.side, items, catalog=self.lanes.catalog)

    async def _or_blame(
        self, work: Callable[[Sequence[Item]], Awaitable[None]], items: Sequence[Item]
    ) -> None:
        """Do it; where a mistake of ours falls upon a batch, find whose it is, and blame it."""
        try:
            await work(items)
        except (psycopg.Error, OSError):
            raise
        except Exception as error:
            if len(items) > 1:
                middle = len(items) // 2
                await self._or_blame(work, items[:middle])
                await self._or_blame(work, items[middle:])
                return
            kind = type(error).__name__
            job_id = str(items[0].claimed.job_id)
            log.error("a job cannot be prepared", job_id=job_id, error=kind)
            items[0].decided = Retryable(
                code="dispatcher.error", reason=f"it could not be prepared: {kind}"
            )

    def _turn_away(self, item: Item, delay_s: float | None, lane: LaneId | None) -> None:
        """Give back what a gate keeps from its destination for now."""
        waits = None if delay_s is None else DESTINATION_PAUSED
        self.recorder.release(item, delay_s=delay_s, waits=waits, lane=lane)

    def _own_lane(self, claimed: engine.Claimed, facts: Facts) -> LaneId | None:
        """Return the lane where this entry has to wait, if it is another than its own."""
        for scope in (
            None if facts.template_code is None else f"template:{facts.template_code}",
            None if facts.endpoint is None else f"endpoint:{facts.endpoint}",
            f"endpoint:{S3_SCOPE}" if any(a.s3 for a in facts.attachments or ()) else None,
        ):
            if scope is None:
                continue
            own = self.lanes.own_lane(claimed.tenant_id, claimed.queue, scope)
            if own is None or own.lane.lane_id == claimed.lane_id:
                continue
            # What waits for its destination does so in that lane, unless it is held.
            if own.lane.held or not self.lanes.waits_for_destination(claimed.lane_id):
                return own.lane.lane_id
        return None

    def _recorded(self, batch: Sequence[Pending]) -> None:
        for slots, count in count_by_slots(batch).items():
            slots.finished(count)
        if self.limits.any:
            for pending in batch:
                for quota in pending.item.quotas:
                    quota.in_use -= 1
        for pending in batch:
            self._learn(pending)
            if pending.recorded.op != "end":
                self._waits_again(pending)
        if moved := {p.recorded.next_lane for p in batch if p.recorded.next_lane is not None}:
            self.lanes.ring(LaneId(lane) for lane in moved)
        if self._careful is not None and any(p.item.claimed.id == self._careful for p in batch):
            self._end_care()
        self.wakeup.nudge()

    def _lose(self, item: Item) -> None:
        """Count on without an item that will never be recorded here: its lease runs out."""
        item.slots.finished(1)
        for quota in item.quotas:
            quota.in_use -= 1
        if self._careful == item.claimed.id:
            self._end_care()

    def _end_care(self) -> None:
        """Claim suspects of a crash again."""
        self._careful = None
        self.lanes.take_all()

    def _waits_again(self, pending: Pending) -> None:
        """Have claims find what was given back: it may lie below their floors."""
        claimed, recorded = pending.item.claimed, pending.recorded
        lane_id = claimed.lane_id if recorded.next_lane is None else LaneId(recorded.next_lane)
        place = (recorded.next_at or claimed.available_at, claimed.id)
        self.lanes.given_back(lane_id, claimed.priority, place)

    def _next_heads(self, ended: set[EntryId], batch: Sequence[Pending]) -> None:
        """Ask the lanes again where an ordering_key's next job has become due."""
        self.lanes.ask_again(
            (p.item.claimed.tenant_id, p.item.claimed.queue)
            for p in batch
            if p.item.claimed.id in ended
        )

    def _learn(self, pending: Pending) -> None:
        """Widen or narrow what a lane may have in flight that starts slowly, or is in trouble."""
        claimed = pending.item.claimed
        state = self.lanes.get(claimed.lane_id)
        concurrency = pending.item.slots.concurrency
        if pending.own_scope is not None:
            own = self.lanes.narrower(claimed.tenant_id, claimed.queue, pending.own_scope)
            if own is not None:
                own.went_wrong(concurrency)
        if state is None or state.window is None:
            return
        self.lanes.left(claimed.lane_id)
        if pending.said == "well":
            state.went_well(concurrency)

    def _drop_unstarted(self) -> None:
        """Forget what was claimed but never started: the next session gives it back."""
        running = list(self.executor.running.values())
        stored_later = self.recorder.outstanding()
        kept = [*running, *self.recorder.items()]
        if self._tracing is not None:
            self._tracing.keep(kept)
        self.limits.recount(quota for item in kept for quota in item.quotas)
        for slots in self._slots.values():
            slots.ready.clear()
            slots.outstanding = stored_later.get(slots, 0) + sum(
                1 for item in running if item.slots is slots
            )
        if self._careful not in {item.claimed.id for item in kept}:
            self._careful = None
        self._session = self._links = None

    async def _listen(self, links: Links) -> None:
        if links.bell.pooled:
            log.warning("no bell behind a pooler: set OUTBOX_DIRECT_DATABASE_URL")
            return
        await links.bell.execute("listen outbox_bell")
        async for notice in links.bell.notifies():
            if notice.payload in ("control", "destinations"):
                self.liveness.control_changed()
            else:
                self.wakeup.ring(notice.payload)
                if not all(
                    self.lanes.knows(LaneId(int(part)))
                    for part in notice.payload.split(",")
                    if part.isdecimal()
                ):
                    self.liveness.control_changed()
        raise psycopg.OperationalError("the listening connection has ended")

    async def _keep_leases(self, links: Links) -> None:
        def leases() -> list[Lease]:
            return list(self.executor.running)

        await keep_leases(
            links.beat, life=self.life, leases=leases, lease_s=self._settings.lease_s
        )

    async def _probe_holds(self, links: Links) -> None:
        """Let one entry of a held lane through when its probe is due."""
        while True:
            await asyncio.sleep(self._settings.heartbeat_s)
            now = self.life.db_now()
            for state in self.lanes.held_lanes():
                at = state.lane.probe_at
                if state.probing or at is None or at > now or state.lane.queue not in self._slots:
                    continue
                async with links.side_lock:
                    taken = await engine.take_probe(
                        links.side, state.lane.lane_id, lease_s=self._settings.lease_s
                    )
                if taken:
                    state.begin_probe()
                    self.wakeup.nudge()
                else:
                    self.liveness.control_changed()

    def _mask(self, text: str) -> str:
        for secret in self._settings.secrets:
            text = text.replace(secret, "***")
        return text


def _still_wanted() -> None:
    """Raise CancelledError if we were cancelled: a TaskGroup that ends already forgets that.

    Python's does so before 3.13.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
