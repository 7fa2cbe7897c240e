"""A walk over every route that changes something: each line tells before and after."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from outbox_api.operator_log import UNLOGGED
from tests.api.conftest import ADMIN_KEY, Api, running_api
from tests.api.stage import FAIL, SEND, behind, post
from tests.api.test_dashboard import signed_in
from tests.api.test_operator_log import CHANGING
from tests.engine.desk import in_s
from tests.postgres import Database

CHANGES_NOTHING = {
    "make_ticket": "signs a ticket, and stores nothing",
    "reveal": "somebody looked at what is personal: the line says at what",
    "said": "somebody looked at what is personal: the line says at what",
    "reveal_recipient": "somebody looked at what is personal: the line says at whose",
    "frame": "shows what it was given",
    "show_preview": "shows what it was given",
    "unsubscribe": "its recipient's own act, kept as an opt-out with its time",
}
"""Operations with no before and after, by name, and why."""

SECRET_KEY = "a-secret-key-of-the-operator"
HOOK = {"url": "https://hooks.example.com/x", "event_types": ["order_paid"]}
SMTP = {
    "channel": "email",
    "kind": "smtp",
    "name": "main",
    "config": {"smtp_url": "smtps://mail.example.com", "mail_from": "a@example.com"},
}
DAILY = {"trigger": {"every_s": 60}, "clean": {"queue": "email", "status": "sent", "keep_last": 1}}
LATER = {"channel": "inbox", "to": None, "send_after": in_s(86_400).isoformat()}
HELD = """
update outbox.entry set lane_id = outbox.hold_lane('default', 'inbox', 'ambiguous', 'x', 'y', null)
where id in (select id from outbox.job where job_id::text = any(%s)) returning 1
"""
ALERT = """
insert into outbox.alert (rule, subject, severity, state, streak, value, opened_at)
values ('backlog', %s, 'warning', 'open', 0, 1, now()) returning alert_id
"""


@dataclass
class Walk:
    """Asks for one change after the other, and looks at what is written down of each."""

    api: Api
    page: httpx.AsyncClient
    seen: int = 0
    done: set[str] = field(default_factory=set)

    async def __call__(
        self, method: str, path: str, body: object = None, *, params: Any = None, **parts: object
    ) -> Any:
        is_page = not path.startswith("/api/v1")
        given: dict[str, Any] = {"data" if is_page else "json": body} if body is not None else {}
        client = self.page if is_page else self.api.client
        answer = await client.request(method, path.format(**parts), params=params, **given)
        assert answer.status_code < 400, (method, path, answer.text)
        rows = self.api.rows(
            "select action_id, action, detail from outbox.operator_action"
            " where action_id > %s order by action_id",
            self.seen,
        )
        assert rows, f"{method} {path} left no line"
        for action_id, action, detail in rows:
            self.seen = action_id
            assert "refused" not in detail, (path, detail)
            told = detail.get("changes", [detail])
            assert all("before" in one and "after" in one for one in told), (path, action, detail)
            assert any(one["before"] != one["after"] for one in told), (path, action, detail)
            assert "ann@" not in str(detail), (path, detail)
        self.done.add(f"{method} {path}")
        return answer.json() if answer.content and not is_page else None


@pytest.fixture
async def sealing_api(database: Database) -> Any:
    async with running_api(database.url, secret_key=SECRET_KEY) as client:
        client.headers["authorization"] = f"Bearer {ADMIN_KEY}"
        yield Api(client, database)


async def test_every_change_tells_what_was_before_and_what_is_after(sealing_api: Api) -> None:
    api = sealing_api
    v1 = "/api/v1"
    failed = [await post(api) for _ in range(8)]
    behind(api, FAIL)
    sent = [await post(api, channel="inbox", to=None, user_id="ann") for _ in range(3)]
    behind(api, SEND)
    waiting = [await post(api, user_id="ann", **LATER) for _ in range(6)]
    await post(api, user_id="bulk", **LATER)
    assert len(api.rows(HELD, waiting[4:])) == 2
    letters = [
        row[0] for row in api.rows("select dead_letter_id from outbox.dead_letter order by 1")
    ]
    alerts = [api.rows(ALERT, queue)[0][0] for queue in ("email", "sms")]
    async with contextlib.AsyncExitStack() as stack:
        page = await stack.enter_async_context(signed_in(api, ADMIN_KEY))
        walk = Walk(
            api,
            page,
            seen=api.rows("select coalesce(max(action_id), 0) from outbox.operator_action")[0][0],
        )
        await jobs_and_queues(walk, failed, sent, waiting, letters)
        await walk("POST", v1 + "/alerts/{alert_id}/acknowledge", alert_id=alerts[0])
        await walk("POST", "/alerts/{alert_id}/acknowledge", {}, alert_id=alerts[1])
        await administration(walk)
        await templates_and_sink(walk)
        await persons(walk)
    expected = {
        f"{found.method} {found.path}"
        for found in CHANGING
        if found.name not in UNLOGGED and found.name not in CHANGES_NOTHING
    }
    assert walk.done == expected
    assert set(CHANGES_NOTHING) <= {found.name for found in CHANGING}


async def jobs_and_queues(
    walk: Walk, failed: list[str], sent: list[str], waiting: list[str], letters: list[int]
) -> None:
    v1 = "/api/v1"
    for at, body, number in ((v1, None, 0), ("", {}, 1)):
        await walk("POST", at + "/jobs/{job_id}/cancel", body, job_id=waiting[number])
        await walk("POST", at + "/jobs/{job_id}/promote", body, job_id=waiting[2 + number])
        await walk("POST", at + "/jobs/{job_id}/release", body, job_id=waiting[4 + number])
        await walk("POST", at + "/jobs/{job_id}/retry", body, job_id=failed[number])
        await walk("POST", at + "/jobs/{job_id}/resend", body, job_id=sent[number])
        letter = letters[2 + number]
        await walk(
            "POST", at + "/dead-letters/{dead_letter_id}/replay", body, dead_letter_id=letter
        )
        await walk("POST", at + "/queues/{queue}/pause", body, queue="inbox")
        await walk("POST", at + "/queues/{queue}/resume", body, queue="inbox")
    await walk("POST", v1 + "/jobs/cancel", {"user_id": "bulk"})
    await walk("POST", v1 + "/dead-letters/replay", {"queue": "email"})
    await walk("POST", "/dead-letters/replay", {"error_code": "recipient.no_address"})
    newest, older = (
        row[0]
        for row in walk.api.rows("select run_id from outbox.replay_run order by begun_at desc")
    )
    await walk("POST", v1 + "/replays/{run_id}/stop", run_id=newest)
    await walk("POST", "/replays/{run_id}/stop", {}, run_id=older)
    clean: dict[str, object] = {"status": "sent", "older_than_s": 0, "limit": 1}
    await walk("POST", v1 + "/queues/{queue}/clean", clean, queue="inbox")
    clean = {"status": "sent", "older_than_days": "0", "limit": "1"}
    await walk("POST", "/queues/{queue}/clean", clean, queue="inbox")


async def administration(walk: Walk) -> None:
    v1 = "/api/v1"
    await walk("PUT", v1 + "/tenants/{tenant_id}", {"timezone": "UTC"}, tenant_id="acme")
    lane = {"tenant_id": "acme", "queue": "inbox"}
    await walk("PUT", v1 + "/lanes/{tenant_id}/{queue}", {"weight": 2}, **lane)
    await walk("POST", v1 + "/lanes/{tenant_id}/{queue}/pause", **lane)
    await walk("POST", v1 + "/lanes/{tenant_id}/{queue}/resume", **lane)
    name = "host:example.com"
    await walk("PUT", v1 + "/destinations/{name}", {"rate_per_s": 5}, name=name)
    walk.api.rows(
        "update outbox.destination set paused_until = now() + interval '1 hour' returning 1"
    )
    await walk("POST", v1 + "/destinations/{name}/resume", name=name)
    key = {"name": "ci", "tenant_id": "acme", "scopes": ["jobs:read"]}
    made = await walk("POST", v1 + "/api-keys", key)
    await walk("DELETE", v1 + "/api-keys/{key_id}", key_id=made["key_id"])
    made = await walk("POST", v1 + "/endpoints", HOOK)
    which = {"endpoint_id": made["endpoint_id"]}
    await walk("PUT", v1 + "/endpoints/{endpoint_id}", HOOK | {"enabled": False}, **which)
    await walk("POST", v1 + "/endpoints/{endpoint_id}/rotate", {}, **which)
    await walk("DELETE", v1 + "/endpoints/{endpoint_id}", **which)
    made = await walk("POST", v1 + "/providers", SMTP)
    which = {"provider_id": made["provider_id"]}
    await walk("PUT", v1 + "/providers/{provider_id}", SMTP | {"enabled": False}, **which)
    await walk("DELETE", v1 + "/providers/{provider_id}", **which)
    await walk("PUT", v1 + "/schedules/{name}", DAILY, name="daily")
    await walk("POST", v1 + "/schedules/{name}/pause", name="daily")
    await walk("POST", v1 + "/schedules/{name}/resume", name="daily")
    await walk("DELETE", v1 + "/schedules/{name}", name="daily")
    form = {
        "name": "weekly",
        "every_s": "60",
        "clean": '{"queue": "email", "status": "sent", "keep_last": 1}',
    }
    await walk("POST", "/schedules", form)
    await walk("POST", "/schedules/{name}/pause", {}, name="weekly")
    await walk("POST", "/schedules/{name}/resume", {}, name="weekly")
    await walk("POST", "/schedules/{name}/delete", {}, name="weekly")


async def templates_and_sink(walk: Walk) -> None:
    v1 = "/api/v1"
    key = {"code": "hi", "channel": "inbox", "locale": "en"}
    where = "/templates/{code}/{channel}/{locale}"
    await walk("PUT", v1 + where, {"text": "Hi"}, **key)
    await walk("POST", where, {"text": "Bye"}, **key)
    rule = {"name": "r", "event_type": "order_paid", "template_code": "hi", "channels": ["inbox"]}
    made = await walk("POST", v1 + "/rules", rule)
    which = {"rule_id": made["rule_id"]}
    await walk("PUT", v1 + "/rules/{rule_id}", rule | {"enabled": False}, **which)
    await walk("DELETE", v1 + "/rules/{rule_id}", **which)
    await walk("POST", where + "/test", {"text": "Hi", "data": "{}"}, **key)
    await walk("DELETE", v1 + "/sink")
    await walk("POST", where + "/test", {"text": "Hi", "data": "{}"}, **key)
    await walk("POST", "/sink/clear", {})
    await walk("DELETE", v1 + where, **key)


async def persons(walk: Walk) -> None:
    v1 = "/api/v1"
    who = {"user_id": "ann"}
    person = v1 + "/recipients/{user_id}"
    await walk("PUT", person, {"email": "ann@example.com"}, **who)
    await walk("PUT", person, {"email": "ann@example.org"}, **who)
    token = await walk.api.client.post(f"{v1}/recipients/ann/fcm-tokens", json={"token": "t" * 40})
    device = token.json()["device_id"]
    await walk("DELETE", person + "/devices/{device_id}", **who, device_id=device)
    await walk("DELETE", person, **who)
    address = {"channel": "email", "address": "ann@example.com"}
    await walk("PUT", v1 + "/suppressions/{channel}/{address}", {}, **address)
    await walk("DELETE", v1 + "/suppressions/{channel}/{address}", **address)
    await walk("DELETE", person + "/data", **who)
