"""Quiet hours of recipients, and send windows of tenants. They defer, they never drop."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from msgspec import Meta

PASSIVE_CHANNELS = frozenset({"inbox", "webhook"})
"""Channels that disturb nobody: a message there waits to be looked at."""
QUIET_HOURS = "recipient.quiet_hours"
SEND_WINDOW = "tenant.send_window"
"""Codes in the history of what was put off."""
TRANSACTIONAL = "transactional"
URGENT = 10
Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
Clock = Annotated[str, Meta(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$")]
"""`HH:MM`."""
_STEPS_MAX = 16


class SendWindow(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """From when to when on which days, on the recipient's own clock.

    `from` after `to` spans midnight, and then the day is the one on which it begins; equal ones
    are a whole day.
    """

    start: Clock = msgspec.field(name="from")
    end: Clock = msgspec.field(name="to")
    days: Annotated[tuple[Day, ...], Meta(min_length=1, max_length=7)] = DAYS


def quiet_until(start: time, end: time, zone: str | None, now: datetime) -> datetime | None:
    """Return when the quiet hours around `now` end; None outside of them.

    `start` after `end` spans midnight; equal ones mean none. `now` is aware. An unknown zone
    counts as UTC. Wall-clock times, so that 08:00 stays 08:00 over a change to daylight saving
    time; an end that the change skips or repeats is the first moment at or after it.
    """
    if start == end:
        return None
    local_zone = _zone(zone)
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


def window_opens(window: SendWindow, zone: str | None, now: datetime) -> datetime | None:
    """Return when the window opens next; None where it is open at `now`, which is aware.

    Wall-clock times, as for quiet hours.
    """
    local_zone = _zone(zone)
    start, end = time.fromisoformat(window.start), time.fromisoformat(window.end)
    today = now.astimezone(local_zone).date()
    for days in range(-1, 9):
        day = today + timedelta(days=days)
        if DAYS[day.weekday()] not in window.days:
            continue
        last = day if start < end else day + timedelta(days=1)
        opens = datetime.combine(day, start, tzinfo=local_zone).astimezone(UTC)
        closes = datetime.combine(last, end, tzinfo=local_zone).astimezone(UTC)
        if opens > now:
            return opens.astimezone(now.tzinfo)
        if now < closes:
            return None
    return None


def deferred_until(
    quiet: tuple[time, time] | None, window: SendWindow | None, zone: str | None, now: datetime
) -> datetime | None:
    """Return the first moment that both allow; None for now.

    Where they have none in common, the recipient's own hours count alone.
    """
    at = now
    for _ in range(_STEPS_MAX):
        later = None if quiet is None else quiet_until(*quiet, zone, at)
        if later is None and window is not None:
            later = window_opens(window, zone, at)
        if later is None:
            return None if at == now else at
        at = later
    return None if quiet is None else quiet_until(*quiet, zone, now)


def _zone(name: str | None) -> ZoneInfo:
    try:
        return ZoneInfo(name or "UTC")
    except (ZoneInfoNotFoundError, ValueError):
        return ZoneInfo("UTC")
