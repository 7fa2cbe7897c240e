"""What a test key hands in goes to the sink alone, and is nobody else's trouble."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID, uuid4

import httpx
import pytest

from outbox import alerts
from outbox.channels.registry import load_handlers
from outbox.store import alerts as alert_store
from outbox.store import engine, queues, retention
from outbox.store.alerts import Told
from outbox.store.pool import EVERY_TENANT, Database
from tests.api.conftest import Api, job, running_api
from tests.api.stage import FAIL, behind
from tests.channels.hook_server import hook_server
from tests.channels.mail_server import mail_server
from tests.e2e.test_channels_through_the_engine import person
from tests.e2e.test_devices import device
from tests.e2e.test_tenants import add_provider, delivering
from tests.engine.desk import QUEUE, Desk, Scripted, connect, dispatching

P256DH = "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4"
FAILURES = 21
"""More than a rate of failures is judged by."""
AUTH = "BTBZMqHH6r4Tts7J_aSIgg"
ADDRESSES: dict[str, dict[str, object]] = {
    "email": {"to": "ann@example.com"},
    "sms": {"to": "+77011234567"},
    "telegram": {"to": "12345"},
    "push": {"to": "a-device-token"},
    "webhook": {"to": "https://hooks.example.com/x", "content": None},
    "inbox": {"user_id": "ann", "to": None},
}
"""A sound recipient on each channel; a browser's subscription is stored first."""


@pytest.fixture
async def api(desk: Desk) -> AsyncIterator[Api]:
    """The API over the desk's database, with the admin's key."""
    async with running_api(desk.database.url) as client:
        client.headers["authorization"] = "Bearer obx_the_first_key_of_all"
        yield Api(client, desk.database)


async def make_key(api: Api, *, tenant: str = "acme", mode: str = "test") -> str:
    wanted = {"name": mode, "tenant_id": tenant, "scopes": ["jobs:write", "jobs:read"]}
    answer = await api.client.post("/api/v1/api-keys", json=wanted | {"mode": mode})
    assert answer.status_code == 201, answer.text
    assert answer.json()["mode"] == mode
    return str(answer.json()["key"])


@asynccontextmanager
async def with_test_key(api: Api, tenant: str = "acme") -> AsyncIterator[httpx.AsyncClient]:
    async with api.with_key(await make_key(api, tenant=tenant)) as client:
        yield client


async def post(client: httpx.AsyncClient, **fields: object) -> UUID:
    answer = await client.post("/api/v1/jobs", json=job(**fields))
    assert answer.status_code == 202, answer.text
    return UUID(answer.json()["job_id"])


def subscribe(desk: Desk, user_id: str) -> None:
    person(desk, user_id)
    desk.admin.execute("update outbox.recipient set tenant_id = 'acme'")
    device(desk, user_id, "browser", "https://push.example.com/x", P256DH, AUTH)
    desk.admin.execute("update outbox.device set tenant_id = 'acme'")


async def test_a_test_key_s_mail_is_kept_by_the_sink_whatever_the_tenants_providers_are(
    desk: Desk, api: Api
) -> None:
    async with mail_server() as own, mail_server() as default, with_test_key(api) as test:
        add_provider(desk, own)
        async with delivering(desk, default):
            job_id = await post(test)
            await desk.until_status(job_id, "sent")
            async with api.with_key(await make_key(api, mode="live")) as live:
                in_earnest = await post(live)
            await desk.until_status(in_earnest, "sent")
    assert len(own.mails) == 1
    assert default.mails == []
    assert desk.rows("select job_id, channel, recipient from outbox.sink_message") == [
        (job_id, "email", "ann@example.com")
    ]
    modes = dict(desk.rows("select job_id, mode from outbox.notification"))
    assert modes == {job_id: "test", in_earnest: "live"}


async def test_on_every_channel_a_test_key_s_jobs_end_in_the_sink(desk: Desk, api: Api) -> None:
    options = {"SMS_REGION": "KZ", "WEBHOOK_ALLOW": "127.0.0.1"}
    channels = load_handlers(options)
    async with (
        hook_server() as hooks,
        with_test_key(api) as test,
        dispatching(desk, {}, channels=channels, provider_settings=options),
    ):
        subscribe(desk, "ann")
        hook = f"http://127.0.0.1:{hooks.port}/x"
        wanted = ADDRESSES | {"webhook": {"to": hook, "content": None}}
        made = {
            channel: await post(test, channel=channel, **where)
            for channel, where in wanted.items()
        }
        made["browser"] = await post(test, channel="browser", user_id="ann", to=None)
        for job_id in made.values():
            await desk.until_status(job_id, "sent", "failed")
    assert {c: desk.status(j) for c, j in made.items()} == dict.fromkeys(made, "sent")
    assert dict(desk.rows("select channel, job_id from outbox.sink_message")) == made
    assert hooks.calls == []
    assert desk.rows("select 1 from outbox.inbox_message") == []


