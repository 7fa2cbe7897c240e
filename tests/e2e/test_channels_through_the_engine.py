"""From enqueue to mailbox: templates, recipients and channels, through a real dispatcher."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any
from uuid import UUID

from outbox.channels.registry import load_handlers
from outbox_dispatcher.service import Dispatcher
from tests.channels.hook_server import hook_server
from tests.channels.mail_server import MailServer, mail_server
from tests.engine.desk import Desk, dispatching, in_s

NOW = "2026-11-22T12:00:00Z"


def template(
    desk: Desk,
    *,
    code: str = "welcome",
    channel: str = "email",
    locale: str = "ru",
    version: int = 1,
    subject: str | None = "Привет, {{ name }}!",
    text: str | None = "Здравствуйте, {{ name }}.",
    html: str | None = None,
    keep_content: str = "hash",
) -> None:
    desk.admin.execute(
        "insert into outbox.template (tenant_id, code, channel, locale, version, subject,"
        " body_text, body_html, keep_content) values ('default', %s, %s, %s, %s, %s, %s, %s, %s)",
        (code, channel, locale, version, subject, text, html, keep_content),
    )


def person(desk: Desk, user_id: str, **columns: object) -> None:
    names = ", ".join(["tenant_id", "user_id", *columns])
    marks = ", ".join(["%s"] * (2 + len(columns)))
    desk.admin.execute(
        f"insert into outbox.recipient ({names}) values ({marks})".encode(),
        ("default", user_id, *columns.values()),
    )


def notify(desk: Desk, **fields: object) -> UUID:
    job: dict[str, Any] = {
        "channel": "email",
        "user_id": "u1",
        "template_code": "welcome",
        "locale": "ru",
        "data": {"name": "Нуржан"},
        "meta": {},
        "created_at": NOW,
    }
    job |= fields
    return desk.enqueue(notify=True, **{k: v for k, v in job.items() if v is not None})


@asynccontextmanager
async def delivering(
    desk: Desk, mail: MailServer | None = None, **settings: str
) -> AsyncIterator[Dispatcher]:
    options: dict[str, Any] = {"MAIL_FROM": "Outbox <outbox@example.com>", **settings}
    if mail is not None:
        options["SMTP_URL"] = f"smtp://127.0.0.1:{mail.port}?starttls=off"
    async with dispatching(desk, {}, channels=load_handlers(options), probe_s=0.3) as dispatcher:
        yield dispatcher


async def test_a_mail_arrives_with_the_right_subject_and_both_bodies(desk: Desk) -> None:
    template(desk, html="<p>Здравствуйте, <b>{{ name }}</b></p>")
    person(desk, "u1", email="nurzhan@example.com")
    async with mail_server() as server, delivering(desk, server):
        job_id = notify(desk)
        await desk.until_status(job_id, "sent")
    (mail,) = server.mails
    parsed = mail.parsed()
    assert mail.recipients == ["nurzhan@example.com"]
    assert parsed["subject"] == "Привет, Нуржан!"
    text, html = parsed.get_body(("plain",)), parsed.get_body(("html",))
    assert text is not None
    assert html is not None
    assert "Здравствуйте, Нуржан." in text.get_content()
    assert "<b>Нуржан</b>" in html.get_content()
    assert str(job_id) in parsed["message-id"]
    assert desk.rows(
        "select recipient, subject, template_version, provider, content_sha256 is not null"
        " from outbox.notification_delivery"
    ) == [("nurzhan@example.com", "Привет, Нуржан!", 1, "smtp", True)]


async def test_a_user_without_an_address_is_a_dead_letter_after_one_attempt(desk: Desk) -> None:
    template(desk)
    person(desk, "u1", phone="+77010000000")
    async with delivering(desk, EMAIL_PROVIDER="sink"):
        known, unknown = notify(desk), notify(desk, user_id="nobody")
        await desk.until_status(known, "failed")
        await desk.until_status(unknown, "failed")
    for job_id in (known, unknown):
        assert desk.deliveries(job_id) == [("FAILED", 1, "recipient.no_address", False)]
    letters = desk.rows(
        "select error_message, error_class, reason, attempts, job from outbox.dead_letter"
    )
    assert [letter[:4] for letter in letters] == [
        ("User has no email", "permanent", "permanent", 1)
    ] * 2
    assert {UUID(letter[4]["job_id"]) for letter in letters} == {known, unknown}
    assert letters[0][4]["data"] == {"name": "Нуржан"}


async def test_the_locale_falls_back_from_job_to_recipient_to_service(desk: Desk) -> None:
    template(desk, locale="pt", subject="pt")
    template(desk, locale="ru", subject="ru")
    template(desk, locale="en", subject="en")
    person(desk, "u1", email="a@example.com", locale="ru")
    person(desk, "u2", email="b@example.com")
    async with delivering(desk, EMAIL_PROVIDER="sink"):
        jobs = {
            "pt": notify(desk, locale="pt-BR"),
            "ru": notify(desk, locale=None),
            "en": notify(desk, user_id="u2", locale=None),
        }
        for job_id in jobs.values():
            await desk.until_status(job_id, "sent")
    for locale, job_id in jobs.items():
        assert (
            desk.value("select subject from outbox.sink_message where job_id = %s", job_id)
            == locale
        )


async def test_a_retry_keeps_the_version_that_the_job_was_rendered_with(desk: Desk) -> None:
    template(desk, subject="one")
    person(desk, "u1", email="a@example.com")
    async with mail_server() as server, delivering(desk, server):
        server.answer("rcpt", "451 4.3.0 later")
        job_id = notify(desk)
        await desk.until_status(job_id, "retrying")
        template(desk, version=2, subject="two")
        await asyncio.sleep(1.1)  # what the shelf may keep
        (entry,) = desk.rows("select id from outbox.entry")
        desk.admin.execute("select outbox.promote_job(%s, 'tester')", entry)
        await desk.until_status(job_id, "sent")
        fresh = notify(desk)
        await desk.until_status(fresh, "sent")
    assert [mail.parsed()["subject"] for mail in server.mails] == ["one", "two"]


async def test_a_missing_variable_ends_the_job_and_names_it(desk: Desk) -> None:
    template(desk)
    person(desk, "u1", email="a@example.com")
    async with delivering(desk, EMAIL_PROVIDER="sink"):
        job_id = notify(desk, data={})
        await desk.until_status(job_id, "failed")
    assert desk.deliveries(job_id) == [("FAILED", 1, "template.variable", False)]
    assert "name" in desk.value("select error_message from outbox.dead_letter")


async def test_data_of_the_wrong_shape_ends_the_job_and_says_where(desk: Desk) -> None:
    template(desk)
    desk.admin.execute("""update outbox.template set schema = '{"required": ["town"]}'""")
    person(desk, "u1", email="a@example.com")
    async with delivering(desk, EMAIL_PROVIDER="sink"):
        job_id = notify(desk)
        await desk.until_status(job_id, "failed")
    assert desk.deliveries(job_id) == [("FAILED", 1, "template.data", False)]
    assert "town" in desk.value("select error_message from outbox.dead_letter")


async def test_a_missing_locale_holds_that_template_alone_until_it_is_there(desk: Desk) -> None:
    template(desk, locale="kz")
    template(desk, code="other", locale="en", subject="fine")
    person(desk, "u1", email="a@example.com")
    async with delivering(desk, EMAIL_PROVIDER="sink"):
        waiting = [notify(desk) for _ in range(4)]
        await desk.until(
            lambda: (
                desk.value("select count(*) from outbox.lane where scope = 'template:welcome'")
                == 1
            )
        )
        fine = notify(desk, template_code="other")
        await desk.until_status(fine, "sent")
        template(desk, locale="en", subject="now it is here")
        for job_id in waiting:
            await desk.until_status(job_id, "sent")
    assert desk.value("select count(*) from outbox.dead_letter") == 0
    assert desk.value("select max(attempt) from outbox.delivery") == 1


async def test_a_wrong_password_holds_the_mail_and_the_right_one_lets_all_of_it_go(
    desk: Desk,
) -> None:
    template(desk)
    person(desk, "u1", email="a@example.com")
    async with mail_server() as server:
        server.answer("mail", *["535 5.7.8 bad credentials"] * 6)
        async with delivering(desk, server):
            jobs = [notify(desk) for _ in range(40)]
            await desk.until(
                lambda: desk.value(
                    "select exists (select from outbox.lane where held_at is not null)"
                )
            )
            for job_id in jobs:
                await desk.until_status(job_id, "sent")
    assert len(server.mails) == 40
    assert len({mail.parsed()["message-id"] for mail in server.mails}) == 40
    assert desk.value("select count(*) from outbox.dead_letter") == 0


async def test_a_wrong_password_costs_ten_thousand_waiting_mails_nothing(desk: Desk) -> None:
    """They are held, not failed; with the right password each arrives, once."""
    count = 10_000
    template(desk)
    person(desk, "u1", email="a@example.com")
    desk.admin.execute(
        "select count(*) from outbox.enqueue_many(array(select jsonb_build_object('channel',"
        " 'email', 'user_id', 'u1', 'template_code', 'welcome', 'locale', 'ru', 'meta',"
        " '{}'::jsonb, 'data', '{\"name\": \"Ann\"}'::jsonb, 'created_at', now())"
        " from generate_series(1, %s)))",
        (count,),
    )
    async with mail_server(offers_login=True) as server:
        server.accepts_login = False
        options = {
            "MAIL_FROM": "outbox@example.com",
            "SMTP_URL": f"smtp://us:word@127.0.0.1:{server.port}?starttls=off",
        }
        channels = load_handlers(options)
        async with dispatching(
            desk, {}, channels=channels, probe_s=0.3, concurrency={"email": 20}
        ):
            held = "select exists (select from outbox.lane where held_at is not null)"
            await desk.until(lambda: bool(desk.value(held)))
            probes = "select probe_s > 1 from outbox.lane where held_at is not null"
            await desk.until(lambda: bool(desk.value(probes)))
            assert server.mails == []
            assert len(server.logins) < 100
            server.accepts_login = True
            for share in range(1, 11):
                await desk.until(partial(_has, server, count * share // 10))
            left = "select count(*) from outbox.entry"
            await desk.until(lambda: desk.value(left) == 0)
    assert len(server.mails) == count
    ids = {_message_id(mail.content) for mail in server.mails}
    assert len(ids) == count
    assert desk.value("select count(*) from outbox.dead_letter") == 0
    assert desk.value("select max(attempt) from outbox.delivery") == 1


def _has(server: MailServer, mails: int) -> bool:
    return len(server.mails) >= mails


def _message_id(content: bytes) -> bytes:
    return content.lower().partition(b"message-id:")[2].split(b"\r\n", 1)[0]


async def test_an_address_that_is_gone_is_suppressed_for_the_next_job(desk: Desk) -> None:
    template(desk)
    person(desk, "u1", email="Gone@example.com")
    async with mail_server() as server, delivering(desk, server):
        server.answer("rcpt", "550 5.1.1 no such user")
        first = notify(desk)
        await desk.until_status(first, "failed")
        second = notify(desk)
        await desk.until_status(second, "failed")
    assert desk.deliveries(second) == [("FAILED", 1, "recipient.suppressed", False)]
    assert server.mails == []


async def test_an_opt_out_of_a_category_is_respected(desk: Desk) -> None:
    template(desk)
    person(desk, "u1", email="a@example.com", opt_outs=["marketing"])
    async with delivering(desk, EMAIL_PROVIDER="sink"):
        advert, notice = notify(desk, category="marketing"), notify(desk)
        await desk.until_status(advert, "failed")
        await desk.until_status(notice, "sent")
    assert desk.deliveries(advert) == [("FAILED", 1, "recipient.suppressed", False)]


async def test_the_inbox_is_written_in_the_recording_transaction_exactly_once(desk: Desk) -> None:
    template(desk, channel="inbox", subject="Привет", text="Вы зарегистрированы, {{ name }}")
    async with delivering(desk):
        job_id = notify(desk, channel="database")
        await desk.until_status(job_id, "sent")
    assert desk.rows("select user_id, subject, body from outbox.inbox_message") == [
        ("u1", "Привет", "Вы зарегистрированы, Нуржан")
    ]
    assert desk.value("select xmin from outbox.inbox_message") == desk.value(
        "select xmin from outbox.delivery where status = 'SENT'"
    )


async def test_a_webhook_carries_the_data_digit_by_digit_under_a_signature(desk: Desk) -> None:
    async with hook_server() as receiver:
        async with delivering(
            desk,
            WEBHOOK_SECRET="whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            WEBHOOK_ALLOW="127.0.0.1",
        ):
            desk.admin.execute(
                "select outbox.enqueue(jsonb_build_object('channel', 'webhook', 'to', %s::text,"
                " 'data', %s::jsonb, 'created_at', %s::text,"
                " 'meta', '{\"event_type\": \"paid\"}'::jsonb), notify => true)",
                (
                    f"http://127.0.0.1:{receiver.port}/hook",
                    '{"n": 1234567890.12345678901234567890}',
                    NOW,
                ),
            )
            await desk.until(lambda: desk.value("select count(*) from outbox.entry") == 0)
    (call,) = receiver.calls
    assert b"1234567890.12345678901234567890" in call.body
    body = json.loads(call.body)
    assert (body["type"], body["timestamp"]) == ("paid", NOW)
    assert call.headers["webhook-signature"].startswith("v1,")
    assert desk.rows("select status from outbox.delivery") == [("SENT",)]


async def test_content_is_kept_hashed_or_dropped_as_the_template_says(desk: Desk) -> None:
    for keep in ("none", "hash", "full"):
        template(desk, code=keep, locale="en", keep_content=keep)
    person(desk, "u1", email="a@example.com")
    async with delivering(desk, EMAIL_PROVIDER="sink"):
        for code in ("none", "hash", "full"):
            await desk.until_status(notify(desk, template_code=code), "sent")
    rows = desk.rows(
        "select j.template_code, d.content_sha256 is not null, d.content"
        " from outbox.delivery as d join outbox.job as j using (id) order by 1"
    )
    assert rows == [
        ("full", True, "Здравствуйте, Нуржан.".encode()),
        ("hash", True, None),
        ("none", False, None),
    ]


async def test_inline_content_renders_and_a_list_of_addresses_makes_a_mail_each(
    desk: Desk,
) -> None:
    async with mail_server() as server, delivering(desk, server):
        notify(
            desk,
            user_id=None,
            template_code=None,
            to=["a@example.com", "b@example.com"],
            subject="Hi {{ name }}",
            content="<p>Hello {{ name }}</p>",
            data={"name": "Ann & Bob"},
        )
        await desk.until(lambda: desk.value("select count(*) from outbox.delivery") == 2)
    assert sorted(mail.recipients[0] for mail in server.mails) == [
        "a@example.com",
        "b@example.com",
    ]
    body = server.mails[0].parsed().get_body(("html",))
    assert body is not None
    assert "Ann &amp; Bob" in body.get_content()
    assert server.mails[0].parsed()["subject"] == "Hi Ann & Bob"


async def test_a_template_that_never_ends_hurts_only_its_own_job(desk: Desk) -> None:
    async with delivering(desk, EMAIL_PROVIDER="sink"):
        loop = "{% for n in range(99999) %}"
        bomb_source = f"{loop}{loop}{{% endfor %}}{{% endfor %}}"
        bomb = notify(
            desk,
            user_id=None,
            to="a@example.com",
            template_code=None,
            content=bomb_source,
        )
        fine = notify(desk, user_id=None, to="a@example.com", template_code=None, content="hello")
        await desk.until_status(bomb, "failed")
        await desk.until_status(fine, "sent")
    assert desk.deliveries(bomb) == [("FAILED", 1, "template.limit", False)]


async def test_a_mail_that_expires_before_its_time_is_never_sent(desk: Desk) -> None:
    template(desk)
    person(desk, "u1", email="a@example.com")
    async with mail_server() as server, delivering(desk, server):
        gone = notify(desk, expires_at="2025-11-26T00:00:00Z")
        kept = notify(desk, expires_at=in_s(3600))
        await desk.until_status(kept, "sent")
    assert desk.status(gone) == "expired"
    assert len(server.mails) == 1


async def test_quiet_hours_defer_a_mail_and_let_an_urgent_one_through(desk: Desk) -> None:
    template(desk)
    hour = desk.value("select extract(hour from now() at time zone 'Asia/Almaty')::int")
    quiet = {"from": f"{hour:02}:00", "to": f"{(hour + 2) % 24:02}:00"}
    person(
        desk,
        "u1",
        email="a@example.com",
        timezone="Asia/Almaty",
        quiet_hours=json.dumps(quiet),
    )
    async with delivering(desk, EMAIL_PROVIDER="sink"):
        later = notify(desk)
        urgent = notify(desk, meta={"priority": "urgent"})
        await desk.until_status(urgent, "sent")
        await desk.until_status(later, "scheduled")
    (row,) = desk.rows(
        "select status, error_class, error_code, error_message from outbox.delivery"
        " where not terminal"
    )
    told = "the recipient's quiet hours, in Asia/Almaty"
    assert row == ("RETRYING", "snoozed", "recipient.quiet_hours", told)
    due_hour = desk.value(
        "select extract(hour from available_at at time zone 'Asia/Almaty')::int from outbox.entry"
    )
    assert due_hour == (hour + 2) % 24
