"""Quiet hours end when the recipient's own clock says so."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outbox.quiet import passes, quiet_until

NIGHT = (time(22, 0), time(8, 0))


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("hours", "zone", "now", "until"),
    [
        (NIGHT, "UTC", "2026-11-22T23:00", "2026-11-23T08:00"),
        (NIGHT, "UTC", "2026-11-22T07:59", "2026-11-22T08:00"),
        (NIGHT, "UTC", "2026-11-22T08:00", None),
        (NIGHT, "UTC", "2026-11-22T21:59", None),
        (NIGHT, "Asia/Almaty", "2026-11-22T18:00", "2026-11-23T03:00"),
        ((time(12, 0), time(14, 0)), "UTC", "2026-11-22T13:00", "2026-11-22T14:00"),
        ((time(12, 0), time(12, 0)), "UTC", "2026-11-22T12:00", None),
        (NIGHT, "No/Such", "2026-11-22T23:00", "2026-11-23T08:00"),
        (NIGHT, None, "2026-11-22T23:00", "2026-11-23T08:00"),
    ],
)
def test_a_message_waits_for_the_end_of_the_recipient_s_night(
    hours: tuple[time, time], zone: str | None, now: str, until: str | None
) -> None:
    assert quiet_until(*hours, zone, at(now)) == (None if until is None else at(until))


@pytest.mark.parametrize(
    ("now", "until"),
    [("2026-03-28T22:30", "2026-03-29T06:00"), ("2026-10-24T21:30", "2026-10-25T07:00")],
)
def test_eight_o_clock_stays_eight_o_clock_over_daylight_saving(now: str, until: str) -> None:
    assert quiet_until(*NIGHT, "Europe/Berlin", at(now)) == at(until)


@given(
    st.times().map(lambda t: t.replace(second=0, microsecond=0)),
    st.times().map(lambda t: t.replace(second=0, microsecond=0)),
    st.integers(0, 3 * 366 * 24 * 60),
    st.sampled_from(["UTC", "Europe/Berlin", "America/St_Johns", "Asia/Almaty", "Lord_Howe"]),
)
def test_a_deferral_is_never_longer_than_a_day_and_an_hour(
    start: time, end: time, minutes: int, zone: str
) -> None:
    now = at("2025-01-01T00:00") + timedelta(minutes=minutes)
    until = quiet_until(start, end, zone, now)
    assert until is None or timedelta(0) < until - now <= timedelta(hours=25)


def test_what_is_urgent_or_transactional_or_disturbs_nobody_passes() -> None:
    assert passes(channel="sms", category=None, priority=10)
    assert passes(channel="sms", category="transactional", priority=1)
    assert passes(channel="inbox", category="marketing", priority=0)
    assert not passes(channel="email", category="marketing", priority=5)
    assert not passes(channel="sms", category=None, priority=1)
