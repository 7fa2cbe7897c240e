"""API keys (api.md 2, 3)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

import msgspec
from litestar.params import FromPath
from litestar.response.base import ASGIResponse
from msgspec import Meta

from outbox.errors import Fault
from outbox.message import Mode
from outbox.store import catalog
from outbox.store.catalog import ApiKey
from outbox_api import samples
from outbox_api.answers import Page, answer, no_content
from outbox_api.auth import Scope
from outbox_api.operations import Answer, Body, operation
from outbox_api.paging import Moment
from outbox_api.problems import Problem, invalid, not_found
from outbox_api.requests import ApiRequest, header, read_query, read_struct
from outbox_api.runtime import runtime_of
from outbox_api.tenancy import DEFAULT_TENANT, TenantId, TenantQuery, tenant_filter

_KEY = {
    "key_id": "5f6d7c0c-3f0e-4f57-8a28-0b9e1d3a5c11",
    "name": "shop",
    "prefix": "obx_x8Kd2Q",
    "tenant_id": "default",
    "scopes": ["jobs:write", "jobs:read"],
    "mode": "live",
    "created_at": samples.AT,
    "expires_at": None,
    "last_used_at": None,
    "revoked_at": None,
}


class NewKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key to make. `tenant_id` `*` is service-wide; left out, it is the maker's own.

    `mode` `test`: what it hands in goes to the sink, and it sees test jobs alone.
    """

    name: Annotated[str, Meta(min_length=1, max_length=128)]
    scopes: Annotated[list[Scope], Meta(min_length=1, max_length=3)]
    tenant_id: TenantId | None = None
    mode: Mode = "live"
    expires_at: Moment | None = None


class MadeKey(ApiKey, frozen=True, kw_only=True):
    """A new key; `key` is shown this once, and stored nowhere."""

    key: str


@operation(
    "POST",
    "/api-keys",
    summary="Make an API key",
    tag="administration",
    needs="admin",
    body=Body(
        kind=NewKey,
        examples={"shop": {"name": "shop", "scopes": ["jobs:write"], "tenant_id": "default"}},
    ),
    answers={201: Answer(MadeKey, "The key, shown this once.", _KEY | {"key": "obx_x8Kd2Q…"})},
    problems=(400, 413, 415, 422),
)
async def make_key(request: ApiRequest) -> ASGIResponse:
    """Make a key for the maker's tenant; a service-wide admin makes any."""
    if header(request, b"idempotency-key") is not None:
        # The same answer would show a key that is stored nowhere; another would be a second one.
        fault = Fault("/header/idempotency-key", "cannot be kept here: a key is shown once")
        raise invalid([fault], status=400)
    wanted = await read_struct(request, NewKey)
    own = request.auth.tenant
    tenant = wanted.tenant_id or own or DEFAULT_TENANT
    if own is not None and tenant != own:
        raise Problem(403, "The key may make keys for its own tenant alone.")
    if wanted.expires_at is not None and wanted.expires_at <= datetime.now(UTC):
        raise invalid([Fault("/expires_at", "must lie ahead")])
    if wanted.mode == "test" and "admin" in wanted.scopes:
        raise invalid([Fault("/scopes", "a test key manages nothing: it cannot have admin")])
    key = catalog.new_key(wanted.mode)
    async with runtime_of(request).database.transaction(request.auth.sees) as connection:
        made = await catalog.create_key(
            connection,
            key,
            name=wanted.name,
            tenant=tenant,
            scopes=sorted(set(wanted.scopes)),
            mode=wanted.mode,
            expires_at=wanted.expires_at,
        )
        await catalog.note_action(
            connection,
            actor=request.auth.name,
            action="key.create",
            tenant=tenant,
            detail={"key_id": made.key_id, "scopes": made.scopes},
        )
    return answer(MadeKey(**msgspec.structs.asdict(made), key=key), status=201)


@operation(
    "GET",
    "/api-keys",
    summary="List API keys",
    tag="administration",
    needs="admin",
    query=TenantQuery,
    answers={
        200: Answer(
            Page[ApiKey], "All keys, newest first.", {"items": [_KEY], "next_cursor": None}
        )
    },
    problems=(400,),
)
async def list_keys(request: ApiRequest) -> ASGIResponse:
    """List keys; the keys themselves are stored nowhere."""
    tenant = tenant_filter(request.auth, read_query(request, TenantQuery).tenant_id)
    async with runtime_of(request).database.transaction(
        request.auth.sees, read_only=True
    ) as connection:
        return answer(Page(items=await catalog.list_keys(connection, tenant=tenant)))


@operation(
    "DELETE",
    "/api-keys/{key_id:uuid}",
    summary="Revoke an API key",
    tag="administration",
    needs="admin",
    answers={204: Answer(None, "Revoked; within a second nobody takes it any more.")},
    problems=(404,),
    path_examples={"key_id": str(_KEY["key_id"])},
)
async def revoke_key(request: ApiRequest, key_id: FromPath[UUID]) -> ASGIResponse:
    """Revoke a key; revoking it again changes nothing."""
    runtime = runtime_of(request)
    async with runtime.database.transaction(request.auth.sees) as connection:
        revoked = await catalog.revoke_key(connection, key_id, tenant=request.auth.tenant)
        if revoked is None:
            raise not_found("key")
        await catalog.note_action(
            connection,
            actor=request.auth.name,
            action="key.revoke",
            tenant=revoked.tenant_id,
            detail={"key_id": key_id},
        )
    runtime.keys.forget()
    return no_content()


ROUTES = [make_key, list_keys, revoke_key]
