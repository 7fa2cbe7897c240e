"""Schedules from the command line."""

from __future__ import annotations

import json

from tests.cli.shell import Shell

JOB = {"channel": "inbox", "user_id": "ann", "content": "Hi", "data": {}}


def test_a_schedule_is_put_listed_paused_and_deleted(outbox: Shell) -> None:
    text = json.dumps({"trigger": {"cron": "@daily"}, "timezone": "Europe/Berlin", "job": JOB})
    assert outbox.run("schedules", "put", "digest", "-", stdin=text).code == 0
    (row,) = outbox.run("schedules", "ls", "--json").json
    assert (row["name"], row["enabled"], row["trigger"]) == ("digest", True, {"cron": "@daily"})
    assert "digest" in outbox.run("schedules", "ls").out
    assert outbox.run("schedules", "pause", "digest", "--json").json["enabled"] is False
    assert outbox.run("schedules", "resume", "digest", "--json").json["enabled"] is True
    assert outbox.run("schedules", "delete", "digest").code == 0
    assert outbox.run("schedules", "delete", "digest").code == 1


def test_a_schedule_that_could_never_work_is_refused(outbox: Shell) -> None:
    for wrong, place in (
        ({"trigger": {"cron": "0 0 30 2 *"}, "job": JOB}, "/trigger/cron"),
        ({"trigger": {"cron": "@daily"}, "job": {"queue": "nobody", "payload": {}}}, "/job/queue"),
        ({"trigger": {"cron": "@daily"}}, "must have one of job and clean"),
        ({"trigger": "daily", "job": JOB}, "no schedule"),
    ):
        done = outbox.run("schedules", "put", "digest", "-", stdin=json.dumps(wrong))
        assert done.code == 1, wrong
        assert place in done.err
    assert outbox.run("schedules", "ls", "--json").json == []


def test_a_preview_shows_the_next_fires(outbox: Shell) -> None:
    done = outbox.run("schedules", "preview", "0 9 * * *", "--count", "3", "--json")
    assert [fire[11:] for fire in done.json] == ["09:00:00Z"] * 3
    assert outbox.run("schedules", "preview", "often").code == 1
