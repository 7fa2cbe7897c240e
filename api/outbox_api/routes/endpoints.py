"""Webhook endpoints: registered addresses, with secrets that rotate and events of their own."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated
from uuid import UUID, uuid4

import msgspec
from litestar.params import FromPath
from litestar.response.base import ASGIResponse
from msgspec import Meta

from outbox.channels.guard import Blocked, Guard
from outbox.channels.guard_allow import parse_allow
from outbox.channels.webhook_signature import SecretRefused, key_of
from outbox.errors import Fault, SealBroken
from outbox.store import catalog, endpoints
from outbox.store.endpoints import (
    EndpointParts,
    EndpointSecret,
    StoredEndpoint,
    new_secret,
    open_secrets,
    rotated,
)
from outbox_api import samples
from outbox_api.answers import Page, answer, no_content
from outbox_api.identity import idempotent_id
from outbox_api.operations import PREFIX, Answer, Body, operation
from outbox_api.paging import Limit
from outbox_api.problems import invalid, not_found
from outbox_api.requests import ApiRequest, idempotency_key, read_query, read_struct
from outbox_api.runtime import Runtime, runtime_of
from outbox_api.tenancy import TenantId, TenantQuery, one_tenant, tenant_filter
from outbox_api.text_cursors import read_text_cursor, write_text_cursor

OVERLAP_S = 86_400
OVERLAP_S_MAX = 30 * 86_400

Secret = Annotated[str, Meta(max_length=256)]
EventType = Annotated[str, Meta(min_length=1, max_length=128)]


class EndpointBody(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint. Events of `event_types` go there by themselves; jobs may name it besides.

    `secret` (`whsec_` and base64) is made where a new endpoint brings none; on a PUT that
    leaves it out it stays.
    """

    url: Annotated[str, Meta(min_length=1, max_length=2_048)]
    description: Annotated[str, Meta(max_length=500)] | None = None
    event_types: Annotated[list[EventType], Meta(max_length=100)] = []
    secret: Secret | None = None
    enabled: bool = True


class RotationBody(msgspec.Struct, frozen=True, kw_only=True):
    """The new secret, made where it is left out; and how long the old one signs beside it."""

    secret: Secret | None = None
    overlap_s: Annotated[int, Meta(ge=0, le=OVERLAP_S_MAX)] = OVERLAP_S


