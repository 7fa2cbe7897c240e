"""Lanes: one tenant's part of a queue, with its limits over the whole fleet (store.md 3)."""

from __future__ import annotations

import re
from typing import overload

import msgspec
from litestar.params import FromPath
from litestar.response.base import ASGIResponse

from outbox.errors import Fault, LimitRefused, NoSuchQueue
from outbox.store import limits
from outbox.store.limits import LaneLimits
from outbox_api.answers import answer
from outbox_api.operations import Answer, Body, operation
from outbox_api.problems import Problem, invalid, no_such_queue, not_found
from outbox_api.requests import ApiRequest, read_struct
from outbox_api.runtime import runtime_of

_QUEUE = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_INT4_MAX = 2_147_483_647


class LimitsBody(msgspec.Struct, frozen=True, kw_only=True):
    """All limits of a lane; what is left out, or null, is no limit.

    `weight`: its share beside other tenants (1 to 1,000). `concurrency_max`: how many attempts at
    once, over all dispatchers. `rate_per_s`: how many are claimed a second, with `burst` of them
    at once after a pause (by default as many as in a second).
    """

    weight: int = 1
    concurrency_max: int | None = None
    rate_per_s: float | None = None
    burst: int | None = None


_LANE = {"tenant_id": "default", "queue": "email"}
_LIMITS = {"weight": 2, "concurrency_max": 20, "rate_per_s": 50.0, "burst": 100}
_STATE = {
    "places_taken": 3,
    "tokens": 96.5,
    "paused_at": None,
    "paused_by": None,
    "held_at": None,
    "hold_code": None,
    "hold_reason": None,
}


@operation(
    "GET",
    "/lanes/{tenant_id:str}/{queue:str}",
    summary="Show one tenant's lane of a queue",
    tag="queues",
    needs="jobs:read",
    answers={200: Answer(LaneLimits, "The lane.", _LANE | _LIMITS | _STATE)},
    problems=(404,),
    path_examples=_LANE,
)
async def show_lane(
    request: ApiRequest, tenant_id: FromPath[str], queue: FromPath[str]
) -> ASGIResponse:
    """Show a lane's limits, how much of them is used, and whether it is paused or held."""
    if request.auth.tenant not in (None, tenant_id):
        raise Problem(403, "The key acts for another tenant.")
    return answer(await _shown(request, tenant_id, queue))


@operation(
    "PUT",
    "/lanes/{tenant_id:str}/{queue:str}",
    summary="Set the limits of one tenant's lane",
    tag="queues",
    needs="admin",
    body=Body(kind=LimitsBody, examples={"limited": _LIMITS, "no limits": {}}),
    answers={200: Answer(LaneLimits, "The lane as it is now.", _LANE | _LIMITS | _STATE)},
    problems=(400, 413, 415, 422),
    path_examples=_LANE,
)
async def set_lane(
    request: ApiRequest, tenant_id: FromPath[str], queue: FromPath[str]
) -> ASGIResponse:
    """Set a lane's limits over the whole fleet; they hold for what is claimed from then on.

    A tenant's own key may not change them: they are there for the other tenants' sake.
    """
    if request.auth.tenant is not None:
        raise Problem(403, "Limits need a service-wide key; a tenant may pause its own lanes.")
    if not _QUEUE.fullmatch(queue):
        raise invalid([Fault("/path/queue", "must be 1 to 63 of a-z, 0-9, '.', '_', '-'")])
    if tenant_id == "*" or len(tenant_id) > 128:
        raise invalid([Fault("/path/tenant_id", "must have 1 to 128 characters, and not be *")])
    body = await read_struct(request, LimitsBody)
    try:
        async with runtime_of(request).database.transaction(request.auth.sees) as connection:
            await limits.set_lane(
                connection,
                tenant=tenant_id,
                queue=queue,
                weight=int4(body.weight),
                concurrency_max=int4(body.concurrency_max),
                rate_per_s=body.rate_per_s,
                burst=int4(body.burst),
                actor=request.auth.name,
            )
    except NoSuchQueue as error:
        raise no_such_queue() from error
    except LimitRefused as error:
        raise invalid(error.faults) from error
    return answer(await _shown(request, tenant_id, queue))


@overload
def int4(number: int) -> int: ...
@overload
def int4(number: None) -> None: ...
def int4(number: int | None) -> int | None:
    """Return a number that Postgres can look at; one that is far too large stays too large."""
    if number is None:
        return None
    return max(min(number, _INT4_MAX), -_INT4_MAX)


async def _shown(request: ApiRequest, tenant_id: str, queue: str) -> LaneLimits:
    async with runtime_of(request).database.transaction(
        request.auth.sees, read_only=True
    ) as connection:
        found = await limits.show_lane(connection, tenant=tenant_id, queue=queue)
    if found is None:
        raise not_found("lane")
    return found


ROUTES = [show_lane, set_lane]
