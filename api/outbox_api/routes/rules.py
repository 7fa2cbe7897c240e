"""Rules: which jobs an event makes (contracts.md 5)."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID, uuid4

import msgspec
from litestar.params import FromPath
from litestar.response.base import ASGIResponse
from msgspec import Meta

from outbox.errors import Fault
from outbox.message import Priority
from outbox.store import catalog, events
from outbox.store.events import RuleParts, RuleRow
from outbox.store.pool import Connection
from outbox_api import conditions, samples
from outbox_api.answers import Page, answer, left_out, no_content, raw, written
from outbox_api.identity import idempotent_id
from outbox_api.operations import PREFIX, Answer, Body, operation
from outbox_api.problems import Problem, invalid, not_found
from outbox_api.requests import ApiRequest, idempotency_key, read_query, read_struct
from outbox_api.runtime import Runtime, runtime_of
from outbox_api.tenancy import TenantId, TenantQuery, one_tenant, tenant_filter

DELAY_S_MAX = 90 * 86_400
Channel = Literal[
    "email", "push", "ws", "sms", "telegram", "inbox", "database", "browser"
]  # a webhook has no user to look up
Seconds = Annotated[int, Meta(ge=0, le=DELAY_S_MAX)]
Condition = Annotated[
    msgspec.Raw, Meta(extra_json_schema={"$ref": "#/components/schemas/Condition"})
]
Name = Annotated[str, Meta(min_length=1, max_length=128)]


class RuleBody(msgspec.Struct, frozen=True, kw_only=True):
    """For this event, where the condition holds, send this template on these channels.

    `delay_s` and `expires_after_s` count from the event's acceptance.
    """

    event_type: Name
    template_code: Name
    channels: Annotated[list[Channel], Meta(min_length=1, max_length=8)]
    name: Name | None = None
    condition: Condition = msgspec.field(default_factory=left_out)
    delay_s: Seconds = 0
    expires_after_s: Annotated[int, Meta(ge=1, le=2 * DELAY_S_MAX)] | None = None
    priority: Priority = "normal"
    enabled: bool = True

    def __post_init__(self) -> None:
        """Refuse what no event could be made a job of."""
        if self.expires_after_s is not None and self.expires_after_s <= self.delay_s:
            raise ValueError("/expires_after_s must be more than delay_s")


class RuleView(msgspec.Struct, frozen=True, kw_only=True):
    """A rule."""

    rule_id: UUID
    tenant_id: str
    name: str
    event_type: str
    condition: Condition | None
    template_code: str
    channels: list[str]
    delay_s: int
    expires_after_s: int | None
    priority: str
    enabled: bool
    created_at: datetime
    updated_at: datetime


class RulesQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which rules."""

    event_type: Annotated[str, Meta(max_length=128)] | None = None
    tenant_id: TenantId | None = None


_BODY = {
    "name": "welcome",
    "event_type": "user_registered",
    "condition": {"path": "plan", "op": "eq", "value": "pro"},
    "template_code": "welcome_email",
    "channels": ["email"],
    "delay_s": 0,
    "expires_after_s": 86_400,
    "priority": "high",
    "enabled": True,
}
_VIEW = _BODY | {
    "rule_id": samples.RULE_ID,
    "tenant_id": "default",
    "created_at": samples.AT,
    "updated_at": samples.AT,
}
_PATH = {"rule_id": samples.RULE_ID}


@operation(
    "POST",
    "/rules",
    summary="Make a rule",
    tag="events",
    needs="admin",
    query=TenantQuery,
    headers=("Idempotency-Key",),
    body=Body(kind=RuleBody, examples={"welcome": _BODY}),
    answers={
        201: Answer(RuleView, "The new rule.", _VIEW),
        200: Answer(RuleView, "Made before, under the same Idempotency-Key.", _VIEW),
    },
    problems=(400, 409, 413, 415, 422),
)
async def make_rule(request: ApiRequest) -> ASGIResponse:
    """Make a rule under an id of ours."""
    tenant = one_tenant(request.auth, read_query(request, TenantQuery).tenant_id)
    key = idempotency_key(request)
    rule_id = uuid4() if key is None else idempotent_id(tenant, f"rule:{key}")
    return await _put(request, rule_id, tenant, replace=False)


@operation(
    "PUT",
    "/rules/{rule_id:uuid}",
    summary="Store a rule",
    tag="events",
    needs="admin",
    query=TenantQuery,
    body=Body(kind=RuleBody, examples={"welcome": _BODY}),
    answers={
        201: Answer(RuleView, "A new rule.", _VIEW),
        200: Answer(RuleView, "Replaced.", _VIEW),
    },
    problems=(400, 404, 413, 415, 422),
    path_examples=_PATH,
)
async def put_rule(request: ApiRequest, rule_id: FromPath[UUID]) -> ASGIResponse:
    """Make a rule under the caller's id, or replace it."""
    tenant = one_tenant(request.auth, read_query(request, TenantQuery).tenant_id)
    return await _put(request, rule_id, tenant)


