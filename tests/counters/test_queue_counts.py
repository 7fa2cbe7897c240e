"""What is shown of queues costs the same however many jobs wait, and says where it is no count."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from outbox.store import queues
from outbox.store.pool import EVERY_TENANT
from outbox.store.pool import Database as Pool
from tests.api.conftest import running_api
from tests.counters.conftest import BACKLOG
from tests.counters.watch import watching
from tests.engine.desk import Desk
from tests.postgres import Connection, Database, Databases

EXACT_MAX, PAGES_MAX = 500, 60
"""The bounds that most tests set: a sixtieth of their backlog."""
COUNTS = """
select queue, waiting, active, delayed, oldest_at, estimated
from outbox.queue_counts(%s, %s, %s, %s, %s) order by queue
"""
# Exact, and as dear as the backlog is deep.
TRUTH = """
select queue, sum(waiting), sum(active), sum(delayed), min(oldest_waiting_at)
from outbox.queue_now
where (%(queue)s::text is null or queue = %(queue)s)
  and (%(tenant)s::text is null or tenant_id = %(tenant)s)
group by queue order by queue
"""
DRAWN = """
insert into outbox.entry (id, available_at, lane_id, priority, waits, claimed_by)
select outbox.id_floor(now() - interval '1 hour') + coalesce((select count(*) from outbox.entry), 0) + n,
       case when n %% 10 = 0 then now() + n * interval '1 s' else now() - n * interval '1 ms' end,
       (array[1, 1, 1, -1])[1 + n %% 4] * outbox.lane_of('tenant-' || n %% 20, queue),
       (array[0, 1, 1, 5, 10, 1])[1 + n %% 6], 0, case when n %% nullif(%(claimed_every)s, 0) = 1 and n %% 10 > 0 then 7 end
from generate_series(1, %(jobs)s) as n
cross join lateral (select case when n %% 500 = 3 then 'rare' when n > %(jobs)s * 0.8 then 'burst' else 'work' end) as q(queue)
"""  # noqa: E501  # a column a line
CLAIMED_IN_FRONT = """
update outbox.entry set claimed_by = 7 where id in (
    select e.id from outbox.lane as l cross join lateral (
        select id from outbox.entry where lane_id = l.lane_id and priority = 1
        order by available_at, id limit 5) as e
    where l.queue = 'work')
