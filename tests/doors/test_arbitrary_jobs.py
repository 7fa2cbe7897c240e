"""Whatever JSON a producer sends: it is accepted, or told what is wrong. Nothing else happens."""

from __future__ import annotations

import json
from collections.abc import Iterator

import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from psycopg.rows import TupleRow

import outbox
from tests.contract_cases import Job, addressed, job, queued, webhook
from tests.postgres import Database

Connection = psycopg.Connection[TupleRow]

STATEMENT_MS_MAX = 5_000
FIELDS = (
    "job_id user_id channel template_code locale data meta created_at send_after expires_at to"
    " subject content queue tenant_id idempotency_key category ordering_key dedup_key"
    " dedup_window_s dedup_policy max_attempts timeout_s headers attachments payload endpoint"
    " unknown"
).split()
META = ("event_type", "event_id", "campaign_id", "priority")

storable = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)
numbers = (
    st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from([0, 1, 10, 100, 101, 1e308, -1e308, 5e-324, 10**400])
)
near_misses = st.sampled_from(
    "2025-11-14T12:35:10Z 2025-02-29T00:00:00Z 9999-12-31T23:59:60Z 0002-01-01T00:00:00+15:59"
    " 0194d7c0-3c7b-7d2d-8b58-9193f6ac0242 a@b.com https://a.b/ email inbox webhook media-sync"
    " thumbnails welcome_email urgent default * ru infinity epoch null {} [] 1.0 1e0".split()
)
scalars = st.none() | st.booleans() | numbers | storable | near_misses
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=5) | st.dictionaries(storable | near_misses, inner, max_size=5)
    ),
    max_leaves=15,
)
changes = st.dictionaries(st.sampled_from(FIELDS), values, max_size=6)
bases = st.sampled_from([job(), addressed(), webhook(), queued(), {}])


@pytest.fixture
def bounded(doors: Database) -> Iterator[Connection]:
    """A connection on which no statement may take long."""
    with doors.connect() as connection:
        connection.execute(f"set statement_timeout = {STATEMENT_MS_MAX}")
        yield connection
        connection.rollback()


arbitrary = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=300
)


def answer(connection: Connection, wanted: Job | str) -> bool:
    """Return whether it was accepted; any other error than a refusal is the test's."""
    try:
        with connection.transaction():
            outbox.enqueue(connection, wanted)
    except outbox.InvalidJob as refused:
        return not all(fault.message for fault in refused.faults)
    return True


@arbitrary
@given(base=bases, changed=changes, members=st.dictionaries(st.sampled_from(META), values))
@example(base=job(), changed={"max_attempts": 1.0}, members={})
@example(base=job(), changed={"timeout_s": 10**400}, members={})
@example(base=job(), changed={"created_at": "9999-12-31T23:59:59.9999999Z"}, members={})
@example(base=queued(), changed={"queue": "media-sync", "payload": {"priority": 1.0}}, members={})
def test_any_value_in_any_field_is_accepted_or_refused(
    bounded: Connection, base: Job, changed: Job, members: Job
) -> None:
    wanted = {**base, **changed}
    if members:
        wanted["meta"] = members
    if answer(bounded, wanted) and wanted.get("job_id") is not None:
        assert outbox.enqueue(bounded, json.dumps(wanted)).duplicate


@arbitrary
@given(value=values)
def test_any_value_at_all_is_accepted_or_refused(bounded: Connection, value: object) -> None:
    answer(bounded, json.dumps(value))


@arbitrary
@given(text=st.text(max_size=60) | st.binary(max_size=60))
@example(text='{"a": 1e999999999999999999999}')
@example(text="[" * 100_000)
@example(text='{"data":' + '{"a":' * 50_000)
@example(text='{"data":' + '{"a":' * 5_000 + "1" + "}" * 5_001)
@example(text=b"\xef\xbb\xbf{}")
@example(text='"\ud800"')
def test_any_text_at_all_is_accepted_or_refused(bounded: Connection, text: str | bytes) -> None:
    with pytest.raises(outbox.InvalidJob), bounded.transaction():
        outbox.enqueue(bounded, text)


@arbitrary
@given(
    value=st.recursive(
        scalars
        | st.text()
        | st.floats()
        | st.decimals()
        | st.uuids()
        | st.datetimes()
        | st.binary()
        | st.dates()
        | st.complex_numbers()
        | st.just(object()),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.tuples(inner)
            | st.sets(st.integers())
            | st.dictionaries(st.text() | st.integers() | st.none(), inner, max_size=4)
        ),
        max_leaves=10,
    )
)
def test_any_python_value_is_accepted_or_refused(bounded: Connection, value: object) -> None:
    answer(bounded, job(data={"value": value}))


@pytest.mark.parametrize(
    "heavy",
    [
        job(data={"a": [[]] * 60_000}),
        job(data={f"{n:x}": n for n in range(20_000)}),
        job(user_id="u" * 250_000),
        job(created_at="2025-" * 50_000),
        job(job_id="-" * 250_000),
        job(locale="a" * 250_000),
        addressed(to="a@" * 100_000),
        addressed(to=[f"u{n}@example.com" for n in range(10_000)]),
        webhook(headers={f"h{n}": "x" * 100 for n in range(2_000)}),
        job(attachments=[{"url": "https://a.b/", **{f"{n:x}": n for n in range(900)}}] * 20),
        {f"{n:x}": n for n in range(20_000)},
    ],
    ids=lambda heavy: max(heavy, key=lambda name: len(str(heavy[name]))),
)
def test_what_is_large_is_answered_in_bounded_time(bounded: Connection, heavy: Job) -> None:
    answer(bounded, heavy)


def test_ten_thousand_hopeless_jobs_are_answered_with_a_bounded_list(bounded: Connection) -> None:
    bounded.execute(f"set statement_timeout = {3 * STATEMENT_MS_MAX}")
    with pytest.raises(outbox.InvalidJob) as refused:
        outbox.enqueue_many(bounded, [{f"x{n}": n for n in range(50)}] * 10_000)
    assert len(refused.value.faults) == 1000


def test_a_batch_has_at_most_10_000_jobs(bounded: Connection) -> None:
    with pytest.raises(outbox.InvalidJob, match="at most 10000 jobs") as refused:
        outbox.enqueue_many(bounded, [queued()] * 10_001)
    assert [fault.pointer for fault in refused.value.faults] == [""]


def test_a_batch_has_at_most_32_mib(bounded: Connection) -> None:
    with pytest.raises(outbox.InvalidJob, match="at most 32 MiB"):
        outbox.enqueue_many(bounded, [queued(payload={"a": "x" * 250_000})] * 140)
    with pytest.raises(psycopg.Error, match="at most 32 MiB"), bounded.transaction():
        bounded.execute(
            "select outbox.enqueue_many(array(select jsonb_build_object('queue', 'thumbnails',"
            " 'payload', jsonb_build_object('a', repeat('x', 250000)))"
            " from generate_series(1, 140)))"
        )


def test_a_job_that_holds_itself_is_refused(bounded: Connection) -> None:
    data: Job = {}
    data["again"] = data
    with pytest.raises(outbox.InvalidJob) as refused:
        outbox.enqueue(bounded, job(data=data))
    assert [fault.pointer for fault in refused.value.faults] == ["/data"]