class EndpointView(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint. `disabled_reason`: what its receiver said when it answered 410."""

    endpoint_id: UUID
    tenant_id: str
    url: str
    description: str | None
    event_types: list[str]
    enabled: bool
    disabled_reason: str | None
    created_at: datetime
    updated_at: datetime


class MadeEndpoint(EndpointView, frozen=True, kw_only=True):
    """An endpoint and its new secret, which is shown this once."""

    secret: str


class EndpointsQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which endpoints."""

    tenant_id: TenantId | None = None
    limit: Limit = 100
    cursor: Annotated[str, Meta(max_length=4_096)] | None = None


_BODY = {
    "url": "https://shop.example.com/hooks",
    "description": "the shop",
    "event_types": ["order_paid"],
    "enabled": True,
}
_VIEW = _BODY | {
    "endpoint_id": samples.RULE_ID,
    "tenant_id": "default",
    "disabled_reason": None,
    "created_at": samples.AT,
    "updated_at": samples.AT,
}
_MADE = _VIEW | {"secret": "whsec_…"}
_PATH = {"endpoint_id": samples.RULE_ID}


@operation(
    "POST",
    "/endpoints",
    summary="Register a webhook endpoint",
    tag="administration",
    needs="admin",
    query=TenantQuery,
    headers=("Idempotency-Key",),
    body=Body(kind=EndpointBody, examples={"shop": _BODY}),
    answers={201: Answer(MadeEndpoint, "With its secret, shown this once.", _MADE)},
    problems=(400, 413, 415, 422),
)
async def make_endpoint(request: ApiRequest) -> ASGIResponse:
    """Register an endpoint under an id of ours."""
    tenant = one_tenant(request.auth, read_query(request, TenantQuery).tenant_id)
    key = idempotency_key(request)
    endpoint_id = uuid4() if key is None else idempotent_id(tenant, f"endpoint:{key}")
    body = await read_struct(request, EndpointBody)
    secret = body.secret or new_secret()
    stored = await _put(request, endpoint_id, tenant, body, [EndpointSecret(secret)])
    headers = {"location": f"{PREFIX}/endpoints/{endpoint_id}"}
    made = MadeEndpoint(**msgspec.structs.asdict(_view(stored)), secret=secret)
    return answer(made, status=201, headers=headers)


@operation(
    "PUT",
    "/endpoints/{endpoint_id:uuid}",
    summary="Change a webhook endpoint",
    tag="administration",
    needs="admin",
    query=TenantQuery,
    body=Body(kind=EndpointBody, examples={"shop": _BODY}),
    answers={200: Answer(EndpointView, "Used within a second.", _VIEW)},
    problems=(400, 404, 413, 415, 422),
    path_examples=_PATH,
)
async def put_endpoint(request: ApiRequest, endpoint_id: FromPath[UUID]) -> ASGIResponse:
    """Change an endpoint that there is, whole but for its secret; `enabled` switches it on."""
    tenant = one_tenant(request.auth, read_query(request, TenantQuery).tenant_id)
    body = await read_struct(request, EndpointBody)
    await _known(request, endpoint_id, tenant)
    secrets = None if body.secret is None else [EndpointSecret(body.secret)]
    return answer(_view(await _put(request, endpoint_id, tenant, body, secrets)))


@operation(
    "POST",
    "/endpoints/{endpoint_id:uuid}/rotate",
    summary="Give a webhook endpoint a new secret",
    tag="administration",
    needs="admin",
    query=TenantQuery,
    body=Body(kind=RotationBody, examples={"a day": {"overlap_s": 86_400}}),
    answers={200: Answer(MadeEndpoint, "With its new secret, shown this once.", _MADE)},
    problems=(400, 404, 413, 415, 422),
    path_examples=_PATH,
)
async def rotate_endpoint(request: ApiRequest, endpoint_id: FromPath[UUID]) -> ASGIResponse:
    """Sign with a new secret, and for a while with the old one too."""
    tenant = one_tenant(request.auth, read_query(request, TenantQuery).tenant_id)
    rotation = await read_struct(request, RotationBody)
    secret = rotation.secret or new_secret()
    known = await _known(request, endpoint_id, tenant)
    until = datetime.now(UTC) + timedelta(seconds=rotation.overlap_s)
    try:
        before = open_secrets(runtime_of(request).sealing, known.sealed, endpoint_id)
    except SealBroken:
        before = []  # what nobody can read signs nothing any more: the new one stands alone
    body = EndpointBody(
        url=known.url,
        description=known.description,
        event_types=known.event_types,
        secret=secret,
        enabled=known.enabled,
    )
    secrets = rotated(before, secret, until=until)
    stored = await _put(request, endpoint_id, tenant, body, secrets)
    return answer(MadeEndpoint(**msgspec.structs.asdict(_view(stored)), secret=secret))


async def _known(request: ApiRequest, endpoint_id: UUID, tenant: str) -> StoredEndpoint:
    async with runtime_of(request).database.transaction(
        request.auth.sees, read_only=True
    ) as connection:
        rows = await endpoints.list_endpoints(
            connection, tenant=tenant, endpoint_id=endpoint_id, limit=1
        )
    if not rows:
        raise not_found("endpoint")
    return rows[0]


async def _put(
    request: ApiRequest,
    endpoint_id: UUID,
    tenant: str,
    body: EndpointBody,
    secrets: list[EndpointSecret] | None,
) -> StoredEndpoint:
    runtime = runtime_of(request)
    _check(runtime, body)
    parts = EndpointParts(
        url=body.url,
        description=body.description,
        event_types=sorted(set(body.event_types)),
        enabled=body.enabled,
        secrets=secrets,
    )
    try:
        async with runtime.database.transaction(request.auth.sees) as connection:
            stored = await endpoints.put_endpoint(
                connection, endpoint_id, parts, tenant=tenant, keyring=runtime.sealing
            )
            if stored is None:
                raise not_found("endpoint")
            await catalog.note_action(
                connection,
                actor=request.auth.name,
                action="endpoint.put",
                tenant=tenant,
                detail={"endpoint_id": endpoint_id, "new_secret": secrets is not None},
            )
    except SealBroken as error:
        raise invalid([Fault("/secret", f"cannot be kept: {error}")]) from error
    return stored


def _check(runtime: Runtime, body: EndpointBody) -> None:
    """Raise Problem 422 for an address that nothing may be sent to, or a secret that is none."""
    faults = []
    allow = parse_allow(" ".join(runtime.config.webhook_allow))
    try:
        Guard(allow).check_url(body.url)
    except Blocked as error:
        faults.append(Fault("/url", f"cannot be used: {error}"))
    if body.secret is not None:
        try:
            key_of(body.secret)
        except SecretRefused as error:
            faults.append(Fault("/secret", f"cannot be used: {error}"))
    if faults:
        raise invalid(faults)


@operation(
    "GET",
    "/endpoints",
    summary="List webhook endpoints",
    tag="administration",
    needs="jobs:read",
    query=EndpointsQuery,
    answers={
        200: Answer(
            Page[EndpointView],
            "A page, by tenant and id; no secret is shown.",
            {"items": [_VIEW], "next_cursor": None},
        )
    },
    problems=(400,),
)
async def list_endpoints(request: ApiRequest) -> ASGIResponse:
    """List endpoints."""
    query = read_query(request, EndpointsQuery)
    tenant, endpoint, _ = read_text_cursor(query.cursor)
    try:
        after = (tenant, UUID(endpoint) if endpoint else endpoints.NO_ENDPOINT)
    except ValueError:
        fault = Fault("/query/cursor", "is no cursor that was given out")
        raise invalid([fault], status=400) from None
    async with runtime_of(request).database.transaction(
        request.auth.sees, read_only=True
    ) as connection:
        rows = await endpoints.list_endpoints(
            connection,
            tenant=tenant_filter(request.auth, query.tenant_id),
            after=after,
            limit=query.limit + 1,
        )
    shown = rows[: query.limit]
    more = None
    if len(rows) > query.limit:
        more = write_text_cursor(shown[-1].tenant_id, str(shown[-1].endpoint_id), "")
    return answer(Page(items=[_view(row) for row in shown], next_cursor=more))


@operation(
    "GET",
    "/endpoints/{endpoint_id:uuid}",
    summary="Show a webhook endpoint",
    tag="administration",
    needs="jobs:read",
    answers={200: Answer(EndpointView, "The endpoint, without its secret.", _VIEW)},
    problems=(404,),
    path_examples=_PATH,
)
async def show_endpoint(request: ApiRequest, endpoint_id: FromPath[UUID]) -> ASGIResponse:
    """Show one endpoint."""
    async with runtime_of(request).database.transaction(
        request.auth.sees, read_only=True
    ) as connection:
        rows = await endpoints.list_endpoints(
            connection, tenant=request.auth.tenant, endpoint_id=endpoint_id, limit=1
        )
    if not rows:
        raise not_found("endpoint")
    return answer(_view(rows[0]))


@operation(
    "DELETE",
    "/endpoints/{endpoint_id:uuid}",
    summary="Take a webhook endpoint away",
    tag="administration",
    needs="admin",
    answers={204: Answer(None, "Gone; jobs that wait for it will fail.")},
    problems=(404,),
    path_examples=_PATH,
)
async def delete_endpoint(request: ApiRequest, endpoint_id: FromPath[UUID]) -> ASGIResponse:
    """Take an endpoint away."""
    async with runtime_of(request).database.transaction(request.auth.sees) as connection:
        tenant = await endpoints.delete_endpoint(
            connection, endpoint_id, tenant=request.auth.tenant
        )
        if tenant is None:
            raise not_found("endpoint")
        await catalog.note_action(
            connection,
            actor=request.auth.name,
            action="endpoint.delete",
            tenant=tenant,
            detail={"endpoint_id": endpoint_id},
        )
    return no_content()


def _view(row: StoredEndpoint) -> EndpointView:
    return EndpointView(**{name: getattr(row, name) for name in EndpointView.__struct_fields__})


ROUTES = [
    make_endpoint,
    put_endpoint,
    rotate_endpoint,
    list_endpoints,
    show_endpoint,
    delete_endpoint,
]
