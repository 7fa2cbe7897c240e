"""Alerts that are open, and who looks after them (operations.md 5)."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from litestar.params import FromPath
from litestar.response.base import ASGIResponse
from msgspec import Meta

from outbox.store import alerts, catalog
from outbox.store.alerts import Alert
from outbox_api import samples
from outbox_api.answers import Page, answer
from outbox_api.operations import Answer, operation
from outbox_api.problems import Problem, not_found
from outbox_api.requests import ApiRequest, read_query
from outbox_api.runtime import runtime_of

_ID_MAX = 2**63 - 1
_ALERT = {
    "alert_id": 7,
    "rule": "backlog_age",
    "subject": "email",
    "severity": "warning",
    "state": "open",
    "value": 412.5,
    "since": samples.AT,
    "opened_at": samples.AT,
    "closed_at": None,
    "acknowledged_at": None,
    "acknowledged_by": None,
}


class AlertQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which alerts: `all` are those that are over as well, for 90 days."""

    state: Literal["open", "all"] = "open"
    limit: Annotated[int, Meta(ge=1, le=500)] = 100


def _require_service(request: ApiRequest) -> None:
    if request.auth.tenant is not None:
        raise Problem(403, "Alerts are of the whole service: they need a service-wide key.")


@operation(
    "GET",
    "/alerts",
    summary="List alerts",
    tag="monitoring",
    needs="jobs:read",
    query=AlertQuery,
    answers={
        200: Answer(
            Page[Alert],
            "The open ones first, then the newest. docs/runbook.md has a page for each rule.",
            {"items": [_ALERT], "next_cursor": None},
        )
    },
    problems=(400,),
)
async def list_alerts(request: ApiRequest) -> ASGIResponse:
    """List what is wrong now, or was."""
    _require_service(request)
    query = read_query(request, AlertQuery)
    async with runtime_of(request).database.transaction(
        request.auth.sees, read_only=True
    ) as connection:
        found = await alerts.list_alerts(
            connection, open_only=query.state == "open", limit=query.limit
        )
    return answer(Page(items=found, next_cursor=None))


@operation(
    "POST",
    "/alerts/{alert_id:str}/acknowledge",
    summary="Say that somebody looks after an alert",
    tag="monitoring",
    needs="admin",
    answers={
        200: Answer(
            Alert,
            "As it stands; the first who said so stays.",
            _ALERT | {"acknowledged_at": samples.AT, "acknowledged_by": "on-call"},
        )
    },
    problems=(404,),
    path_examples={"alert_id": "7"},
)
async def acknowledge(request: ApiRequest, alert_id: FromPath[str]) -> ASGIResponse:
    """Acknowledge an open alert."""
    _require_service(request)
    if not (alert_id.isascii() and alert_id.isdecimal()) or int(alert_id[:20]) > _ID_MAX:
        raise not_found("open alert")
    async with runtime_of(request).database.transaction(request.auth.sees) as connection:
        stored = await alerts.acknowledge(connection, int(alert_id), actor=request.auth.name)
        if stored is None:
            raise not_found("open alert")
        await catalog.note_action(
            connection,
            actor=request.auth.name,
            action="alert.acknowledge",
            tenant="*",
            detail={"alert_id": stored.alert_id, "rule": stored.rule, "subject": stored.subject},
        )
    return answer(stored)


ROUTES = [list_alerts, acknowledge]
