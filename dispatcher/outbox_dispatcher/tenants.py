"""What this dispatcher knows of tenants: their settings, and handlers of their own providers.

A tenant is looked up when its first message is prepared, with others in one statement, and kept
until the version of the catalog moves on, which every heartbeat tells (as for lanes). A provider
that has not changed keeps its handler then, and with it its open sessions.
"""

from __future__ import annotations

from base64 import b64decode
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import datetime
from types import TracebackType
from typing import Self

import msgspec
import structlog

from outbox.channels import Handler
from outbox.channels.providers import DIRECTORY, ProviderSpec, provider_settings
from outbox.channels.registry import make_handler
from outbox.error_rules import ErrorRule
from outbox.errors import ConfigError, SealBroken
from outbox.message import Message
from outbox.outcome import Misconfigured, Outcome
from outbox.quiet import SendWindow
from outbox.sealing import Keyring, Sealed
from outbox.store.dispatch import ProviderRow, TenantRow, find_tenants
from outbox.store.engine import Connection
from outbox.store.providers import open_credentials
from outbox_dispatcher.directory import Closed, Directory
from outbox_dispatcher.failover import FailOver, Gate, Member

KEPT_MAX = 2_000
"""So many tenants with their pools; the one that was not used for longest goes first."""
OWN_BY_NATURE = frozenset({"inbox", "ws", "webhook"})
"""Channels that need no provider: a tenant with `own_providers` has them all the same."""

log = structlog.get_logger(__name__)
_rows = msgspec.json.Decoder(list[ProviderRow])
_windows = msgspec.json.Decoder(dict[str, SendWindow])
_rules = msgspec.json.Decoder(tuple[ErrorRule, ...])


@dataclass(slots=True, eq=False)
class TenantFacts:
    """One tenant. `handlers` by channel; a channel that is not there has the process's own."""

    timezone: str | None = None
    sender: str | None = None
    phone_region: str | None = None
    own_providers: bool = False
    send_windows: dict[str, SendWindow] = field(default_factory=dict)
    error_rules: tuple[ErrorRule, ...] = ()
    directory: Directory | Closed | None = None
    handlers: dict[str, Handler] = field(default_factory=dict)
    members: list[Member] = field(default_factory=list)
    stale: bool = False


class Refusing:
    """Stands in for a provider that cannot be used: what it should deliver is held."""

    def __init__(self, code: str, reason: str) -> None:
        self._code = code
        self._reason = reason

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return None

    async def deliver(self, message: Message, *, timeout_s: float) -> Outcome:
        """Hold the lane until somebody has mended it."""
        return Misconfigured(code=self._code, reason=self._reason, scope="lane")


_MISSING = Refusing("provider.missing", "The tenant has no provider of its own for this channel")


