"""How often to do what takes longer the more there is that nobody can vacuum.

While somebody holds a snapshot open, every job that was delivered leaves dead rows behind. Who has
to walk over them (a look below the floors of claims, a poll, an expiry) gets a share of the time.
"""

from __future__ import annotations

from time import monotonic

SHARE_MAX = 0.05
"""At most this share of the time goes into one kind of walk."""
PAUSE_S_MAX = 300.0
"""But no longer between two."""
CHEAP_S = 0.02
"""What a walk may take without making the next one wait."""


class Pace:
    """When a walk may be made again (`may_at`: monotonic seconds), by what the last two took."""

    __slots__ = ("_last_took_s", "may_at")

    def __init__(self) -> None:
        self.may_at = 0.0
        self._last_took_s = 0.0

    def took(self, took_s: float, *, walkers: int = 1) -> None:
        """Note that a walk has ended right now. `walkers`: how many share this share."""
        # One that was slow by itself met a cold cache, or a machine that stood still.
        self._last_took_s, lasting_s = took_s, min(took_s, self._last_took_s)
        if lasting_s > CHEAP_S:
            self.may_at = monotonic() + min(lasting_s * walkers / SHARE_MAX, PAUSE_S_MAX)
