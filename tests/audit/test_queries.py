"""The audit queries, over a history in which everything happened once, as outbox_auditor."""

from __future__ import annotations

import csv
import io
import os
import subprocess
from collections.abc import Iterator
from importlib.resources import as_file, files
from typing import Any

import psycopg
import pytest
from psycopg.rows import DictRow, dict_row

from outbox.embedded_cluster import find_binaries
from outbox_sql.audit import load, names
from tests.audit.hand import Hand
from tests.audit.story import ANN, CAMPAIGN, EVENT, Story, tell
from tests.engine.desk import QUEUE, Desk, Scripted, drain
from tests.postgres import Database

WANTED = {
    *("user_history", "event_history", "campaign_summary", "address_history", "failures"),
    *("unsent", "latency", "duplicates", "expired", "replays", "tenants", "job_history"),
}


@pytest.fixture
async def story(desk: Desk, hand: Hand) -> Story:
    return await tell(desk, hand)


@pytest.fixture
def auditor(database: Database) -> Iterator[psycopg.Connection[DictRow]]:
    with psycopg.connect(database.url, autocommit=True, row_factory=dict_row) as connection:
        connection.execute("set role outbox_auditor")
        yield connection


def ask(auditor: psycopg.Connection[DictRow], name: str, **given: object) -> list[dict[str, Any]]:
    query = load(name)
    values = query.values({key: str(value) for key, value in given.items()})
    return auditor.execute(query.statement.encode(), values).fetchall()


