"""A hundred thousand followers behind one failing head cost the others nothing.

Pages are counted, not seconds: a claim, a poll and a record read as many with the followers as
without them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from outbox.message import Epoch
from outbox.store.engine import CRASHES_MAX
from outbox_sql import query
from tests.engine.desk import QUEUE, Desk
from tests.postgres import Databases

FOLLOWERS = 100_000
OTHERS = 2_000
ROOM = 100
PAGES_MORE_MAX = 12
"""For a deeper index."""

SEED = """
with lane as (select outbox.lane_of('default', %(queue)s) as lane_id), jobs as (
    insert into outbox.job (id, job_id, created_at, lane_id, priority, tenant_id, queue, job)
    select n, gen_random_uuid(), now(), lane_id, 1, 'default', %(queue)s,
           jsonb_build_object('queue', %(queue)s::text, 'payload', '{}'::jsonb)
    from lane, (select outbox.next_id() as n from generate_series(1, %(jobs)s) offset 0) as ids
    returning id, lane_id
)
insert into outbox.entry (id, available_at, lane_id, priority, ordering_id, place)
select id, now() - interval '1 minute', case when %(key)s::bigint is null then lane_id
                                             when nth = 1 then lane_id else -lane_id end,
       1, %(key)s, case when %(key)s::bigint is not null then nextval('outbox.place_seq') end
from (select id, lane_id, row_number() over (order by id) as nth from jobs) as j
"""


@pytest.fixture(scope="module")
def desk(databases: Databases) -> Iterator[Desk]:
    with databases.clone() as database:
        desk = Desk(database)
        desk.admin.execute(SEED, {"queue": QUEUE, "jobs": OTHERS, "key": None})
        desk.admin.execute("vacuum analyze outbox.entry, outbox.job")
        yield desk
        desk.close()


def pages(desk: Desk, statement: str, parameters: dict[str, Any]) -> int:
    """Return how many pages a statement reads; what it does is rolled back."""
    with desk.database.admin_connect() as connection:
        cursor = psycopg.ClientCursor(connection)
        explain = "explain (analyze, buffers, format json) " + statement
        for _ in range(2):  # the first one warms the catalog's caches
            # What was rolled back would fill the pages, where the server's own ANALYZE keeps them
            # from being pruned, and the update would move to other pages.
            desk.admin.execute("vacuum outbox.entry")
            cursor.execute(explain.encode(), parameters)
            ((found,),) = cursor.fetchall()
            connection.rollback()
    plan = (json.loads(found) if isinstance(found, str) else found)[0]["Plan"]
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


def claim_pages(desk: Desk) -> int:
    floors = {
        f"{name}_{part}": [bottom]
        for name in ("urgent", "high", "normal", "low")
        for part, bottom in (("at", "-infinity"), ("id", 0))
    }
    asked = {"lane_ids": [desk.lane()], "rooms": [ROOM], "epoch": Epoch(11), "lease_s": 60.0}
    return pages(desk, query("claim"), {**asked, **floors, "crashes_max": CRASHES_MAX})


def test_followers_cost_claims_polls_and_the_end_of_their_head_nothing(desk: Desk) -> None:
    before = claim_pages(desk), pages(desk, query("next_due"), {})
    desk.admin.execute(
        "insert into outbox.ordering (tenant_id, queue, key_sha256)"
        " values ('default', 'work', 'a')"
    )
    key = desk.value("select ordering_id from outbox.ordering")
    desk.admin.execute(SEED, {"queue": QUEUE, "jobs": FOLLOWERS, "key": key})
    desk.admin.execute("vacuum analyze outbox.entry, outbox.job")
    assert desk.value("select count(*) from outbox.entry where lane_id < 0") == FOLLOWERS - 1
    desk.admin.execute(
        "update outbox.entry set available_at = now() + interval '1 hour', waits = 1"
        " where ordering_id is not null and lane_id > 0"
    )
    after = claim_pages(desk), pages(desk, query("next_due"), {})
    assert after[0] <= before[0] + ROOM + PAGES_MORE_MAX, "the primary key has one level more"
    assert after[1] <= before[1] + PAGES_MORE_MAX
    head = desk.value("select min(place) from outbox.entry where ordering_id = %s", key)
    ended = pages(desk, "select outbox.pass_on(%(key)s, %(place)s)", {"key": key, "place": head})
    assert ended <= 60
