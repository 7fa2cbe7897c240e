"""The gate that every routed request passes: host, key, scope; and counting on the way out."""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Mapping
from contextvars import Token
from urllib.parse import unquote

from litestar import Request
from litestar.enums import ScopeType
from litestar.response.base import ASGIResponse
from litestar.types import ASGIApp, HTTPScope, Message, Receive, Scope, Send, WebSocketScope

from outbox.errors import StoreUnavailable
from outbox.store.pool import TEST_MODE
from outbox_api.auth import ANYBODY, NOBODY, TEST_MAY, Principal, is_loopback_host, token_of
from outbox_api.dashboard.sessions import cookie_in
from outbox_api.live import deny
from outbox_api.operations import Operation, operation_of
from outbox_api.operator_log import REFUSALS, Act, Allowance, is_logged
from outbox_api.problems import Problem, allow, unavailable
from outbox_api.requests import refuse_the_unknown
from outbox_api.runtime import Runtime

OPTIONS = Operation(
    method="GET", path="(options)", name="options", summary="", tag="", needs="open"
)
"""What a path takes; answered here, for any path."""


SLASH = "\udc2f"
"""Stands for an encoded slash while a path is routed: ids may have slashes, but none has this."""


def routed(raw_path: bytes) -> str:
    """Return a path as it is routed: a slash inside of a segment does not end it."""
    path = raw_path.partition(b"?")[0].decode("ascii", "replace")
    return SLASH.join(unquote(part) for part in re.split("%2f", path, flags=re.IGNORECASE))


