"""Query parameters that lists share."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from msgspec import Meta

LIMIT_MAX = 500
IDS_BEGIN = datetime(2020, 1, 1, tzinfo=UTC)
IDS_END = datetime(2089, 1, 1, tzinfo=UTC)
"""Internal ids are times between these (store.md 1)."""

Limit = Annotated[int, Meta(ge=1, le=LIMIT_MAX)]
Moment = Annotated[datetime, Meta(tz=True)]


def as_id_time(at: datetime | None) -> datetime | None:
    """Return a bound that an internal id can have."""
    return None if at is None else min(max(at, IDS_BEGIN), IDS_END)
