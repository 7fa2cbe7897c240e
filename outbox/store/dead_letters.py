"""Dead letters as the API sees them."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import msgspec

from outbox.store.pool import Connection, fetch, fetch_one


class DeadLetterRow(msgspec.Struct, frozen=True, kw_only=True):
    """A row of `dead_letter`. `job` is JSON text; `raw_value` stands in for what was no job."""

    dead_letter_id: int
    failed_at: datetime
    tenant_id: str
    queue: str | None
    reason: str
    error_class: str | None
    error_code: str | None
    error_message: str
    attempts: int | None
    job: str | None
    raw_value: str | None
    replayed_at: datetime | None
    replayed_by: str | None


class FullDeadLetterRow(DeadLetterRow, frozen=True, kw_only=True):
    """With its job's internal id, and whether a later series has failed too."""

    id: int | None
    series: int | None
    newest_series: int | None


class DeadLetterFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which dead letters; None is any."""

    tenant_id: str | None = None
    queue: str | None = None
    reason: str | None = None
    error_code: str | None = None
    template_code: str | None = None
    job_id: UUID | None = None
    replayed: bool | None = None
    since: datetime | None = None
    until: datetime | None = None


async def page(
    connection: Connection, wanted: DeadLetterFilter, *, before: int | None, limit: int
) -> list[DeadLetterRow]:
    """Return up to `limit` dead letters numbered below `before`, newest first."""
    parameters = msgspec.structs.asdict(wanted) | {"before": before, "limit": limit}
    parameters["tenant"] = parameters.pop("tenant_id")
    return await fetch(connection, DeadLetterRow, "dead_letter_list", parameters, prepare=False)


async def show(
    connection: Connection,
    *,
    tenant: str | None,
    number: int | None = None,
    id_: int | None = None,
) -> FullDeadLetterRow | None:
    """Return one by its own number, or the newest of the job with the internal id `id_`."""
    parameters = {"tenant": tenant, "number": number, "id": id_}
    return await fetch_one(connection, FullDeadLetterRow, "dead_letter_show", parameters)
