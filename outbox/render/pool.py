"""The caller's side of rendering: a pool of worker processes for one event loop.

A worker that breaks a limit is gone, and a new one takes its place. The request that it was at
fails alone; what was sent beside it is rendered again by the next worker.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import TracebackType
from typing import Self, cast

from outbox.errors import ConfigError
from outbox.render.crew import Unsendable, Worker
from outbox.render.line import Batch, Line, Slot
from outbox.render.process import WorkerProcess
from outbox.render.quarantine import Quarantine
from outbox.render.wire import (
    PREVIEW,
    RENDER,
    VALIDATE,
    Answer,
    Frame,
    Limits,
    Preview,
    Problem,
    Rendered,
    RenderFailure,
    RenderRequest,
    TemplateSource,
    Validation,
)

FRAME_SLOTS_MAX = 64
FRAME_BYTES_SOFT_MAX = 1024 * 1024
FRAMES_AHEAD = 2
"""Frames that a worker has at once: it reads the next while we take in the last one's answers."""
MEMORY_BYTES_MIN = 64 * 1024 * 1024
DEATHS_MAX = 2
REDONE_MAX = 5
STARTS_FAILED_MAX = 3
START_PAUSE_S = 0.2
STALL_FACTOR = 5.0


class RenderPool:
    """Renders in `workers` processes. Enter it in the event loop that uses it.

    `time_s_max` is CPU time of one message, all its parts together, compiling included;
    `memory_bytes_max` is all the data of a worker process, some 40 MB of it its own;
    `output_bytes_max` bounds subject, text and HTML of one message together, in UTF-8.
    `queue_items_max` requests wait at most; a further call waits before it joins them.
    """

    def __init__(
        self,
        workers: int = 1,
        *,
        time_s_max: float = 2.0,
        memory_bytes_max: int = 256 * 1024 * 1024,
        output_bytes_max: int = 1024 * 1024,
        queue_items_max: int = 10_000,
    ) -> None:
        if workers < 1 or time_s_max <= 0 or output_bytes_max < 1 or queue_items_max < 1:
            raise ConfigError("a render pool's workers and limits must be above zero")
        if memory_bytes_max < MEMORY_BYTES_MIN:
            raise ConfigError(f"a render process needs at least {MEMORY_BYTES_MIN} bytes")
        self._workers_wanted = workers
        self._limits = Limits(
            time_s_max=time_s_max,
            memory_bytes_max=memory_bytes_max,
            output_bytes_max=output_bytes_max,
        )
        self._queue_items_max = queue_items_max
        self._workers: dict[WorkerProcess, Worker] = {}
        self._batches: set[Batch] = set()
        self._starts: set[asyncio.Task[None]] = set()
        self._starts_failed = 0
        self._quarantine = Quarantine()
        self._open = False

    async def __aenter__(self) -> Self:
        """Start the workers. Raises ConfigError if they can't be."""
        self._loop = asyncio.get_running_loop()
        self._line = Line(slots_max=self._queue_items_max)
        self._open = True
        try:
            starts = [self._start() for _ in range(self._workers_wanted)]
            results = await asyncio.gather(*starts, return_exceptions=True)
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        failure = next((result for result in results if result is not None), None)
        if failure is not None:
            await self.__aexit__(None, None, None)
            raise ConfigError(
                "the render process can't be started (is outbox[dispatcher] or outbox[api] "
                f"installed?): {failure}"
            ) from failure
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the workers, and whoever still waits with a RuntimeError."""
        self._open = False
        for start in self._starts:
            start.cancel()
        await asyncio.gather(*self._starts, return_exceptions=True)
        await asyncio.gather(*(process.stop() for process in list(self._workers)))
        for batch in self._batches:
            if not batch.done.done():
                batch.done.set_exception(RuntimeError("the render pool was closed"))
        self._line.wake()

    @property
    def worker_pids(self) -> tuple[int, ...]:
        """The process ids of the workers that run now."""
        return tuple(process.pid for process in self._workers)

    async def render_many(
        self, requests: Sequence[RenderRequest]
    ) -> list[Rendered | RenderFailure]:
        """Render each request; answers come in the order of the requests.

        Never raises for what a template or its data do. Raises RuntimeError on a closed pool.
        All answers are in memory at once: keep batches to some hundred requests.
        """
        return cast("list[Rendered | RenderFailure]", await self._ask(RENDER, requests))

    async def preview(self, request: RenderRequest) -> Preview:
        """Render for an author, and list what the context lacks."""
        (answer,) = await self._ask(PREVIEW, [request])
        if isinstance(answer, RenderFailure):
            return Preview(answer, ())
        return cast(Preview, answer)

    async def validate(
        self, source: TemplateSource, *, schema_json: bytes | None = None
    ) -> list[Problem]:
        """Return what is wrong with a template, and with its schema, before it is stored."""
        request = RenderRequest(source=source, schema_json=schema_json)
        (answer,) = await self._ask(VALIDATE, [request])
        if isinstance(answer, RenderFailure):
            return [Problem("template", None, answer.message)]
        return list(cast(Validation, answer).problems)

    async def _ask(self, mode: int, requests: Sequence[RenderRequest]) -> list[Answer]:
        if not self._open:
            raise RuntimeError("the render pool is not open")
        batch = Batch(mode, requests)
        if not requests:
            return []
        self._batches.add(batch)
        try:
            await self._line.enter(batch)
            self._feed_all()
            await batch.done
        finally:
            self._batches.discard(batch)
            batch.done.cancel()
            self._line.leave(batch)
        return cast("list[Answer]", batch.answers)

    def _feed_all(self) -> None:
        for worker in self._workers.values():
            self._feed(worker)

    def _feed(self, worker: Worker) -> None:
        """Keep a worker busy, without giving one what another could begin now."""
        share = min(FRAME_SLOTS_MAX, -(-len(self._line) // self._workers_wanted))
        while self._line and len(worker.at) <= (FRAMES_AHEAD - 1) * FRAME_SLOTS_MAX:
            frame = Frame({}, {}, [], [], [])
            size_bytes = 0
            for slot in self._line.take(share):
                if self._quarantine and self._is_blocked(slot):
                    continue
                try:
                    size_bytes += worker.place(slot, frame)
                except Unsendable as error:
                    self._settle(slot, error.answer)
                    continue
                worker.at.append(slot)
                if size_bytes > FRAME_BYTES_SOFT_MAX:
                    break
            if frame.works or frame.sources or frame.schemas:
                frame.forget_sources.extend(worker.sources.trim())
                frame.forget_schemas.extend(worker.schemas.trim())
                worker.process.send(frame)
            if worker.watch is None and worker.at:
                self._watch(worker)

    def _is_blocked(self, slot: Slot) -> bool:
        if slot.mode != RENDER or not self._quarantine.blocks(
            slot.request.source, self._loop.time()
        ):
            return False
        text = "this template broke its limits several times running; it rests for some seconds"
        self._settle(slot, RenderFailure("template.limit", text, "configuration"))
        return True

    def _settle(self, slot: Slot, answer: Answer) -> None:
        batch = slot.batch
        batch.answers[slot.index] = answer
        batch.left -= 1
        if batch.left == 0 and not batch.done.done():
            batch.done.set_result(None)

    def _judge(self, slot: Slot, answer: Answer) -> Answer:
        """Return the answer, with the blame on the source where it keeps breaking its limits."""
        if slot.mode != RENDER:
            return answer
        source = slot.request.source
        if type(answer) is RenderFailure and answer.code == "template.limit":
            if self._quarantine.strike(source, self._loop.time()):
                return RenderFailure(answer.code, answer.message, "configuration")
        elif self._quarantine:
            self._quarantine.forgive(source)
        return answer

    def _on_answers(self, process: WorkerProcess, answers: list[Answer]) -> None:
        worker = self._workers.get(process)
        if worker is None or len(answers) > len(worker.at):
            process.kill()  # it answers what nobody asked: not ours any more
            return
        worker.answered += len(answers)
        for answer in answers:
            slot = worker.at.popleft()
            self._settle(slot, self._judge(slot, answer))
        if not worker.at:
            worker.seen = -1
        self._feed(worker)

    def _on_end(self, process: WorkerProcess) -> None:
        worker = self._workers.pop(process, None)
        if worker is None:
            return
        if worker.watch is not None:
            worker.watch.cancel()
        if not self._open:
            return
        culprit = worker.culprit()
        again = []
        for slot in worker.at:
            answer = self._verdict(slot, process) if slot is culprit else None
            if culprit is None:
                slot.redone += 1
                if slot.redone > REDONE_MAX:
                    text = "the render processes kept ending"
                    answer = RenderFailure("render.unavailable", text, "temporary")
            if answer is None:
                again.append(slot)
            else:
                self._settle(slot, self._judge(slot, answer))
        worker.at.clear()
        self._line.again(again)
        self._restart()

    def _verdict(self, slot: Slot, process: WorkerProcess) -> RenderFailure | None:
        """Return the answer for what a worker was at when it ended; None: try it once more."""
        end = process.end()
        if end == "time":
            text = f"it took longer than {self._limits.time_s_max:g} s"
        elif end == "memory":
            text = f"it needed more than {self._limits.memory_bytes_max} bytes of memory"
        else:
            # Killed from outside, or a native library gave up: a second time is no coincidence.
            slot.deaths += 1
            if slot.deaths < DEATHS_MAX:
                return None
            text = "the render process died of it"
        return RenderFailure("template.limit", text, "permanent")

    def _watch(self, worker: Worker) -> None:
        """Look after a busy worker: one that is stopped uses no CPU time for its timer to count.

        This is the backstop, by the wall clock, and far beyond the limit.
        """
        if not worker.at:
            worker.watch = None
            return
        begun = worker.process.progress()[0]
        if begun == worker.seen:
            worker.process.kill()
            return
        worker.seen = begun
        pause_s = 1.0 + STALL_FACTOR * self._limits.time_s_max
        worker.watch = self._loop.call_later(pause_s, self._watch, worker)

    async def _start(self) -> None:
        process = WorkerProcess(self._on_answers, self._on_end)
        await process.start(self._limits)
        if process.has_ended:
            raise OSError("a render process ended at start")
        if not self._open:
            await process.stop()
            return
        self._starts_failed = 0
        worker = self._workers[process] = Worker(process)
        self._feed(worker)

    def _restart(self) -> None:
        start = self._loop.create_task(self._start_again())
        self._starts.add(start)
        start.add_done_callback(self._starts.discard)

    async def _start_again(self) -> None:
        while self._open:
            try:
                await self._start()
            except (OSError, TimeoutError):
                self._starts_failed += 1
                if self._starts_failed >= STARTS_FAILED_MAX and not self._workers:
                    self._give_up()
                await asyncio.sleep(START_PAUSE_S * min(self._starts_failed, 25))
            else:
                return

    def _give_up(self) -> None:
        """Answer what waits: no worker has started for a while. The next call tries again."""
        text = "no render process can be started"
        for slot in self._line.drain():
            self._settle(slot, RenderFailure("render.unavailable", text, "temporary"))
