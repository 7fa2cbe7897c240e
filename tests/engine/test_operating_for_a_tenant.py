"""What the owner's functions do for a transaction that acts for a tenant: only that one's."""

from __future__ import annotations

import psycopg
import pytest

from tests.engine.desk import QUEUE, Desk, in_s


def acting_for(desk: Desk, tenant: str, statement: str, *parameters: object) -> object:
    with desk.database.connect() as connection:
        connection.execute("set local role outbox_api")
        connection.execute("select set_config('outbox.tenant', %s, true)", (tenant,))
        row = connection.execute(statement.encode(), parameters).fetchone()
        return None if row is None else row[0]


@pytest.mark.parametrize(
    ("statement", "refused", "allowed"),
    [
        ("select result from outbox.cancel_jobs(array[%s::bigint], 'x')", "ended", "cancelled"),
        ("select outbox.promote_job(%s, 'x')", "ended", "promoted"),
    ],
)
def test_another_tenant_s_job_is_as_good_as_none(
    desk: Desk, statement: str, refused: str, allowed: str
) -> None:
    desk.enqueue(tenant="mine", send_after=in_s(600))
    (entry,) = desk.rows("select id from outbox.entry")
    assert acting_for(desk, "other", statement, *entry) == refused
    assert acting_for(desk, "mine", statement, *entry) == allowed


def test_another_tenant_s_failed_job_is_not_retried(desk: Desk) -> None:
    desk.enqueue(tenant="mine")
    (entry,) = desk.rows("select id from outbox.entry")
    desk.admin.execute("delete from outbox.entry")
    desk.admin.execute(
        "insert into outbox.delivery"
        " (id, finished_at, lease_no, series, attempt, terminal, status, tenant_id)"
        " values (%s, now(), 1, 1, 1, true, 'FAILED', 'mine')",
        entry,
    )
    assert acting_for(desk, "other", "select outbox.retry_job(%s, 'x')", *entry) == "not failed"
    assert acting_for(desk, "mine", "select outbox.retry_job(%s, 'x')", *entry) == "retried"


def test_a_tenant_pauses_its_own_lane_and_neither_another_s_nor_the_queue(desk: Desk) -> None:
    pause = "select outbox.set_paused(%s, %s, true, 'x')"
    assert acting_for(desk, "mine", pause, QUEUE, "mine")
    for tenant in ("other", None):
        with pytest.raises(psycopg.Error) as caught:
            acting_for(desk, "mine", pause, QUEUE, tenant)
        assert caught.value.sqlstate == "OBX03"
    assert acting_for(desk, "*", pause, QUEUE, None)


def test_a_tenant_cannot_erase_another_s_recipient(desk: Desk) -> None:
    with pytest.raises(psycopg.Error) as caught:
        acting_for(desk, "mine", "select outbox.erase_recipient('other', 'u', 'x')")
    assert caught.value.sqlstate == "OBX03"
