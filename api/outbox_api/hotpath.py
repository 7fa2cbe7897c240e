"""What is answered around the framework: single jobs, and HEAD.

POST /api/v1/jobs goes past it: the same gate, the same handler, a third of the cost.

Routing, layers, request and response objects of the framework cost about as much as all the rest
of taking a job in. The route is registered there as any other, for its description and for every
other method; only this one method on this one path is answered before.

A HEAD is a GET whose body stays here: probes and load balancers ask so.

A process that is leaving ends each connection with its next answer, so that clients who keep one
open come back over a new one, which leads elsewhere.
"""

from __future__ import annotations

import time
from typing import cast

from litestar import Litestar, Request
from litestar.datastructures import State
from litestar.enums import ScopeType
from litestar.types import (
    HTTPScope,
    LifeSpanReceive,
    LifeSpanScope,
    LifeSpanSend,
    Message,
    Receive,
    Send,
)
from litestar.types import Scope as AsgiScope

from outbox_api.auth import NOBODY, Principal
from outbox_api.gate import admit, routed
from outbox_api.operations import Operation
from outbox_api.problems import problem_response
from outbox_api.requests import Nothing, read_query
from outbox_api.routes.jobs import POST_JOB, take_job
from outbox_api.runtime import Runtime


class BareRequest:
    """What `take_job` needs of a request."""

    __slots__ = ("app", "auth", "receive", "scope")

    def __init__(self, app: Litestar, scope: HTTPScope, receive: Receive) -> None:
        self.app = app
        self.scope = scope
        self.receive = receive
        self.auth: Principal = NOBODY


class OutboxApp(Litestar):
    """The app, with a short cut for single jobs."""

    runtime: Runtime
    hot: Operation = POST_JOB

    async def __call__(
        self,
        scope: AsgiScope | LifeSpanScope,
        receive: Receive | LifeSpanReceive,
        send: Send | LifeSpanSend,
    ) -> None:
        """Answer a request (ASGI)."""
        if scope["type"] == ScopeType.HTTP:
            http = cast(HTTPScope, scope)
            if self.runtime.leaving:
                send = _closing(cast(Send, send))
            if http["method"] == "POST" and http["path"] == self.hot.path:
                await self._take_job(http, cast(Receive, receive), cast(Send, send))
                return
            raw_path = http["raw_path"]
            if b"%2F" in raw_path or b"%2f" in raw_path:
                http["path"] = routed(raw_path)
            if http["method"] == "HEAD":
                # A copy: the server keeps the scope, and counts a GET's bytes against its length.
                scope = cast(AsgiScope, {**http, "method": "GET"})
                send = _without_body(cast(Send, send))
        await super().__call__(scope, receive, send)

    async def _take_job(self, scope: HTTPScope, receive: Receive, send: Send) -> None:
        started_s = time.perf_counter()
        status = 500
        try:
            try:
                request = BareRequest(self, scope, receive)
                request.auth = await admit(self.runtime, scope, self.hot)
                if scope["query_string"]:
                    read_query(Request(scope, receive), Nothing)
                answer = await take_job(request)
            except Exception as error:  # told apart and logged by problem_response
                scope["app"] = scope["litestar_app"] = self
                scope.setdefault("state", {})
                whole: Request[None, Principal, State] = Request(scope, receive, send)
                problem = problem_response(whole, error)
                status = problem.status_code or status
                await problem.to_asgi_response(app=None, request=whole)(scope, receive, send)
            else:
                status = answer.status_code
                await answer(scope, receive, send)
        finally:
            self.runtime.metrics.count(
                "POST", self.hot.path, status, time.perf_counter() - started_s
            )


def _closing(send: Send) -> Send:
    async def send_closing(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], (b"connection", b"close")]
        await send(message)

    return send_closing


def _without_body(send: Send) -> Send:
    """End the answer where its body begins, be it a stream without an end."""
    ended = False

    async def send_head(message: Message) -> None:
        nonlocal ended
        if message["type"] == "http.response.body":
            if ended:
                return
            ended = True
            message["body"] = b""
            message["more_body"] = False
        await send(message)

    return send_head
