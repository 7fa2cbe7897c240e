"""What the audit queries read of a large history: what they need, by its indexes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from outbox_sql.audit import load
from tests.engine.desk import Desk
from tests.postgres import Databases

JOBS = 50_000
DAYS = 10
USERS = 1_000
WAITING = 4_999
"""Every so many-th job waits."""

SEED = f"""
with placed as (
    select n, outbox.id_floor((current_date + n %% {DAYS})::timestamp at time zone 'utc') + n as id
    from generate_series(1, {JOBS}) as n
), jobs as (
    insert into outbox.job (id, job_id, created_at, lane_id, priority, tenant_id, queue, channel,
        template_code, user_id, event_id, campaign_id, job)
    select id, gen_random_uuid(), now(), %(lane)s, 1, 'default', 'email', 'email',
        'welcome_email', 'user-' || n %% {USERS}, 'event-' || n / 5,
        case when n %% 100 = 7 then 'campaign' end, '{{}}'
    from placed
), waiting as (
    insert into outbox.entry (id, available_at, lane_id, priority)
    select id, now(), %(lane)s, 1 from placed where n %% {WAITING} = 0
)
insert into outbox.delivery (id, started_at, finished_at, lane_id, lease_no, series, attempt,
    terminal, status, tenant_id, recipient, recipient_hash, error_code)
select id, now(), now(), %(lane)s, 1, 1, 1, true,
    case when n %% 50 = 0 then 'FAILED' else 'SENT' end,
    'default', 'user-' || n %% {USERS}, outbox.address_hash('user-' || n %% {USERS}),
    case when n %% 50 = 0 then 'smtp.mailbox' end
from placed where n %% {WAITING} <> 0
"""


@pytest.fixture(scope="module")
def desk(databases: Databases) -> Iterator[Desk]:
    """A database with 50,000 jobs of ten days, analyzed as upkeep does; for all tests here."""
    with databases.clone() as database:
        desk = Desk(database)
        lane = desk.value("select outbox.lane_of('default', 'email')")
        desk.admin.execute(SEED, {"lane": lane})
        desk.admin.execute("analyze outbox.job, outbox.delivery, outbox.entry")
        yield desk
        desk.close()


@pytest.fixture
def auditor(desk: Desk) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(desk.database.url, autocommit=True) as connection:
        connection.execute("set role outbox_auditor")
        yield connection


def plan_of(
    auditor: psycopg.Connection[Any], name: str, **given: str
) -> tuple[int, dict[str, float], set[str]]:
    """Return the rows, the rows that were read of each table, and the tables read whole."""
    query = load(name)
    explain = f"explain (analyze, costs off, timing off, format json) {query.statement}"
    (row,) = auditor.execute(explain.encode(), query.values(given)).fetchall()
    read: dict[str, float] = {}
    whole: set[str] = set()

    def visit(node: dict[str, Any]) -> None:
        table = node.get("Relation Name")
        if table is not None and node["Actual Loops"] > 0:
            rows = node["Actual Rows"] + node.get("Rows Removed by Filter", 0)
            read[table] = read.get(table, 0) + rows * node["Actual Loops"]
            if node["Node Type"] == "Seq Scan" and rows > 0:
                whole.add(table)
        for child in node.get("Plans", []):
            visit(child)

    plan = row[0][0]["Plan"]
    visit(plan)
    return plan["Actual Rows"], read, whole


def large(tables: set[str]) -> set[str]:
    return {table for table in tables if table.startswith(("job", "delivery"))}


@pytest.mark.parametrize(
    ("name", "given", "rows"),
    [
        ("user_history", {"user_id": "user-17"}, JOBS // USERS),
        ("event_history", {"event_id": "event-77"}, 5),
        ("address_history", {"address": "USER-17"}, JOBS // USERS),
        ("campaign_summary", {"campaign_id": "campaign"}, 1),
    ],
)
def test_a_history_reads_what_it_shows_and_no_table_whole(
    auditor: psycopg.Connection[Any], name: str, given: dict[str, str], rows: int
) -> None:
    found, read, whole = plan_of(auditor, name, **given)
    assert found == rows
    assert large(whole) == set()
    jobs = JOBS // 100 if name == "campaign_summary" else rows
    # A job's row is read for its keys and for its attempts; a delivery for these, for the status
    # and for the last error.
    assert sum(n for table, n in read.items() if table.startswith("job")) <= 2 * jobs
    assert sum(n for table, n in read.items() if table.startswith("delivery")) <= 3 * jobs


def test_what_is_unsent_is_found_from_the_live_entries(auditor: psycopg.Connection[Any]) -> None:
    found, read, whole = plan_of(auditor, "unsent", older_than_s=str(-DAYS * 86_400))
    assert found == JOBS // WAITING
    assert large(whole) == set()
    assert sum(n for table, n in read.items() if table.startswith("job")) <= JOBS // WAITING


@pytest.mark.parametrize("name", ["failures", "duplicates", "expired"])
def test_a_report_reads_no_days_before_those_it_is_about(
    desk: Desk, auditor: psycopg.Connection[Any], name: str
) -> None:
    """`days` counts back from today; a negative one starts ahead, where most of the jobs lie."""
    _, read, _ = plan_of(auditor, name, days="-8")
    day = desk.value("select to_char(now() at time zone 'utc' + interval '8 days', 'YYYYMMDD')")
    days = {table.rpartition("_")[2] for table in large(set(read))}
    assert days
    assert min(days) >= day


@pytest.mark.parametrize("name", ["failures", "duplicates", "expired"])
def test_a_report_of_what_went_wrong_does_not_read_what_went_well(
    auditor: psycopg.Connection[Any], name: str
) -> None:
    _, read, whole = plan_of(auditor, name)
    assert large(whole) == set()
    assert sum(n for table, n in read.items() if table.startswith("delivery")) <= JOBS // 50
    assert not any(table.startswith("job") for table in read)


@pytest.mark.parametrize("name", ["latency", "tenants"])
def test_a_report_of_counts_reads_no_history(auditor: psycopg.Connection[Any], name: str) -> None:
    _, read, _ = plan_of(auditor, name)
    assert large(set(read)) == set()


def test_a_replay_reads_its_own_job_and_no_day_whole(
    desk: Desk, auditor: psycopg.Connection[Any]
) -> None:
    replayed = 20
    desk.admin.execute(
        "insert into outbox.operator_action (actor, action, tenant_id, id, detail)"
        " select 'kim', 'replay', 'default', d.id, '{\"series\": 2}' from outbox.delivery as d"
        " where d.status = 'FAILED' order by d.id limit %s",
        (replayed,),
    )
    desk.admin.execute("analyze outbox.operator_action")
    found, read, whole = plan_of(auditor, "replays")
    assert found == replayed
    assert large(whole) == set()
    assert sum(n for table, n in read.items() if table.startswith("job")) == replayed
    assert sum(n for table, n in read.items() if table.startswith("delivery")) <= replayed
    desk.admin.execute("delete from outbox.operator_action")


def test_one_job_s_history_reads_one_partition(
    desk: Desk, auditor: psycopg.Connection[Any]
) -> None:
    job_id, id_ = desk.rows("select job_id, id from outbox.job order by id desc limit 1")[0]
    desk.admin.execute(
        "insert into outbox.job_key (tenant_id, job_id, id, content_sha256)"
        " values ('default', %s, %s, '')",
        (job_id, id_),
    )
    found, read, whole = plan_of(auditor, "job_history", job_id=str(job_id))
    assert found > 0
    assert large(whole) == set()
    assert len(large(set(read))) <= 2
