"""Who is asking: API keys, what they may do, and the gate that every request passes.

A key is looked up by its SHA-256 and believed for a second, so that a revoked one is out a second
later and a busy one costs one query a second. With `auth` off everybody is a service-wide
admin; then the Host header must be a loopback name, or any web page could use the reader's
browser to reach us (DNS rebinding).
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import time
from typing import Literal, TypeAlias

import msgspec

from outbox.store import catalog
from outbox.store.pool import EVERY_TENANT, Database

Scope: TypeAlias = Literal["jobs:write", "jobs:read", "admin"]
Need: TypeAlias = Scope | Literal["open"]

BELIEVED_S = 1.0
KEYS_CACHED_MAX = 10_000
TOKEN_CHARS_MAX = 256
TEST_MAY = frozenset(
    {
        f"{method} {prefix}{path}"
        for prefix, method, paths in (
            ("/api/v1", "GET", "/jobs /dead-letters /templates /sink /stream /queues"),
            ("/api/v1/queues/{queue}", "GET", "/stats"),
            (
                "/api/v1/jobs/{job_id}",
                "GET",
                " /deliveries /explain /deliveries/{lease_no}/content",
            ),
            ("/api/v1/jobs/{job_id}", "POST", "/cancel /retry /promote /release /resend"),
            ("/api/v1/jobs", "POST", " /batch /cancel"),
            ("/api/v1/dead-letters/{dead_letter_id}", "GET", ""),
            ("/api/v1/dead-letters/{dead_letter_id}", "POST", "/replay"),
            ("/api/v1/notifications", "GET", "/{notification_id}/status"),
            ("/api/v1", "POST", "/notifications/send /events"),
            ("/api/v1/templates/{code}/{channel}/{locale}", "GET", " /versions"),
            ("/api/v1/templates/{code}/{channel}/{locale}", "POST", "/preview"),
            ("", "GET", "/ /jobs /dead-letters /dead-letters/list /templates /sink /live/sink"),
            ("", "GET", "/sink/{message_id} /sink/{message_id}/html /live/jobs/{job_id}"),
            ("", "POST", "/sign-out"),
            ("/jobs/{job_id}", "GET", " /said/{lease_no}/html"),
            ("/jobs/{job_id}", "POST", "/reveal /said/{lease_no}"),
            ("/jobs/{job_id}", "POST", "/cancel /retry /promote /release /resend"),
            ("/dead-letters/{dead_letter_id}", "POST", "/replay"),
            ("/templates/{code}/{channel}/{locale}", "GET", ""),
            ("/templates/{code}/{channel}/{locale}", "POST", "/frame /preview /test"),
        )
        for path in paths.split(" ")
    }
)
"""The routes that a test key may take; any other is refused. What these read and change of jobs,
dead letters and caught messages is of test jobs alone: row-level security sees to that."""
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]", "::1", "ip6-localhost"})
ALL_SCOPES: frozenset[Scope] = frozenset({"jobs:write", "jobs:read", "admin"})


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """Who is asking. `tenant` None: service-wide. `test`: what it hands in goes to the sink."""

    name: str
    tenant: str | None
    scopes: frozenset[Scope]
    test: bool = False

    @property
    def sees(self) -> str:
        """The tenant for row-level security; '*' is all."""
        return self.tenant or EVERY_TENANT

    def may(self, scope: Scope) -> bool:
        """Tell whether the key has the scope; `admin` may read and write too."""
        return scope in self.scopes or "admin" in self.scopes


NOBODY = Principal(name="nobody", tenant="", scopes=frozenset())
ANYBODY = Principal(name="anybody (auth off)", tenant=None, scopes=ALL_SCOPES)


class KeyRing:
    """The keys that were asked about lately."""

    def __init__(self, database: Database, admin_key: str | None) -> None:
        self._database = database
        self._admin_sha256 = catalog.hash_of_key(admin_key) if admin_key else None
        self._admin = Principal(name="admin key", tenant=None, scopes=ALL_SCOPES)
        self._known: dict[str, tuple[float, Principal | None]] = {}
        self._asked: dict[str, asyncio.Future[Principal | None]] = {}

    async def principal(self, token: str) -> Principal | None:
        """Return whose key it is; None: nobody's. Raises StoreUnavailable."""
        known = self._known.get(token)
        if known is not None and known[0] > time.monotonic():
            return known[1]
        hashed = catalog.hash_of_key(token)
        if self._admin_sha256 and hmac.compare_digest(hashed, self._admin_sha256):
            self._believe(token, self._admin)
            return self._admin
        asked = self._asked.get(token)
        if asked is None:
            asked = self._asked[token] = asyncio.ensure_future(self._ask(token, hashed))
            asked.add_done_callback(lambda _: self._asked.pop(token, None))
        return await asyncio.shield(asked)

    async def _ask(self, token: str, hashed: bytes) -> Principal | None:
        async with self._database.transaction(EVERY_TENANT) as connection:
            row = await catalog.authenticate(connection, hashed)
        principal = None
        if row is not None:
            principal = Principal(
                name=row.name,
                tenant=None if row.tenant_id == EVERY_TENANT else row.tenant_id,
                scopes=frozenset(msgspec.convert(row.scopes, list[Scope])),
                test=row.mode == "test",
            )
        self._believe(token, principal)
        return principal

    def _believe(self, token: str, principal: Principal | None) -> None:
        if len(self._known) >= KEYS_CACHED_MAX:
            self._known.clear()
        self._known[token] = (time.monotonic() + BELIEVED_S, principal)

    def forget(self) -> None:
        """Ask again from now on: a key was revoked here."""
        self._known.clear()


def token_of(authorization: str) -> str | None:
    """Return the key in an Authorization header: Bearer's, or Basic's password (browsers)."""
    scheme, _, rest = authorization.partition(" ")
    rest = rest.strip()
    if not rest or len(rest) > TOKEN_CHARS_MAX * 2:
        return None
    if scheme.lower() == "bearer":
        return rest
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(rest, validate=True).decode().partition(":")[2] or None
        except (binascii.Error, UnicodeDecodeError):
            return None
    return None


def is_loopback_host(host: str) -> bool:
    """Tell whether a Host header names this machine by a loopback name, with any port."""
    name = host.lower()
    if name.startswith("["):
        name = name.partition("]")[0] + "]"
    elif name.count(":") == 1:
        name = name.partition(":")[0]
    return name in LOOPBACK_NAMES