class TenantBook:
    """All tenants whose messages were prepared here lately."""

    def __init__(
        self,
        *,
        settings: Mapping[str, str],
        keyring: Keyring,
        now: Callable[[], datetime],
        gate: Gate | None = None,
    ) -> None:
        self._now = now
        self._gate = gate
        self._settings = settings
        self._keyring = keyring
        self._kept: OrderedDict[str, TenantFacts] = OrderedDict()
        self._catalog = -1

    async def load(self, connection: Connection, tenants: Iterable[str], *, catalog: int) -> None:
        """Have these tenants at hand, as of `catalog` or later."""
        if catalog != self._catalog:
            self._catalog = catalog
            for facts in self._kept.values():
                facts.stale = True
        wanted = []
        for tenant in tenants:
            known = self._kept.get(tenant)
            if known is None or known.stale:
                wanted.append(tenant)
            else:
                self._kept.move_to_end(tenant)
        if not wanted:
            return
        for row in await find_tenants(connection, wanted):
            await self._take_in(row)
        while len(self._kept) > KEPT_MAX:
            _, facts = self._kept.popitem(last=False)
            await _retire(facts.members)
            if facts.directory is not None:
                await facts.directory.retire()

    def get(self, tenant: str) -> TenantFacts:
        """Return a tenant that was loaded."""
        return self._kept[tenant]

    def handler_of(self, tenant: str, channel: str) -> Handler | None:
        """Return the tenant's own handler of a channel; None: the process's own will do."""
        facts = self._kept[tenant]
        own = facts.handlers.get(channel)
        if own is None and facts.own_providers and channel not in OWN_BY_NATURE:
            return _MISSING
        return own

    async def close(self) -> None:
        """Close every provider."""
        async with AsyncExitStack() as stack:
            for facts in self._kept.values():
                for member in facts.members:
                    stack.push_async_callback(member.retire)
                if facts.directory is not None:
                    stack.push_async_callback(facts.directory.retire)
            self._kept.clear()

    async def _take_in(self, row: TenantRow) -> None:
        before = self._kept.get(row.tenant_id)
        known = {} if before is None else {m.spec.provider_id: m for m in before.members}
        facts = TenantFacts(
            row.timezone,
            row.sender,
            row.phone_region,
            row.own_providers,
            _windows.decode(row.send_windows_json or "{}"),
            _rules.decode(row.error_rules_json or "[]"),
        )
        by_channel: dict[str, list[Member]] = {}
        for provider in _rows.decode(row.providers_json):
            if provider.channel == DIRECTORY:
                facts.directory = await self._open_directory(row.tenant_id, provider, before)
                continue
            member = known.get(provider.provider_id)
            if member is None or member.version != provider.updated_at:
                member = await self._open(row.tenant_id, provider)
            else:
                del known[provider.provider_id]
            facts.members.append(member)
            by_channel.setdefault(provider.channel, []).append(member)
        facts.handlers = {
            channel: FailOver(members, gate=self._gate) for channel, members in by_channel.items()
        }
        self._kept[row.tenant_id] = facts
        self._kept.move_to_end(row.tenant_id)
        await _retire(known.values())
        if before is not None and before.directory not in (None, facts.directory):
            await before.directory.retire()

    async def _open_directory(
        self, tenant: str, row: ProviderRow, before: TenantFacts | None
    ) -> Directory | Closed:
        """Return the tenant's directory: the one there is, where nothing has changed."""
        known = None if before is None else before.directory
        if known is not None and known.version == row.updated_at:
            return known
        try:
            directory = Directory(
                self._with_credentials(_spec(tenant, row), row),
                allow=self._settings.get("WEBHOOK_ALLOW", ""),
                now=self._now,
                version=row.updated_at,
            )
        except (ConfigError, SealBroken) as error:
            log.error("directory cannot be used", tenant=tenant, error=str(error))
            reason = f"The tenant's directory cannot be used: {error}"
            return Closed("directory.sealed", reason, version=row.updated_at)
        await directory.open()
        return directory

    def _with_credentials(self, spec: ProviderSpec, row: ProviderRow) -> ProviderSpec:
        sealed = None
        if row.credentials is not None and row.key_id is not None:
            sealed = Sealed(row.key_id, b64decode(row.credentials))
        credentials = open_credentials(self._keyring, sealed, row.provider_id)
        return msgspec.structs.replace(spec, credentials=credentials)

    async def _open(self, tenant: str, row: ProviderRow) -> Member:
        spec = _spec(tenant, row)
        handler: Handler
        try:
            spec = self._with_credentials(spec, row)
            handler = make_handler(row.channel, provider_settings(spec, self._settings))
            await handler.__aenter__()
        except (ConfigError, SealBroken, OSError) as error:
            log.error(
                "provider cannot be used", tenant=tenant, provider=row.name, error=str(error)
            )
            code = "provider.sealed" if isinstance(error, SealBroken) else "provider.settings"
            handler = Refusing(code, f"The provider {row.name} cannot be used: {error}")
        return Member(spec, handler, version=row.updated_at)


def _spec(tenant: str, row: ProviderRow) -> ProviderSpec:
    return ProviderSpec(
        provider_id=row.provider_id,
        tenant_id=tenant,
        channel=row.channel,
        kind=row.kind,
        name=row.name,
        config=row.config,
        wants_receipts=row.wants_receipts,
    )


async def _retire(members: Iterable[Member]) -> None:
    for member in members:
        await member.retire()
