"""A job's spans, from its claim to its record: made only where traces are wanted.

    producer ─ POST ─ transaction ┄┄ the wait ┄┄ process ─┬ claim
                                                          ├ render
                                                          ├ deliver ── the receiver's traceparent
                                                          └ record

`process` is a child of what handed the job in, however long ago, so that the receiver sees the
producer's own trace id; and it links there, for those who search by what a wait lies between.
Nothing here is called while tracing is off: `Dispatcher` then composes without it.

Spans name job, queue, tenant and code of an error; never an address, a text or a payload.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from datetime import datetime
from typing import Any

import msgspec
from opentelemetry import trace
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from outbox.outcome import Delivered, Outcome
from outbox_dispatcher.executor import Executor
from outbox_dispatcher.life import Life
from outbox_dispatcher.recorder import Pending
from outbox_dispatcher.slots import Item

_propagator = TraceContextTextMapPropagator()


class _Open:
    """The spans of one item that are not over."""

    __slots__ = ("finished_ns", "process")

    def __init__(self, process: Span) -> None:
        self.process = process
        self.finished_ns = 0


class Tracing:
    """Follows items through the dispatcher's callbacks."""

    def __init__(self, tracer: Tracer, life: Life) -> None:
        self._tracer = tracer
        self._life = life
        self._open: dict[Item, _Open] = {}

    def on_claimed(self, hand_over: Callable[[list[Item]], None]) -> Callable[[list[Item]], None]:
        """Begin each item's spans when it comes from a claim."""

        def traced(items: list[Item]) -> None:
            now_ns, db_now = time.time_ns(), self._life.db_now()
            for item in items:
                claimed = item.claimed
                ago_s = max((db_now - claimed.claimed_at).total_seconds(), 0.0)
                began_ns = now_ns - int(ago_s * 1e9)
                cause = _propagator.extract({"traceparent": claimed.traceparent or ""})
                handed_in = trace.get_current_span(cause).get_span_context()
                wait = (claimed.claimed_at - claimed.available_at).total_seconds()
                process = self._tracer.start_span(
                    f"process {claimed.queue}",
                    context=cause,
                    kind=SpanKind.CONSUMER,
                    links=[Link(handed_in)] if handed_in.is_valid else [],
                    start_time=began_ns,
                    attributes={
                        "messaging.system": "outbox",
                        "messaging.operation.type": "process",
                        "messaging.destination.name": claimed.queue,
                        "messaging.message.id": str(claimed.job_id),
                        "outbox.tenant": claimed.tenant_id,
                        "outbox.attempt": claimed.attempt,
                        "outbox.wait_s": max(wait, 0.0),
                    },
                )
                self._open[item] = _Open(process)
                self._past(process, "claim", began_ns, now_ns)
            hand_over(items)

        return traced

    def on_prepare(
        self, prepare: Callable[..., Awaitable[None]]
    ) -> Callable[..., Awaitable[None]]:
        """Time what finds address and template, and renders."""

        async def traced(connection: Any, items: Sequence[Item], **how: Any) -> None:
            began_ns = time.time_ns()
            await prepare(connection, items, **how)
            ended_ns = time.time_ns()
            for item in items:
                if (spans := self._open.get(item)) is not None:
                    self._past(spans.process, "render", began_ns, ended_ns)

        return traced

    def deliver_span(self, item: Item) -> Span | None:
        """Begin the delivery's span, and give the message its context to carry on."""
        spans = self._open.get(item)
        if spans is None or item.message is None:
            return None
        claimed = item.claimed
        span = self._tracer.start_span(
            f"deliver {claimed.channel or claimed.queue}",
            context=trace.set_span_in_context(spans.process),
            kind=SpanKind.CLIENT,
        )
        carrier: dict[str, str] = {}
        _propagator.inject(carrier, trace.set_span_in_context(span))
        if traceparent := carrier.get("traceparent"):
            item.message = msgspec.structs.replace(item.message, traceparent=traceparent)
        return span

    def on_finish(
        self, finish: Callable[[Item, Outcome, datetime, float], None]
    ) -> Callable[[Item, Outcome, datetime, float], None]:
        """Note when an outcome was known: from there on it waits to be recorded."""

        def traced(item: Item, outcome: Outcome, started_at: datetime, began: float) -> None:
            if (spans := self._open.get(item)) is not None:
                spans.finished_ns = time.time_ns()
            finish(item, outcome, started_at, began)

        return traced

    def on_recorded(
        self, recorded: Callable[[Sequence[Pending]], None]
    ) -> Callable[[Sequence[Pending]], None]:
        """End the spans of what is stored."""

        def traced(batch: Sequence[Pending]) -> None:
            now_ns = time.time_ns()
            for pending in batch:
                if (spans := self._open.pop(pending.item, None)) is not None:
                    self._end(spans, pending, now_ns)
            recorded(batch)

        return traced

    def keep(self, items: Collection[Item]) -> None:
        """Forget all but these: the others were never started, and are given back."""
        kept = set(items)
        for item in [item for item in self._open if item not in kept]:
            self._open.pop(item).process.end()

    def _end(self, spans: _Open, pending: Pending, now_ns: int) -> None:
        said = pending.recorded
        process = spans.process
        self._past(process, "record", spans.finished_ns or now_ns, now_ns)
        process.set_attribute(
            "outbox.status", "RELEASED" if said.op == "release" else said.status or ""
        )
        if said.error_code is not None:
            process.set_attribute("error.type", said.error_code)
        if said.status == "FAILED":
            process.set_status(Status(StatusCode.ERROR, said.error_code))
        process.end(now_ns)

    def _past(self, parent: Span, name: str, began_ns: int, ended_ns: int) -> None:
        span = self._tracer.start_span(
            name, context=trace.set_span_in_context(parent), start_time=began_ns
        )
        span.end(ended_ns)


class TracedExecutor(Executor):
    """An executor whose deliveries have spans, which the message carries on."""

    def __init__(self, *, tracing: Tracing, **parts: Any) -> None:
        super().__init__(**parts)
        self._tracing = tracing

    async def _deliver(self, item: Item) -> Outcome:
        span = self._tracing.deliver_span(item)
        if span is None:
            return await super()._deliver(item)
        with trace.use_span(span, end_on_exit=True, record_exception=False):
            outcome = await super()._deliver(item)
            span.set_attribute("outbox.outcome", type(outcome).__name__.lower())
            code = getattr(outcome, "code", None)
            if not isinstance(outcome, Delivered) and code is not None:
                span.set_attribute("error.type", code)
                span.set_status(Status(StatusCode.ERROR, code))
            return outcome
