"""Who delivers a tenant's messages: providers, in order, with credentials nobody gets back."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import msgspec
import psycopg.errors
from litestar.params import FromPath
from litestar.response.base import ASGIResponse
from msgspec import Meta

from outbox.channels.guard import Blocked, Guard
from outbox.channels.guard_allow import parse_allow
from outbox.channels.providers import (
    DIRECTORY,
    PROVIDER_KINDS,
    RECEIPT_SECRET,
    ProviderKind,
    ProviderSpec,
    provider_settings,
)
from outbox.channels.registry import is_installed, make_handler
from outbox.errors import ConfigError, Fault, SealBroken
from outbox.receipts import ReceiptFormat, is_secret
from outbox.store import catalog, providers
from outbox.store.providers import ProviderParts, StoredProvider, open_credentials
from outbox_api import samples
from outbox_api.answers import JsonObject, Page, answer, no_content
from outbox_api.identity import idempotent_id
from outbox_api.operations import PREFIX, Answer, Body, operation
from outbox_api.problems import Problem, invalid, not_found
from outbox_api.requests import ApiRequest, idempotency_key, read_query, read_struct
from outbox_api.runtime import Runtime, runtime_of
from outbox_api.tenancy import TenantId, TenantQuery, one_tenant, tenant_filter

VALUE_CHARS_MAX = 8_192
VALUES_MAX = 32
Name = Annotated[str, Meta(min_length=1, max_length=64)]
Values = Annotated[dict[str, str], Meta(max_length=VALUES_MAX)]


class ProviderBody(msgspec.Struct, frozen=True, kw_only=True):
    """A provider. `preference`: the lowest is asked first, the others when it is in trouble.

    `credentials` are encrypted and never shown; left out, those that are stored stay.
    `receipts`: how it calls back at /callbacks/{provider_id}, signed with the credential
    `receipt_secret`.
    """

    channel: Name
    kind: Name
    name: Name
    preference: Annotated[int, Meta(ge=0, le=1_000)] = 100
    config: Values = {}
    credentials: Values | None = None
    enabled: bool = True
    receipts: ReceiptFormat | None = None


class ProviderView(msgspec.Struct, frozen=True, kw_only=True):
    """A provider. `key_id` tells which key its credentials are encrypted under."""

    provider_id: UUID
    tenant_id: str
    channel: str
    kind: str
    name: str
    preference: int
    config: JsonObject
    has_credentials: bool
    key_id: str | None
    enabled: bool
    receipts: str | None
    created_at: datetime
    updated_at: datetime


class ProvidersQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which providers."""

    channel: Name | None = None
    tenant_id: TenantId | None = None


_BODY = {
    "channel": "email",
    "kind": "smtp",
    "name": "main",
    "preference": 1,
    "config": {
        "smtp_url": "smtp://smtp.example.com:587?starttls=required",
        "mail_from": "Cinema <hello@cinema.kz>",
    },
    "credentials": {"smtp_username": "cinema", "smtp_password": "…"},
    "enabled": True,
    "receipts": None,
}
_VIEW = {name: value for name, value in _BODY.items() if name != "credentials"} | {
    "provider_id": samples.RULE_ID,
    "tenant_id": "acme",
    "has_credentials": True,
    "key_id": "5f0c2f7c",
    "created_at": samples.AT,
    "updated_at": samples.AT,
}
_PATH = {"provider_id": samples.RULE_ID}


@operation(
    "POST",
    "/providers",
    summary="Add a provider",
    tag="administration",
    needs="admin",
    query=TenantQuery,
    headers=("Idempotency-Key",),
    body=Body(kind=ProviderBody, examples={"smtp": _BODY}),
    answers={201: Answer(ProviderView, "In use within a second.", _VIEW)},
    problems=(400, 409, 413, 415, 422),
)
async def make_provider(request: ApiRequest) -> ASGIResponse:
    """Add a provider under an id of ours."""
    tenant = one_tenant(request.auth, read_query(request, TenantQuery).tenant_id)
    key = idempotency_key(request)
    provider_id = uuid4() if key is None else idempotent_id(tenant, f"provider:{key}")
    return await _put(request, provider_id, tenant, status=201)


