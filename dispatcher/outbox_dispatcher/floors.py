"""How far claims have got in a lane, and where to look for what has appeared behind them.

While somebody holds a snapshot open, everything that was delivered stays in the index of claims.
So nobody walks it from the bottom but a far look, a poll that gets a share of the time:

    bottom ─── all that was delivered ─── base ─── lately delivered ─── floor ─── due
      └ far looks start here               └ near looks                   └ claims

Near looks find what was committed out of order; far looks what was committed much later, or given
back elsewhere; what this process gives back itself, it knows the place of.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import TypeAlias

Place: TypeAlias = tuple[datetime, int]
"""A place in line within a lane and a priority: `(available_at, id)`."""

PRIORITIES = (10, 5, 1, 0)
BOTTOM: Place = (datetime.min.replace(tzinfo=UTC), 0)
NEAR_S = 1.5
"""Near looks go back so far, up to twice as far: few transactions take longer to commit."""
HORIZON_S = 3.0
"""What is younger than that may not have been there yet when a far look was made."""


class Horizon:
    """Below it nothing waits in any lane, but for what the last far look has found."""

    __slots__ = ("looks", "place")

    def __init__(self) -> None:
        self.looks = 0
        self.place = BOTTOM

    def looked(self, db_now: datetime) -> None:
        """Note a far look. `db_now`: the database's time, from before it."""
        self.looks += 1
        self.place = (db_now - timedelta(seconds=HORIZON_S), 0)


class Floors:
    """One lane's floors, a place for each priority; what is behind a place is above it."""

    __slots__ = (
        "_first",
        "_floor",
        "_horizon",
        "_lowered",
        "_mark",
        "_newer",
        "_older",
        "_since",
        "_turned_at",
    )

    def __init__(self, horizon: Horizon) -> None:
        self._horizon = horizon
        self.forget()

    def forget(self) -> None:
        """Start at the bottom again."""
        self._since = self._horizon.looks
        self._floor: dict[int, Place] = {}
        self._first: dict[int, Place] = {}
        self._older: dict[int, Place] = {}
        self._newer: dict[int, Place] = {}
        self._lowered: dict[int, Place] = {}
        self._mark: dict[int, Place] | None = None
        self._turned_at = monotonic()

    def starts(self, *, below: bool) -> dict[int, Place]:
        """Return behind which places to look; with `below`, for what has appeared lately, too.

        A priority that is not in it is looked at from the bottom.
        """
        self._turn()
        for priority, place in self._lowered.items():
            start = self._start(priority, below=False)
            if start is not None:
                self._floor[priority] = min(start, place)
        self._lowered.clear()
        found = {priority: self._start(priority, below=below) for priority in PRIORITIES}
        return {priority: place for priority, place in found.items() if place is not None}

    def _start(self, priority: int, *, below: bool) -> Place | None:
        floor = self._floor.get(priority)
        if floor is not None and not below:
            return floor
        base = self._older.get(priority)
        if self._horizon.looks > self._since:
            place = self._horizon.place
            place = min(place, self._first.get(priority, place))
            base = place if base is None else max(base, place)
        return base if floor is None or base is None else min(floor, base)

    def _turn(self) -> None:
        since_s = monotonic() - self._turned_at
        if since_s >= NEAR_S:
            self._older = self._newer if since_s < 2 * NEAR_S else dict(self._floor)
            self._newer = dict(self._floor)
            self._turned_at = monotonic()

    def claimed(self, last: Mapping[int, Place], *, full: bool) -> None:
        """Note the last place of each priority that a claim took something from.

        `full`: it took as many as it might, so there may be more right behind them.
        """
        for priority, place in last.items():
            floor = self._floor.get(priority)
            self._floor[priority] = place if full or floor is None else max(floor, place)

    def lower(self, priority: int, place: Place) -> None:
        """Have the next claim start in front of this place: something waits there."""
        before = (place[0], place[1] - 1)
        self._lowered[priority] = min(before, self._lowered.get(priority, before))
        if self._mark is not None:
            self._mark[priority] = min(before, self._mark[priority])

    def looked(self, first: Mapping[int, Place]) -> None:
        """Note where a far look has found something waiting first, of each priority."""
        self._first = {p: (at, entry_id - 1) for p, (at, entry_id) in first.items()}
        for priority, place in first.items():
            self.lower(priority, place)

    def mark(self) -> None:
        """Remember the floors: claims leave something out from here on."""
        self._mark = {p: self._start(p, below=False) or BOTTOM for p in PRIORITIES}

    def back_to_mark(self) -> None:
        """Have the next claim start where the floors were at the mark, or lower."""
        marked, self._mark = self._mark or {}, None
        for priority, (at, entry_id) in marked.items():
            self.lower(priority, (at, entry_id + 1))
