"""Erasing a person: nothing of them is left in a dump, and the audit still stands."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import pytest

from outbox.embedded_cluster import find_binaries
from outbox.message import Message
from outbox.outcome import (
    AlsoTo,
    Delivered,
    InboxRow,
    Misconfigured,
    Outcome,
    Rejected,
    Retryable,
    Sent,
)
from outbox_sql.audit import load
from tests.audit.hand import Hand
from tests.engine.desk import Desk, Scripted, dispatching, in_s
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
        "attachments": [{"url": f"https://files.example.com/{USER}", "filename": f"{NAME}.pdf"}],
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
    plain = {"content": "Hello", "subject": "Hello", "data": {}, "meta": {}, "attachments": []}
    jobs.append(mail(desk, to=[EMAIL, "other@example.com"], send_after=in_s(3600), **plain))
    for claimed in await hand.claim("email"):
        await hand.release(claimed)
    for statement in (
        # What the address by itself had opted out of.
        "insert into outbox.recipient (tenant_id, user_id, email, opt_outs) values"
        " ('default', outbox.address_user('email', %(email)s), %(email)s, '{news}')",
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


INBOX = InboxRow(user_id=USER, subject=f"For {NAME}", body=f"Dear {NAME}")
SENT = Sent(provider="smtp", recipient=EMAIL, subject=f"For {NAME}", content=NAME.encode())
OUTCOMES: dict[str, tuple[Outcome, str]] = {
    "delivered": (Delivered(provider_message_id=f"id of {EMAIL}", sent=SENT), "sent"),
    "delivered, with an inbox row": (Delivered(effects=(INBOX,), sent=SENT), "sent"),
    "delivered, to go on to a device": (Delivered(effects=(AlsoTo(address=PHONE),)), "sent"),
    "retried": (Retryable(code="t", reason=f"450 {EMAIL} later", sent=SENT), "cancelled"),
    "refused": (
        Rejected(code="smtp.mailbox", reason=f"550 {EMAIL}?", suppress=True, sent=SENT),
        "failed",
    ),
    "held": (Misconfigured(code="smtp.sender", reason=f"553 not to {EMAIL}"), "cancelled"),
}


@pytest.mark.parametrize("case", OUTCOMES)
async def test_an_attempt_that_runs_meanwhile_leaves_nothing_of_an_erased_person(
    case: str, desk: Desk, database: Database
) -> None:
    outcome, status = OUTCOMES[case]
    go_on = asyncio.Event()

    async def deliver(_: Message) -> Outcome:
        await go_on.wait()
        return outcome

    desk.admin.execute(
        "insert into outbox.recipient (tenant_id, user_id, email) values ('default', %s, %s)",
        (USER, EMAIL),
    )
    desk.admin.execute(
        "insert into outbox.template (tenant_id, code, channel, locale, version, subject,"
        " body_text, keep_content) values ('default', 'hello', 'email', 'ru', 1,"
        " 'For {{ first_name }}', 'Dear {{ first_name }}', 'full')"
    )
    handler = Scripted(deliver)
    async with dispatching(desk, {}, channels={"email": handler}):
        job_id = desk.enqueue(
            channel="email",
            user_id=USER,
            template_code="hello",
            data={"first_name": NAME},
            meta={},
            locale="ru",
            created_at=in_s(0),
            notify=True,
        )
        await handler.started.wait()
        erase(desk)
        assert desk.status(job_id) == "processing"
        go_on.set()
        await desk.until_status(job_id, "sent", "failed", "cancelled")
    assert desk.status(job_id) == status
    assert traces_in(database) == []


async def test_an_outcome_that_comes_too_late_leaves_nothing_of_an_erased_person(
    desk: Desk, hand: Hand, database: Database
) -> None:
    job_id = mail(desk, user_id=USER)
    claimed = await hand.claim_one("email")
    erase(desk)
    await hand.die([claimed])
    said = {"recipient": EMAIL, "subject": f"For {NAME}", "error_message": f"450 {EMAIL}"}
    await hand.deliver(claimed, **said)
    assert ("SENT", 1, None, True) in desk.deliveries(job_id)
    assert traces_in(database) == []


async def test_an_outcome_and_an_erasure_at_once_leave_nothing(
    desk: Desk, hand: Hand, database: Database
) -> None:
    mail(desk, user_id=USER)
    claimed = await hand.claim_one("email")
    with database.admin_connect() as erasing:
        # It has not committed when the outcome is recorded, which waits for it.
        erasing.execute("select outbox.erase_recipient('default', %s, 'ann')", (USER,))
        recording = asyncio.create_task(
            hand.fail(claimed, recipient=EMAIL, error_message=f"550 {EMAIL} is unknown")
        )
        await desk.until(lambda: desk.value("select count(*) from pg_locks where not granted") > 0)
    await recording
    assert desk.rows("select job ->> 'erased', error_message from outbox.dead_letter") == [
        ("true", "erased")
    ]
    assert traces_in(database) == []


async def test_what_a_provider_tells_later_leaves_nothing_of_an_erased_person(
    desk: Desk, hand: Hand, database: Database
) -> None:
    job_id = mail(desk, user_id=USER)
    await hand.deliver(await hand.claim_one("email"), recipient=EMAIL)
    erase(desk)
    (told,) = desk.rows(
        "select known, stored from outbox.take_receipts('default', gen_random_uuid(), 'smtp',"
        " json_build_array(json_build_object('job_id', %s::text, 'status', 'bounced',"
        " 'at', now(), 'hard', true, 'detail', %s::text)))",
        str(job_id),
        f"550 {EMAIL} is unknown",
    )
    assert told == (1, 1)
    assert traces_in(database) == []


@pytest.mark.parametrize(
    "to", [{"user_id": USER}, {"to": EMAIL.lower()}, {"to": ["a@b.c", EMAIL]}]
)
async def test_a_schedule_writes_to_an_erased_person_no_more(
    to: dict[str, object], desk: Desk, hand: Hand, database: Database
) -> None:
    await live_a_life(desk, hand)
    desk.admin.execute(
        "insert into outbox.schedule (tenant_id, name, trigger, job, next_at, updated_by)"
        " values ('default', 'daily', '{}', %s, now(), 'ann')",
        (json.dumps({"channel": "email", "content": f"Dear {NAME}"} | to),),
    )
    erase(desk)
    assert desk.rows("select enabled, last_error from outbox.schedule") == [
        (False, "Its recipient was erased")
    ]
    assert traces_in(database) == []


async def test_another_tenant_s_user_of_the_same_name_is_somebody_else(
    desk: Desk, database: Database
) -> None:
    desk.enqueue(tenant="acme", user_id=USER)
    erase(desk)
    assert len(traces_in(database)) == 1