"""


def add(connection: Connection, jobs: int, *, claimed_every: int = 0) -> None:
    connection.execute(DRAWN.encode(), {"jobs": jobs, "claimed_every": claimed_every})


@pytest.fixture(scope="module")
def deep(databases: Databases) -> Iterator[Database]:
    """Yield a database in which 30,000 jobs wait, a tenth of them for later."""
    with databases.clone() as database, database.admin_connect(autocommit=True) as admin:
        admin.execute("alter table outbox.entry set (autovacuum_enabled = false)")
        add(admin, 30_000)
        yield database


@pytest.fixture(scope="module")
def mixed(databases: Databases) -> Iterator[Connection]:
    """Yield a small store of jobs in all states, with pages that are not alike."""
    with databases.clone() as database, database.admin_connect(autocommit=True) as admin:
        add(admin, 2_000, claimed_every=7)
        admin.execute("delete from outbox.entry where id % 3 = 0")
        yield admin


@pytest.mark.parametrize("exact_max", [0, 3, 1_000_000])
@pytest.mark.parametrize("pages_max", [0, 5, 1_000_000])
@pytest.mark.parametrize(
    ("queue", "tenant"), [(None, None), ("work", None), (None, "tenant-3"), ("work", "tenant-3")]
)
def test_figures_are_exact_or_say_that_they_are_not(
    mixed: Connection, exact_max: int, pages_max: int, queue: str | None, tenant: str | None
) -> None:
    found = mixed.execute(COUNTS, (queue, tenant, True, exact_max, pages_max)).fetchall()
    truth = mixed.execute(TRUTH, {"queue": queue, "tenant": tenant}).fetchall()
    found = [row for row in found if any(row[1:4])]
    assert [row[0] for row in found] == [row[0] for row in truth]
    for (name, *counts, oldest_at, estimated), (_, *true, true_oldest_at) in zip(
        found, truth, strict=True
    ):
        assert oldest_at == true_oldest_at, name
        for figure, count, exact in zip(
            ("waiting", "active", "delayed"), counts, true, strict=True
        ):
            if figure in estimated:
                assert exact_max < exact or figure == "active"
                assert count >= min(exact, exact_max) or figure == "active"
            else:
                assert count == exact, (name, figure)
    if exact_max == pages_max == 0:
        assert all("waiting" in row[5] for row in found)
    if max(exact_max, pages_max) == 1_000_000:
        assert all(row[5] == [] for row in found)


async def test_looking_at_queues_costs_no_more_when_seven_times_as_much_waits(
    deep: Database,
) -> None:
    bounds = True, EXACT_MAX, PAGES_MAX
    asked: list[tuple[str | None, str | None]] = [(None, None), ("work", None), (None, "tenant-3")]
    before: dict[object, int] = {}
    after: dict[object, int] = {}
    async with watching(deep, "outbox_api") as api:
        await api.connection.execute("select set_config('outbox.tenant', '*', false)")
        for which in asked:  # catalogues and plans
            await api.connection.execute(COUNTS, (*which, *bounds))
        with deep.admin_connect(autocommit=True) as admin:
            for buffers in (before, after):
                for which in asked:
                    api.take()
                    await api.connection.execute(COUNTS, (*which, *bounds))
                    buffers[which] = api.take()[-1].buffers
                if buffers is before:
                    add(admin, 180_000)
    # Of each of three queues so many due and so many ahead, each by its page and some of an index;
    # the sample; and a few pages a lane and priority.
    most = 3 * 2 * 2 * EXACT_MAX + PAGES_MAX + 2_000
    assert max(*before.values(), *after.values()) < most, (before, after)
    for which in asked[:2]:  # of the tenant there was less than the bounds
        assert after[which] < 1.3 * before[which], (before, after)


def test_an_estimate_is_near_what_is_there_and_what_runs_is_counted(deep: Database) -> None:
    with deep.admin_connect(autocommit=True) as admin:
        admin.execute(CLAIMED_IN_FRONT)
        found = admin.execute(COUNTS, (None, None, True, EXACT_MAX, 100)).fetchall()
        truth = admin.execute(TRUTH, {"queue": None, "tenant": None}).fetchall()
    assert ["waiting" in row[5] for row in found] == [True, False, True]
    for (name, *counts, _, _), (_, *true, _) in zip(found, truth, strict=True):
        waiting, active, delayed = counts
        assert waiting == pytest.approx(int(true[0]), rel=0.1), name
        assert active == true[1], name
        assert delayed == pytest.approx(int(true[2]), rel=0.1), name


async def test_under_an_old_snapshot_a_look_can_do_without_the_dead_rows(
    databases: Databases,
) -> None:
    with (
        databases.clone() as database,
        database.admin_connect(autocommit=True) as admin,
        database.admin_connect() as old,
    ):
        admin.execute("alter table outbox.entry set (autovacuum_enabled = false)")
        add(admin, 40_000)
        old.execute("set transaction isolation level repeatable read")
        old.execute("select from outbox.lane")
        admin.execute("delete from outbox.entry where available_at < now() and ctid >= '(300,0)'")
        add(admin, 2_000)
        truth = admin.execute(TRUTH, {"queue": None, "tenant": None}).fetchall()
        async with watching(database, "outbox_dispatcher") as dispatcher:
            buffers = {}
            for walk in (True, False, True, False):
                cursor = await dispatcher.connection.execute(
                    COUNTS, (None, None, walk, EXACT_MAX, 2 * PAGES_MAX)
                )
                found = [row for row in await cursor.fetchall() if any(row[1:4])]
                buffers[walk] = dispatcher.take()[-1].buffers
    assert buffers[True] > 20_000  # or there was nothing to do without
    assert buffers[False] < 2 * PAGES_MAX + 200
    for (name, waiting, _, delayed, oldest_at, estimated), (_, *true, true_oldest_at) in zip(
        found, truth, strict=True
    ):
        assert estimated == ["waiting", "active", "delayed", "oldest_waiting_s"]
        if name != "rare":
            assert waiting == pytest.approx(int(true[0]), rel=0.3)
            assert delayed == pytest.approx(int(true[2]), rel=0.3)
            assert abs(oldest_at - true_oldest_at).total_seconds() < 1


async def test_a_look_that_takes_too_long_becomes_an_estimate_and_the_transaction_goes_on(
    backlog: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        Pool(backlog.database.url) as pool,
        pool.transaction(EVERY_TENANT, read_only=True) as connection,
    ):
        monkeypatch.setattr(queues, "_given_up", {})
        counted = await queues.stats(connection, tenant=None)
        monkeypatch.setattr(queues, "LOOK_MS_MAX", 1)
        estimated = await queues.stats(connection, tenant=None)
        monkeypatch.setattr(queues, "LOOK_MS_MAX", 5_000)
        again = await queues.stats(connection, tenant=None)
        monkeypatch.setattr(queues, "_given_up", {})
        last = await queues.stats(connection, tenant=None)
        limit = await (await connection.execute("show statement_timeout")).fetchone()
    for rows, in_full in ((counted, True), (estimated, False), (again, False), (last, True)):
        exact = {"oldest_waiting_s" not in row.estimated for row in rows if row.waiting}
        assert exact == {in_full}
    assert limit == ("5s",)


async def test_whoever_looks_sees_which_figures_are_estimates(backlog: Desk) -> None:
    due, ahead = backlog.rows(
        "select count(*) filter (where available_at <= now()),"
        " count(*) filter (where available_at > now()) from outbox.entry"
    )[0]
    assert due + ahead == BACKLOG
    async with running_api(backlog.database.url, auth=False, queue_depth_max=50_000) as client:
        stats = (await client.get("/api/v1/queues/work/stats")).json()
        assert stats["estimated"] == ["waiting", "active", "delayed"]
        assert stats["waiting"] == pytest.approx(due, rel=0.05)
        assert stats["delayed"] == pytest.approx(ahead, rel=0.2)
        health = (await client.get("/monitoring/queues/health")).json()
        assert health["work"]["metrics"]["estimated"] == ["waiting", "active", "delayed"]
        assert "estimated" not in health["email"]["metrics"]
        for path in ("/", "/queues/work"):
            page = (await client.get(path, headers={"accept": "text/html"})).text
            assert len(re.findall(r"≈ [0-9\u202f]{5,}", page)) == 2
        refused = await client.post("/api/v1/jobs", json={"queue": "work", "payload": {}})
        assert refused.status_code == 429
        assert "has about " in refused.json()["detail"]