def by_psql(database: Database, name: str, **given: str) -> list[dict[str, str]]:
    """Run the file as it is, by psql, as somebody who may do no more than an auditor."""
    with as_file(files("outbox_sql.audit").joinpath(f"{name}.sql")) as path:
        done = subprocess.run(
            [
                *(find_binaries() / "psql", "--no-psqlrc", "--csv", "--quiet"),
                *(f"--set={key}={value}" for key, value in given.items()),
                *("--set=ON_ERROR_STOP=1", f"--file={path}", database.url),
            ],
            env=os.environ | {"PGOPTIONS": "-c role=outbox_auditor"},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    return list(csv.DictReader(io.StringIO(done.stdout)))


def test_every_query_that_was_promised_is_there() -> None:
    assert set(names()) == WANTED


@pytest.mark.parametrize("name", sorted(WANTED))
def test_a_query_says_what_it_answers_and_its_defaults_are_psql_s(name: str) -> None:
    query = load(name)
    assert query.answers.endswith(".")
    text = files("outbox_sql.audit").joinpath(f"{name}.sql").read_text()
    for p in query.parameters:
        line = f"\\if :{{?{p.name}}} \\else \\set {p.name} '{p.default}' \\endif"
        assert line in text.splitlines()
        assert f"%({p.name})s::{p.type}" in query.statement
    assert ":'" not in query.statement


def test_an_unknown_query_or_parameter_is_named() -> None:
    with pytest.raises(LookupError, match=r"no audit query 'x'; there are: address_history"):
        load("x")
    with pytest.raises(ValueError, match=r"tenants has no parameter 'user'; it has: days"):
        load("tenants").values({"user": "1"})


async def test_psql_and_a_program_get_the_same_from_every_query(
    database: Database, story: Story, auditor: psycopg.Connection[DictRow]
) -> None:
    filled = 0
    for name in sorted(WANTED):
        given = {"job_id": str(story.welcome)} if name == "job_history" else {}
        told = by_psql(database, name, **given)
        asked = ask(auditor, name, **given)
        assert len(told) == len(asked), name
        if asked:
            assert list(told[0]) == list(asked[0]), name
            filled += 1
    # By their defaults the others look for a user and an address that are not in this story,
    # and for what is older than an hour.
    assert filled == len(WANTED) - 3


async def test_values_of_psql_s_variables_are_data_and_never_sql(
    database: Database, story: Story
) -> None:
    assert by_psql(database, "user_history", user_id="'; drop schema outbox; --") == []
    assert by_psql(database, "address_history", address=ANN.lower())


async def test_user_history_shows_every_attempt_and_what_waits(
    story: Story, auditor: psycopg.Connection[DictRow]
) -> None:
    rows = ask(auditor, "user_history", user_id="user-1")
    assert [(row["job_id"], row["series"], row["attempt_status"]) for row in rows] == [
        (story.campaign[0], 1, "SENT"),
        (story.refused, 1, "FAILED"),
        (story.refused, 2, "FAILED"),
        (story.welcome, 1, "RETRYING"),
        (story.welcome, 1, "SENT"),
    ]
    (waiting,) = ask(auditor, "user_history", user_id="user-2")[:1]
    assert (waiting["job_id"], waiting["status"], waiting["attempt_status"]) == (
        story.scheduled,
        "scheduled",
        None,
    )
    (foreign,) = ask(auditor, "user_history", user_id="user-1", tenant="acme")
    assert (foreign["job_id"], foreign["recipient"]) == (story.foreign, ANN)
    assert (
        len({row["job_id"] for row in ask(auditor, "user_history", user_id="user-1", rows_max=2)})
        == 2
    )


async def test_event_history_shows_what_an_event_made(
    story: Story, auditor: psycopg.Connection[DictRow]
) -> None:
    rows = ask(auditor, "event_history", event_id=EVENT)
    assert [(row["job_id"], row["attempt_status"], row["error_code"]) for row in rows] == [
        (story.welcome, "RETRYING", "smtp.lost"),
        (story.welcome, "SENT", None),
    ]
    assert ask(auditor, "event_history", event_id=EVENT, tenant="acme") == []


async def test_job_history_shows_every_change(
    story: Story, auditor: psycopg.Connection[DictRow]
) -> None:
    rows = ask(auditor, "job_history", job_id=story.twice)
    assert [(row["status"], row["error"] is not None) for row in rows] == [
        ("pending", False),
        ("processing", False),
        ("pending", True),
        ("processing", False),
        ("sent", False),
    ]
    assert ask(auditor, "job_history", job_id=story.twice, tenant="acme") == []


async def test_campaign_summary_counts_by_status(
    story: Story, auditor: psycopg.Connection[DictRow]
) -> None:
    rows = ask(auditor, "campaign_summary", campaign_id=CAMPAIGN)
    assert [
        (row["status"], row["jobs"], float(row["percent"]), row["attempts"]) for row in rows
    ] == [
        ("sent", 2, 50.0, 2),
        ("expired", 1, 25.0, 0),
        ("pending", 1, 25.0, 0),
    ]


async def test_address_history_finds_all_tenants_whatever_the_letters_case(
    story: Story, auditor: psycopg.Connection[DictRow]
) -> None:
    rows = ask(auditor, "address_history", address=ANN.upper())
    assert [(row["tenant_id"], row["job_id"], row["status"]) for row in rows] == [
        ("acme", story.foreign, "SENT"),
        ("default", story.welcome, "SENT"),
        ("default", story.welcome, "RETRYING"),
    ]
    assert len(ask(auditor, "address_history", address=ANN, tenant="acme")) == 1


async def test_failures_are_grouped_by_error_and_provider(
    story: Story, auditor: psycopg.Connection[DictRow]
) -> None:
    rows = ask(auditor, "failures")
    assert [
        (row["provider"], row["error_code"], row["attempts"], row["jobs_failed"], row["jobs"])
        for row in rows
    ] == [
        ("smtp", "smtp.mailbox", 2, 2, 1),
        (None, "lease.lost", 1, 0, 1),
        ("smtp", "smtp.lost", 1, 0, 1),
    ]
    assert rows[0]["example"] == "the receiver said smtp.mailbox"


async def test_unsent_says_why(story: Story, auditor: psycopg.Connection[DictRow]) -> None:
    rows = ask(auditor, "unsent", older_than_s=0)
    assert [(row["job_id"], row["why"]) for row in rows] == [
        (story.refused, "due, but no dispatcher has taken it"),
        (story.campaign[3], "paused by kim"),
        (story.scheduled, "its send_after lies ahead"),
    ]
    assert ask(auditor, "unsent") == []


async def test_unsent_names_what_holds_a_lane(
    story: Story, hand: Hand, auditor: psycopg.Connection[DictRow]
) -> None:
    await hand.hold(await hand.claim_one("email"))
    (row, *_) = ask(auditor, "unsent", older_than_s=0)
    assert row["why"] == "held: smtp.login, 535 who are you"


async def test_latency_tells_by_day_and_queue_how_soon_jobs_were_delivered_and_taken(
    desk: Desk, story: Story, auditor: psycopg.Connection[DictRow]
) -> None:
    """Of what dispatchers have counted: seconds that are not rolled up yet, and hours that are."""
    desk.admin.execute("delete from outbox.stat_second")
    pickups, arrivals = [0] * 17, [0] * 18
    arrivals[10], arrivals[12] = 94, 6  # up to 30 s, and up to 300
    pickups[2] = 100
    counted = (
        "insert into outbox.{} (at, lane_id, sent, pickups, arrivals)"
        " select date_trunc('hour', now()) - %s * interval '1 day', l.lane_id, 100, %s, %s"
        " from outbox.lane as l where l.queue = 'email' and l.tenant_id = 'default'"
    )
    desk.admin.execute(counted.format("stat_second").encode(), (0, pickups, arrivals))
    desk.admin.execute(counted.format("stat_hour").encode(), (1, pickups, arrivals))
    desk.admin.execute(counted.format("stat_hour").encode(), (30, pickups, arrivals))
    today, yesterday = ask(auditor, "latency")
    assert today["day"] > yesterday["day"]
    for row in (today, yesterday):
        assert (row["queue"], row["sent"]) == ("email", 100)
        assert 10 < float(row["delivered_s_p50"]) <= 30
        assert 60 < float(row["delivered_s_p95"]) <= 300
        assert 0.0025 <= float(row["waited_s_p99"]) <= 0.005
    assert ask(auditor, "latency", tenant="acme") == []


async def test_latency_is_known_of_everything_that_a_dispatcher_has_sent(
    desk: Desk, auditor: psycopg.Connection[DictRow]
) -> None:
    for _ in range(2):
        desk.enqueue()
    await drain(desk, {QUEUE: Scripted()})
    (row,) = ask(auditor, "latency")
    assert row["sent"] == 2
    assert float(row["delivered_s_p99"]) < 60


async def test_duplicates_show_what_was_sent_twice_after_a_fault(
    story: Story, auditor: psycopg.Connection[DictRow]
) -> None:
    rows = ask(auditor, "duplicates")
    assert [
        (row["job_id"], row["attempts"], row["times_sent"], row["late"], row["faults"])
        for row in rows
    ] == [
        (story.twice, 2, 2, 1, ["lease.lost"]),
        (story.welcome, 2, 1, 0, ["smtp.lost"]),
    ]
    assert rows[0]["provider_message_ids"] == ["<2@x>", "<3@x>"]


async def test_expired_shows_what_was_never_sent(
    story: Story, auditor: psycopg.Connection[DictRow]
) -> None:
    (row,) = ask(auditor, "expired")
    assert (row["job_id"], row["attempt"], row["campaign_id"]) == (story.campaign[2], 0, CAMPAIGN)
    assert row["expires_at"] < row["accepted_at"]


async def test_replays_say_by_whom_and_what_came_of_it(
    story: Story, auditor: psycopg.Connection[DictRow]
) -> None:
    rows = ask(auditor, "replays")
    assert [
        (row["replayed_by"], row["action"], row["series"], row["reason"], row["outcome"])
        for row in rows
    ] == [
        ("ann", "retry", 3, "permanent", "not over yet"),
        ("kim", "replay", 2, "permanent", "failed"),
    ]


async def test_tenants_are_counted_by_volume(
    story: Story, auditor: psycopg.Connection[DictRow]
) -> None:
    rows = ask(auditor, "tenants")
    assert [
        (row["tenant_id"], row["sent"], row["failed"], row["expired"], row["not_over"])
        for row in rows
    ] == [("default", 4, 2, 1, 3), ("acme", 1, 0, 0, 0)]
