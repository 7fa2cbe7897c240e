"""What a route is, told once: for the gate, the metrics and the OpenAPI document.

@operation("GET", "/jobs/{job_id:uuid}", summary=…, needs="jobs:read", answers={200: …})
async def show_job(request: ApiRequest, job_id: UUID) -> ASGIResponse: ...
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal, TypeAlias, TypeVar, cast

import msgspec
from litestar.handlers import HTTPRouteHandler, WebsocketRouteHandler
from litestar.response.base import ASGIResponse

from outbox_api.auth import Need
from outbox_api.requests import ApiSocket

Method: TypeAlias = Literal["GET", "POST", "PUT", "DELETE"]
Handler = TypeVar("Handler", bound=Callable[..., Awaitable[ASGIResponse]])

PREFIX = "/api/v1"

_PARAMETER = re.compile(r"\{(\w+):(\w+)\}")


class Body(msgspec.Struct, frozen=True, kw_only=True):
    """A request body: a struct, or the name of a schema of `schemas`, by media type."""

    kind: type[Any] | str
    examples: Mapping[str, object]
    media_types: tuple[str, ...] = ("application/json",)
    required: bool = True


class Answer(msgspec.Struct, frozen=True):
    """An answer: its schema (None: no body), what it means, and an example."""

    kind: type[Any] | str | None
    description: str
    example: object = None
    media_type: str = "application/json"


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """A documented route. `path` is as OpenAPI writes it."""

    method: Method
    path: str
    name: str
    summary: str
    description: str = ""
    tag: str
    needs: Need
    query: type[Any] | None = None
    headers: tuple[str, ...] = ()
    body: Body | None = None
    answers: Mapping[int, Answer] = {}
    problems: tuple[int, ...] = ()
    path_types: Mapping[str, str] = {}
    path_examples: Mapping[str, str] = {}
    is_page: bool = False
    lenient: bool = False


def operation(
    method: Method,
    path: str,
    *,
    summary: str,
    tag: str,
    needs: Need,
    query: type[Any] | None = None,
    headers: tuple[str, ...] = (),
    body: Body | None = None,
    answers: Mapping[int, Answer],
    problems: tuple[int, ...] = (),
    path_examples: Mapping[str, str] | None = None,
    prefix: str = PREFIX,
    is_page: bool = False,
    lenient: bool = False,
) -> Callable[[Handler], HTTPRouteHandler]:
    """Make a route of a handler. `path` is as Litestar writes it: `/jobs/{job_id:uuid}`.

    `lenient`: who calls it may add parameters and members that we know nothing of.
    """
    full = prefix + path

    def route(handler: Handler) -> HTTPRouteHandler:
        described = Operation(
            method=method,
            path=_PARAMETER.sub(r"{\1}", full),
            name=handler.__name__,
            summary=summary,
            description=inspect.cleandoc(handler.__doc__ or ""),
            tag=tag,
            needs=needs,
            query=query,
            headers=headers,
            body=body,
            answers=answers,
            problems=problems,
            path_types=dict(_PARAMETER.findall(full)),
            path_examples=path_examples or {},
            is_page=is_page,
            lenient=lenient,
        )
        return HTTPRouteHandler(
            full,
            http_method=method,
            name=f"{handler.__module__}.{handler.__name__}" if is_page else handler.__name__,
            status_code=200,
            opt={"operation": described},
        )(handler)

    return route


def socket_route(
    path: str,
    *,
    needs: Need,
    summary: str,
    query: type[msgspec.Struct],
    problems: tuple[int, ...],
    handler: Callable[[ApiSocket], Awaitable[None]],
) -> WebsocketRouteHandler:
    """Make a route for WebSockets, which OpenAPI does not know. 101 is the good answer."""
    described = Operation(
        method="GET",
        path=PREFIX + path,
        name=handler.__name__,
        summary=summary,
        tag="",
        needs=needs,
        query=query,
        problems=problems,
    )
    return WebsocketRouteHandler(
        PREFIX + path, name=handler.__name__, opt={"operation": described}
    )(handler)


def operation_of(handler: object) -> Operation | None:
    """Return what a route handler was made with; None: it is none of ours."""
    opt: dict[str, object] = getattr(handler, "opt", {})
    return cast("Operation | None", opt.get("operation"))
