"""A handler that reads a body and answers, and nothing else: no key, no check, no store."""

from __future__ import annotations

from litestar import Litestar, Request, post
from litestar.datastructures import State
from litestar.response.base import ASGIResponse


@post("/{path:path}", status_code=202)
async def take(request: Request[None, None, State]) -> ASGIResponse:
    """Take a body."""
    await request.body()
    return ASGIResponse(body=b'{"status":"ok"}', status_code=202, media_type="application/json")


def empty_app() -> Litestar:
    """Return the app."""
    return Litestar(route_handlers=[take], openapi_config=None, logging_config=None)
