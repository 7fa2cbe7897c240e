"""Whose things a request is about."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from outbox.errors import Fault
from outbox_api.auth import Principal
from outbox_api.problems import Problem, invalid

DEFAULT_TENANT = "default"

TenantId = Annotated[str, Meta(min_length=1, max_length=128)]


class TenantQuery(msgspec.Struct, frozen=True, kw_only=True):
    """For keys that act for several tenants."""

    tenant_id: TenantId | None = None


def tenant_filter(principal: Principal, wanted: str | None) -> str | None:
    """Return the tenant to look at; None: all. Raises Problem 403 for another key's tenant."""
    if wanted == "*":
        raise invalid([Fault("/query/tenant_id", "is no tenant")], status=400)
    if principal.tenant is not None and wanted not in (None, principal.tenant):
        raise Problem(403, "The key acts for another tenant.")
    return principal.tenant or wanted


def one_tenant(principal: Principal, wanted: str | None) -> str:
    """Return the tenant to act for, by default the key's own, else `default`."""
    return tenant_filter(principal, wanted) or DEFAULT_TENANT
