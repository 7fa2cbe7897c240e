"""Registered webhook endpoints: their URL, their secrets, and what becomes of a dead one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import msgspec
import psycopg
import pytest
from aiohttp import web
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from outbox.channels.registry import load_handlers
from outbox.sealing import Keyring
from outbox.store.endpoints import EndpointSecret, new_secret, rotated
from outbox_dispatcher.service import Dispatcher
from tests.channels.hook_server import Call, HookServer, hook_server
from tests.engine.desk import Desk, dispatching

SECRET_KEY = "a-secret-key-of-the-operator"


def add_endpoint(
    desk: Desk, url: str, *, secrets: list[EndpointSecret] | None = None, tenant: str = "default"
) -> UUID:
    endpoint_id = uuid4()
    kept = secrets or [EndpointSecret(new_secret())]
    sealed = Keyring(SECRET_KEY).seal(msgspec.json.encode(kept), place=f"endpoint/{endpoint_id}")
    desk.admin.execute(
        "insert into outbox.endpoint (endpoint_id, tenant_id, url, secrets, key_id)"
        " values (%s, %s, %s, %s, %s)",
        (endpoint_id, tenant, url, sealed.content, sealed.key_id),
    )
    return endpoint_id


def hook(desk: Desk, endpoint_id: UUID, **fields: object) -> UUID:
    job: dict[str, Any] = {
        "channel": "webhook",
        "endpoint": str(endpoint_id),
        "data": {"n": 1},
        "meta": {"event_type": "paid"},
        "created_at": "2026-11-22T12:00:00Z",
    }
    return desk.enqueue(notify=True, **job | fields)


@asynccontextmanager
async def delivering(desk: Desk, **settings: Any) -> AsyncIterator[Dispatcher]:
    async with dispatching(
        desk,
        {},
        channels=load_handlers({"WEBHOOK_ALLOW": "127.0.0.1"}),
        secret_key=SECRET_KEY,
        **{"probe_s": 0.3} | settings,
    ) as dispatcher:
        yield dispatcher


def url_of(receiver: HookServer, path: str = "/hook") -> str:
    return f"http://127.0.0.1:{receiver.port}{path}"


def verify(call: Call, secret: str) -> None:
    Webhook(secret).verify(call.body, dict(call.headers))


async def test_a_job_that_names_an_endpoint_goes_to_its_url_under_its_secret(desk: Desk) -> None:
    secret = new_secret()
    async with hook_server() as receiver, delivering(desk):
        endpoint_id = add_endpoint(desk, url_of(receiver), secrets=[EndpointSecret(secret)])
        await desk.until_status(hook(desk, endpoint_id), "sent")
    (call,) = receiver.calls
    assert json.loads(call.body)["data"] == {"n": 1}
    verify(call, secret)
    assert desk.value("select recipient from outbox.delivery") == url_of(receiver)


async def test_both_secrets_sign_while_a_rotation_overlaps_and_then_the_new_one_alone(
    desk: Desk,
) -> None:
    old, new = new_secret(), new_secret()
    soon = datetime.now(UTC) + timedelta(hours=1)
    gone = datetime.now(UTC) - timedelta(seconds=1)
    async with hook_server() as receiver, delivering(desk):
        both = rotated([EndpointSecret(old)], new, until=soon)
        for secrets in (both, rotated([EndpointSecret(old)], new, until=gone)):
            endpoint_id = add_endpoint(desk, url_of(receiver), secrets=secrets)
            await desk.until_status(hook(desk, endpoint_id), "sent")
    during, after = receiver.calls
    verify(during, old)
    verify(during, new)
    verify(after, new)
    with pytest.raises(WebhookVerificationError):
        verify(after, old)


async def test_an_endpoint_that_answers_410_is_switched_off_and_gets_nothing_more(
    desk: Desk,
) -> None:
    async with hook_server() as receiver, delivering(desk):
        endpoint_id = add_endpoint(desk, url_of(receiver))
        receiver.status = 410
        first = hook(desk, endpoint_id)
        await desk.until_status(first, "failed")
        version = desk.value("select version from outbox.control")
        await desk.until(
            lambda: desk.value("select min(seen_version) from outbox.dispatcher") >= version
        )
        second = hook(desk, endpoint_id)
        await desk.until_status(second, "failed")
        assert len(receiver.calls) == 1
        assert desk.deliveries(second) == [("FAILED", 1, "endpoint.disabled", False)]
        assert desk.rows("select enabled, disabled_reason from outbox.endpoint") == [
            (False, "The receiver answered 410: ok")
        ]
        assert desk.value("select count(*) from outbox.suppression") == 0


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"endpoint": str(uuid4())}, "/endpoint"),
        ({"endpoint": "no uuid"}, "/endpoint"),
        ({"endpoint": 7}, "/endpoint"),
        ({"to": "https://example.com"}, "/endpoint"),
        ({"channel": "email", "to": None, "content": "x"}, "/endpoint"),
    ],
)
def test_a_job_with_an_endpoint_that_cannot_be_is_refused(
    desk: Desk, fields: dict[str, object], pointer: str
) -> None:
    endpoint_id = add_endpoint(desk, "https://example.com")
    hook(desk, endpoint_id)
    with pytest.raises(psycopg.Error) as caught:
        hook(desk, endpoint_id, **fields)
    assert f'"{pointer}"' in str(caught.value.diag.message_detail)


def test_an_endpoint_of_another_tenant_is_none(desk: Desk) -> None:
    endpoint_id = add_endpoint(desk, "https://example.com", tenant="acme")
    with pytest.raises(Exception, match="no such endpoint"):
        hook(desk, endpoint_id)


async def test_an_endpoint_that_refuses_us_is_held_alone_and_its_jobs_follow_when_it_is_mended(
    desk: Desk,
) -> None:
    async with hook_server() as wrong, hook_server() as fine, delivering(desk):
        held, open_one = add_endpoint(desk, url_of(wrong)), add_endpoint(desk, url_of(fine))
        wrong.status = 401
        waiting = [hook(desk, held) for _ in range(30)]
        await desk.until(
            lambda: desk.value(
                "select exists (select from outbox.lane where scope <> '' and held_at is not null)"
            )
        )
        for _ in range(5):
            await desk.until_status(hook(desk, open_one), "sent")
        assert desk.rows("select action, detail from outbox.operator_action") == [
            ("hold", {"queue": "webhook", "scope": f"endpoint:{held}", "code": "http.401"})
        ]
        before = len(wrong.calls)
        wrong.status = 200
        for job_id in waiting:
            await desk.until_status(job_id, "sent")
    ids = [call.headers["webhook-id"] for call in wrong.calls[before:]]
    assert sorted(ids) == sorted(map(str, waiting))
    assert desk.value("select count(*) from outbox.dead_letter") == 0
    assert desk.value("select max(attempt) from outbox.delivery") == 1
    actions = desk.rows("select action from outbox.operator_action order by action_id")
    assert actions == [("hold",), ("unhold",)]


async def test_what_was_held_starts_slowly_again(desk: Desk) -> None:
    """One at a time at first, one more for each that went well: never all slots at once."""
    running, most = 0, []

    async def receive(request: web.BaseRequest) -> web.StreamResponse:
        nonlocal running
        running += 1
        most.append(running)
        await asyncio.sleep(0.02)
        running -= 1
        return web.Response(status=status)

    status = 401
    runner = web.ServerRunner(web.Server(receive))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        async with delivering(desk, concurrency={"webhook": 40}):
            endpoint_id = add_endpoint(desk, f"http://127.0.0.1:{runner.addresses[0][1]}/")
            jobs = [hook(desk, endpoint_id) for _ in range(80)]
            await desk.until(
                lambda: (
                    desk.value(
                        "select count(*) from outbox.entry as e join outbox.lane as l"
                        " using (lane_id) where l.held_at is not null and e.claimed_by is null"
                    )
                    == 80
                )
            )
            status = 200
            most.clear()
            for job_id in jobs:
                await desk.until_status(job_id, "sent")
    finally:
        await runner.cleanup()
    assert most[:2] == [1, 1]  # the probe, and the first after it
    for n, at_once in enumerate(most):
        assert at_once <= n + 1
    assert max(most) > 5


async def test_one_dead_endpoint_among_a_thousand_does_not_slow_the_others(desk: Desk) -> None:
    """One endpoint never answers; a thousand others get theirs in far less than its timeouts."""
    hang = asyncio.Event()

    async def receive(request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/dead":
            await hang.wait()
        return web.Response()

    runner = web.ServerRunner(web.Server(receive), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    base = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        async with delivering(desk, timeout_s=2.0):
            dead = add_endpoint(desk, f"{base}/dead")
            others = [add_endpoint(desk, f"{base}/{n}") for n in range(1_000)]
            first = [hook(desk, dead) for _ in range(3)]
            for job_id in first:
                await desk.until_status(job_id, "retrying")
            version = desk.value("select version from outbox.control")
            await desk.until(
                lambda: desk.value("select min(seen_version) from outbox.dispatcher") >= version
            )
            loop = asyncio.get_running_loop()
            began = loop.time()
            for _ in range(100):
                hook(desk, dead)
            jobs = [hook(desk, endpoint) for endpoint in others]
            await desk.until(
                lambda: (
                    desk.value("select count(*) from outbox.delivery where status = 'SENT'")
                    == len(jobs)
                )
            )
            took_s = loop.time() - began
            hang.set()
    finally:
        hang.set()
        await runner.cleanup()
    # 100 jobs of 2 s each on 10 slots would have taken 20 s by themselves.
    assert took_s < 15.0
