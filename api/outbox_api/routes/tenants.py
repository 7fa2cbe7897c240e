"""Tenants and their own settings (api.md 2)."""

from __future__ import annotations

from typing import Annotated

import msgspec
from litestar.params import FromPath
from litestar.response.base import ASGIResponse
from msgspec import Meta

from outbox.channels.addresses import AddressRefused
from outbox.channels.mime import parse_sender
from outbox.error_rules import RULES_MAX, ErrorRule
from outbox.errors import Fault
from outbox.quiet import SendWindow
from outbox.render import normalise_locale
from outbox.store import catalog
from outbox.store.catalog import Tenant, TenantParts
from outbox.store.pool import EVERY_TENANT
from outbox.zones import is_zone
from outbox_api import samples
from outbox_api.answers import Page, answer
from outbox_api.operations import Answer, Body, operation
from outbox_api.problems import Problem, invalid
from outbox_api.requests import ApiRequest, read_struct
from outbox_api.runtime import runtime_of

_BODY = {
    "default_locale": "en",
    "timezone": "Asia/Almaty",
    "sender": "Cinema <hello@cinema.kz>",
    "phone_region": "KZ",
    "own_providers": False,
    "send_windows": {"marketing": {"from": "10:00", "to": "19:00", "days": ["mon", "fri"]}},
    "error_rules": [
        {
            "code": "smtp.5.7.*",
            "becomes": "temporary",
            "channel": "email",
            "suppress": False,
            "retry_after_s": 3600.0,
            "hold": "lane",
        }
    ],
}
_TENANT = _BODY | {"tenant_id": "acme", "created_at": samples.AT}


class TenantBody(msgspec.Struct, frozen=True, kw_only=True):
    """A tenant's own settings.

    `sender` is the From of its mail where that goes out by the operator's provider;
    `own_providers` keeps it from ever doing so. These two take a service-wide key.
    `send_windows` say when messages of a category (`*`: of any other) may go out, on the
    recipient's clock; `error_rules` are rows of the tables of errors, the first that fits decides.
    """

    default_locale: Annotated[str, Meta(max_length=35)] | None = None
    timezone: Annotated[str, Meta(max_length=64)] | None = None
    sender: Annotated[str, Meta(max_length=320)] | None = None
    phone_region: Annotated[str, Meta(pattern="^[A-Z]{2}$")] | None = None
    own_providers: bool = False
    send_windows: Annotated[
        dict[Annotated[str, Meta(min_length=1, max_length=64)], SendWindow], Meta(max_length=100)
    ] = {}
    error_rules: Annotated[list[ErrorRule], Meta(max_length=RULES_MAX)] = []


@operation(
    "GET",
    "/tenants",
    summary="List tenants",
    tag="administration",
    needs="admin",
    answers={200: Answer(Page[Tenant], "The tenants.", {"items": [_TENANT], "next_cursor": None})},
)
async def list_tenants(request: ApiRequest) -> ASGIResponse:
    """List the tenants that were set up; jobs of others are taken all the same."""
    async with runtime_of(request).database.transaction(
        request.auth.sees, read_only=True
    ) as connection:
        tenants = await catalog.list_tenants(connection, tenant=request.auth.tenant)
    return answer(Page(items=tenants))


@operation(
    "PUT",
    "/tenants/{tenant_id:str}",
    summary="Set up a tenant",
    tag="administration",
    needs="admin",
    body=Body(kind=TenantBody, examples={"whole": _BODY}),
    answers={200: Answer(Tenant, "As it is stored.", _TENANT)},
    problems=(400, 413, 415, 422),
    path_examples={"tenant_id": "acme"},
)
async def put_tenant(request: ApiRequest, tenant_id: FromPath[str]) -> ASGIResponse:
    """Set up a tenant, or change it, whole. Needs a service-wide key, but for one's own."""
    body = await read_struct(request, TenantBody)
    own = request.auth.tenant
    if own not in (None, tenant_id):
        raise Problem(403, "The key acts for another tenant.")
    if len(tenant_id) > 128 or tenant_id == EVERY_TENANT:
        raise invalid([Fault("/path/tenant_id", "must have 1 to 128 characters, and not be *")])
    parts = _parts(body)
    async with runtime_of(request).database.transaction(request.auth.sees) as connection:
        if own is not None:
            known = await catalog.list_tenants(connection, tenant=own)
            was = known[0] if known else TenantParts()
            if (parts.sender, parts.own_providers) != (was.sender, was.own_providers):
                raise Problem(403, "sender and own_providers take a service-wide key.")
        stored = await catalog.put_tenant(connection, tenant_id, parts)
        await catalog.note_action(
            connection,
            actor=request.auth.name,
            action="tenant.put",
            tenant=tenant_id,
            detail={"own_providers": parts.own_providers},
        )
    return answer(stored)


def _parts(body: TenantBody) -> TenantParts:
    """Return what to store. Raises Problem 422 with every fault."""
    faults = []
    locale = normalise_locale(body.default_locale)
    if body.default_locale is not None and locale is None:
        faults.append(Fault("/default_locale", "must be a language tag"))
    if body.timezone is not None and not is_zone(body.timezone):
        faults.append(Fault("/timezone", "must be a time zone's name, such as Asia/Almaty"))
    if body.sender is not None and not _is_sender(body.sender):
        faults.append(Fault("/sender", "must be a mail address, or a name and <address>"))
    if faults:
        raise invalid(faults)
    return TenantParts(
        default_locale=locale,
        timezone=body.timezone,
        sender=body.sender,
        phone_region=body.phone_region,
        own_providers=body.own_providers,
        send_windows=body.send_windows,
        error_rules=body.error_rules,
    )


def _is_sender(text: str) -> bool:
    try:
        parse_sender(text)
    except AddressRefused:
        return False
    return True


ROUTES = [list_tenants, put_tenant]
