"""When to try again: pure decisions, with chance handed in (delivery.md 3)."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

ATTEMPTS_MAX = 100
RETRY_AFTER_S_MAX = 86_400.0


@dataclass(frozen=True, kw_only=True)
class Backoff:
    """Pauses between the attempts of one job: a list of seconds, each spread by ±`jitter`.

    A job has `len(delays_s) + 1` attempts unless `attempts_max` says otherwise; past its end the
    list's last pause repeats.
    """

    delays_s: tuple[float, ...]
    jitter: float = 0.2
    attempts_max: int | None = None

    def __post_init__(self) -> None:
        if not self.delays_s or any(not 0 <= d <= 30 * 86_400 for d in self.delays_s):
            raise ValueError("backoff needs at least one pause, each of 0 s to 30 days")
        if not 0 <= self.jitter <= 1:
            raise ValueError("jitter must lie between 0 and 1")
        if self.attempts_max is not None and not 1 <= self.attempts_max <= ATTEMPTS_MAX:
            raise ValueError(f"attempts_max must lie between 1 and {ATTEMPTS_MAX}")

    @property
    def attempts(self) -> int:
        """How many attempts a job has in all, where it does not say so itself."""
        return self.attempts_max or min(len(self.delays_s) + 1, ATTEMPTS_MAX)

    def pause_s(self, attempt: int, draw: float) -> float:
        """Return the pause in seconds after the failed `attempt` (from 1). `draw` is in [0, 1).

        Raises ValueError if attempt < 1.
        """
        if attempt < 1:
            raise ValueError("attempts count from 1")
        delay_s = self.delays_s[min(attempt, len(self.delays_s)) - 1]
        return delay_s * (1 + self.jitter * (2 * draw - 1))


PATIENT = Backoff(delays_s=(5, 60, 300, 1800, 7200, 18_000, 36_000))
"""Outlives an outage of a night: 8 attempts over about 18 hours."""
URGENT = Backoff(delays_s=(2, 10, 60, 300, 900))
"""For what is worthless later: 6 attempts over about 20 minutes."""

BY_CHANNEL = MappingProxyType(
    {
        "email": PATIENT,
        "webhook": PATIENT,
        "inbox": PATIENT,
        "sms": URGENT,
        "push": URGENT,
        "browser": URGENT,
        "telegram": URGENT,
        "ws": URGENT,
    }
)
