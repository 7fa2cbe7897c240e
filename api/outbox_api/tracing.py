"""A request's spans, made only where traces are wanted: the app is then composed of these.

The request's own context takes the place of the `traceparent` that came along, so everything
behind it (the stored job, a fault's trace id) carries on from here. Spans name the route and the
status, never a body or a query.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

from litestar.types import HTTPScope, Message, Receive, Send
from opentelemetry import trace
from opentelemetry.trace import SpanKind, Status, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from outbox.store.jobs import Enqueued
from outbox.store.pool import Connection, Database
from outbox_api.hotpath import OutboxApp
from outbox_api.intake import Intake

QUIET = ("/health/", "/metrics", "/monitoring/")
"""Whoever watches asks these all day long: no spans."""

_propagator = TraceContextTextMapPropagator()


class TracedApp(OutboxApp):
    """The app, with a span around every request."""

    tracer: Tracer

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request (ASGI)."""
        if scope["type"] != "http" or scope["path"].startswith(QUIET):
            await super().__call__(scope, receive, send)
            return
        await self._traced(cast(HTTPScope, scope), receive, send)

    async def _traced(self, scope: HTTPScope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        carrier = {
            name: headers[name.encode()].decode("latin-1")
            for name in ("traceparent", "tracestate")
            if name.encode() in headers
        }
        method = scope["method"]
        span = self.tracer.start_span(
            method,
            context=_propagator.extract(carrier),
            kind=SpanKind.SERVER,
            attributes={"http.request.method": method},
        )
        own: dict[str, str] = {}
        _propagator.inject(own, trace.set_span_in_context(span))
        if "traceparent" in own:
            scope["headers"] = [
                *(pair for pair in scope["headers"] if pair[0] != b"traceparent"),
                (b"traceparent", own["traceparent"].encode()),
            ]
        with trace.use_span(span, end_on_exit=True, record_exception=False):

            async def watched(message: Message) -> None:
                if message["type"] == "http.response.start":
                    status = message["status"]
                    span.set_attribute("http.response.status_code", status)
                    if status >= 500:
                        span.set_status(Status(StatusCode.ERROR))
                await send(message)

            await super().__call__(scope, receive, watched)
            is_hot = method == "POST" and scope["path"] == self.hot.path
            route = self.hot.path if is_hot else scope.get("path_template")
            if route:
                span.update_name(f"{method} {route}")
                span.set_attribute("http.route", str(route))


class TracedDatabase(Database):
    """Shows each transaction of a traced request as a span of its own."""

    def __init__(self, url: str, *, size_max: int, tracer: Tracer) -> None:
        super().__init__(url, size_max=size_max)
        self._tracer = tracer

    @contextlib.asynccontextmanager
    async def transaction(
        self, tenant: str, *, read_only: bool = False
    ) -> AsyncIterator[Connection]:
        """Run a transaction, as `Database` does."""
        if not trace.get_current_span().is_recording():
            async with super().transaction(tenant, read_only=read_only) as connection:
                yield connection
            return
        with self._tracer.start_as_current_span(
            "transaction",
            kind=SpanKind.CLIENT,
            attributes={"db.system.name": "postgresql"},
            record_exception=False,
        ):
            async with super().transaction(tenant, read_only=read_only) as connection:
                yield connection


class TracedIntake(Intake):
    """Shows how long each single job waited for its commit, which it may share with others."""

    def __init__(self, database: Database, on_stored: Callable[[], None], tracer: Tracer) -> None:
        super().__init__(database, on_stored)
        self._tracer = tracer

    def submit(
        self,
        tenant: str | None,
        text: str,
        traceparent: str | None,
        *,
        fresh: bool,
        test: bool = False,
    ) -> asyncio.Future[Enqueued]:
        """Hand in one job, as `Intake` does."""
        span = self._tracer.start_span(
            "transaction", kind=SpanKind.CLIENT, attributes={"db.system.name": "postgresql"}
        )
        # A flush is nobody's own: it must not carry on in the span of whoever set it off.
        done = contextvars.Context().run(
            super().submit, tenant, text, traceparent, fresh=fresh, test=test
        )
        done.add_done_callback(lambda _: span.end())
        return done
