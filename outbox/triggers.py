"""When a schedule fires: cron, interval or once, in a time zone. Pure: times come in.

APScheduler's triggers read the expressions and search the calendar; what daylight saving does to a
wall clock is decided here, as cron itself does it:

    the hour is fixed (30 2 * * *)   once a day, always. In the hour that is skipped in spring it
                                     fires as soon as that hour is over; in the hour that comes
                                     twice in autumn, the first time alone.
    the hour begins with *           real time: it goes on through both hours, and not in none.
    interval                         seconds that really pass; no clock is asked.

Numbers of weekdays are cron's (0 and 7 are Sunday); where day and weekday are both restricted,
either will do.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Literal

import msgspec
from apscheduler.triggers.cron import CronTrigger

from outbox.errors import Fault
from outbox.zones import zone

Misfire = Literal["skip", "once", "all"]

INTERVAL_S_MAX = 366 * 86_400
CAUGHT_UP_MAX = 1_000
"""Of misfire `all`, the newest so many are made up for; the rest counts as missed."""
PREVIEW_MAX = 100

_ALIASES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_STEP = timedelta(microseconds=1)


class Trigger(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One of `cron` (five fields, or @daily), `every_s` (from `start_at`), `at` (once)."""

    cron: str | None = None
    every_s: int | None = None
    start_at: str | None = None
    at: str | None = None


class BadTrigger(Exception):
    """It can't be read, or would never fire. `faults` point into the schedule."""

    def __init__(self, *faults: Fault) -> None:
        super().__init__("; ".join(f"{f.pointer} {f.message}" for f in faults))
        self.faults = faults


class Due(msgspec.Struct, frozen=True):
    """What to fire now, how many fires were passed over, and when the next one is."""

    fires: tuple[datetime, ...]
    missed: int
    next_at: datetime | None