async def _put(
    request: ApiRequest, rule_id: UUID, tenant: str, *, replace: bool = True
) -> ASGIResponse:
    runtime = runtime_of(request)
    body = await read_struct(request, RuleBody)
    condition = written(body.condition)
    if condition is not None:
        faults = conditions.faults_of(conditions.read_data(condition))
        if faults:
            raise invalid(faults)
    channels: list[str] = ["inbox" if name == "database" else name for name in body.channels]
    parts = RuleParts(
        name=body.name or body.event_type,
        event_type=body.event_type,
        condition=condition,
        template_code=body.template_code,
        channels=list(dict.fromkeys(channels)),
        delay_s=body.delay_s,
        expires_after_s=body.expires_after_s,
        priority=body.priority,
        enabled=body.enabled,
    )
    headers = {"location": f"{PREFIX}/rules/{rule_id}"}
    async with runtime.database.transaction(request.auth.sees) as connection:
        if not replace:
            known = await events.list_rules(connection, tenant=tenant, rule_id=rule_id)
            if known and _says(known[0], parts):
                return answer(_view(known[0]), headers=headers)
        await _require_template(runtime, connection, tenant, body.template_code)
        stored = await events.put_rule(connection, rule_id, parts, tenant=tenant)
        if stored is None:
            raise not_found("rule")
        if not (stored.created or replace):
            fault = Fault("/header/idempotency-key", "was used before for another rule")
            raise Problem(409, "This Idempotency-Key made another rule.", errors=[fault])
        await catalog.note_action(
            connection,
            actor=request.auth.name,
            action="rule.put",
            tenant=tenant,
            detail={"rule_id": rule_id},
        )
    return answer(_view(stored), status=201 if stored.created else 200, headers=headers)


def _says(row: RuleRow, parts: RuleParts) -> bool:
    """Tell whether a stored rule says just this."""
    return all(
        _sense(getattr(row, name)) == _sense(getattr(parts, name))
        if name == "condition"
        else getattr(row, name) == getattr(parts, name)
        for name in RuleParts.__struct_fields__
    )


def _sense(condition: str | None) -> object:
    return None if condition is None else conditions.read_data(condition)


async def _require_template(
    runtime: Runtime, connection: Connection, tenant: str, code: str
) -> None:
    """Raise Problem 422 for a template that nobody has: its events would all be refused."""
    if not runtime.config.template_check:
        return
    known = await catalog.list_templates(
        connection, tenant=tenant, code=code, channel=None, after=("", "", ""), limit=1
    )
    if not known:
        fault = Fault("/template_code", "is no template of this tenant")
        raise invalid([fault])


@operation(
    "GET",
    "/rules",
    summary="List rules",
    tag="events",
    needs="jobs:read",
    query=RulesQuery,
    answers={200: Answer(Page[RuleView], "The rules.", {"items": [_VIEW], "next_cursor": None})},
    problems=(400,),
)
async def list_rules(request: ApiRequest) -> ASGIResponse:
    """List rules by name."""
    query = read_query(request, RulesQuery)
    async with runtime_of(request).database.transaction(
        request.auth.sees, read_only=True
    ) as connection:
        rows = await events.list_rules(
            connection,
            tenant=tenant_filter(request.auth, query.tenant_id),
            event_type=query.event_type,
        )
    return answer(Page(items=[_view(row) for row in rows]))


@operation(
    "GET",
    "/rules/{rule_id:uuid}",
    summary="Show a rule",
    tag="events",
    needs="jobs:read",
    answers={200: Answer(RuleView, "The rule.", _VIEW)},
    problems=(404,),
    path_examples=_PATH,
)
async def show_rule(request: ApiRequest, rule_id: FromPath[UUID]) -> ASGIResponse:
    """Show one rule."""
    async with runtime_of(request).database.transaction(
        request.auth.sees, read_only=True
    ) as connection:
        rows = await events.list_rules(connection, tenant=request.auth.tenant, rule_id=rule_id)
    if not rows:
        raise not_found("rule")
    return answer(_view(rows[0]))


@operation(
    "DELETE",
    "/rules/{rule_id:uuid}",
    summary="Delete a rule",
    tag="events",
    needs="admin",
    answers={204: Answer(None, "Gone. Jobs that it made stay.")},
    problems=(404,),
    path_examples=_PATH,
)
async def delete_rule(request: ApiRequest, rule_id: FromPath[UUID]) -> ASGIResponse:
    """Delete a rule."""
    async with runtime_of(request).database.transaction(request.auth.sees) as connection:
        if not await events.delete_rule(connection, rule_id, tenant=request.auth.tenant):
            raise not_found("rule")
    return no_content()


def _view(row: RuleRow) -> RuleView:
    fields = {name: getattr(row, name) for name in RuleView.__struct_fields__}
    return RuleView(**fields | {"condition": raw(row.condition)})


ROUTES = [make_rule, put_rule, list_rules, show_rule, delete_rule]
