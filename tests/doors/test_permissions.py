"""Who may enqueue for whom, and that a producer's role can do nothing else."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from psycopg import sql
from psycopg.rows import TupleRow

import outbox
from tests.contract_cases import addressed
from tests.postgres import Database

Connection = psycopg.Connection[TupleRow]


@pytest.fixture
def producer_url(doors: Database) -> Iterator[str]:
    """The URL of a login role that is a member of outbox_producer and of nothing else."""
    name, password = f"producer_{secrets.token_hex(6)}", secrets.token_hex(12)
    role = sql.Identifier(name)
    with doors.admin_connect(autocommit=True) as admin:
        admin.execute(
            sql.SQL("create role {} login password {} in role outbox_producer").format(
                role, sql.Literal(password)
            )
        )
        place = urlsplit(doors.url)
        host = place.netloc.rpartition("@")[2]
        yield urlunsplit(place._replace(netloc=f"{name}:{password}@{host}"))
        admin.execute(sql.SQL("drop owned by {} cascade").format(role))
        admin.execute(sql.SQL("drop role {}").format(role))


@pytest.fixture
def producer(producer_url: str) -> Iterator[Connection]:
    with psycopg.connect(producer_url) as connection:
        yield connection
        connection.rollback()


def test_a_producer_may_enqueue_for_the_default_tenant(producer: Connection) -> None:
    assert outbox.enqueue(producer, addressed()).status == "pending"
    row = producer.execute(
        "select status from outbox.enqueue(%s::jsonb)",
        ('{"queue": "thumbnails", "payload": {}}',),
    ).fetchone()
    assert row == ("pending",)


def test_a_producer_may_not_enqueue_for_another_tenant_until_it_is_granted(
    producer: Connection, doors: Database
) -> None:
    with pytest.raises(outbox.NotPermitted) as error:
        outbox.enqueue(producer, addressed(), tenant="acme")
    assert "acme" in str(error.value)
    producer.rollback()
    with doors.admin_connect() as admin:
        admin.execute(
            "insert into outbox.producer_tenant (role_name, tenant_id) values (%s, 'acme')",
            (producer.info.user,),
        )
    assert outbox.enqueue(producer, addressed(), tenant="acme").status == "pending"
    with pytest.raises(outbox.NotPermitted), producer.transaction():
        outbox.enqueue(producer, addressed(), tenant="acme2")


@pytest.mark.parametrize("tenant", ["", "*", "t" * 129])
def test_what_is_no_tenant_is_refused(connection: Connection, tenant: str) -> None:
    with pytest.raises(outbox.InvalidJob):
        outbox.enqueue(connection, addressed(), tenant=tenant)


def test_a_producer_may_not_name_another_tenant_inside_a_job(producer: Connection) -> None:
    with pytest.raises(psycopg.Error) as error:
        producer.execute(
            "select outbox.enqueue_many_v1(array[%s::jsonb], null)",
            ('{"queue": "thumbnails", "payload": {}, "tenant_id": "acme3"}',),
        )
    assert error.value.diag.sqlstate == "OBX03"


def test_a_producer_can_read_and_change_nothing(producer: Connection) -> None:
    tables = ("job", "job_key", "entry", "delivery", "lane", "setting", "template", "api_key")
    views = ("notification", "notification_delivery", "notification_history", "queue_now")
    for name in (*tables, *views):
        with pytest.raises(psycopg.errors.InsufficientPrivilege), producer.transaction():
            producer.execute(sql.SQL("select from outbox.{}").format(sql.Identifier(name)))
    for statement in (
        "insert into outbox.producer_tenant values ('outbox_producer', '*')",
        "delete from outbox.job",
        "update outbox.setting set template_check = false",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege), producer.transaction():
            producer.execute(statement)


def test_a_producer_may_call_the_doors_and_no_other_function(doors: Database) -> None:
    with doors.admin_connect() as admin:
        rows = admin.execute(
            "select p.proname from pg_proc p where p.pronamespace = 'outbox'::regnamespace"
            " and has_function_privilege('outbox_producer', p.oid, 'execute') order by 1"
        ).fetchall()
    assert [name for (name,) in rows] == [
        "enqueue",
        "enqueue_many",
        "enqueue_many_v1",
        "enqueue_v1",
        "idempotent_job_id",
        "uuid7",
    ]


def test_a_producer_can_tell_an_id_before_it_enqueues(producer: Connection) -> None:
    told = producer.execute("select outbox.idempotent_job_id('default', 'order-42')").fetchone()
    taken = producer.execute(
        "select job_id from outbox.enqueue(jsonb_build_object('queue', 'thumbnails', 'payload',"
        " '{}'::jsonb, 'idempotency_key', 'order-42'))"
    ).fetchone()
    assert told == taken


def test_a_role_without_a_grant_cannot_enqueue(doors: Database) -> None:
    with doors.connect() as connection:
        connection.execute("set role outbox_auditor")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            outbox.enqueue(connection, addressed())


def test_every_function_that_runs_as_its_owner_pins_its_search_path(doors: Database) -> None:
    with doors.admin_connect() as admin:
        rows = admin.execute(
            "select p.proname from pg_proc p where p.pronamespace = 'outbox'::regnamespace"
            " and p.prosecdef and not coalesce(p.proconfig, '{}')"
            " @> array['search_path=pg_catalog, pg_temp']"
        ).fetchall()
    assert rows == []


def test_functions_that_pin_no_search_path_are_for_pinned_ones_alone(doors: Database) -> None:
    """A trap laid in the caller's search_path is never stepped into by the owner's code."""
    with doors.admin_connect(autocommit=True) as admin:
        admin.execute("create schema evil; grant all on schema evil to public")
        with doors.connect() as connection:
            connection.execute("set role outbox_producer")
            for function, result in (
                ("jsonb_typeof(jsonb)", "text"),
                ("char_length(text)", "int"),
                ("octet_length(text)", "int"),
                ("sha256(bytea)", "bytea"),
                ("nextval(regclass)", "bigint"),
                ("coalesce_trap(jsonb)", "jsonb"),
            ):
                connection.execute(
                    sql.SQL(
                        "create function evil.{} returns {} language plpgsql as "
                        "$$ begin raise exception 'trapped as %', current_user; end $$"
                    ).format(sql.SQL(function), sql.SQL(result))
                )
            connection.execute(
                "create function evil.arrow(jsonb, text) returns text language plpgsql as"
                " $$ begin raise exception 'trapped as %', current_user; end $$"
            )
            connection.execute(
                "create operator evil.->>"
                " (leftarg = jsonb, rightarg = text, function = evil.arrow)"
            )
            connection.execute("create temp table setting (job_bytes_max int)")
            connection.execute("create temp table job_key (tenant_id text)")
            connection.execute("set search_path = evil, pg_temp, pg_catalog")
            with pytest.raises(psycopg.errors.RaiseException), connection.transaction():
                connection.execute("select '{}'::jsonb ->> 'a'")  # the trap works
            row = connection.execute(
                "select status from outbox.enqueue(%s)",
                (psycopg.types.json.Jsonb(addressed()),),
            ).fetchone()
            assert row == ("pending",)
            connection.rollback()
        admin.execute("drop schema evil cascade")


def test_the_api_may_enqueue_only_for_the_tenant_it_has_set(doors: Database) -> None:
    with doors.connect() as connection:
        connection.execute("set role outbox_api")
        connection.execute("set outbox.tenant = 'acme'")
        assert outbox.enqueue(connection, addressed(), tenant="acme").status == "pending"
        with pytest.raises(outbox.NotPermitted):
            outbox.enqueue(connection, addressed(), tenant="other")
        connection.rollback()
