"""Whose provider delivers a message: real mail servers, real rows, real dispatchers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import msgspec

from outbox.channels.registry import load_handlers
from outbox.sealing import Keyring
from outbox.store.providers import place_of
from outbox_dispatcher.service import Dispatcher
from tests.channels.mail_server import MailServer, mail_server
from tests.engine.desk import Desk, dispatching

SECRET_KEY = "a-secret-key-of-the-operator"


def add_provider(
    desk: Desk,
    server: MailServer,
    *,
    tenant: str = "acme",
    name: str = "main",
    preference: int = 100,
    password: str | None = None,
    key: str = SECRET_KEY,
    provider_id: UUID | None = None,
) -> UUID:
    provider_id = provider_id or uuid4()
    config = {
        "smtp_url": f"smtp://127.0.0.1:{server.port}?starttls=off",
        "mail_from": f"{name}@{tenant}.example",
    }
    content = key_id = None
    if password is not None:
        text = msgspec.json.encode({"smtp_username": tenant, "smtp_password": password})
        key_id, content = Keyring(key).seal(text, place=place_of(provider_id))
    desk.admin.execute(
        "insert into outbox.provider (provider_id, tenant_id, channel, kind, name, preference,"
        " config, credentials, key_id) values (%s, %s, 'email', 'smtp', %s, %s, %s, %s, %s)"
        " on conflict (provider_id) do update set credentials = excluded.credentials,"
        " key_id = excluded.key_id, updated_at = clock_timestamp()",
        (provider_id, tenant, name, preference, json.dumps(config), content, key_id),
    )
    return provider_id


@asynccontextmanager
async def delivering(
    desk: Desk, default: MailServer | None = None, *, secret_key: str = SECRET_KEY, **settings: Any
) -> AsyncIterator[Dispatcher]:
    options = {"MAIL_FROM": "operator@example.com", "WEBHOOK_ALLOW": "127.0.0.1"}
    if default is not None:
        options["SMTP_URL"] = f"smtp://127.0.0.1:{default.port}?starttls=off"
    async with dispatching(
        desk,
        {},
        channels=load_handlers(options),
        provider_settings=options,
        secret_key=secret_key,
        **{"probe_s": 0.3} | settings,
    ) as dispatcher:
        yield dispatcher


def mail(desk: Desk, tenant: str = "acme", **fields: object) -> UUID:
    return desk.enqueue(
        tenant=tenant,
        notify=True,
        **{"channel": "email", "to": "ann@example.com", "content": "Hello", "data": {}} | fields,
        meta={},
        created_at="2026-11-22T12:00:00Z",
    )


async def test_each_tenant_s_mail_goes_through_its_own_server(desk: Desk) -> None:
    async with (
        mail_server(offers_login=True) as acme,
        mail_server() as other,
        mail_server() as default,
        delivering(desk, default),
    ):
        add_provider(desk, acme, password="hunter2!")
        add_provider(desk, other, tenant="other")
        jobs = [mail(desk, tenant) for tenant in ("acme", "other", "default", "guest")]
        for job_id in jobs:
            await desk.until_status(job_id, "sent")
        assert [m.sender for m in acme.mails] == ["main@acme.example"]
        assert acme.logins == [("acme", "hunter2!")]
        assert [m.sender for m in other.mails] == ["main@other.example"]
        assert [m.sender for m in default.mails] == ["operator@example.com"] * 2
    assert desk.rows(
        "select tenant_id, provider from outbox.notification_delivery order by tenant_id"
    ) == [
        ("acme", "smtp:main"),
        ("default", "smtp"),
        ("guest", "smtp"),
        ("other", "smtp:main"),
    ]


async def test_a_new_provider_is_used_within_a_heartbeat_and_one_that_went_is_not(
    desk: Desk,
) -> None:
    async with mail_server() as own, mail_server() as default, delivering(desk, default):
        await desk.until_status(mail(desk), "sent")
        assert len(default.mails) == 1
        provider_id = add_provider(desk, own)
        version = desk.value("select version from outbox.control")
        await desk.until(
            lambda: desk.value("select min(seen_version) from outbox.dispatcher") >= version
        )
        await desk.until_status(mail(desk), "sent")
        assert (len(own.mails), len(default.mails)) == (1, 1)
        desk.admin.execute("delete from outbox.provider where provider_id = %s", (provider_id,))
        version = desk.value("select version from outbox.control")
        await desk.until(
            lambda: desk.value("select min(seen_version) from outbox.dispatcher") >= version
        )
        await desk.until_status(mail(desk), "sent")
        assert (len(own.mails), len(default.mails)) == (1, 2)


async def test_mail_fails_over_to_the_next_server_without_losing_a_try(desk: Desk) -> None:
    async with mail_server() as first, mail_server() as second, delivering(desk):
        add_provider(desk, first, name="first", preference=1)
        add_provider(desk, second, name="second", preference=2)
        first.answer("connect", *["421 4.3.2 shutting down"] * 50)
        jobs = [mail(desk) for _ in range(5)]
        for job_id in jobs:
            await desk.until_status(job_id, "sent")
        assert (len(first.mails), len(second.mails)) == (0, 5)
    assert desk.rows("select distinct attempt, provider from outbox.delivery") == [
        (1, "smtp:second")
    ]


async def test_a_tenant_that_wants_its_own_providers_never_uses_the_operator_s(
    desk: Desk,
) -> None:
    desk.admin.execute(
        "insert into outbox.tenant (tenant_id, own_providers) values ('acme', true)"
    )
    async with mail_server() as own, mail_server() as default, delivering(desk, default):
        job_id = mail(desk)
        await desk.until(lambda: desk.deliveries(job_id) != [])
        assert desk.deliveries(job_id)[0] == ("RETRYING", 1, "provider.missing", False)
        add_provider(desk, own)
        await desk.until_status(job_id, "sent")
        assert (len(own.mails), len(default.mails)) == (1, 0)


async def test_a_tenant_s_sender_stands_on_its_mail_by_the_operator_s_server(desk: Desk) -> None:
    desk.admin.execute(
        "insert into outbox.tenant (tenant_id, sender) values ('acme', 'Acme <hi@acme.kz>')"
    )
    async with mail_server() as default, delivering(desk, default):
        await desk.until_status(mail(desk), "sent")
        (received,) = default.mails
    assert received.sender == "hi@acme.kz"
    assert received.parsed()["from"] == "Acme <hi@acme.kz>"


async def test_credentials_under_a_key_that_is_gone_hold_the_mail_until_they_open(
    desk: Desk,
) -> None:
    async with mail_server(offers_login=True) as own, delivering(desk, secret_key=SECRET_KEY):
        provider_id = add_provider(desk, own, password="pass word", key="another-key-of-ours")
        job_id = mail(desk)
        await desk.until(lambda: desk.deliveries(job_id) != [])
        assert desk.deliveries(job_id)[0] == ("RETRYING", 1, "provider.sealed", False)
        add_provider(desk, own, password="pass word", provider_id=provider_id)
        await desk.until_status(job_id, "sent")
        assert own.logins == [("acme", "pass word")]


async def test_a_key_can_be_rotated_while_mail_goes_on(desk: Desk) -> None:
    both = f"the-new-key-of-ours {SECRET_KEY}"
    async with mail_server(offers_login=True) as own, delivering(desk, secret_key=both):
        add_provider(desk, own, password="hunter2!", tenant="old")
        add_provider(desk, own, password="hunter2!", tenant="new", key="the-new-key-of-ours")
        for tenant in ("old", "new"):
            await desk.until_status(mail(desk, tenant), "sent")
        assert len(own.mails) == 2


async def test_a_suppression_ends_by_itself(desk: Desk) -> None:
    async with mail_server() as default, delivering(desk, default):
        for address, until in (("ann@example.com", "1 hour"), ("bob@example.com", "-1 second")):
            desk.admin.execute(
                "insert into outbox.suppression (tenant_id, channel, address, code, expires_at)"
                " values ('acme', 'email', %s, 'manual', now() + %s::interval)",
                (address, until),
            )
        ann, bob = mail(desk), mail(desk, to="bob@example.com")
        await desk.until_status(ann, "failed")
        await desk.until_status(bob, "sent")
    assert desk.deliveries(ann) == [("FAILED", 1, "recipient.suppressed", False)]


async def test_a_tenant_s_time_zone_is_that_of_recipients_who_have_none(desk: Desk) -> None:
    desk.admin.execute(
        "insert into outbox.tenant (tenant_id, timezone) values ('acme', 'Asia/Almaty')"
    )
    hour = desk.value("select extract(hour from now() at time zone 'Asia/Almaty')::int")
    quiet = {"from": f"{hour:02}:00", "to": f"{(hour + 2) % 24:02}:00"}
    desk.admin.execute(
        "insert into outbox.recipient (tenant_id, user_id, email, quiet_hours)"
        " values ('acme', 'u1', 'ann@example.com', %s)",
        (json.dumps(quiet),),
    )
    async with mail_server() as default, delivering(desk, default):
        job_id = mail(desk, user_id="u1")
        await desk.until_status(job_id, "scheduled")
    due = "select extract(hour from available_at at time zone 'Asia/Almaty')::int"
    assert desk.value(f"{due} from outbox.entry") == (hour + 2) % 24