class Timetable:
    """A trigger in its time zone. Raises BadTrigger."""

    def __init__(self, trigger: Trigger, timezone: str) -> None:
        given = [n for n in ("cron", "every_s", "at") if getattr(trigger, n) is not None]
        if len(given) != 1:
            raise BadTrigger(Fault("/trigger", "must have one of cron, every_s, at"))
        try:
            self._zone = zone(timezone)
        except ValueError:
            raise BadTrigger(Fault("/timezone", "is no known time zone")) from None
        self._trigger = trigger
        self._walls: list[CronTrigger] = []
        self._real_time = False
        self._start: datetime | None = None
        if trigger.start_at is not None and trigger.every_s is None:
            raise BadTrigger(Fault("/trigger/start_at", "goes with every_s alone"))
        if trigger.cron is not None:
            self._read_cron(trigger.cron)
        elif trigger.every_s is not None:
            if not 1 <= trigger.every_s <= INTERVAL_S_MAX:
                raise BadTrigger(Fault("/trigger/every_s", f"must be 1 to {INTERVAL_S_MAX}"))
            if trigger.start_at is not None:
                self._start = self._read_time(trigger.start_at, "/trigger/start_at")
        else:
            self._start = self._read_time(trigger.at or "", "/trigger/at")

    def next_after(self, after: datetime) -> datetime | None:
        """Return the first fire later than `after`, in UTC; None: there is none any more."""
        if self._trigger.every_s is not None:
            # Without a start, the epoch: all replicas count alike.
            start = self._start or datetime(2020, 1, 1, tzinfo=UTC)
            if after < start:
                return start
            every = timedelta(seconds=self._trigger.every_s)
            return start + every * ((after - start) // every + 1)
        if self._walls:
            return self._real_next(after) if self._real_time else self._wall_next(after)
        assert self._start is not None
        return self._start if self._start > after else None

    def preview(self, after: datetime, count: int) -> list[datetime]:
        """Return the next fires."""
        found: list[datetime] = []
        while len(found) < min(count, PREVIEW_MAX):
            at = self.next_after(after)
            if at is None:
                break
            found.append(at)
            after = at
        return found

    def due(self, next_at: datetime, now: datetime, *, misfire: Misfire, grace_s: float) -> Due:
        """Say what to do at `now` of a schedule whose next fire was set for `next_at`."""
        late = now - timedelta(seconds=grace_s)
        kept: list[datetime] = []
        at: datetime | None
        at, missed = self._where_to_begin(next_at, now)
        while at is not None and at <= now:
            if at < late:
                if misfire == "skip":
                    missed += 1
                    at = self.next_after(at)
                    continue
                if misfire == "once":
                    missed += bool(kept)
                    kept = [at]
                else:
                    kept.append(at)
            else:
                kept.append(at)
            if len(kept) > CAUGHT_UP_MAX:
                missed += 1
                del kept[0]
            at = self.next_after(at)
        return Due(tuple(kept), missed, at)

    def _where_to_begin(self, next_at: datetime, now: datetime) -> tuple[datetime, int]:
        """Return a fire from which few are left to be gone through, and how many come before it.

        After weeks of absence all of them would take seconds, under the schedule's lock. No more
        than CAUGHT_UP_MAX are made up for; of a cron those before are estimated by what is seen.
        """
        if self._trigger.every_s is not None:
            every = timedelta(seconds=self._trigger.every_s)
            left_out = max(0, (now - next_at) // every + 1 - CAUGHT_UP_MAX)
            return next_at + every * left_out, left_out
        span = timedelta(minutes=CAUGHT_UP_MAX)  # a cron fires once a minute at most
        while now - span > next_at:
            first = at = self.next_after(now - span)
            fires = 0
            while at is not None and at <= now:
                fires += 1
                at = self.next_after(at)
            if first is not None and fires >= CAUGHT_UP_MAX:
                return first, round(fires * ((first - next_at) / (now - first)))
            span *= 2
        return next_at, 0

    def _read_time(self, text: str, pointer: str) -> datetime:
        try:
            found = datetime.fromisoformat(text)
        except ValueError:
            raise BadTrigger(Fault(pointer, "must be a time, as 2026-12-31T09:00")) from None
        if found.tzinfo is None:
            return self._instant(found)
        return found.astimezone(UTC)

    def _read_cron(self, text: str) -> None:
        fields = _ALIASES.get(text.strip().lower(), text).split()
        if len(fields) != 5:
            raise BadTrigger(
                Fault("/trigger/cron", "must have five fields: minute hour day month weekday")
            )
        if not text.isascii():  # int() and regular expressions take every script's digits
            raise BadTrigger(Fault("/trigger/cron", "must have ASCII characters alone"))
        minute, hour, day, month, weekday = fields
        try:
            weekdays = _read_weekdays(weekday)
            days = [(day, weekdays)]
            if day != "*" and weekdays != "*":
                days = [(day, "*"), ("*", weekdays)]
            self._walls = [
                CronTrigger(
                    minute=minute, hour=hour, day=d, month=month, day_of_week=w, timezone=UTC
                )
                for d, w in days
            ]
        except ValueError as error:
            told = str(error).removeprefix("Error validating expression ").rstrip(".")
            raise BadTrigger(Fault("/trigger/cron", f"cannot be: {told}")) from None
        self._real_time = hour.startswith("*")
        if self._wall_after(datetime(2024, 1, 1)) is None:  # noqa: DTZ001  a wall clock has no zone
            raise BadTrigger(Fault("/trigger/cron", "would never fire: there is no such day"))

    def _wall_after(self, wall: datetime) -> datetime | None:
        """Return the first time on the wall later than `wall`, as if no clock ever changed."""
        found = [
            at.replace(tzinfo=None)
            for each in self._walls
            if (at := each.get_next_fire_time(None, wall.replace(tzinfo=UTC) + _STEP)) is not None
        ]
        return min(found, default=None)

    def _instant(self, wall: datetime) -> datetime:
        """Return when the wall clock first shows `wall`, or has jumped over it."""
        first = wall.replace(tzinfo=self._zone, fold=0).astimezone(UTC)
        if first.astimezone(self._zone).replace(tzinfo=None) == wall:
            return first
        # In the gap: fold=1 reads it by the later offset, which lies before the jump.
        return self._jump(wall.replace(tzinfo=self._zone, fold=1).astimezone(UTC), first)

    def _jump(self, low: datetime, high: datetime) -> datetime:
        """Return the second at which the offset changes between two instants."""
        before = low.astimezone(self._zone).utcoffset()
        low, high = low.replace(microsecond=0), high.replace(microsecond=0)
        while high - low > timedelta(seconds=1):
            middle = low + timedelta(seconds=(high - low) // timedelta(seconds=2))
            if middle.astimezone(self._zone).utcoffset() == before:
                low = middle
            else:
                high = middle
        return high

    def _wall_next(self, after: datetime) -> datetime | None:
        wall: datetime | None = after.astimezone(self._zone).replace(tzinfo=None)
        while wall is not None and (wall := self._wall_after(wall)) is not None:
            at = self._instant(wall)
            if at > after:
                return at
        return None

    def _real_next(self, after: datetime) -> datetime | None:
        local = after.astimezone(self._zone)
        at = self._by_offset_of(local, local.replace(tzinfo=None))
        if at is None or at.astimezone(self._zone).utcoffset() == local.utcoffset():
            return at
        # The clock is changed before that: look again from there, by the new offset.
        jump = self._jump(after, at).astimezone(self._zone)
        return self._by_offset_of(jump, jump.replace(tzinfo=None) - _STEP)

    def _by_offset_of(self, local: datetime, wall: datetime) -> datetime | None:
        offset = local.utcoffset()
        assert offset is not None
        found = self._wall_after(wall)
        return None if found is None else (found - offset).replace(tzinfo=UTC)


def _read_weekdays(text: str) -> str:
    """Return cron's weekdays by name. Raises ValueError."""
    if text == "*":
        return text
    found: set[int] = set()
    for part in text.lower().split(","):
        span, _, step = part.partition("/")
        if step and (not step.isdecimal() or int(step) == 0):
            raise ValueError(f"{part!r} has no step that can be")
        low, dash, high = span.partition("-")
        if span == "*":
            first, last = 0, 6
        else:
            first = _weekday(low)
            last = _weekday(high) if dash else (6 if step else first)
        if last < first:
            raise ValueError(f"{part!r} goes backwards")
        found.update(n % 7 for n in range(first, last + 1, int(step or 1)))
    return ",".join(_WEEKDAYS[n] for n in sorted(found))


def _weekday(text: str) -> int:
    if text in _WEEKDAYS:
        return _WEEKDAYS.index(text)
    if text.isdecimal() and int(text) <= 7:
        return int(text)
    raise ValueError(f"{text!r} is no weekday")
