"""What a tenant decides for itself: when its messages go out, and what an error means to it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pytest

from outbox.message import Message
from outbox.outcome import Delivered, Misconfigured, Outcome, Rejected, Retryable
from tests.api.conftest import ADMIN_KEY, running_api
from tests.engine.desk import Desk, Scripted, dispatching, in_s

TENANT = "acme"


@pytest.fixture
async def client(desk: Desk) -> AsyncIterator[httpx.AsyncClient]:
    async with running_api(desk.database.url) as client:
        client.headers["authorization"] = f"Bearer {ADMIN_KEY}"
        yield client


async def set_up(client: httpx.AsyncClient, **settings: object) -> None:
    stored = await client.put(f"/api/v1/tenants/{TENANT}", json=settings)
    assert stored.status_code == 200, stored.text
    shown = (await client.get("/api/v1/tenants")).json()["items"]
    (acme,) = [each for each in shown if each["tenant_id"] == TENANT]
    assert acme == stored.json()


def mail(desk: Desk, **fields: Any) -> Any:
    job = {"channel": "email", "content": "Hi", "data": {}, "meta": {}, "to": "ann@example.com"}
    return desk.enqueue(tenant=TENANT, notify=True, created_at=in_s(0), **job | fields)


async def test_a_message_outside_of_its_tenant_s_window_waits_on_the_recipient_s_clock(
    desk: Desk, client: httpx.AsyncClient
) -> None:
    # In an hour by the clock of Almaty, where Ann is; by Bob's clock it has begun an hour ago.
    there = datetime.now(UTC).astimezone(ZoneInfo("Asia/Almaty"))
    opens = (there + timedelta(hours=1)).replace(second=0, microsecond=0)
    bobs = f"Etc/GMT-{(5 + 2) % 14}"
    window = {"from": f"{opens:%H:%M}", "to": f"{opens + timedelta(hours=12):%H:%M}"}
    await set_up(client, timezone="Asia/Almaty", send_windows={"news": window})
    await client.put(f"/api/v1/recipients/bob?tenant_id={TENANT}",
        json={"email": "bob@example.com", "timezone": bobs})  # fmt: skip
    handler = Scripted()
    async with dispatching(desk, {}, channels={"email": handler}):
        waits = mail(desk, category="news")
        goes = [
            mail(desk, to=None, user_id="bob", category="news"),
            mail(desk, category="transactional"),
            mail(desk, category="news", meta={"priority": "urgent"}),
            mail(desk),
        ]
        for job_id in goes:
            await desk.until_status(job_id, "sent")
        await desk.until_status(waits, "scheduled")
    assert desk.value(
        "select next_attempt_at from outbox.notification_delivery where job_id = %s", waits
    ) == opens.astimezone(UTC)
    why = (await client.get(f"/api/v1/jobs/{waits}/explain")).json()
    assert why["waiting_for"] == "send window"
    assert why["explanation"].endswith(": the tenant's send window, in Asia/Almaty.")
    assert desk.value("select attempts from outbox.notification where job_id = %s", waits) == 0


async def test_a_window_for_all_holds_where_a_category_has_none_of_its_own(
    desk: Desk, client: httpx.AsyncClient
) -> None:
    later = datetime.now(UTC) + timedelta(hours=2)
    shut = {"from": f"{later:%H:%M}", "to": f"{later + timedelta(hours=1):%H:%M}"}
    whole_day = {"from": "00:00", "to": "00:00"}
    await set_up(client, send_windows={"*": shut, "alerts": whole_day})
    async with dispatching(desk, {}, channels={"email": Scripted()}):
        await desk.until_status(mail(desk, category="alerts"), "sent")
        await desk.until_status(mail(desk), "scheduled")


RULES = [
    {"code": "smtp.5.7.*", "becomes": "temporary", "retry_after_s": 7_200},
    {"code": "smtp.5.1.1", "becomes": "permanent"},
    {"code": "smtp.451", "becomes": "permanent", "suppress": True, "channel": "email"},
    {"code": "smtp.452", "becomes": "configuration"},
    {"code": "smtp.421", "becomes": "permanent", "channel": "sms"},
]


@pytest.mark.parametrize(
    ("outcome", "status", "error_class", "suppressed", "held"),
    [
        (
            Rejected(code="smtp.5.7.1", reason="policy", suppress=True),
            "retrying",
            "temporary",
            0,
            0,
        ),
        (Rejected(code="smtp.5.1.1", reason="who?", suppress=True), "failed", "permanent", 0, 0),
        (Retryable(code="smtp.451", reason="later"), "failed", "permanent", 1, 0),
        (Retryable(code="smtp.452", reason="full"), "pending", "held", 0, 1),
        (Misconfigured(code="smtp.5.7.8", reason="login"), "retrying", "temporary", 0, 0),
        # Not its channel's, and not there at all: as the table has it.
        (Retryable(code="smtp.421", reason="busy"), "retrying", "temporary", 0, 0),
        (Rejected(code="smtp.550", reason="no"), "failed", "permanent", 0, 0),
        (Delivered(), "sent", None, 0, 0),
    ],
    ids=lambda value: getattr(value, "code", None),
)
async def test_an_error_means_what_the_tenant_s_own_row_says(
    desk: Desk,
    client: httpx.AsyncClient,
    outcome: Outcome,
    status: str,
    error_class: str | None,
    suppressed: int,
    held: int,
) -> None:
    async def deliver(message: Message) -> Outcome:
        return outcome if message.tenant_id == TENANT else Delivered()

    await set_up(client, error_rules=RULES)
    async with dispatching(desk, {}, channels={"email": Scripted(deliver)}):
        job_id = mail(desk)
        await desk.until(lambda: bool(desk.deliveries(job_id)))
    assert desk.status(job_id) == status
    (row,) = desk.rows(
        "select error_class, error_code, next_attempt_at - finished_at"
        " from outbox.notification_delivery where job_id = %s",
        job_id,
    )
    assert row[:2] == (error_class, getattr(outcome, "code", None))
    if row[1] in ("smtp.5.7.1", "smtp.5.7.8"):
        assert abs(row[2].total_seconds() - 7_200) < 1
    assert desk.value("select count(*) from outbox.suppression") == suppressed
    assert desk.value("select count(*) from outbox.lane where held_at is not null") == held


@pytest.mark.parametrize(
    ("settings", "pointer"),
    [
        ({"error_rules": [{"code": "", "becomes": "temporary"}]}, "/error_rules/0/code"),
        ({"error_rules": [{"code": "a*b", "becomes": "temporary"}]}, "/error_rules/0/code"),
        ({"error_rules": [{"code": "x", "becomes": "fine"}]}, "/error_rules/0/becomes"),
        ({"error_rules": [{"code": "x", "becomes": "temporary", "why": 1}]}, "/error_rules/0"),
        ({"send_windows": {"news": {"from": "25:00", "to": "10:00"}}}, "/send_windows"),
        (
            {"send_windows": {"news": {"from": "09:00", "to": "10:00", "days": []}}},
            "/send_windows",
        ),
    ],
)
async def test_a_rule_or_window_that_cannot_be_is_refused_with_its_place(
    client: httpx.AsyncClient, settings: dict[str, object], pointer: str
) -> None:
    refused = await client.put(f"/api/v1/tenants/{TENANT}", json=settings)
    assert refused.status_code == 422, refused.text
    assert refused.json()["errors"][0]["pointer"].startswith(pointer)