async def test_a_payload_of_a_test_key_is_kept_and_no_handler_sees_it(
    desk: Desk, api: Api
) -> None:
    handler = Scripted()
    async with with_test_key(api) as test, dispatching(desk, {QUEUE: handler}):
        answer = await test.post("/api/v1/jobs", json={"queue": QUEUE, "payload": {"n": 1}})
        job_id = UUID(answer.json()["job_id"])
        await desk.until_status(job_id, "sent")
    assert handler.seen == []
    assert desk.value("select job_id from outbox.sink_message") == job_id


async def test_what_a_test_job_finds_wrong_holds_nobody_else(desk: Desk, api: Api) -> None:
    async with mail_server() as server, with_test_key(api, "default") as test:
        async with delivering(desk, server):
            refused = await post(test, to="fail+535@sink.test")
            await desk.until(lambda: desk.status(refused) == "pending" and held(desk) != [])
            in_earnest = await post(api.client)
            await desk.until_status(in_earnest, "sent")
    assert held(desk) == [(f"test:job:{refused}", "smtp.535")]
    assert len(server.mails) == 1


def held(desk: Desk) -> list[tuple[object, ...]]:
    return desk.rows("select scope, hold_code from outbox.lane where held_at is not null")


async def test_test_jobs_are_in_no_figure_and_open_no_alert(
    desk: Desk, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alerts, "ROUND_S", 1_000_000.0)
    async with with_test_key(api, "default") as test, Database(desk.database.url) as pool:
        await make_round(pool)  # in the very first one no code is news
        async with mail_server() as server, delivering(desk, server):
            tried = [await post(test, to="fail+550@sink.test") for _ in range(FAILURES)]
            tried.append(await post(test))
            stuck = await post(test, to="fail+535@sink.test")
            for job_id in tried:
                await desk.until_status(job_id, "sent", "failed")
            await desk.until(lambda: desk.status(stuck) == "pending" and held(desk) != [])
            for _ in range(5):
                assert await make_round(pool) == []
            # What is waiting, or was, and when: nothing, for whoever looks after what is real.
            live = await figures(api.client)
            assert (live["waiting"], live["completed"], live["failed"]) == (0, 0, 0)
            text = (await api.client.get("/metrics")).text
            assert 'outbox_dead_letters{queue="email"' not in text
            assert "outbox_lane_held{" not in text
            assert 'outbox_attempts_total{queue="email"' not in text
            # A test key's figures are of test jobs.
            own = await figures(test)
            assert (own["completed"], own["failed"]) == (1, FAILURES)
            # Also once the narrower lane is gone and all is folded into totals.
            desk.admin.execute("update outbox.stat_second set at = at - interval '1 hour'")
            connection = await connect(desk.database)
            await engine.roll_up(connection)
            assert (await test.post(f"/api/v1/jobs/{stuck}/cancel")).status_code == 200
            desk.admin.execute("update outbox.lane set held_at = held_at - interval '2 hours'")
            await retention.prune_lanes(connection)
            await engine.roll_up(connection)
            await connection.close()
        scopes = {row[0] for row in desk.rows("select scope from outbox.lane")}
        assert "test" in scopes
        assert not any(scope.startswith("test:") for scope in scopes)
        assert (await figures(api.client))["total_failed"] == 0
        assert (await figures(test))["total_failed"] == FAILURES
        # A real one is news all the same.
        await post(api.client)
        behind(api, FAIL.replace("recipient.no_address", "smtp.550"))
        told = [told.alert.subject for told in await make_round(pool)]
        assert "smtp.550" in told


async def figures(client: httpx.AsyncClient) -> dict[str, int]:
    answer = await client.get("/api/v1/queues/email/stats")
    assert answer.status_code == 200, answer.text
    found: dict[str, int] = answer.json()
    return found


async def make_round(pool: Database) -> list[Told]:
    async with pool.transaction(EVERY_TENANT) as connection:
        rows = await queues.stats(connection, tenant=None)
        gauges = await queues.gauges(connection)
        return await alert_store.make_round(connection, rows, gauges, every_s=0.0)


async def test_test_jobs_go_on_where_the_lane_in_earnest_is_held(desk: Desk, api: Api) -> None:
    async with with_test_key(api, "default") as test, delivering(desk):
        stuck = await post(api.client)
        await desk.until(lambda: held(desk) != [])
        job_id = await post(test)
        await desk.until_status(job_id, "sent")
        assert desk.status(stuck) == "pending"
    assert held(desk) == [("", "provider.missing")]


