"""Webhook endpoints in use: their URLs and open secrets, until the catalog's version moves on."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

from outbox.errors import SealBroken
from outbox.outcome import Misconfigured, Outcome, Rejected
from outbox.sealing import Keyring, Sealed
from outbox.store.dispatch import EndpointRow, find_endpoints
from outbox.store.endpoints import open_secrets, secrets_in_force
from outbox.store.engine import Connection

KEPT_MAX = 20_000


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An endpoint as of now; `refusal` tells why nothing can be sent there."""

    url: str
    secrets: tuple[str, ...] = ()
    refusal: Outcome | None = None


class EndpointShelf:
    """Looks endpoints up by id, for a batch at a time."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring
        self._kept: OrderedDict[tuple[str, str], Endpoint] = OrderedDict()
        self._catalog = -1

    async def load(
        self, connection: Connection, wanted: Iterable[tuple[str, str]], *, catalog: int
    ) -> None:
        """Have these (tenant, endpoint id) at hand, as of `catalog` or later."""
        if catalog != self._catalog:
            self._catalog = catalog
            self._kept.clear()
        missing = {key for key in wanted if key not in self._kept}
        if not missing:
            return
        found = {
            (row.tenant_id, str(row.endpoint_id)): row
            for row in await find_endpoints(connection, [endpoint for _, endpoint in missing])
        }
        for key in missing:
            self._kept[key] = self._opened(found.get(key), key[1])
        while len(self._kept) > max(KEPT_MAX, len(missing)):
            self._kept.popitem(last=False)

    def get(self, tenant: str, endpoint: str) -> Endpoint:
        """Return an endpoint that was loaded."""
        return self._kept[tenant, endpoint]

    def _opened(self, row: EndpointRow | None, endpoint: str) -> Endpoint:
        if row is None:
            reason = "The endpoint was taken away"
            return Endpoint("", refusal=Rejected(code="endpoint.missing", reason=reason))
        if not row.enabled:
            reason = "The endpoint is switched off"
            return Endpoint(row.url, refusal=Rejected(code="endpoint.disabled", reason=reason))
        try:
            kept = open_secrets(self._keyring, Sealed(row.key_id, row.secrets), row.endpoint_id)
        except SealBroken as error:
            held = Misconfigured(
                code="endpoint.sealed",
                reason=f"The endpoint's secrets cannot be used: {error}",
                scope="endpoint",
                scope_key=endpoint,
            )
            return Endpoint(row.url, refusal=held)
        return Endpoint(row.url, secrets_in_force(kept))
