"""What becomes of a job after an attempt: the table of docs/lifecycle.md, as properties."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outbox.backoff import BY_CHANNEL, PATIENT, URGENT, Backoff
from outbox.lifecycle import Again, Attempt, Ended, Held, next_transition
from outbox.outcome import (
    Delivered,
    Misconfigured,
    Outcome,
    Rejected,
    Retryable,
    Snoozed,
    clean_text,
)

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
BACKOFF = Backoff(delays_s=(10, 100), jitter=0.2)

draws = st.floats(0, 1, exclude_max=True)
outcomes: st.SearchStrategy[Outcome] = st.one_of(
    st.just(Delivered()),
    st.builds(
        Retryable,
        code=st.text(max_size=5),
        reason=st.text(max_size=5),
        retry_after_s=st.none() | st.floats(-10, 1e6),
        attempts_max=st.none() | st.integers(1, 5),
    ),
    st.builds(Rejected, code=st.text(max_size=5), reason=st.text(max_size=5)),
    st.builds(Misconfigured, code=st.text(max_size=5), reason=st.text(max_size=5)),
    st.builds(
        Snoozed,
        until=st.integers(-(10**7), 10**7).map(lambda s: NOW + timedelta(seconds=s)),
    ),
)
attempts = st.builds(
    Attempt,
    number=st.integers(1, 8),
    attempts_max=st.integers(1, 8),
    expires_at=st.none() | st.integers(-100, 10_000).map(lambda s: NOW + timedelta(seconds=s)),
    now=st.just(NOW),
)


def after(outcome: Outcome, attempt: Attempt, draw: float = 0.5) -> Ended | Again | Held:
    return next_transition(outcome, attempt=attempt, backoff=BACKOFF, draw=draw)


def attempt(number: int = 1, attempts_max: int = 3, expires_in_s: float | None = None) -> Attempt:
    expires = None if expires_in_s is None else NOW + timedelta(seconds=expires_in_s)
    return Attempt(number, attempts_max, expires, NOW)


@given(outcomes, attempts, draws)
def test_a_next_attempt_never_starts_at_or_after_expiry_nor_in_the_past(
    outcome: Outcome, tried: Attempt, draw: float
) -> None:
    decided = after(outcome, tried, draw)
    if isinstance(decided, Again):
        assert decided.at >= NOW
        assert tried.expires_at is None or decided.at < tried.expires_at


@given(outcomes, attempts, draws)
def test_a_failure_leaves_a_dead_letter_and_nothing_else_does(
    outcome: Outcome, tried: Attempt, draw: float
) -> None:
    decided = after(outcome, tried, draw)
    if isinstance(decided, Ended):
        assert (decided.status == "FAILED") == (decided.dead_reason is not None)


@given(outcomes, attempts, draws)
def test_tries_are_used_up_by_failures_and_given_back_by_holds_and_snoozes(
    outcome: Outcome, tried: Attempt, draw: float
) -> None:
    decided = after(outcome, tried, draw)
    if isinstance(decided, Again):
        given_back = isinstance(outcome, Snoozed)
        assert decided.attempts_used == tried.number - given_back
        assert given_back or decided.attempts_used < tried.attempts_max
    elif isinstance(decided, Held):
        assert decided.attempts_used == tried.number - 1


def test_the_last_try_ends_exhausted() -> None:
    decided = after(Retryable(code="x", reason="busy"), attempt(3, 3))
    assert decided == Ended("FAILED", "temporary", "x", "busy", "exhausted")


def test_an_error_table_may_allow_fewer_tries_than_the_job_does() -> None:
    strict = Retryable(code="http.400", reason="no", attempts_max=3, retry_after_s=5.0)
    assert isinstance(after(strict, attempt(2, 8)), Again)
    assert after(strict, attempt(3, 8)) == Ended(
        "FAILED", "permanent", "http.400", "no", "permanent"
    )


def test_a_receiver_s_own_pause_is_taken_over_the_backoff_and_capped_at_a_day() -> None:
    decided = after(Retryable(code="x", reason="", retry_after_s=77.0), attempt())
    assert isinstance(decided, Again)
    assert decided.at == NOW + timedelta(seconds=77)
    decided = after(Retryable(code="x", reason="", retry_after_s=1e9), attempt())
    assert isinstance(decided, Again)
    assert decided.at == NOW + timedelta(days=1)


def test_a_retry_that_would_start_at_expiry_ends_the_job_as_expired() -> None:
    decided = after(Retryable(code="x", reason="busy"), attempt(expires_in_s=10))
    assert isinstance(decided, Ended)
    assert decided.status == "EXPIRED"
    assert decided.dead_reason is None


def test_a_hold_keeps_its_scope() -> None:
    decided = after(
        Misconfigured(code="smtp.auth", reason="no", scope="template", scope_key="t"), attempt(2)
    )
    assert decided == Held(NOW, 1, "template", "t", "smtp.auth", "no")


@given(st.integers(1, 200), draws)
def test_a_pause_stays_within_its_jitter(number: int, draw: float) -> None:
    base = BACKOFF.delays_s[min(number, 2) - 1]
    assert 0.8 * base <= BACKOFF.pause_s(number, draw) <= 1.2 * base


def test_attempts_count_from_one() -> None:
    with pytest.raises(ValueError, match="from 1"):
        BACKOFF.pause_s(0, 0.5)


@pytest.mark.parametrize(
    ("delays", "jitter", "attempts_max"),
    [((), 0.2, None), ((-1.0,), 0.2, None), ((1.0,), 2.0, None), ((1.0,), 0.2, 0)],
)
def test_a_backoff_that_cannot_be_is_refused(
    delays: tuple[float, ...], jitter: float, attempts_max: int | None
) -> None:
    with pytest.raises(ValueError, match=r"backoff|jitter|attempts_max"):
        Backoff(delays_s=delays, jitter=jitter, attempts_max=attempts_max)


def test_the_defaults_are_those_of_the_contract() -> None:
    assert PATIENT.attempts == 8
    assert URGENT.attempts == 6
    assert sum(PATIENT.delays_s) / 3600 == pytest.approx(17.5, abs=0.5)
    assert BY_CHANNEL["email"] is PATIENT
    assert BY_CHANNEL["sms"] is URGENT


@given(st.text())
def test_an_outcome_s_texts_can_always_be_stored(text: str) -> None:
    cleaned = clean_text(text)
    assert "\x00" not in cleaned
    cleaned.encode()
    assert len(cleaned) <= 2000


def test_a_lone_surrogate_and_a_nul_are_replaced_not_refused() -> None:
    assert clean_text("a\x00b\ud800c") == "a�b?c"
    assert Retryable(code="x", reason="\x00").reason == "�"
