"""The view that autoscalers ask."""

from __future__ import annotations

import psycopg
import pytest

from tests.postgres import Connection, Database

ENQUEUE = (
    "select outbox.enqueue(jsonb_build_object('channel', 'inbox', 'user_id', 'ann',"
    " 'content', 'x', 'created_at', now(), 'meta', '{}'::jsonb, 'data', '{}'::jsonb))"
)


def backlog(connection: Connection) -> dict[str, float]:
    return dict(
        connection.execute("select queue, oldest_due_s from outbox.queue_backlog").fetchall()
    )


def test_the_backlog_is_the_age_of_the_oldest_job_that_a_dispatcher_could_take(
    database: Database,
) -> None:
    with database.admin_connect(autocommit=True) as admin:
        admin.execute("insert into outbox.handler (kind, name) values ('channel', 'inbox')"
                      " on conflict do nothing")  # fmt: skip
        assert backlog(admin) == {}
        admin.execute(ENQUEUE)
        admin.execute(
            "update outbox.entry set available_at = clock_timestamp() - interval '100 s'"
        )
        admin.execute(ENQUEUE)
        assert backlog(admin)["inbox"] == pytest.approx(100, abs=5)
        admin.execute("update outbox.lane set paused_at = clock_timestamp()")
        assert backlog(admin) == {}
        admin.execute("update outbox.lane set paused_at = null")
        admin.execute("update outbox.entry set claimed_by = 1")
        assert backlog(admin) == {}


def test_the_scaler_s_role_reads_the_backlog_and_nothing_else(database: Database) -> None:
    with database.admin_connect(autocommit=True) as admin:
        admin.execute("set role outbox_scaler")
        assert backlog(admin) == {}
        for table in ("entry", "job", "lane", "notification", "queue_now", "setting"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                admin.execute(f"select from outbox.{table}")
