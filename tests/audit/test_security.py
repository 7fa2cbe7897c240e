"""Who may do what: roles, row-level security, functions with their owner's rights (store.md 8)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.errors import InsufficientPrivilege

from tests.audit.hand import Hand
from tests.audit.story import tell
from tests.engine.desk import Desk
from tests.postgres import Database

AUDITOR_READS = {
    *("notification", "notification_delivery", "notification_history", "notification_replay"),
    *("notification_waiting", "notification_trouble", "notification_count"),
    "notification_backlog",
}
AUDITOR_CALLS = {
    *("address_hash", "id_of", "id_time", "id_floor", "from_priority", "live_status"),
    *("ended_status", "accepted_status", "waits_for"),
    *("quantile_s", "arrival_bounds_s", "pickup_bounds_s"),
}
PRODUCER_CALLS = {
    "enqueue",
    "enqueue_many",
    "enqueue_v1",
    "enqueue_many_v1",
    "uuid7",
    "idempotent_job_id",
}

NOT_BY_TENANT = {
    "setting": "the same for all",
    "control": "a counter",
    "handler": "what is installed here",
    "queue_pause": "whole queues",
    "dispatcher": "processes",
    "producer_tenant": "read by the owner's functions alone",
    "retiring": "days",
    "chore": "what is done for all",
    "destination": "over all tenants; told to service-wide keys alone, by functions",
    "destination_health": "the same",
    "bucket": "counters, read by functions alone",
    "lane_share": "counters, read by functions alone",
    "alembic_version": "nobody may read it",
}


@contextmanager
def acting(
    database: Database, role: str, tenant: str | None = None
) -> Iterator[psycopg.Connection[Any]]:
    """Connect as the service does, and be `role` alone."""
    with psycopg.connect(database.url, autocommit=True) as connection:
        connection.execute(sql.SQL("set role {}").format(sql.Identifier(role)))
        if tenant is not None:
            connection.execute("select set_config('outbox.tenant', %s, false)", (tenant,))
        yield connection


def readable_by(desk: Desk, role: str) -> set[str]:
    """Return the relations that the role may read at all, be it one column."""
    rows = desk.rows(
        "select c.relname from pg_class as c"
        " where c.relnamespace = 'outbox'::regnamespace and c.relkind in ('r', 'p', 'v', 'm', 'f')"
        " and has_any_column_privilege(%s, c.oid, 'select')",
        role,
    )
    return {row[0] for row in rows}


def writable_by(desk: Desk, role: str) -> set[str]:
    rows = desk.rows(
        "select c.relname from pg_class as c"
        " where c.relnamespace = 'outbox'::regnamespace and c.relkind in ('r', 'p', 'v', 'm', 'f')"
        " and (has_any_column_privilege(%(role)s, c.oid, 'insert, update')"
        "      or has_table_privilege(%(role)s, c.oid, 'delete, truncate, trigger'))".replace(
            "%(role)s", "%s"
        ),
        role,
        role,
    )
    return {row[0] for row in rows}


def callable_by(desk: Desk, role: str) -> set[str]:
    rows = desk.rows(
        "select p.proname from pg_proc as p where p.pronamespace = 'outbox'::regnamespace"
        " and has_function_privilege(%s, p.oid, 'execute')",
        role,
    )
    return {row[0] for row in rows}


def test_an_auditor_reads_the_views_and_nothing_else(desk: Desk) -> None:
    assert readable_by(desk, "outbox_auditor") == AUDITOR_READS
    assert writable_by(desk, "outbox_auditor") == set()
    assert callable_by(desk, "outbox_auditor") == AUDITOR_CALLS


def test_an_auditor_is_told_so(desk: Desk) -> None:
    with acting(desk.database, "outbox_auditor") as auditor:
        for table in ("recipient", "job", "delivery", "dead_letter", "setting", "api_key"):
            with pytest.raises(InsufficientPrivilege):
                auditor.execute(sql.SQL("select from outbox.{}").format(sql.Identifier(table)))
        with pytest.raises(InsufficientPrivilege):
            auditor.execute("select outbox.cancel_jobs(array[1::bigint], 'eve')")


def test_a_producer_may_enqueue_and_nothing_else(desk: Desk) -> None:
    assert readable_by(desk, "outbox_producer") == set()
    assert writable_by(desk, "outbox_producer") == set()
    assert callable_by(desk, "outbox_producer") == PRODUCER_CALLS


@pytest.mark.parametrize("claimed_tenant", [None, "acme", "*"])
def test_a_producer_enqueues_for_its_own_tenants_whatever_it_claims_to_be(
    desk: Desk, claimed_tenant: str | None
) -> None:
    job = json.dumps({"queue": "work", "payload": {}})
    with acting(desk.database, "outbox_producer", claimed_tenant) as producer:
        if claimed_tenant != "acme":
            producer.execute("select outbox.enqueue(%s)", (job,))
        with pytest.raises(psycopg.Error) as caught:
            producer.execute("select outbox.enqueue(%s, 'acme')", (job,))
        assert caught.value.sqlstate == "OBX03"


def test_the_roles_of_the_schema_can_neither_log_in_nor_pass_row_level_security(
    desk: Desk,
) -> None:
    rows = desk.rows(
        "select rolname, rolcanlogin, rolsuper, rolbypassrls from pg_roles"
        " where rolname in ('outbox_owner', 'outbox_producer', 'outbox_api', 'outbox_dispatcher',"
        " 'outbox_auditor') order by 1"
    )
    assert len(rows) == 5
    assert {row[1:] for row in rows} == {(False, False, False)}


def test_every_table_that_knows_tenants_forces_row_level_security(desk: Desk) -> None:
    rows = desk.rows(
        "select c.relname from pg_class as c"
        " where c.relnamespace = 'outbox'::regnamespace and c.relkind in ('r', 'p')"
        " and not c.relispartition and not (c.relrowsecurity and c.relforcerowsecurity)"
    )
    assert {row[0] for row in rows} == set(NOT_BY_TENANT)


def test_nobody_reaches_a_partition_past_its_table(desk: Desk) -> None:
    desk.admin.execute("select outbox.make_partitions(20)")
    partitions = {
        row[0]
        for row in desk.rows(
            "select relname from pg_class where relnamespace = 'outbox'::regnamespace"
            " and relkind = 'r' and relispartition"
        )
    }
    assert len(partitions) > 40
    for role in ("outbox_producer", "outbox_api", "outbox_dispatcher", "outbox_auditor"):
        assert not partitions & (readable_by(desk, role) | writable_by(desk, role)), role


def test_the_dispatcher_adds_to_history_and_never_changes_it(desk: Desk) -> None:
    for table in ("job", "delivery", "operator_action"):
        for statement in ("delete from outbox.{}", "update outbox.{} set id = id"):
            with (
                acting(desk.database, "outbox_dispatcher") as dispatcher,
                pytest.raises(InsufficientPrivilege),
            ):
                dispatcher.execute(sql.SQL(statement).format(sql.Identifier(table)))


def test_public_has_no_right_on_anything(desk: Desk) -> None:
    functions = desk.rows(
        "select p.proname from pg_proc as p,"
        " aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) as a"
        " where p.pronamespace = 'outbox'::regnamespace and a.grantee = 0"
    )
    relations = desk.rows(
        "select c.relname from pg_class as c, aclexplode(c.relacl) as a"
        " where c.relnamespace = 'outbox'::regnamespace and a.grantee = 0"
    )
    schema = desk.rows(
        "select n.nspname from pg_namespace as n, aclexplode(n.nspacl) as a"
        " where n.nspname = 'outbox' and a.grantee = 0"
    )
    assert (functions, relations, schema) == ([], [], [])


def test_what_a_migration_adds_later_is_closed_to_public_too(desk: Desk) -> None:
    desk.admin.execute("set role outbox_owner")
    desk.admin.execute("create function outbox.later() returns int language sql return 1")
    desk.admin.execute("reset role")
    assert "later" not in callable_by(desk, "outbox_producer")


def test_functions_with_their_owner_s_rights_pin_the_search_path(desk: Desk) -> None:
    rows = desk.rows(
        "select p.proname, r.rolname, p.proconfig from pg_proc as p"
        " join pg_roles as r on r.oid = p.proowner"
        " where p.pronamespace = 'outbox'::regnamespace and p.prosecdef"
    )
    assert {"enqueue_many_v1", "cancel_jobs", "erase_recipient"} <= {row[0] for row in rows}
    for name, owner, config in rows:
        assert owner == "outbox_owner", name
        assert "search_path=pg_catalog, pg_temp" in (config or []), name


def test_everything_belongs_to_the_owner_who_is_no_superuser(desk: Desk) -> None:
    rows = desk.rows(
        "select relname from pg_class where relnamespace = 'outbox'::regnamespace"
        " and pg_get_userbyid(relowner) <> 'outbox_owner'"
        " union all select proname from pg_proc where pronamespace = 'outbox'::regnamespace"
        " and pg_get_userbyid(proowner) <> 'outbox_owner'"
    )
    assert rows == []


def fill_for_both(desk: Desk) -> None:
    """Give both tenants a row of each table that the engine's story leaves out."""
    for tenant in ("default", "acme"):
        for statement in (
            "insert into outbox.tenant (tenant_id) values (%(t)s) on conflict do nothing",
            "insert into outbox.receipt_expected (id, tenant_id, provider_id)"
            " values (hashtext(%(t)s), %(t)s, gen_random_uuid())",
            "insert into outbox.endpoint (tenant_id, url, secrets, key_id)"
            " values (%(t)s, 'https://a.example', 'sealed', 'k')",
            "insert into outbox.provider (tenant_id, channel, kind, name, credentials, key_id)"
            " values (%(t)s, 'email', 'smtp', 'main', 'sealed', 'k')",
            "insert into outbox.device (tenant_id, user_id, channel, address)"
            " values (%(t)s, 'user-1', 'push', 'token')",
            "insert into outbox.recipient (tenant_id, user_id, email)"
            " values (%(t)s, 'user-1', 'ann@example.com')",
            "insert into outbox.suppression (tenant_id, channel, address, code)"
            " values (%(t)s, 'email', 'x@example.com', 'smtp.mailbox')",
            "insert into outbox.inbox_message (id, tenant_id, user_id, body)"
            " values (hashtext(%(t)s), %(t)s, 'user-1', 'Hello')",
            "insert into outbox.sink_message (tenant_id, caught_by, channel, body)"
            " values (%(t)s, 'sink', 'email', 'Hello')",
            "insert into outbox.event (tenant_id, event_id, event_type, data, occurred_at,"
            " content_sha256) values (%(t)s, gen_random_uuid(), 'x', '{}', now(), '')",
            "insert into outbox.rule (tenant_id, name, event_type, template_code, channels)"
            " values (%(t)s, 'x', 'x', 'x', array['email'])",
            "insert into outbox.api_key (name, key_sha256, prefix, tenant_id, scopes)"
            " values ('x', sha256(convert_to(%(t)s::text, 'UTF8')), 'obx_', %(t)s, '{}')",
            "insert into outbox.dead_letter (tenant_id, reason, error_message, raw_value)"
            " values (%(t)s, 'invalid', 'x', '{')",
            "insert into outbox.schedule (tenant_id, name, trigger, job, updated_by)"
            " values (%(t)s, 'x', '{}', '{}', 'ann')",
            "insert into outbox.replay_run (run_id, tenant_id, filter, plan, newest, begun_by)"
            " values (gen_random_uuid(), %(t)s, '{}', '{}', 0, 'ann')",
            "insert into outbox.receipt (id, tenant_id, status, at)"
            " select id, tenant_id, 'delivered', now() from outbox.job where tenant_id = %(t)s",
            "insert into outbox.operator_action (actor, action, tenant_id)"
            " values ('ann', 'erase', %(t)s)",
            "with key as (insert into outbox.ordering (tenant_id, queue, key_sha256)"
            " values (%(t)s, 'work', convert_to(%(t)s::text, 'UTF8')) returning ordering_id)"
            " insert into outbox.ordering_gap (ordering_id, place) select ordering_id, 0 from key",
            "insert into outbox.stat_quarter (at, lane_id) select now(), lane_id from outbox.lane"
            " on conflict do nothing",
            "insert into outbox.stat_hour (at, lane_id) select now(), lane_id from outbox.lane"
            " on conflict do nothing",
            "insert into outbox.progress (id, lease_no, tenant_id, done, total)"
            " select j.id, 1, j.tenant_id, 1, 2 from outbox.job as j where j.tenant_id = %(t)s"
            " on conflict do nothing",
            "insert into outbox.socket (tenant_id, user_id, process_id) values (%(t)s, 'u1', 7)",
            "insert into outbox.socket_message (attempt_id, job_id, process_id, tenant_id,"
            " user_id, body) values (gen_random_uuid(), gen_random_uuid(), 7, %(t)s, 'u1', '{}')",
            "insert into outbox.outcome_log (at, xid, lane_id, ids, lease_nos)"
            " select at, xid, lane_id, ids, lease_nos from outbox.stat_second"
            " where ids is not null",
            "insert into outbox.stat_total (lane_id) select lane_id from outbox.lane"
            " on conflict do nothing",
        ):
            desk.admin.execute(statement, {"t": tenant})
    desk.enqueue(tenant="acme")


