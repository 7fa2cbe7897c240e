"""Destinations: hosts, endpoints and providers, and what the whole fleet keeps to there."""

from __future__ import annotations

import msgspec
from litestar.params import FromPath
from litestar.response.base import ASGIResponse

from outbox.errors import LimitRefused
from outbox.store import limits
from outbox.store.limits import DestinationRow
from outbox_api.answers import answer
from outbox_api.operations import Answer, Body, operation
from outbox_api.problems import Problem, invalid, not_found
from outbox_api.requests import ApiRequest, read_struct
from outbox_api.routes.lanes import int4
from outbox_api.runtime import runtime_of


class DestinationBody(msgspec.Struct, frozen=True, kw_only=True):
    """A destination's rate over the whole fleet; what is left out, or null, is no limit.

    `burst`: so many at once after a pause (by default as many as in a second).
    """

    rate_per_s: float | None = None
    burst: int | None = None


class DestinationList(msgspec.Struct, frozen=True, kw_only=True):
    """All of them, by name; `next_cursor` is always null."""

    items: list[DestinationRow]
    next_cursor: None = None


_NAME = {"name": "host:hooks.example.com"}
_ROW = _NAME | {
    "breaker": "closed",
    "rate_per_s": 50.0,
    "burst": 100,
    "tokens": 96.5,
    "paused_until": None,
    "opened_at": None,
    "open_until": None,
    "good": 0,
    "bad": 0,
    "changed_at": "2026-11-22T12:00:00Z",
}


@operation(
    "GET",
    "/destinations",
    summary="List destinations that are limited, paused or in trouble",
    tag="queues",
    needs="jobs:read",
    answers={200: Answer(DestinationList, "By name.", {"items": [_ROW], "next_cursor": None})},
)
async def list_destinations(request: ApiRequest) -> ASGIResponse:
    """List destinations that have a rate, are paused, or had failures in the last minute."""
    return answer(DestinationList(items=await _rows(request)))


@operation(
    "GET",
    "/destinations/{name:str}",
    summary="Show one destination",
    tag="queues",
    needs="jobs:read",
    answers={200: Answer(DestinationRow, "The destination.", _ROW)},
    problems=(404,),
    path_examples=_NAME,
)
async def show_destination(request: ApiRequest, name: FromPath[str]) -> ASGIResponse:
    """Show a destination's rate, pause, breaker, and attempts of the last minute."""
    rows = await _rows(request, name)
    if not rows:
        raise not_found("destination")
    return answer(rows[0])


@operation(
    "PUT",
    "/destinations/{name:str}",
    summary="Set a destination's rate",
    tag="queues",
    needs="admin",
    body=Body(
        kind=DestinationBody,
        examples={"limited": {"rate_per_s": 50.0, "burst": 100}, "no limit": {}},
    ),
    answers={200: Answer(DestinationRow, "The destination as it is now.", _ROW)},
    problems=(400, 413, 415, 422),
    path_examples=_NAME,
)
async def set_destination(request: ApiRequest, name: FromPath[str]) -> ASGIResponse:
    """Set the rate of `host:NAME`, `endpoint:ID` or `provider:NAME` for all tenants together."""
    _service_wide(request)
    body = await read_struct(request, DestinationBody)
    return await _set(request, name, body.rate_per_s, int4(body.burst), resume=False)


@operation(
    "POST",
    "/destinations/{name:str}/resume",
    summary="End a destination's pause, and close its breaker",
    tag="queues",
    needs="admin",
    answers={200: Answer(DestinationRow, "The destination as it is now.", _ROW)},
    problems=(404,),
    path_examples=_NAME,
)
async def resume_destination(request: ApiRequest, name: FromPath[str]) -> ASGIResponse:
    """Let the fleet talk to it at once; its rate stays."""
    rows = await _rows(request, name)
    if not rows:
        raise not_found("destination")
    return await _set(request, name, rows[0].rate_per_s, rows[0].burst, resume=True)


async def _set(
    request: ApiRequest, name: str, rate_per_s: float | None, burst: int | None, *, resume: bool
) -> ASGIResponse:
    try:
        async with runtime_of(request).database.transaction(request.auth.sees) as connection:
            await limits.set_destination(
                connection,
                name,
                rate_per_s=rate_per_s,
                burst=burst,
                resume=resume,
                actor=request.auth.name,
            )
    except LimitRefused as error:
        raise invalid(error.faults) from error
    rows = await _rows(request, name)
    # Without a rate and a pause there is nothing left of it.
    return answer(rows[0] if rows else limits.untroubled(name))


async def _rows(request: ApiRequest, name: str | None = None) -> list[DestinationRow]:
    _service_wide(request)
    async with runtime_of(request).database.transaction(
        request.auth.sees, read_only=True
    ) as connection:
        return await limits.list_destinations(connection, name)


def _service_wide(request: ApiRequest) -> None:
    if request.auth.tenant is not None:
        raise Problem(403, "Destinations are all tenants': they need a service-wide key.")


ROUTES = [list_destinations, show_destination, set_destination, resume_destination]