@operation(
    "PUT",
    "/providers/{provider_id:uuid}",
    summary="Store a provider",
    tag="administration",
    needs="admin",
    query=TenantQuery,
    body=Body(kind=ProviderBody, examples={"smtp": _BODY}),
    answers={200: Answer(ProviderView, "In use within a second.", _VIEW)},
    problems=(400, 404, 409, 413, 415, 422),
    path_examples=_PATH,
)
async def put_provider(request: ApiRequest, provider_id: FromPath[UUID]) -> ASGIResponse:
    """Add a provider under the caller's id, or change it, whole but for its credentials."""
    tenant = one_tenant(request.auth, read_query(request, TenantQuery).tenant_id)
    return await _put(request, provider_id, tenant, status=200)


async def _put(
    request: ApiRequest, provider_id: UUID, tenant: str, *, status: int
) -> ASGIResponse:
    runtime = runtime_of(request)
    body = await read_struct(request, ProviderBody)
    kind = _kind(body)
    _check_values(body, kind)
    parts = ProviderParts(
        channel=body.channel,
        kind=body.kind,
        name=body.name,
        preference=body.preference,
        config=body.config,
        credentials=body.credentials,
        enabled=body.enabled,
        receipts=body.receipts,
    )
    try:
        async with runtime.database.transaction(request.auth.sees) as connection:
            known = await providers.list_providers(
                connection, tenant=tenant, provider_id=provider_id
            )
            _check_whole(runtime, body, tenant, known[0] if known else None)
            stored = await providers.put_provider(
                connection, provider_id, parts, tenant=tenant, keyring=runtime.sealing
            )
            if stored is None:
                raise not_found("provider")
            await catalog.note_action(
                connection,
                actor=request.auth.name,
                action="provider.put",
                tenant=tenant,
                detail={"provider_id": provider_id, "channel": body.channel, "kind": body.kind},
            )
    except SealBroken as error:
        raise invalid([Fault("/credentials", f"cannot be kept: {error}")]) from error
    except psycopg.errors.UniqueViolation:
        fault = Fault("/name", "is the name of another provider of this channel")
        raise Problem(409, f"/name {fault.message}.", errors=[fault]) from None
    headers = {"location": f"{PREFIX}/providers/{provider_id}"}
    return answer(_view(stored), status=status, headers=headers)


def _kind(body: ProviderBody) -> ProviderKind:
    """Return what the provider can be told. Raises Problem 422."""
    kinds = PROVIDER_KINDS.get(body.channel, {})
    if not kinds:
        shown = ", ".join(sorted(PROVIDER_KINDS))
        raise invalid([Fault("/channel", f"has no providers of a tenant's own, as {shown} have")])
    if body.kind not in kinds:
        shown = ", ".join(sorted(kinds))
        raise invalid([Fault("/kind", f"must be one of {body.channel}'s: {shown}")])
    return kinds[body.kind]


def _check_values(body: ProviderBody, kind: ProviderKind) -> None:
    """Raise Problem 422 for what this kind cannot be told."""
    faults = [
        *_value_faults("/config", body.config, kind.config),
        *_value_faults(
            "/credentials", body.credentials or {}, (*kind.credentials, RECEIPT_SECRET)
        ),
    ]
    for name, value in body.config.items():
        if _has_password(value):
            said = "must have no password in it: that belongs into credentials"
            faults.append(Fault(f"/config/{name}", said))
    for name in kind.required:
        if name in kind.config and not body.config.get(name):
            faults.append(Fault(f"/config/{name}", "is required"))
    if faults:
        raise invalid(faults)


def _value_faults(base: str, values: Mapping[str, str], known: tuple[str, ...]) -> list[Fault]:
    faults = []
    for name, value in values.items():
        if name not in known:
            faults.append(Fault(f"{base}/{name}", f"is none of {', '.join(known) or 'none'}"))
        elif not 1 <= len(value) <= VALUE_CHARS_MAX or "\x00" in value:
            faults.append(Fault(f"{base}/{name}", f"must have 1 to {VALUE_CHARS_MAX} characters"))
    return faults


def _has_password(value: str) -> bool:
    try:
        return "://" in value and urlsplit(value).password is not None
    except ValueError:
        return False


