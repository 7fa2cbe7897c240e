"""Quiet hours end when the recipient's own clock says so."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outbox.quiet import SendWindow, deferred_until, passes, quiet_until, window_opens

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


OFFICE = SendWindow(start="10:00", end="18:00", days=("mon", "tue", "wed", "thu", "fri"))
NIGHTLY = SendWindow(start="22:00", end="02:00", days=("fri",))


@pytest.mark.parametrize(
    ("window", "zone", "now", "opens"),
    [
        (OFFICE, "UTC", "2026-11-20T12:00", None),  # a Friday
        (OFFICE, "UTC", "2026-11-20T18:00", "2026-11-23T10:00"),
        (OFFICE, "UTC", "2026-11-22T12:00", "2026-11-23T10:00"),
        (OFFICE, "Asia/Almaty", "2026-11-23T04:59", "2026-11-23T05:00"),
        (OFFICE, "Asia/Almaty", "2026-11-23T05:00", None),
        (NIGHTLY, "UTC", "2026-11-20T23:00", None),
        (NIGHTLY, "UTC", "2026-11-21T01:59", None),
        (NIGHTLY, "UTC", "2026-11-21T02:00", "2026-11-27T22:00"),
        (NIGHTLY, "UTC", "2026-11-22T23:00", "2026-11-27T22:00"),
        (SendWindow(start="09:00", end="09:00", days=("sun",)), "UTC", "2026-11-23T08:59", None),
        # Ten o'clock stays ten o'clock when the clocks change in between.
        (OFFICE, "Europe/Berlin", "2026-03-27T17:00", "2026-03-30T08:00"),
        (OFFICE, "Europe/Berlin", "2026-10-23T16:00", "2026-10-26T09:00"),
        # 02:30 is skipped that night: the window opens when the clock shows it or later.
        (
            SendWindow(start="02:30", end="05:00"),
            "Europe/Berlin",
            "2026-03-29T00:00",
            "2026-03-29T01:30",
        ),
    ],
)
def test_a_window_opens_by_the_recipient_s_clock_on_its_days(
    window: SendWindow, zone: str, now: str, opens: str | None
) -> None:
    assert window_opens(window, zone, at(now)) == (None if opens is None else at(opens))


def test_a_message_waits_for_a_moment_that_quiet_hours_and_window_both_allow() -> None:
    early = SendWindow(start="06:00", end="09:00")
    # Asleep until 8, within the window until 9.
    assert deferred_until(NIGHT, early, "UTC", at("2026-11-22T23:00")) == at("2026-11-23T08:00")
    # The window is over: the next one opens in the night, which ends at 8.
    assert deferred_until(NIGHT, early, "UTC", at("2026-11-22T12:00")) == at("2026-11-23T08:00")
    assert deferred_until(NIGHT, early, "UTC", at("2026-11-23T08:30")) is None
    assert deferred_until(None, early, "UTC", at("2026-11-23T12:00")) == at("2026-11-24T06:00")


def test_where_the_two_have_no_moment_in_common_the_recipient_s_hours_count_alone() -> None:
    asleep = SendWindow(start="23:00", end="05:00")
    assert deferred_until(NIGHT, asleep, "UTC", at("2026-11-22T23:30")) == at("2026-11-23T08:00")
    assert deferred_until(NIGHT, asleep, "UTC", at("2026-11-23T08:00")) is None


@given(
    st.sampled_from([OFFICE, NIGHTLY, SendWindow(start="02:00", end="03:00")]),
    st.integers(0, 3 * 366 * 24 * 60),
    st.sampled_from(["UTC", "Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe"]),
)
def test_a_window_that_opens_is_open_then(window: SendWindow, minutes: int, zone: str) -> None:
    now = at("2025-01-01T00:00") + timedelta(minutes=minutes)
    opens = window_opens(window, zone, now)
    assert opens is None or now < opens <= now + timedelta(days=8)
    assert opens is None or window_opens(window, zone, opens) is None
