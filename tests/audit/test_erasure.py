"""Erasing a person: nothing of them is left in a dump, and the audit still stands."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from outbox.embedded_cluster import find_binaries
from outbox_sql.audit import load
from tests.audit.hand import Hand
from tests.engine.desk import Desk, in_s
from tests.postgres import Database

USER = "nurzhan-7781"
EMAIL = "Nurzhan.Abenov@example.com"
PHONE = "+77015550199"
CHAT = "990017781"
NAME = "Нуржан"
TRACES = (USER, EMAIL, PHONE, CHAT, NAME)


def dump(database: Database) -> str:
    """Return the whole database as text: schema, rows, everything that pg_dump knows of."""
    done = subprocess.run(
        [find_binaries() / "pg_dump", "--inserts", f"--dbname={database.admin_url}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout


def traces_in(database: Database, traces: Sequence[str] = TRACES) -> list[str]:
    """Return the lines of a dump that name the person."""
    return [
        line
        for line in dump(database).splitlines()
        if any(trace.lower() in line.lower() for trace in traces)
    ]


def mail(desk: Desk, **fields: Any) -> UUID:
    content = {
        "content": f"Dear {NAME}",
        "subject": f"For {NAME}",
        "data": {"first_name": NAME},
        "meta": {"event_id": "e-1", "first_name": NAME},
    }
    return desk.enqueue(
        channel="email",
        locale="ru",
        created_at=in_s(0),
        **(content | fields),
    )


async def live_a_life(desk: Desk, hand: Hand) -> list[UUID]:
    """Put the person wherever a person can be."""
    desk.admin.execute(
        "insert into outbox.recipient (tenant_id, user_id, email, phone, telegram_chat_id,"
        " attributes) values ('default', %s, %s, %s, %s, %s)",
        (USER, EMAIL, PHONE, CHAT, f'{{"first_name": "{NAME}"}}'),
    )
    # Sent to by user_id, refused with a text that names the address, replayed, waiting again.
    jobs = [mail(desk, user_id=USER), mail(desk, to=EMAIL.upper())]
    for claimed in await hand.claim("email"):
        await hand.deliver(claimed, recipient=EMAIL, subject=f"For {NAME}", content="QUJD")
    jobs.append(mail(desk, user_id=USER))
    await hand.fail(
        await hand.claim_one("email"), recipient=EMAIL, error_message=f"550 {EMAIL} is unknown"
    )
    hand.retry(jobs[-1])
    # Only an address, and no attempt that would have noted it.
    jobs.append(mail(desk, to=EMAIL, expires_at=in_s(-1)))
    jobs.append(mail(desk, to=EMAIL, send_after=in_s(3600)))
    hand.cancel(jobs[-1])
    plain = {"content": "Hello", "subject": "Hello", "data": {}, "meta": {}}
    jobs.append(mail(desk, to=[EMAIL, "other@example.com"], send_after=in_s(3600), **plain))
    for claimed in await hand.claim("email"):
        await hand.release(claimed)
    for statement in (
        "insert into outbox.receipt (id, tenant_id, status, at, detail)"
        " select id, 'default', 'bounced', now(), %(email)s"
        " from outbox.job where user_id = %(user)s",
        "insert into outbox.inbox_message (id, tenant_id, user_id, body)"
        " values (1, 'default', %(user)s, %(name)s)",
        "insert into outbox.sink_message (tenant_id, caught_by, channel, recipient, body)"
        " values ('default', 'smtp', 'email', %(email)s, %(name)s)",
        "insert into outbox.suppression (tenant_id, channel, address, code, reason)"
        " values ('default', 'email', %(email)s, 'smtp.mailbox', %(name)s)",
        "insert into outbox.event (tenant_id, event_id, event_type, user_id, data, occurred_at,"
        " content_sha256) values ('default', gen_random_uuid(), 'user_registered', %(user)s,"
        " jsonb_build_object('first_name', %(name)s::text), now(), '')",
        "insert into outbox.dead_letter (tenant_id, reason, error_message, raw_value)"
        " values ('default', 'invalid', 'Invalid JSON', '{\"to\": ' || %(email)s)",
        "insert into outbox.dead_letter (tenant_id, reason, error_message, job)"
        " values ('default', 'permanent', 'of a job that is gone',"
        " jsonb_build_object('user_id', %(user)s::text, 'data', %(name)s::text))",
        "update outbox.lane set hold_reason = '553 not from ' || %(email)s",
    ):
        desk.admin.execute(statement, {"user": USER, "email": EMAIL, "name": NAME})
    return jobs


def erase(desk: Desk) -> tuple[str, int, int]:
    (row,) = desk.rows("select * from outbox.erase_recipient('default', %s, 'ann')", USER)
    return row[0], row[1], row[2]


async def test_nothing_of_an_erased_person_is_left_in_a_dump(
    desk: Desk, hand: Hand, database: Database
) -> None:
    await live_a_life(desk, hand)
    assert len(traces_in(database)) > 15
    erase(desk)
    assert traces_in(database) == []


async def test_the_audit_of_an_erased_person_still_stands_under_a_pseudonym(
    desk: Desk, hand: Hand
) -> None:
    jobs = await live_a_life(desk, hand)
    before = desk.value("select count(*) from outbox.notification_delivery")
    pseudonym, erased, cancelled = erase(desk)
    # All but the list's other address; the retried job and one of the list were waiting.
    assert (erased, cancelled) == (len(jobs), 2)
    assert desk.value("select count(*) from outbox.notification_delivery") == before + 2
    assert desk.rows(
        "select status, count(*) from outbox.notification where user_id = %s group by 1"
        " order by 1",
        pseudonym,
    ) == [("cancelled", 1), ("sent", 1)]
    query = load("address_history")
    found = desk.admin.execute(query.statement.encode(), query.values({"address": EMAIL}))
    assert len(found.fetchall()) == 3
    assert desk.rows("select action, actor from outbox.operator_action where action = 'erase'")


async def test_other_people_s_data_stays(desk: Desk, hand: Hand, database: Database) -> None:
    await live_a_life(desk, hand)
    mail(desk, user_id="aidana", to="aidana@example.com")
    erase(desk)
    left = traces_in(database, ("other@example.com", "aidana@example.com"))
    assert len(left) == 2


async def test_a_second_call_erases_what_a_running_attempt_has_written_since(
    desk: Desk, hand: Hand, database: Database
) -> None:
    mail(desk, user_id=USER)
    claimed = await hand.claim_one("email")
    erase(desk)
    assert desk.status(claimed.job_id) == "processing"
    await hand.deliver(claimed, recipient=EMAIL, subject=f"For {NAME}")
    assert traces_in(database) != []
    erase(desk)
    assert traces_in(database) == []


async def test_another_tenant_s_user_of_the_same_name_is_somebody_else(
    desk: Desk, database: Database
) -> None:
    desk.enqueue(tenant="acme", user_id=USER)
    erase(desk)
    assert len(traces_in(database)) == 1
