"""Who did what: every operation that changes something is written down, and what was refused.

One mechanism for all routes, so that a new one is in the log without a line of its own. The gate
names the operation; the first transaction that changes something writes it down before it
commits, unless it has told of itself already (pause, replay, erase … say more than we know here).
What was refused is written down after its transaction was rolled back.

Kept out: recipients and addresses, which erasure would have to find.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from urllib.parse import parse_qs

import psycopg
import structlog
from litestar.types import HTTPScope

from outbox.errors import StoreUnavailable
from outbox.store import catalog, pool
from outbox.store.pool import EVERY_TENANT, Connection, Database
from outbox_api.auth import Principal
from outbox_api.operations import Operation
from outbox_api.problems import Problem

UNLOGGED: Mapping[str, str] = {
    "post_job": "a producer's: the job is its own record",
    "post_batch": "a producer's: the jobs are their own record",
    "send_notification": "a producer's: the job is its own record",
    "post_event": "a producer's: the event is kept",
    "read_message": "its recipient's own act, kept with the message",
    "post_fcm_token": "its recipient's own device",
    "post_subscription": "its recipient's own device",
    "take_callback": "a provider's: receipts are kept",
    "preview_template": "changes nothing",
    "preview_schedule": "changes nothing",
    "begin_session": "signing in; a session is no action",
    "end_session": "signing out",
}
"""Operations that are not written down, by name, and why."""

REFUSALS = frozenset({400, 403, 404, 409, 413, 415, 422})
REFUSALS_PER_S_MAX = 20
"""More than that is a client gone wild: the log must not be flooded."""
WHY_CHARS_MAX = 500
PRIVATE = frozenset({"user_id", "address"})

log = structlog.get_logger(__name__)


def is_logged(operation: Operation) -> bool:
    """Tell whether what an operation does is written down."""
    return (
        operation.method != "GET" and operation.needs != "open" and operation.name not in UNLOGGED
    )


class Act:
    """One request that may change something."""

    def __init__(self, operation: Operation, scope: HTTPScope, principal: Principal) -> None:
        self._action = operation.name if not operation.is_page else f"page.{operation.name}"
        self._actor = principal.name
        query = parse_qs(scope["query_string"].decode("latin-1"))
        named = query.get("tenant_id", [EVERY_TENANT])[0]
        # Not checked yet: what can be no tenant's name is refused later on.
        self.tenant = principal.tenant or (named if named.isprintable() else EVERY_TENANT)
        self._detail: dict[str, object] = {
            name: _storable(str(value))
            for name, value in scope["path_params"].items()
            if name not in PRIVATE
        }
        self._detail["via"] = "dashboard" if operation.is_page else "api"
        self._reason = ""
        for name, value in scope["headers"]:
            if name == b"outbox-reason":
                self._reason = _storable(value.decode("utf-8", "replace")[:WHY_CHARS_MAX])
        self._is_open = True

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Have the transactions within write it down."""
        token = pool.BEFORE_COMMIT.set(self._note)
        why = pool.REASON.set(self._reason)
        try:
            yield
        finally:
            self._is_open = False  # for tasks that outlive the request with its context
            pool.BEFORE_COMMIT.reset(token)
            pool.REASON.reset(why)

    async def _note(self, connection: Connection) -> None:
        if self._is_open:
            await catalog.note_unless_told(
                connection,
                actor=self._actor,
                action=self._action,
                tenant=self.tenant,
                detail=self._detail,
            )

    async def refused(self, database: Database, status: int, problem: Problem | None) -> None:
        """Write down that it was refused. Nothing that goes wrong here changes the answer."""
        told: dict[str, object] = {"refused": status}
        if self._reason:
            told["reason"] = self._reason
        if problem is not None and problem.errors:
            told["pointers"] = [_storable(fault.pointer) for fault in problem.errors[:20]]
        elif problem is not None:
            told["because"] = _storable(problem.detail)
        try:
            async with database.transaction(self.tenant) as connection:
                await catalog.note_action(
                    connection,
                    actor=self._actor,
                    action=self._action,
                    tenant=self.tenant,
                    detail=self._detail | told,
                )
        except (StoreUnavailable, psycopg.Error, UnicodeError):
            log.warning("a refusal could not be written down", action=self._action)


def _storable(text: str) -> str:
    """Return the text without what Postgres takes in no text: NUL, and halves of surrogates."""
    return text.encode("utf-8", "replace").decode().replace("\x00", "")


class Allowance:
    """How many refusals may be written down in this second."""

    def __init__(self) -> None:
        self._second = 0
        self._left = 0

    def take(self) -> bool:
        """Take one; False: not in this second any more."""
        now = int(time.monotonic())
        if now != self._second:
            self._second, self._left = now, REFUSALS_PER_S_MAX
        self._left -= 1
        return self._left >= 0
