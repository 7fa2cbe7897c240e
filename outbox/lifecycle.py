"""What becomes of a job after an attempt: one pure function; the rest stores what it decides.

processing ── Delivered ───────────────────────▶ sent
           ── Retryable, tries and time left ──▶ retrying
           ── Retryable, may have arrived ─────▶ as the template says: retrying, pending in a held
                                                 lane until it is released, or failed
           ── Retryable, none left ────────────▶ failed      (dead letter: exhausted)
           ── Retryable, next try too late ────▶ expired
           ── Rejected ────────────────────────▶ failed      (dead letter: permanent)
           ── Misconfigured ───────────────────▶ pending in a held lane; the try is given back
           ── Snoozed ─────────────────────────▶ scheduled;  the try is given back
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, TypeAlias, assert_never

from outbox.backoff import RETRY_AFTER_S_MAX, Backoff
from outbox.outcome import (
    Delivered,
    HoldScope,
    Misconfigured,
    Outcome,
    Rejected,
    Retryable,
    Snoozed,
)

Ambiguity: TypeAlias = Literal["resend", "hold", "fail"]
"""What becomes of a delivery that went out and was never answered: a template's policy."""
ErrorClass: TypeAlias = Literal[
    "temporary", "permanent", "configuration", "ambiguous", "held", "snoozed", "expired"
]
DeadReason: TypeAlias = Literal["exhausted", "permanent"]


@dataclass(frozen=True, slots=True)
class Attempt:
    """What is known of the attempt that ended. `now` is the database's time; all times aware."""

    number: int
    attempts_max: int
    expires_at: datetime | None
    now: datetime


@dataclass(frozen=True, slots=True)
class Ended:
    """The series is over. A `dead_reason` means that it leaves a dead letter."""

    status: Literal["SENT", "FAILED", "EXPIRED"]
    error_class: ErrorClass | None = None
    error_code: str | None = None
    error_message: str | None = None
    dead_reason: DeadReason | None = None


@dataclass(frozen=True, slots=True)
class Again:
    """Another attempt at `at`. `attempts_used`: what the entry counts from now on."""

    at: datetime
    attempts_used: int
    waits_for: Literal["backoff", "snooze"]
    error_class: ErrorClass
    error_code: str
    error_message: str


@dataclass(frozen=True, slots=True)
class Held:
    """Wait in a held lane until somebody mends it; no try is burned."""

    at: datetime
    attempts_used: int
    scope: HoldScope | Literal["ambiguous"]
    scope_key: str
    error_code: str
    error_message: str


Transition: TypeAlias = Ended | Again | Held

_SENT = Ended("SENT")


def next_transition(
    outcome: Outcome,
    *,
    attempt: Attempt,
    backoff: Backoff,
    draw: float,
    on_ambiguous: Ambiguity = "resend",
) -> Transition:
    """Decide what follows from `outcome`. `draw` in [0, 1) spreads the backoff.

    Source: store.md 2 (docs/lifecycle.md).
    """
    match outcome:
        case Delivered():
            return _SENT
        case Rejected(code=code, reason=reason):
            return Ended("FAILED", "permanent", code, reason, "permanent")
        case Retryable(code=code, reason=reason, ambiguous=True) if on_ambiguous == "hold":
            return Held(attempt.now, attempt.number, "ambiguous", "", code, reason)
        case Retryable(code=code, reason=reason, ambiguous=True) if on_ambiguous == "fail":
            return Ended("FAILED", "ambiguous", code, reason, "permanent")
        case Retryable():
            return _after_failure(outcome, attempt, backoff, draw)
        case Misconfigured(code=code, reason=reason, scope=scope, scope_key=key):
            return Held(attempt.now, attempt.number - 1, scope, key, code, reason)
        case Snoozed(until=until, code=code, reason=reason):
            at = max(until, attempt.now)
            if attempt.expires_at is not None and at >= attempt.expires_at:
                return Ended("EXPIRED", "expired", "job.expired", "snoozed past expires_at")
            return Again(at, attempt.number - 1, "snooze", "snoozed", code, reason)
        case _ as never:
            assert_never(never)


def _after_failure(
    failure: Retryable, attempt: Attempt, backoff: Backoff, draw: float
) -> Transition:
    allowed = min(attempt.attempts_max, failure.attempts_max or attempt.attempts_max)
    if attempt.number >= allowed:
        bounded_by_table = failure.attempts_max is not None and allowed < attempt.attempts_max
        reason: DeadReason = "permanent" if bounded_by_table else "exhausted"
        error_class: ErrorClass = "permanent" if bounded_by_table else "temporary"
        return Ended("FAILED", error_class, failure.code, failure.reason, reason)
    pause_s = backoff.pause_s(attempt.number, draw)
    if failure.retry_after_s is not None:
        pause_s = min(max(failure.retry_after_s, 0.0), RETRY_AFTER_S_MAX)
    at = attempt.now + timedelta(seconds=pause_s)
    if attempt.expires_at is not None and at >= attempt.expires_at:
        return Ended(
            "EXPIRED",
            "expired",
            failure.code,
            f"the next attempt would start at or after expires_at; last error: {failure.reason}",
        )
    return Again(at, attempt.number, "backoff", "temporary", failure.code, failure.reason)