OF_THE_SERVICE = {"alert", "alert_round", "known_error_code", "api_process"}
"""Seen and written by a transaction of all tenants alone."""

TENANT_OF = {
    "ordering_gap": "(select o.tenant_id from outbox.ordering as o"
    " where o.ordering_id = x.ordering_id)",
    "entry": "(select l.tenant_id from outbox.lane as l where l.lane_id = x.lane_id)",
    "stat_second": "(select l.tenant_id from outbox.lane as l where l.lane_id = x.lane_id)",
    "outcome_log": "(select l.tenant_id from outbox.lane as l where l.lane_id = x.lane_id)",
    "stat_quarter": "(select l.tenant_id from outbox.lane as l where l.lane_id = x.lane_id)",
    "stat_hour": "(select l.tenant_id from outbox.lane as l where l.lane_id = x.lane_id)",
    "stat_total": "(select l.tenant_id from outbox.lane as l where l.lane_id = x.lane_id)",
}


def tenants_seen(connection: psycopg.Connection[Any], table: str) -> set[str | None]:
    told = sql.SQL(TENANT_OF.get(table, "x.tenant_id"))
    statement = sql.SQL("select distinct {} from outbox.{} as x")
    rows = connection.execute(statement.format(told, sql.Identifier(table)))
    return {row[0] for row in rows}