def _check_whole(
    runtime: Runtime, body: ProviderBody, tenant: str, known: StoredProvider | None
) -> None:
    """Make the handler once, where it is installed here. Raises Problem 422, SealBroken."""
    credentials = body.credentials
    if credentials is None:
        sealed = None if known is None else known.sealed
        credentials = (
            {} if known is None else open_credentials(runtime.sealing, sealed, known.provider_id)
        )
    secret = credentials.get(RECEIPT_SECRET)
    if body.receipts is not None and (secret is None or not is_secret(body.receipts, secret)):
        said = f"must be the secret that {body.receipts} callbacks are checked with"
        raise invalid([Fault(f"/credentials/{RECEIPT_SECRET}", said)])
    for name in PROVIDER_KINDS[body.channel][body.kind].required:
        if not body.config.get(name) and not credentials.get(name):
            raise invalid([Fault(f"/credentials/{name}", "is required")])
    if body.channel == DIRECTORY:
        _check_directory(runtime, body.config["directory_url"])
        return
    if not is_installed(body.channel):
        return
    spec = ProviderSpec(
        provider_id=uuid4(),
        tenant_id=tenant,
        channel=body.channel,
        kind=body.kind,
        name=body.name,
        config=body.config,
        credentials=credentials,
    )
    try:
        make_handler(body.channel, provider_settings(spec, runtime.config.handler_settings()))
    except ConfigError as error:
        raise invalid([Fault("/config", f"cannot be used: {error}")]) from error


def _check_directory(runtime: Runtime, url: str) -> None:
    allow = runtime.config.handler_settings().get("WEBHOOK_ALLOW", "")
    try:
        Guard(parse_allow(allow)).check_url(url)
    except Blocked as error:
        raise invalid([Fault("/config/directory_url", f"cannot be used: {error}")]) from error


@operation(
    "GET",
    "/providers",
    summary="List providers",
    tag="administration",
    needs="admin",
    query=ProvidersQuery,
    answers={
        200: Answer(
            Page[ProviderView],
            "In the order in which they are asked.",
            {"items": [_VIEW], "next_cursor": None},
        )
    },
    problems=(400,),
)
async def list_providers(request: ApiRequest) -> ASGIResponse:
    """List providers, by tenant and channel."""
    query = read_query(request, ProvidersQuery)
    async with runtime_of(request).database.transaction(
        request.auth.sees, read_only=True
    ) as connection:
        rows = await providers.list_providers(
            connection,
            tenant=tenant_filter(request.auth, query.tenant_id),
            channel=query.channel,
        )
    return answer(Page(items=[_view(row) for row in rows]))


@operation(
    "GET",
    "/providers/{provider_id:uuid}",
    summary="Show a provider",
    tag="administration",
    needs="admin",
    answers={200: Answer(ProviderView, "The provider, without its credentials.", _VIEW)},
    problems=(404,),
    path_examples=_PATH,
)
async def show_provider(request: ApiRequest, provider_id: FromPath[UUID]) -> ASGIResponse:
    """Show one provider."""
    async with runtime_of(request).database.transaction(
        request.auth.sees, read_only=True
    ) as connection:
        rows = await providers.list_providers(
            connection, tenant=request.auth.tenant, provider_id=provider_id
        )
    if not rows:
        raise not_found("provider")
    return answer(_view(rows[0]))


@operation(
    "DELETE",
    "/providers/{provider_id:uuid}",
    summary="Take a provider away",
    tag="administration",
    needs="admin",
    answers={204: Answer(None, "Gone, its credentials too. What it is delivering ends first.")},
    problems=(404,),
    path_examples=_PATH,
)
async def delete_provider(request: ApiRequest, provider_id: FromPath[UUID]) -> ASGIResponse:
    """Take a provider away."""
    async with runtime_of(request).database.transaction(request.auth.sees) as connection:
        tenant = await providers.delete_provider(
            connection, provider_id, tenant=request.auth.tenant
        )
        if tenant is None:
            raise not_found("provider")
        await catalog.note_action(
            connection,
            actor=request.auth.name,
            action="provider.delete",
            tenant=tenant,
            detail={"provider_id": provider_id},
        )
    return no_content()


def _view(row: StoredProvider) -> ProviderView:
    fields = {
        name: getattr(row, name) for name in ProviderView.__struct_fields__ if hasattr(row, name)
    }
    fields["config"] = msgspec.Raw(row.config.encode())
    return ProviderView(**fields, has_credentials=row.credentials is not None)


ROUTES = [make_provider, put_provider, list_providers, show_provider, delete_provider]
