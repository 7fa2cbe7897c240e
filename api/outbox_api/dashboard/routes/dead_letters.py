"""Dead letters: grouped by what went wrong, and each of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal
from urllib.parse import urlencode

import msgspec
from litestar.params import FromPath
from litestar.response.base import ASGIResponse
from msgspec import Meta

from outbox.store import dead_letters, operate
from outbox.store.dead_letters import DeadLetterFilter
from outbox.store.operate import DeadGroup
from outbox_api.answers import write_cursor
from outbox_api.dashboard.rendering import page, page_route, query_of, read_form, told
from outbox_api.requests import ApiRequest
from outbox_api.routes.dead_letters import replay_dead_letter
from outbox_api.routes.job_views import cursor_number
from outbox_api.runtime import runtime_of

SHOWN = 50
STEPS = 24
BACK = {"24h": timedelta(days=1), "7d": timedelta(days=7), "30d": timedelta(days=30)}

Text = Annotated[str, Meta(max_length=255)]


class GroupsQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How far back to look."""

    back: Literal["24h", "7d", "30d"] = "7d"


class LettersQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which dead letters."""

    queue: Text | None = None
    error_code: Text | None = None
    reason: Text | None = None
    replayed: Literal["yes", "no"] | None = "no"
    cursor: Text | None = None


@page_route("GET", "/dead-letters", summary="Show what failed, by error", needs="jobs:read")
async def groups(request: ApiRequest) -> ASGIResponse:
    """Show what nobody has replayed yet, grouped by queue and error."""
    query = query_of(request, GroupsQuery)
    async with runtime_of(request).database.transaction(
        request.auth.sees, read_only=True
    ) as connection:
        found = await operate.dead_groups(
            connection,
            tenant=request.auth.tenant,
            queue=None,
            since=datetime.now(UTC) - BACK[query.back],
        )
    shown = [(group, _over_time(group), _filter_of(group)) for group in found]
    return await page(
        request, "dead_groups", here="dead-letters", groups=shown, back=query.back, backs=BACK
    )


def _over_time(group: DeadGroup) -> list[int]:
    line = [0] * STEPS
    for step, count in zip(group.steps, group.counts, strict=True):
        line[min(max(step, 0), STEPS - 1)] += count
    return line


def _filter_of(group: DeadGroup) -> str:
    named = {"queue": group.queue, "error_code": group.error_code, "reason": group.reason}
    return urlencode({name: value for name, value in named.items() if value})


@page_route("GET", "/dead-letters/list", summary="Show dead letters", needs="jobs:read")
async def letters(request: ApiRequest) -> ASGIResponse:
    """Show dead letters one by one, newest first."""
    query = query_of(request, LettersQuery)
    wanted = DeadLetterFilter(
        tenant_id=request.auth.tenant,
        queue=query.queue,
        error_code=query.error_code,
        reason=query.reason,
        replayed=None if query.replayed is None else query.replayed == "yes",
    )
    before = cursor_number(query.cursor)
    async with runtime_of(request).database.transaction(
        request.auth.sees, read_only=True
    ) as connection:
        rows = await dead_letters.page(connection, wanted, before=before, limit=SHOWN + 1)
    shown = rows[:SHOWN]
    older = None
    if len(rows) > SHOWN:
        kept = {name: text for name, text in request.query_params.items() if text}
        cursor = write_cursor(shown[-1].dead_letter_id)
        older = "/dead-letters/list?" + urlencode(kept | {"cursor": cursor})
    listed = [(row, _job_id(row.job)) for row in shown]
    return await page(
        request, "dead_letters", here="dead-letters", letters=listed, query=query, older=older
    )


class _Named(msgspec.Struct, frozen=True):
    job_id: str | None = None


def _job_id(job: str | None) -> str | None:
    return None if job is None else msgspec.json.decode(job, type=_Named).job_id


@page_route(
    "POST", "/dead-letters/{dead_letter_id:str}/replay", summary="Replay one", needs="jobs:write"
)
async def replay(request: ApiRequest, dead_letter_id: FromPath[str]) -> ASGIResponse:
    """Try one again."""
    await read_form(request)
    await replay_dead_letter.fn(request, dead_letter_id)
    return told("Replayed: a new series of attempts has begun.")


ROUTES = [groups, letters, replay]