async def test_the_api_sees_its_tenant_s_rows_alone_in_every_table_and_view(
    desk: Desk, hand: Hand
) -> None:
    await tell(desk, hand)
    fill_for_both(desk)
    tables = readable_by(desk, "outbox_api") - set(NOT_BY_TENANT) - OF_THE_SERVICE
    assert {"job", "entry", "api_notification", "queue_now", "stat_total"} <= tables
    for table in sorted(tables):
        with acting(desk.database, "outbox_api") as api:
            assert tenants_seen(api, table) == set(), table
        with acting(desk.database, "outbox_api", "acme") as api:
            assert tenants_seen(api, table) == {"acme"}, table
        with acting(desk.database, "outbox_api", "*") as api:
            assert tenants_seen(api, table) >= {"acme", "default"}, table


async def test_the_api_writes_its_tenant_s_rows_alone(desk: Desk, hand: Hand) -> None:
    await tell(desk, hand)
    fill_for_both(desk)
    tables = writable_by(desk, "outbox_api") - OF_THE_SERVICE
    assert {"recipient", "template", "operator_action"} <= tables
    with acting(desk.database, "outbox_api", "acme") as api:
        for table in sorted(tables - {"operator_action"}):
            name = sql.Identifier(table)
            changed = api.execute(
                sql.SQL(
                    "update outbox.{} set tenant_id = tenant_id where tenant_id <> 'acme'"
                ).format(name)
            )
            assert changed.rowcount == 0, table
            with pytest.raises(InsufficientPrivilege, match="row-level security"):
                api.execute(sql.SQL("update outbox.{} set tenant_id = 'other'").format(name))
        with pytest.raises(InsufficientPrivilege, match="row-level security"):
            api.execute(
                "insert into outbox.operator_action (actor, action, tenant_id)"
                " values ('eve', 'pause', 'default')"
            )


