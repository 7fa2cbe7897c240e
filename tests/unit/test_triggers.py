"""Schedules fire when their time comes, also where clocks are changed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from outbox.triggers import CAUGHT_UP_MAX, BadTrigger, Misfire, Timetable, Trigger

BERLIN = "Europe/Berlin"  # 2026: forward on 29 March at 02:00, back on 25 October at 03:00


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def fires(cron: str, zone: str, after: str, count: int) -> list[str]:
    found = Timetable(Trigger(cron=cron), zone).preview(at(after), count)
    return [f"{moment:%d %H:%M}" for moment in found]


@pytest.mark.parametrize(
    ("cron", "after", "expected"),
    [
        # Spring: 02:30 is not on the clock on the 29th; it fires when the gap is over (01:00 UTC).
        ("30 2 * * *", "2026-03-28T00:00", ["28 01:30", "29 01:00", "30 00:30"]),
        # Autumn: 02:30 comes twice on the 25th; it fires the first time (00:30 UTC) alone.
        ("30 2 * * *", "2026-10-24T00:00", ["24 00:30", "25 00:30", "26 01:30"]),
        # Every half hour goes on through both hours, and is in none that is not there.
        ("*/30 * * * *", "2026-10-24T23:45", ["25 00:00", "25 00:30", "25 01:00", "25 01:30"]),
        ("*/30 * * * *", "2026-03-29T00:15", ["29 00:30", "29 01:00", "29 01:30", "29 02:00"]),
        ("0 9 * * *", "2026-03-28T00:00", ["28 08:00", "29 07:00", "30 07:00"]),
    ],
)
def test_daylight_saving_neither_loses_nor_doubles_a_daily_fire(
    cron: str, after: str, expected: list[str]
) -> None:
    assert fires(cron, BERLIN, after, len(expected)) == expected


@pytest.mark.parametrize(
    ("cron", "expected"),
    [
        ("0 0 * * 0", ["06 00:00", "13 00:00"]),  # Sunday is 0 …
        ("0 0 * * 7", ["06 00:00", "13 00:00"]),  # … and 7
        ("0 9 * * 1-5", ["02 09:00", "03 09:00"]),
        ("0 0 15 * fri", ["04 00:00", "11 00:00", "15 00:00"]),  # either will do
        ("@weekly", ["06 00:00", "13 00:00"]),
        ("0 0 29 2 *", ["29 00:00"]),
    ],
)
def test_cron_means_what_cron_means(cron: str, expected: list[str]) -> None:
    assert fires(cron, "UTC", "2026-12-01T10:00", len(expected)) == expected


@pytest.mark.parametrize(
    ("trigger", "pointer"),
    [
        (Trigger(cron="0 0 30 2 *"), "/trigger/cron"),
        (Trigger(cron="61 * * * *"), "/trigger/cron"),
        (Trigger(cron="* * * *"), "/trigger/cron"),
        (Trigger(cron="0 0 * * 8"), "/trigger/cron"),
        (Trigger(cron="often"), "/trigger/cron"),
        (Trigger(every_s=0), "/trigger/every_s"),
        (Trigger(at="tomorrow"), "/trigger/at"),
        (Trigger(), "/trigger"),
        (Trigger(cron="@daily", every_s=5), "/trigger"),
        (Trigger(cron="@daily", start_at="2026-01-01"), "/trigger/start_at"),
    ],
)
def test_a_trigger_that_cannot_be_is_refused_with_its_place(
    trigger: Trigger, pointer: str
) -> None:
    with pytest.raises(BadTrigger) as caught:
        Timetable(trigger, "UTC")
    assert [fault.pointer for fault in caught.value.faults] == [pointer]


def test_a_time_zone_that_is_none_is_refused() -> None:
    for zone in ("Mars/Olympus", "", "../etc/passwd", "a\x00b"):
        with pytest.raises(BadTrigger, match="/timezone"):
            Timetable(Trigger(cron="@daily"), zone)


def test_intervals_count_seconds_from_their_start() -> None:
    table = Timetable(Trigger(every_s=3600, start_at="2026-03-29T00:30"), BERLIN)
    found = table.preview(at("2026-03-28T00:00"), 3)
    assert [f"{m:%d %H:%M}" for m in found] == ["28 23:30", "29 00:30", "29 01:30"]


def test_once_is_once() -> None:
    table = Timetable(Trigger(at="2026-12-31T09:00"), BERLIN)
    assert table.preview(at("2026-01-01T00:00"), 5) == [at("2026-12-31T08:00")]
    assert table.next_after(at("2026-12-31T08:00")) is None


@pytest.mark.parametrize(
    ("misfire", "made_up", "missed"),
    [("skip", [], 3), ("once", ["03:00"], 2), ("all", ["01:00", "02:00", "03:00"], 0)],
)
def test_missed_fires_are_skipped_made_up_for_once_or_all(
    misfire: Misfire, made_up: list[str], missed: int
) -> None:
    table = Timetable(Trigger(cron="0 * * * *"), "UTC")
    due = table.due(at("2026-05-01T01:00"), at("2026-05-01T03:30"), misfire=misfire, grace_s=60)
    assert [f"{m:%H:%M}" for m in due.fires] == made_up
    assert (due.missed, due.next_at) == (missed, at("2026-05-01T04:00"))


@pytest.mark.parametrize("misfire", ["skip", "once", "all"])
def test_a_fire_within_its_grace_is_none_that_was_missed(misfire: Misfire) -> None:
    table = Timetable(Trigger(cron="0 * * * *"), "UTC")
    due = table.due(at("2026-05-01T03:00"), at("2026-05-01T03:00:20"), misfire=misfire, grace_s=60)
    assert due.fires == (at("2026-05-01T03:00"),)
    assert due.missed == 0


def test_a_long_absence_is_made_up_for_within_a_bound() -> None:
    table = Timetable(Trigger(every_s=1), "UTC")
    now = at("2026-05-01T01:00")
    due = table.due(now - timedelta(seconds=1_500), now, misfire="all", grace_s=5)
    assert len(due.fires) == CAUGHT_UP_MAX
    assert due.fires[-1] == now
    assert due.missed == 1_501 - CAUGHT_UP_MAX


@pytest.mark.parametrize("misfire", ["skip", "once", "all"])
@pytest.mark.parametrize(
    "trigger", [Trigger(every_s=1), Trigger(cron="* * * * *"), Trigger(cron="*/5 8-17 * * 1-5")]
)
def test_an_absence_of_a_year_is_looked_through_by_a_few_thousand_steps(
    trigger: Trigger, misfire: Misfire, monkeypatch: pytest.MonkeyPatch
) -> None:
    timetable = Timetable(trigger, "Asia/Almaty")
    began = datetime(2026, 1, 1, tzinfo=UTC)
    now = datetime(2027, 1, 1, 12, tzinfo=UTC)
    first = timetable.next_after(began)
    assert first is not None
    steps = 0
    plain = Timetable.next_after

    def counted(self: Timetable, after: datetime) -> datetime | None:
        nonlocal steps
        steps += 1
        return plain(self, after)

    monkeypatch.setattr(Timetable, "next_after", counted)
    due = timetable.due(first, now, misfire=misfire, grace_s=60)
    assert steps < 12_000
    assert due.next_at is not None
    assert due.next_at > now
    expected = {"skip": 61 if trigger.every_s else 2, "once": 62, "all": CAUGHT_UP_MAX}[misfire]
    assert len(due.fires) <= expected
    assert due.missed > 20_000


def test_what_a_cron_missed_in_weeks_is_told_to_within_a_few_percent() -> None:
    timetable = Timetable(Trigger(cron="*/5 8-17 * * *"), "UTC")
    first = timetable.next_after(datetime(2026, 1, 1, tzinfo=UTC))
    assert first is not None
    due = timetable.due(first, datetime(2026, 4, 11, tzinfo=UTC), misfire="all", grace_s=60)
    assert len(due.fires) == CAUGHT_UP_MAX
    assert due.missed + CAUGHT_UP_MAX == pytest.approx(100 * 120, rel=0.05)
