"""A page of jobs reads about what it shows, whoever asks and whatever is kept."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from outbox.store import jobs
from outbox.store.jobs import JobFilter
from tests.counters.watch import Watch, watching
from tests.postgres import Database, Databases

DAYS, JOBS_A_DAY, SHOWN = 12, 2_000, 20
PAGES_MAX = 500
"""What it may read, in the database's pages: a job costs a dozen, a probe of each day a few."""

SEED = f"""
with placed as materialized (
    select n, d, outbox.id_floor(((now() at time zone 'utc')::date - d)::timestamp at time zone 'utc') + n as id,
           gen_random_uuid() as job_id, case when n % 20 = 1 then 'acme' else 'default' end as tenant_id,
           case when n % 100 = 1 then 'FAILED' when n % 500 = 21 then 'EXPIRED' else 'SENT' end as status
    from generate_series(1, {JOBS_A_DAY}) as n, generate_series(1, {DAYS}) as d
), jobs as (
    insert into outbox.job (id, job_id, created_at, lane_id, priority, tenant_id, queue, template_code,
        user_id, campaign_id, job)
    select p.id, p.job_id, now(), outbox.lane_of(p.tenant_id, case when p.n % 3 = 0 then 'bulk' else 'work' end),
           1, p.tenant_id, case when p.n % 3 = 0 then 'bulk' else 'work' end,
           case when p.d = {DAYS - 1} and p.n = 5 then 'rare' else 'usual' end,
           'user-' || p.n % 500, case when p.n % 2 = 1 then 'large' end, '{{}}'
    from placed as p
), waiting as (
    insert into outbox.entry (id, available_at, lane_id, priority, waits)
    select p.id, now() + case when p.n % 3 = 1 then interval '1 hour' else '0' end,
           outbox.lane_of(p.tenant_id, 'work'), 1, 0
    from placed as p where p.d = 1 and p.n % 3 > 0
)
insert into outbox.delivery (id, started_at, finished_at, lease_no, series, attempt, terminal,
    status, tenant_id)
select p.id, now(), now(), 1, 1, 1, true, p.status, p.tenant_id
from placed as p where p.d > 1 or p.n % 3 = 0
"""  # noqa: E501  # a column a line


@pytest.fixture(scope="module")
def kept(databases: Databases) -> Iterator[Database]:
    """Yield a database with twelve days of history, and jobs that wait."""
    with databases.clone() as database, database.admin_connect(autocommit=True) as admin:
        for age in range(DAYS, 0, -1):
            admin.execute(
                "select outbox.make_partitions(1, now() - make_interval(days => %s))", (age,)
            )
        admin.execute(SEED.encode())
        admin.execute("vacuum analyze")
        yield database


@pytest.fixture
async def api(kept: Database) -> AsyncIterator[Watch]:
    async with watching(kept, "outbox_api") as watch:
        yield watch


async def as_tenant(api: Watch, tenant: str) -> None:
    await api.connection.execute("select set_config('outbox.tenant', %s, false)", (tenant,))
    api.take()


@pytest.mark.parametrize("tenant", ["*", "acme"])
@pytest.mark.parametrize(
    "wanted",
    [
        JobFilter(),
        JobFilter(status="sent", queue="bulk"),
        JobFilter(status="failed"),
        JobFilter(status="expired"),
        JobFilter(status="pending"),
        JobFilter(status="scheduled", queue="work"),
        JobFilter(campaign_id="large"),
        JobFilter(user_id="user-41"),
        JobFilter(template_code="usual"),
    ],
    ids=repr,
)
async def test_a_page_reads_about_what_it_shows(
    api: Watch, wanted: JobFilter, tenant: str
) -> None:
    await as_tenant(api, tenant)
    rows, before = await jobs.page(api.connection, wanted, before=None, limit=SHOWN)
    assert 0 < len(rows) <= SHOWN
    assert tenant in ("*", *{row.tenant_id for row in rows})
    assert [row.id for row in rows] == sorted((row.id for row in rows), reverse=True)
    (listed,) = (seen for seen in api.take() if "last_error_class" in seen.text)
    assert listed.buffers <= PAGES_MAX, (listed.buffers, len(rows), before)


@pytest.mark.parametrize("status", [None, "sent"])
async def test_what_few_jobs_are_is_looked_for_some_days_at_a_time_and_found(
    api: Watch, status: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "LOOKED_THROUGH_MAX", 3 * JOBS_A_DAY)
    wanted = JobFilter(template_code="rare", status=status)
    await as_tenant(api, "*")
    found: list[jobs.JobRow] = []
    before, pages = None, 0
    while pages == 0 or before is not None:
        page = await jobs.page(api.connection, wanted, before=before, limit=SHOWN)
        found, before, pages = found + page.rows, page.before, pages + 1
        (listed,) = (seen for seen in api.take() if "last_error_class" in seen.text)
        read = sum(n.rows_read for n in listed.nodes() if (n.table or "").startswith("job_2"))
        assert read <= 3 * JOBS_A_DAY
    assert [row.template_code for row in found] == ["rare"]
    assert 4 <= pages <= 5  # of three days; one day more has a partition


@pytest.mark.parametrize("status", [None, "failed", "expired", "sent"])
async def test_pages_of_a_tenant_join_up_to_all_that_it_has(
    kept: Database, api: Watch, status: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "LOOKED_THROUGH_MAX", 1)
    await as_tenant(api, "acme")
    ids: list[int] = []
    before: int | None = None
    wanted = JobFilter(tenant_id="acme", status=status)
    while True:
        page = await jobs.page(api.connection, wanted, before=before, limit=90)
        ids += [row.id for row in page.rows]
        before = page.before
        if before is None:
            break
    with kept.admin_connect() as admin:
        all_ids = admin.execute(
            "select id from outbox.notification where tenant_id = 'acme'"
            " and (%(status)s::text is null or status = %(status)s) order by id desc",
            {"status": status},
        ).fetchall()
    assert ids == [row[0] for row in all_ids] != []


async def test_without_older_days_a_page_that_is_not_full_is_the_last(api: Watch) -> None:
    await as_tenant(api, "*")
    rows, before = await jobs.page(
        api.connection, JobFilter(template_code="rare"), before=None, limit=SHOWN
    )
    assert (len(rows), before) == (1, None)
