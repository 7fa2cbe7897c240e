"""A process's identity between two (re)connections, and its idea of the database's time."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta
from time import monotonic

from outbox.message import Epoch

SELF_FENCE_S = 2.0
"""No delivery starts when the last good heartbeat was sent longer ago than this (store.md 5)."""


class Life:
    """An epoch and its heartbeats. The clock is the database's, always; ours only counts on."""

    def __init__(self) -> None:
        self.epoch = Epoch(0)
        self.began_at = monotonic()
        self.fenced = True
        self.fleet_size = 1
        """How many dispatchers lived at the last heartbeat, this one included."""
        self.gaps = False
        """Whether an ordering_key had no head at the last heartbeat."""
        self.replays = False
        """Whether dead letters were to be replayed at the last heartbeat."""
        self.next_fire: datetime | None = None
        """When the next schedule fires, as of the last heartbeat."""
        self.alerts_due = False
        """Whether nobody had made a round of alerts lately, as of the last heartbeat."""
        self.turned_at = self.began_at
        """When the loop of heartbeats last came round, answered or not: a monotonic time."""
        self._beat_sent_at = float("-inf")
        self._db_now = datetime.fromtimestamp(0, UTC)
        self._counted_from = self.began_at

    def begin(self) -> Epoch:
        """Start a new epoch: a random 63-bit number that was never used before."""
        self.epoch = Epoch(secrets.randbits(62) + 1)
        self.began_at = monotonic()
        # The clock goes on: attempts of the epoch before may end until the first heartbeat.
        self.fenced = True
        return self.epoch

    def beat(self, *, sent_at: float, db_now: datetime) -> None:
        """Note a heartbeat that was answered. `sent_at`: monotonic, from before it was sent."""
        self._beat_sent_at = self._counted_from = sent_at
        self._db_now = db_now
        self.fenced = False

    def turned(self) -> None:
        """Note that the loop of heartbeats goes on: it tries, whether or not it is answered."""
        self.turned_at = monotonic()

    def fence(self) -> None:
        """Start nothing more under this epoch."""
        self.fenced = True

    def may_start(self) -> bool:
        """Return whether a delivery may start now: someone else cannot have taken over yet."""
        return not self.fenced and monotonic() - self._beat_sent_at < SELF_FENCE_S

    def db_now(self) -> datetime:
        """Return the database's time, at most a round trip ahead of it and never behind.

        It counts on while a session is lost and the next has not begun: attempts end then too.
        """
        return self._db_now + timedelta(seconds=monotonic() - self._counted_from)
