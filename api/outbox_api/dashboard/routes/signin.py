"""Sign-in with an API key, and out again."""

from __future__ import annotations

from urllib.parse import quote

from litestar.response.base import ASGIResponse

from outbox_api.auth import TOKEN_CHARS_MAX
from outbox_api.dashboard.rendering import (
    HEADERS,
    goes,
    page,
    page_route,
    read_form,
    role_of,
)
from outbox_api.dashboard.sessions import cookie_header
from outbox_api.requests import ApiRequest, header
from outbox_api.runtime import runtime_of


@page_route("GET", "/sign-in", summary="Ask for a key", needs="open")
async def sign_in(request: ApiRequest) -> ASGIResponse:
    """Ask who it is."""
    there = _local(request.query_params.get("next", "/"))
    if not runtime_of(request).config.auth:
        return goes("/")
    return await page(request, "sign_in", here="", next=there, fault=None)


@page_route("POST", "/sign-in", summary="Begin a session", needs="open")
async def begin_session(request: ApiRequest) -> ASGIResponse:
    """Begin a session with a key that may look."""
    form = await read_form(request)
    runtime = runtime_of(request)
    there = _local(form.get("next", "/"))
    key = form.get("key", "").strip()
    principal = None
    if 0 < len(key) <= TOKEN_CHARS_MAX:
        principal = await runtime.keys.principal(key)
    fault = None
    if principal is None:
        fault = "This key is unknown, expired or revoked."
    elif role_of(principal) is None:
        fault = "This key may hand jobs in, but not look: it lacks the scope jobs:read."
    if fault is not None:
        return await page(request, "sign_in", status=403, here="", next=there, fault=fault)
    cookie = cookie_header(await runtime.sessions.begin(key), secure=_is_https(request))
    return goes(there, headers={"set-cookie": cookie})


@page_route("POST", "/sign-out", summary="End the session", needs="jobs:read")
async def end_session(request: ApiRequest) -> ASGIResponse:
    """End the session in this browser."""
    await read_form(request)
    cookie = cookie_header("", secure=_is_https(request), max_age_s=0)
    headers = {"set-cookie": cookie, "hx-redirect": "/sign-in", **HEADERS}
    return ASGIResponse(status_code=204, headers=headers)


def _is_https(request: ApiRequest) -> bool:
    forwarded = header(request, b"x-forwarded-proto") or ""
    return request.scope["scheme"] == "https" or forwarded.lower() == "https"


def _local(path: str) -> str:
    """Return a path of this host; anything else is the first page."""
    if not path.startswith("/") or path.startswith(("//", "/\\")) or not path.isprintable():
        return "/"
    return quote(path, safe="/?=&%-._~")


ROUTES = [sign_in, begin_session, end_session]
