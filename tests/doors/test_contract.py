"""The contract's cases at the Python and SQL doors: the same job, the same pointers."""

from __future__ import annotations

import json
from uuid import UUID

import psycopg
import pytest
from psycopg.rows import TupleRow, dict_row

import outbox
from tests.contract_cases import CASES, Case

Connection = psycopg.Connection[TupleRow]


def at_python(connection: Connection, case: Case) -> tuple[frozenset[str] | None, UUID | None]:
    job = case.job
    assert isinstance(job, dict | str)
    if case.pointers is not None:
        with pytest.raises(outbox.InvalidJob) as refused:
            outbox.enqueue(connection, job)
        assert all(fault.message for fault in refused.value.faults)
        return frozenset(fault.pointer for fault in refused.value.faults), None
    result = outbox.enqueue(connection, job)
    assert result.status in ("pending", "scheduled", "expired")
    return None, result.job_id


def at_sql(connection: Connection, case: Case) -> tuple[frozenset[str] | None, UUID | None]:
    statement = "select job_id, duplicate from outbox.enqueue(job => %s::text::jsonb)"
    if case.pointers is not None:
        with pytest.raises(psycopg.Error) as refused:
            connection.execute(statement, (case.text,))
        said = refused.value.diag
        assert said.sqlstate == "OBX01"
        assert said.message_detail is not None
        faults = json.loads(said.message_detail)
        assert {fault["index"] for fault in faults} == {0}
        return frozenset(fault["pointer"] for fault in faults), None
    row = connection.execute(statement, (case.text,)).fetchone()
    assert row is not None
    assert row[1] is False
    return None, row[0]


def check_kept(connection: Connection, case: Case, job_id: UUID | None) -> None:
    cursor = connection.cursor(row_factory=dict_row)
    row = cursor.execute("select * from outbox.job where job_id = %s", (job_id,)).fetchone()
    if row is not None:  # a list's own id has no job
        assert {name: row[name] for name in case.kept} == case.kept


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_python_door_tells_a_job_what_the_contract_says(
    connection: Connection, case: Case
) -> None:
    pointers, job_id = at_python(connection, case)
    assert pointers == case.pointers
    if pointers is None:
        check_kept(connection, case, job_id)


@pytest.mark.parametrize("case", [c for c in CASES if c.at_sql], ids=lambda case: case.name)
def test_the_sql_door_tells_a_job_what_the_contract_says(
    connection: Connection, case: Case
) -> None:
    pointers, job_id = at_sql(connection, case)
    assert pointers == case.pointers
    if pointers is None:
        check_kept(connection, case, job_id)


@pytest.mark.parametrize(
    "case",
    # Of numbers, Postgres takes more than we let through: 131,072 digits.
    [c for c in CASES if not c.at_sql and not c.name.startswith("the number")],
    ids=lambda case: case.name,
)
def test_what_postgres_takes_for_no_jsonb_ends_in_an_error_of_its_own(
    connection: Connection, case: Case
) -> None:
    with pytest.raises(psycopg.DataError):
        connection.execute("select outbox.enqueue(job => %s::text::jsonb)", (case.text,))


def test_the_faults_of_a_batch_name_the_index_of_their_job(connection: Connection) -> None:
    good = next(case for case in CASES if case.pointers is None and isinstance(case.job, dict))
    bad = [case for case in CASES if case.pointers and isinstance(case.job, dict) and case.at_sql]
    jobs = [job for case in bad for job in (good.job, case.job)]
    with pytest.raises(outbox.InvalidJob) as refused:
        outbox.enqueue_many(connection, jobs)  # type: ignore[arg-type]
    wanted = {
        f"/{2 * n + 1}{pointer}" for n, case in enumerate(bad) for pointer in case.pointers or ()
    }
    assert {fault.pointer for fault in refused.value.faults} == wanted


def test_texts_and_values_are_the_same_job_whatever_they_are_written_as(
    connection: Connection,
) -> None:
    for case in CASES:
        if case.pointers is None and isinstance(case.job, dict):
            job = {**case.job, "job_id": str(outbox.uuid7())}
            first = outbox.enqueue(connection, job)
            assert not first.duplicate, case.name
            assert outbox.enqueue(connection, json.dumps(job)).duplicate, case.name
            assert outbox.enqueue(connection, json.dumps(job).encode()).duplicate, case.name
