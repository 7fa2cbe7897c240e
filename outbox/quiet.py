"""Quiet hours: when a recipient wants to be left alone. They defer, they never drop."""

from __future__ import annotations

from datetime import datetime, time, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

PASSIVE_CHANNELS = frozenset({"inbox", "webhook"})
"""Channels that disturb nobody: a message there waits to be looked at."""
TRANSACTIONAL = "transactional"
URGENT = 10


def quiet_until(start: time, end: time, zone: str | None, now: datetime) -> datetime | None:
    """Return when the quiet hours around `now` end; None outside of them.

    `start` after `end` spans midnight; equal ones mean none. `now` is aware. An unknown zone
    counts as UTC. Wall-clock times, so that 08:00 stays 08:00 over a change to daylight saving
    time; an end that the change skips or repeats is the first moment at or after it.
    """
    if start == end:
        return None
    try:
        local_zone = ZoneInfo(zone or "UTC")
    except (ZoneInfoNotFoundError, ValueError):
        local_zone = ZoneInfo("UTC")
    local = now.astimezone(local_zone)
    clock = local.time().replace(tzinfo=None)
    if start < end:
        inside, ends_today = start <= clock < end, True
    else:
        inside, ends_today = clock >= start or clock < end, clock < end
    if not inside:
        return None
    day = local.date() if ends_today else local.date() + timedelta(days=1)
    until = datetime.combine(day, end, tzinfo=local_zone).astimezone(now.tzinfo)
    return until if until > now else None


def passes(*, channel: str, category: str | None, priority: int) -> bool:
    """Return whether a message goes out in quiet hours all the same."""
    return channel in PASSIVE_CHANNELS or category == TRANSACTIONAL or priority >= URGENT
