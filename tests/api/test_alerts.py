"""Alerts: when they are raised and cleared, who makes the rounds, and whom they are told to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import psycopg
import pytest
from standardwebhooks import Webhook

from outbox import alerts
from outbox.alerts import RULES, QueueLook, State
from outbox.config import Config
from outbox.store import alerts as store
from outbox.store import queues
from outbox.store.alerts import Told
from outbox.store.pool import EVERY_TENANT, Connection, Database
from outbox.store.queues import QueueRow
from outbox_api.alerting import Alerting
from outbox_api.gauges import Gauges, read_queues
from outbox_dispatcher import watchman
from outbox_dispatcher.watchman import make_round
from tests.api.conftest import Api
from tests.api.stage import FAIL, behind, post
from tests.channels.hook_server import hook_server

SECRET = "whsec_" + "A" * 32
LIVE_DISPATCHER = (
    "insert into outbox.dispatcher (epoch, name, version, pid) values (7, 'd', '0', 1)"
    " on conflict (epoch) do update set heartbeat_at = clock_timestamp()"
)


@pytest.fixture(autouse=True)
def no_rounds_but_the_tests_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alerts, "ROUND_S", 1_000_000.0)


@pytest.fixture
async def pool(api: Api) -> AsyncIterator[Database]:
    async with Database(api.database.url) as database:
        yield database


async def _round(pool: Database, **how: object) -> list[Told]:
    async with pool.transaction(EVERY_TENANT) as connection:
        rows = await queues.stats(connection, tenant=None)
        gauges = await queues.gauges(connection)
        return await store.make_round(connection, rows, gauges, every_s=0.0, **how)  # type: ignore[arg-type]


def _look(**changes: object) -> QueueLook:
    sound = {"waiting": 0, "oldest_waiting_s": 0.0, "completed": 100, "failed": 0}
    return QueueLook(queue="email", **{"paused": False, **sound, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rule", "facts"),
    [
        ("backlog_age", {"queues": [_look(waiting=1, oldest_waiting_s=301.0)]}),
        ("failure_rate", {"queues": [_look(failed=12)]}),
        ("dead_letter_rate", {"dead_letters": {"email": 101}}),
        ("new_error_code", {"new_codes": ["smtp.5.9.9"]}),
        ("lane_held", {"held": [("acme", "email", "")]}),
        ("no_dispatcher", {"queues": [_look(waiting=1)], "dispatchers": 0}),
        ("pinned_snapshot", {"snapshot_age_s": 1801.0}),
    ],
)
def test_each_rule_holds_for_what_it_is_about_and_for_nothing_else(
    rule: str, facts: dict[str, object]
) -> None:
    sound: dict[str, object] = {
        "queues": [_look(waiting=5, oldest_waiting_s=299.0, failed=11)],
        "dispatchers": 1,
        "snapshot_age_s": 1799.0,
        "held": [],
        "dead_letters": {"email": 100},
        "new_codes": [],
    }
    assert alerts.holding(**sound) == {}  # type: ignore[arg-type]
    found = alerts.holding(**{**sound, **facts})  # type: ignore[arg-type]
    assert [key[0] for key in found] == [rule]


def test_a_paused_queue_raises_nothing() -> None:
    paused = _look(paused=True, waiting=9, oldest_waiting_s=9_999.0)
    assert not alerts.holding(
        queues=[paused],
        dispatchers=0,
        snapshot_age_s=0.0,
        held=[],
        dead_letters={},
        new_codes=[],
    )


def test_an_alert_opens_after_its_rounds_and_closes_after_its_rounds_without() -> None:
    rule = RULES["backlog_age"]
    state: State | None = None
    streak = 0
    seen = []
    for holds in [True, False, *[True] * 3, False, True, *[False] * 4]:
        state, streak = alerts.step(rule, state, streak, holds=holds)
        seen.append(state)
    waits = ["pending", None, "pending", "pending", "open"]
    assert seen == [*waits, "open", "open", "open", "open", "open", "closed"]


def test_the_runbook_has_a_page_for_each_rule() -> None:
    text = (Path(__file__).parents[2] / "docs/runbook.md").read_text()
    pages = [line[3:].strip("` ") for line in text.splitlines() if line.startswith("## ")]
    assert pages == list(RULES)
    assert all(f"`{rule.promql}`" in text for rule in RULES.values())


async def test_an_alert_is_listed_acknowledged_and_over(api: Api, pool: Database) -> None:
    await post(api)
    opened = [told for _ in range(4) for told in await _round(pool)]
    assert [(told.alert.rule, told.event_type) for told in opened] == [
        ("no_dispatcher", "alert.opened")
    ]
    (listed,) = (await api.client.get("/api/v1/alerts")).json()["items"]
    assert (listed["rule"], listed["severity"], listed["state"]) == (
        "no_dispatcher",
        "critical",
        "open",
    )
    path = f"/api/v1/alerts/{listed['alert_id']}/acknowledge"
    first = (await api.client.post(path)).json()
    assert first["acknowledged_at"] is not None
    assert (await api.client.post(path)).json() == first
    assert api.rows("select action from outbox.operator_action") == [("alert.acknowledge",)] * 2
    wanted = 'outbox_alerts{rule="no_dispatcher",severity="critical"} 1.0'
    async with asyncio.timeout(30):  # the figures are as old as they may be
        while wanted not in (await api.client.get("/metrics")).text:
            await asyncio.sleep(0.01)
    behind(api, LIVE_DISPATCHER)
    closed = await _round(pool)
    assert [told.event_type for told in closed] == ["alert.closed"]
    assert (await api.client.get("/api/v1/alerts")).json()["items"] == []
    (over,) = (await api.client.get("/api/v1/alerts?state=all")).json()["items"]
    assert over["closed_at"] is not None
    assert (await api.client.post(path)).status_code == 404
    assert (await api.client.post("/api/v1/alerts/x/acknowledge")).status_code == 404


async def test_a_tenants_key_sees_no_alerts(api: Api) -> None:
    async with api.with_key(await api.new_key("acme", "jobs:read", "admin")) as client:
        assert (await client.get("/api/v1/alerts")).status_code == 403
        assert (await client.post("/api/v1/alerts/1/acknowledge")).status_code == 403


async def test_an_error_code_is_news_once_and_not_in_the_very_first_round(
    api: Api, pool: Database
) -> None:
    behind(api, LIVE_DISPATCHER)
    await post(api)
    behind(api, FAIL)
    assert await _round(pool) == []
    await post(api)
    behind(api, FAIL.replace("recipient.no_address", "smtp.5.9.9"))
    (told,) = await _round(pool)
    assert (told.alert.rule, told.alert.subject) == ("new_error_code", "smtp.5.9.9")
    await post(api)
    behind(api, FAIL.replace("recipient.no_address", "smtp.5.9.9"))
    assert await _round(pool) == []
    behind(api, "update outbox.known_error_code set at = at - interval '2 hours'")
    assert [told.event_type for told in await _round(pool)] == ["alert.closed"]


async def test_a_round_is_made_once_over_the_fleet(api: Api, pool: Database) -> None:
    await post(api)
    for _ in range(2):
        await _round(pool)
    with psycopg.connect(api.database.admin_url) as other:
        other.execute("select from outbox.alert_round for update")
        assert await asyncio.wait_for(_round(pool), 5) == []
        assert other.execute("select state from outbox.alert").fetchall() == [("pending",)]
    assert len(await _round(pool)) == 1


async def test_a_dispatcher_makes_the_round_where_no_api_has(api: Api) -> None:
    behind(api, LIVE_DISPATCHER)
    behind(api, "update outbox.lane set held_at = now(), hold_code = 'x' where queue = 'email'")
    for _ in range(2):
        behind(api, "update outbox.alert_round set next_at = '-infinity'")
        await make_round(api.database.url, None)
    assert ("lane_held", "default/email", "open") in api.rows(
        "select rule, subject, state from outbox.alert"
    )
    await make_round(api.database.url, None)  # not due: nobody makes it
    assert api.rows("select max(streak) from outbox.alert where state = 'open'") == [(0,)]


async def test_a_round_that_took_long_looks_at_estimates_and_puts_the_next_one_off(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alerts, "ROUND_S", 15.0)
    monkeypatch.setattr(queues, "LOOK_MS_MAX", 1)
    monkeypatch.setattr(watchman, "monotonic", iter([100.0, *[103.0] * 9]).__next__)
    walked: list[bool] = []
    look = queues.look

    async def watched(connection: Connection, *, tenant: None, walk: bool) -> list[QueueRow]:
        walked.append(walk)
        return await look(connection, tenant=tenant, walk=walk)

    monkeypatch.setattr(queues, "look", watched)
    behind(api, "update outbox.alert_round set next_at = '-infinity'")
    await make_round(api.database.url, None)
    assert walked[-1] is False
    ((next_s,),) = api.rows(
        "select extract(epoch from next_at - clock_timestamp())::float8 from outbox.alert_round"
    )
    assert 30 < next_s <= 60


async def test_no_dispatcher_is_posted_by_the_api_itself_and_signed_under_its_jobs_id(
    api: Api, pool: Database
) -> None:
    await post(api)
    async with hook_server() as hooks:
        url = f"http://127.0.0.1:{hooks.port}/alerts"
        config = Config(alert_webhook=url, webhook_secret=SECRET, webhook_allow=("127.0.0.1",))
        alerting = Alerting(config, pool, Gauges(pool, read_queues))
        told = [one for _ in range(3) for one in await alerting.make_round(every_s=0.0)]
        async with asyncio.timeout(30):
            await hooks.reached.wait()
        await alerting.close()
    (call,) = hooks.calls
    assert call.headers["webhook-id"] == str(told[0].job_id)
    body = Webhook(SECRET).verify(call.body, dict(call.headers))
    assert body["type"] == "alert.opened"
    assert body["data"]["rule"] == "no_dispatcher"
    # The job waits for a dispatcher, under the same id: the receiver knows it again.
    jobs = api.rows("select job_id, job from outbox.job where channel = 'webhook'")
    assert [(row[0], row[1]["to"]) for row in jobs] == [(told[0].job_id, url)]
    assert json.loads(json.dumps(jobs[0][1]))["meta"]["priority"] == "urgent"