async def test_a_test_key_sees_and_mends_test_jobs_alone(desk: Desk, api: Api) -> None:
    live = await post(api.client, tenant_id="acme")
    async with with_test_key(api) as test:
        own = await post(test)
        for call in ("cancel", "retry", "promote", "resend"):
            assert (await test.post(f"/api/v1/jobs/{live}/{call}")).status_code == 404, call
        assert (await test.get(f"/api/v1/jobs/{live}")).status_code == 404
        assert (await test.get(f"/api/v1/jobs/{live}/deliveries")).status_code == 404
        listed = (await test.get("/api/v1/jobs")).json()["items"]
        assert [(row["job_id"], row["mode"]) for row in listed] == [(str(own), "test")]
        swept = await test.post("/api/v1/jobs/cancel", json={"queue": "email"})
        assert swept.status_code == 200, swept.text
        for refused in (
            await test.post("/api/v1/dead-letters/replay", json={"queue": "email"}),
            await test.put("/api/v1/recipients/ann", json={"email": "ann@example.com"}),
        ):
            assert refused.status_code == 403
            assert "test key" in refused.json()["detail"]
    assert desk.status(own) == "cancelled"
    assert desk.status(live) == "pending"


async def test_the_same_id_in_both_modes_is_a_conflict_and_never_a_duplicate(
    desk: Desk, api: Api
) -> None:
    same = {"job_id": str(uuid4()), "tenant_id": "acme"}
    async with with_test_key(api) as test:
        await post(test, **same)
        assert (await test.post("/api/v1/jobs", json=job(**same))).json()["duplicate"] is True
        assert (await api.client.post("/api/v1/jobs", json=job(**same))).status_code == 409
        keyed = {"dedup_key": "k", "dedup_window_s": 60, "tenant_id": "acme"}
        await post(test, **keyed)
        await post(api.client, **keyed)
        await post(test, ordering_key="o", tenant_id="acme")
        await post(api.client, ordering_key="o", tenant_id="acme")
    assert desk.value("select count(*) from outbox.entry where lane_id < 0") == 0


async def test_a_retried_and_a_resent_test_job_stay_test_jobs(desk: Desk, api: Api) -> None:
    async with mail_server() as server, with_test_key(api, "default") as test:
        async with delivering(desk, server):
            failed = await post(test, to="fail+550-5.2.2@sink.test")
            sent = await post(test)
            await desk.until_status(failed, "failed")
            await desk.until_status(sent, "sent")
            assert (await api.client.post(f"/api/v1/jobs/{failed}/retry")).status_code == 202
            again = (await api.client.post(f"/api/v1/jobs/{sent}/resend")).json()["job_id"]
            await desk.until_status(UUID(again), "sent")
            await desk.until_status(failed, "failed")
    assert server.mails == []
    assert desk.rows("select distinct test from outbox.job") == [(True,)]


async def test_an_event_of_a_test_key_makes_test_jobs(desk: Desk, api: Api) -> None:
    rule = {
        "event_type": "hello",
        "template_code": "hi",
        "channels": ["inbox"],
    }
    template = await api.client.put("/api/v1/templates/hi/inbox/en", json={"text": "Hi"})
    assert template.status_code < 300, template.text
    assert (await api.client.post("/api/v1/rules", json=rule)).status_code < 300
    async with with_test_key(api, "default") as test:
        event: dict[str, object] = {
            "event_id": str(uuid4()),
            "event_type": "hello",
            "user_id": "ann",
            "data": {},
        }
        told = await test.post(
            "/api/v1/events", json=event | {"occurred_at": "2026-11-22T12:00:00Z"}
        )
        assert told.status_code < 300, told.text
        in_earnest = await api.client.post(
            "/api/v1/events", json=event | {"occurred_at": "2026-11-22T12:00:00Z"}
        )
        assert in_earnest.status_code == 409  # and no duplicate, of which no job was made
    assert desk.rows("select test from outbox.job") == [(True,)]


async def test_a_test_key_is_told_by_its_prefix_and_can_have_no_admin(api: Api) -> None:
    assert (await make_key(api)).startswith("obx_test_")
    wanted = {"name": "x", "mode": "test", "scopes": ["admin"]}
    refused = await api.client.post("/api/v1/api-keys", json=wanted)
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["pointer"] == "/scopes"


async def test_a_producer_s_own_transaction_may_ask_for_test_mode(desk: Desk) -> None:
    with desk.database.connect() as producer, producer.transaction():
        producer.execute("set local outbox.mode = 'test'")
        producer.execute(
            "select outbox.enqueue(%s::jsonb)",
            ('{"channel": "email", "to": "a@b.co", "content": "x", "meta": {}, "data": {},'
             ' "created_at": "2026-11-22T12:00:00Z"}',),
        )  # fmt: skip
    assert desk.rows("select test from outbox.job") == [(True,)]