@pytest.mark.parametrize("table", sorted(OF_THE_SERVICE))
def test_what_is_of_the_whole_service_is_no_tenant_s_to_see_or_to_write(
    desk: Desk, table: str
) -> None:
    desk.admin.execute(
        "insert into outbox.alert (rule, subject, severity, state, streak, value)"
        " values ('lane_held', 'acme/email', 'critical', 'open', 0, 1)"
    )
    desk.admin.execute("insert into outbox.known_error_code values ('x', now())")
    desk.admin.execute(
        "insert into outbox.api_process (process_id, name, version, schema_revision, pid)"
        " values (1, 'host', '0', 0, 1)"
    )
    count = sql.SQL("select count(*) from outbox.{}").format(sql.Identifier(table))
    for tenant, seen in (("acme", 0), ("*", 1)):
        with acting(desk.database, "outbox_api", tenant) as api:
            assert api.execute(count).fetchone() == (seen,)
    with acting(desk.database, "outbox_api", "acme") as api:
        with pytest.raises(InsufficientPrivilege, match="row-level security"):
            api.execute(
                "insert into outbox.alert (rule, subject, severity, state, streak, value)"
                " values ('lane_held', 'x', 'critical', 'open', 0, 1)"
            )


def test_the_api_cannot_enqueue_for_another_tenant_than_its_transaction_s(desk: Desk) -> None:
    job = json.dumps({"queue": "work", "payload": {}})
    with acting(desk.database, "outbox_api", "acme") as api:
        api.execute("select outbox.enqueue(%s, 'acme')", (job,))
        with pytest.raises(psycopg.Error) as caught:
            api.execute("select outbox.enqueue(%s, 'default')", (job,))
        assert caught.value.sqlstate == "OBX03"


def test_the_same_job_id_of_two_tenants_tells_neither_of_the_other(desk: Desk) -> None:
    job = json.dumps(
        {"job_id": "12f8a4dc-88ad-4679-9cd4-3138171a3451", "queue": "work", "payload": {}}
    )
    for tenant in ("acme", "default"):
        with acting(desk.database, "outbox_api", tenant) as api:
            row = api.execute(
                "select e.duplicate from outbox.enqueue(%s, %s) as e", (job, tenant)
            ).fetchone()
            assert row == (False,)
