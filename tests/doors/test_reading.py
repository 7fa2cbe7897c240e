"""The short ways of reading and storing agree with the long ones, which are the contract."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.rows import TupleRow, dict_row

import outbox
from tests.contract_cases import CASES, Job, job
from tests.doors.test_arbitrary_jobs import FIELDS, META, values
from tests.postgres import Database

Connection = psycopg.Connection[TupleRow]

# Of what a job is read into, all but what is new in each reading: the store's own id.
COLUMNS = (
    "tenant_id queue channel template_code locale user_id event_id campaign_id category priority"
    " max_attempts created_at send_after expires_at list_job_ids content_sha256 job faults"
).split()
SAME = ", ".join(f"(long.p).{c} is not distinct from (short.p).{c} as {c}" for c in COLUMNS)
BOTH = f"""
with said as (
    select clock_timestamp() as at, s as setting, %(job)s::text::jsonb as job
    from outbox.setting as s
), long as (
    select outbox.read_job(1, 1, job, 'default', false, at, setting) as p from said
), short as (
    select p from said, unnest(outbox.read_jobs(array[job], 'default', false, at, setting)) as p
)
select {SAME},
       (long.p).job_id is not distinct from (short.p).job_id or job ->> 'job_id' is null as job_id
from said, long, short"""


@pytest.fixture
def owner(doors: Database) -> Iterator[Connection]:
    """A connection that may call the functions that nobody else may."""
    with doors.admin_connect() as connection:
        connection.row_factory = dict_row  # type: ignore[assignment]
        yield connection
        connection.rollback()


def read_both_ways(owner: Connection, wanted: object) -> Iterable[str]:
    row = owner.execute(BOTH, {"job": json.dumps(wanted)}).fetchone()
    assert isinstance(row, dict)
    return [column for column, same in row.items() if not same]


@pytest.mark.parametrize(
    "case",
    [case for case in CASES if case.at_sql and not isinstance(case.job, str)],
    ids=lambda case: case.name,
)
def test_a_case_of_the_contract_is_read_the_same_both_ways(
    owner: Connection, case: object
) -> None:
    assert read_both_ways(owner, case.job) == []  # type: ignore[attr-defined]


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=400
)
@given(
    changed=st.dictionaries(st.sampled_from(FIELDS[:10]), values, max_size=2),
    members=st.dictionaries(st.sampled_from(META), values, max_size=2),
)
def test_a_notification_that_is_almost_right_is_read_the_same_both_ways(
    owner: Connection, changed: Job, members: Job
) -> None:
    base = job()["meta"]
    assert isinstance(base, dict)
    assert read_both_ways(owner, {**job(), "meta": {**base, **members}, **changed}) == []


@pytest.mark.parametrize(
    "changes",
    [{}, {"expires_at": "9999-01-01T00:00:00Z"}, {"locale": None}, {"job_id": None}],
    ids=lambda changes: next(iter(changes), "typical"),
)
@pytest.mark.parametrize("priority", ["low", "normal", "medium", "high", "urgent", None])
def test_a_job_alone_is_stored_as_it_is_in_a_batch(
    connection: Connection, changes: Job, priority: str | None
) -> None:
    base = job()["meta"]
    assert isinstance(base, dict)

    def fresh() -> Job:
        meta = {**base, "priority": priority}
        return {**job(job_id=str(outbox.uuid7())), "meta": meta, **changes}

    outbox.enqueue(connection, fresh())  # makes the lane: the short way needs one
    alone = outbox.enqueue(connection, fresh())
    first, _ = outbox.enqueue_many(connection, [fresh(), fresh()])
    rows = [
        connection.cursor(row_factory=dict_row)
        .execute(
            "select j.*, e.lane_id as place, e.priority as rank, e.expires_at as ends, e.series,"
            " e.max_attempts from outbox.job j join outbox.entry e using (id) where j.job_id = %s",
            (result.job_id,),
        )
        .fetchone()
        for result in (alone, first)
    ]
    assert rows[0] is not None
    assert rows[1] is not None
    assert (alone.status, alone.duplicate) == (first.status, first.duplicate)
    assert {k: v for k, v in rows[0].items() if k not in ("id", "job_id")} == {
        k: v for k, v in rows[1].items() if k not in ("id", "job_id")
    }


def test_a_lone_job_takes_the_short_way_once_its_lane_is_there(doors: Database) -> None:
    """Else the benchmark of single jobs would measure something else."""

    def long_ways(admin: Connection) -> object:
        counted = "select pg_stat_get_xact_function_calls('outbox.enqueue_any'::regproc)"
        return admin.execute(counted).fetchone()

    with doors.admin_connect() as admin:
        admin.execute("set track_functions = 'all'")
        outbox.enqueue(admin, job())
        before = long_ways(admin)
        outbox.enqueue(admin, job(job_id=str(outbox.uuid7())))
        assert long_ways(admin) == before
        outbox.enqueue(admin, job(job_id=str(outbox.uuid7()), category="news"))
        assert long_ways(admin) != before
        admin.rollback()
