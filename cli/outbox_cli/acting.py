"""Every command that changes something is written down: by whom, why, and what it was refused.

The first transaction that changes something writes it down before it commits, unless it has told
of itself already (pause, retry, replay … say more than we know here): as over HTTP.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Annotated

import typer

from outbox.errors import ConfigError, OutboxError, StoreUnavailable
from outbox.store import catalog, pool
from outbox.store.pool import EVERY_TENANT, Connection
from outbox_cli import exits
from outbox_cli.database import actor, in_transaction

WHY_CHARS_MAX = 500

Why = Annotated[str | None, typer.Option("--why", help="Why: goes into the operator log.")]


@contextlib.contextmanager
def acting(
    action: str, *, tenant: str | None = None, why: str | None = None, **detail: object
) -> Iterator[None]:
    """Have what the block does written down, and that it was refused where it is.

    `detail` must hold no secret and no personal data.
    """
    told = detail | {"via": "cli"}

    async def note(connection: Connection) -> None:
        # Enqueueing leaves the transaction with the job's own tenant.
        await connection.execute(
            "select set_config('outbox.tenant', %s, true)", (tenant or EVERY_TENANT,)
        )
        await catalog.note_unless_told(
            connection, actor=actor(), action=action, tenant=tenant or EVERY_TENANT, detail=told
        )

    noting = pool.BEFORE_COMMIT.set(note)
    reason = pool.REASON.set(_storable(why or "")[:WHY_CHARS_MAX])
    try:
        yield
    except (ConfigError, StoreUnavailable):
        raise
    except (OutboxError, exits.Failure) as error:
        pool.BEFORE_COMMIT.set(None)
        refused(action, tenant=tenant, because=exits.verdict(error)[0], detail=told)
        raise
    finally:
        pool.BEFORE_COMMIT.reset(noting)
        pool.REASON.reset(reason)


def refused(
    action: str, *, tenant: str | None, because: str, detail: Mapping[str, object]
) -> None:
    """Write down that something was not done. Nothing that goes wrong here changes the answer."""

    async def note(connection: Connection) -> None:
        await catalog.note_action(
            connection,
            actor=actor(),
            action=action,
            tenant=tenant or EVERY_TENANT,
            detail={**detail, "refused": exits.FAILED, "because": _storable(because)[:500]},
        )

    with contextlib.suppress(Exception):
        in_transaction(note, tenant=tenant)


def _storable(text: str) -> str:
    return text.encode("utf-8", "replace").decode().replace("\x00", "")