class Gate:
    """ASGI middleware inside Litestar, so that the route is known and problems are answered."""

    def __init__(
        self, app: ASGIApp, runtime: Runtime, methods: Mapping[str, Collection[str]]
    ) -> None:
        """`methods`: what each path takes, by its template (Litestar tells the first alone)."""
        self._app = app
        self._runtime = runtime
        self._methods = methods
        self._refusals = Allowance()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or raise Problem 401 or 403."""
        if scope["type"] != ScopeType.HTTP:
            await self._let_in(scope, receive, send)
            return
        operation = operation_of(scope["route_handler"]) or OPTIONS
        if SLASH in scope["path"]:
            scope["path"] = scope["path"].replace(SLASH, "/")
            for name, value in scope["path_params"].items():
                if isinstance(value, str):
                    scope["path_params"][name] = value.replace(SLASH, "/")
        started_s = time.perf_counter()
        status = 500
        in_test: Token[bool] | None = None
        act: Act | None = None

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if act is not None and status in REFUSALS and self._refusals.take():
                    # Before the answer: who reads the log next finds it there.
                    problem = scope["state"].get("problem")
                    await act.refused(self._runtime.database, status, problem)
            await send(message)

        try:
            scope["auth"] = await admit(self._runtime, scope, operation)
            if scope["auth"].test:
                in_test = TEST_MODE.set(True)
            if operation is OPTIONS:
                takes = allow(self._methods.get(scope["path_template"], ()))
                options = ASGIResponse(status_code=204, headers={"allow": takes})
                await options(scope, receive, counted)
            elif not is_logged(operation):
                await _refuse_the_unknown(operation, scope, receive)
                await self._app(scope, receive, counted)
            else:
                act = Act(operation, scope, scope["auth"])
                with act.watched():
                    await _refuse_the_unknown(operation, scope, receive)
                    await self._app(scope, receive, counted)
        except Problem as problem:
            status = problem.status
            lacking = scope["state"].get("lacking")
            if lacking is not None and is_logged(operation):
                act = Act(operation, scope, lacking)
            if act is not None and self._refusals.take():
                await act.refused(self._runtime.database, status, problem)
            raise
        finally:
            if in_test is not None:
                TEST_MODE.reset(in_test)
            self._runtime.metrics.count(
                scope["method"], operation.path, status, time.perf_counter() - started_s
            )

    async def _let_in(self, scope: WebSocketScope, receive: Receive, send: Send) -> None:
        """Let a WebSocket in, or answer its handshake with the problem."""
        operation = operation_of(scope["route_handler"]) or OPTIONS
        started_s, status = time.perf_counter(), 101
        try:
            scope["auth"] = await admit(self._runtime, scope, operation)
            if not self._runtime.config.auth and not is_of_this_host(scope):
                raise Problem(403, "Without keys, pages of other hosts may not connect.")
            if scope["auth"].test:
                TEST_MODE.set(True)  # for as long as the socket's own task lives
        except (Problem, StoreUnavailable) as error:
            problem = error if isinstance(error, Problem) else unavailable()
            status = problem.status
            await deny(scope, send, problem)
            return
        finally:
            took_s = time.perf_counter() - started_s
            self._runtime.metrics.count("GET", operation.path, status, took_s)
        await self._app(scope, receive, send)


async def _refuse_the_unknown(operation: Operation, scope: HTTPScope, receive: Receive) -> None:
    if not operation.is_page and not operation.lenient:
        await refuse_the_unknown(
            Request(scope, receive),
            takes_query=operation.query is not None,
            takes_body=operation.body is not None,
        )


def is_of_this_host(scope: Scope) -> bool:
    """Tell whether a WebSocket was opened by a page of ours, or by no page at all.

    Browsers let any page open one anywhere, and tell where the page came from.
    """
    told = {name: value.decode("latin-1") for name, value in scope["headers"]}
    origin = told.get(b"origin")
    return origin is None or origin.partition("://")[2] == told.get(b"host")


async def admit(runtime: Runtime, scope: Scope, operation: Operation) -> Principal:
    """Return who is asking. Raises Problem 401 and 403, 404 for a path nobody can have."""
    if not _is_storable(scope["path"]):
        raise Problem(404, "There is nothing at this path.")
    authorization = host = cookies = ""
    for name, value in scope["headers"]:
        if name == b"authorization":
            authorization = value.decode("latin-1")
        elif name == b"host":
            host = value.decode("latin-1")
        elif name == b"cookie":
            cookies = value.decode("latin-1")
    if not runtime.config.auth:
        if not is_loopback_host(host):
            raise Problem(403, "Without keys, only a loopback name may be the Host.")
        return ANYBODY
    if operation.needs == "open":
        return NOBODY
    token = token_of(authorization) if authorization else None
    cookie = cookie_in(cookies) if operation.is_page and token is None else None
    if cookie is not None:
        # Pages alone take the cookie: a browser sends it along wherever a link leads.
        session = await runtime.sessions.read(cookie)
        if session is not None:
            token = session.key
            scope["state"]["session"] = session.name
    if token is None:
        raise unauthorized("Send an API key: Authorization: Bearer obx_…", operation)
    principal = await runtime.keys.principal(token)
    if principal is None:
        raise unauthorized("This API key is unknown, expired or revoked.", operation)
    if not principal.may(operation.needs):
        scope["state"]["lacking"] = principal
        raise Problem(403, f"The key lacks the scope {operation.needs}.")
    if principal.test and f"{operation.method} {operation.path}" not in TEST_MAY:
        scope["state"]["lacking"] = principal
        raise Problem(403, "A test key hands in test jobs, sees and mends them, and may no more.")
    return principal


def _is_storable(path: str) -> bool:
    """Tell whether Postgres can take what the path names."""
    return "\x00" not in path and (
        path.isascii() or not any("\ud800" <= c <= "\udfff" for c in path)
    )


def unauthorized(detail: str, operation: Operation) -> Problem:
    """Return the 401. Browsers ask for a key by themselves where a page wants one."""
    challenge = "Bearer"
    if operation.is_page:
        challenge = 'Basic realm="outbox: the password is an API key"'
    return Problem(401, detail, headers={"www-authenticate": challenge})
