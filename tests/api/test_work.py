"""What is done with jobs after they were accepted, events, simple sends, queues."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from tests.api.conftest import Api, job

FAIL = """
with gone as (delete from outbox.entry returning *), told as (
    insert into outbox.delivery (id, started_at, finished_at, lease_no, series, attempt, terminal,
        status, tenant_id, error_class, error_code, error_message)
    select g.id, now(), now(), g.lease_no + 1, g.series, 1, true, 'FAILED', j.tenant_id,
        'permanent', 'recipient.no_address', 'User has no email'
    from gone as g join outbox.job as j on j.id = g.id)
insert into outbox.dead_letter (id, job_id, series, attempts, tenant_id, queue, reason,
    error_class, error_code, error_message, job)
select g.id, j.job_id, g.series, 1, j.tenant_id, j.queue, 'permanent', 'permanent',
    'recipient.no_address', 'User has no email', outbox.whole_job(j.job_id, j.created_at, j.job)
from gone as g join outbox.job as j on j.id = g.id
"""
SEND = """
with gone as (delete from outbox.entry returning *)
insert into outbox.delivery (id, started_at, finished_at, lease_no, series, attempt, terminal,
    status, tenant_id, provider)
select g.id, now(), now(), g.lease_no + 1, g.series, 1, true, 'SENT', j.tenant_id, 'sink'
from gone as g join outbox.job as j on j.id = g.id
"""
CLAIM = "update outbox.entry set claimed_by = 7, claimed_at = now(), lease_no = lease_no + 1"


def behind(api: Api, statement: str) -> None:
    """Do what a dispatcher would have done to every live job."""
    with psycopg.connect(api.database.admin_url) as admin:
        admin.execute(statement.encode())


async def post(api: Api, **changes: object) -> str:
    answer = await api.client.post("/api/v1/jobs", json=job(**changes))
    assert answer.status_code == 202, answer.text
    job_id: str = answer.json()["job_id"]
    return job_id


async def status_of(api: Api, job_id: str) -> str:
    status: str = (await api.client.get(f"/api/v1/jobs/{job_id}")).json()["status"]
    return status


async def test_a_waiting_job_is_cancelled_and_one_that_runs_or_ended_is_not(
    open_api: Api,
) -> None:
    waiting = await post(open_api)
    answer = await open_api.client.post(f"/api/v1/jobs/{waiting}/cancel?reason=mistake")
    assert answer.json() == {"job_id": waiting, "status": "cancelled"}
    again = await open_api.client.post(f"/api/v1/jobs/{waiting}/cancel")
    assert again.status_code == 200
    running = await post(open_api)
    behind(open_api, CLAIM)
    assert (await open_api.client.post(f"/api/v1/jobs/{running}/cancel")).status_code == 409
    assert open_api.rows("select cancel from outbox.entry") == [(False,)]
    behind(open_api, SEND)
    assert (await open_api.client.post(f"/api/v1/jobs/{running}/cancel")).status_code == 409
    assert await status_of(open_api, running) == "sent"


async def test_a_campaign_is_stopped_by_a_filter_after_a_dry_run(open_api: Api) -> None:
    campaign = {"meta": {"campaign_id": "bf"}}
    await open_api.client.post("/api/v1/jobs/batch", json=[job(**campaign)] * 3 + [job()])
    dry = await open_api.client.post(
        "/api/v1/jobs/cancel", json={"campaign_id": "bf", "dry_run": True}
    )
    assert dry.json()["matched"] == 3
    assert open_api.count("entry") == 4
    done = await open_api.client.post("/api/v1/jobs/cancel", json={"campaign_id": "bf"})
    assert done.json() == {
        "dry_run": False, "matched": 3, "cancelled": 3, "processing": 0, "complete": True,
    }  # fmt: skip
    assert open_api.count("entry") == 1
    for body in ({}, {"reason": "all of them"}, {"campaign": "bf"}):
        refused = await open_api.client.post("/api/v1/jobs/cancel", json=body)
        assert refused.status_code == 422


async def test_a_failed_job_is_a_dead_letter_in_the_shape_of_the_contract(open_api: Api) -> None:
    job_id = await post(open_api)
    behind(open_api, FAIL)
    (listed,) = (await open_api.client.get("/api/v1/dead-letters")).json()["items"]
    shown = (await open_api.client.get(f"/api/v1/dead-letters/{listed['id']}")).json()
    assert shown == listed
    assert (await open_api.client.get(f"/api/v1/dead-letters/{job_id}")).json() == listed
    assert set(listed) == {
        "id", "job", "error_message", "failed_at", "error_class", "error_code", "attempts",
        "reason",
    }  # fmt: skip
    assert listed["job"]["job_id"] == job_id
    assert listed["job"]["to"] == "ann@example.com"
    assert listed["error_message"] == "User has no email"
    assert (listed["error_class"], listed["reason"], listed["attempts"]) == (
        "permanent", "permanent", 1,
    )  # fmt: skip


async def test_a_replay_begins_a_new_series_and_stamps_the_dead_letter(open_api: Api) -> None:
    job_id = await post(open_api)
    assert (await open_api.client.post(f"/api/v1/jobs/{job_id}/retry")).status_code == 409
    behind(open_api, FAIL)
    (dead,) = (await open_api.client.get("/api/v1/dead-letters")).json()["items"]
    replay = await open_api.client.post(f"/api/v1/dead-letters/{dead['id']}/replay")
    assert replay.status_code == 202
    assert replay.json() == {"id": dead["id"], "job_id": job_id, "status": "pending"}
    shown = (await open_api.client.get(f"/api/v1/jobs/{job_id}")).json()
    assert (shown["status"], shown["series"]) == ("pending", 2)
    stamped = (await open_api.client.get(f"/api/v1/dead-letters/{dead['id']}")).json()
    assert stamped["replayed_by"]
    again = await open_api.client.post(f"/api/v1/dead-letters/{dead['id']}/replay")
    assert again.status_code == 409
    behind(open_api, FAIL)
    assert (await open_api.client.post(f"/api/v1/jobs/{job_id}/retry")).status_code == 202
    old = await open_api.client.post(f"/api/v1/dead-letters/{dead['id']}/replay")
    assert old.status_code == 409


async def test_raw_input_is_a_dead_letter_that_cannot_be_replayed(open_api: Api) -> None:
    behind(
        open_api,
        "insert into outbox.dead_letter (tenant_id, reason, error_message, raw_value)"
        " values ('default', 'invalid', 'Invalid JSON in message', '{...')",
    )
    (dead,) = (await open_api.client.get("/api/v1/dead-letters")).json()["items"]
    assert set(dead) == {"id", "raw_value", "error_message", "failed_at"}
    replay = await open_api.client.post(f"/api/v1/dead-letters/{dead['id']}/replay")
    assert replay.status_code == 409


async def test_a_scheduled_job_is_promoted(open_api: Api) -> None:
    job_id = await post(open_api, send_after="2027-01-01T00:00:00Z")
    assert await status_of(open_api, job_id) == "scheduled"
    promoted = await open_api.client.post(f"/api/v1/jobs/{job_id}/promote")
    assert promoted.status_code == 202
    assert await status_of(open_api, job_id) == "pending"


async def test_what_was_sent_is_sent_again_as_a_new_job(open_api: Api) -> None:
    job_id = await post(open_api)
    assert (await open_api.client.post(f"/api/v1/jobs/{job_id}/resend")).status_code == 409
    behind(open_api, SEND)
    headers = {"idempotency-key": "once more"}
    resent = await open_api.client.post(f"/api/v1/jobs/{job_id}/resend", headers=headers)
    assert resent.status_code == 202
    new = (await open_api.client.get(resent.headers["location"])).json()
    assert new["job_id"] != job_id
    assert new["resend_of"] == job_id
    assert new["job"]["data"] == {"name": "Ann"}
    again = await open_api.client.post(f"/api/v1/jobs/{job_id}/resend", headers=headers)
    assert (again.status_code, again.json()["duplicate"]) == (200, True)


async def test_a_batch_is_all_or_nothing_and_tells_every_fault(open_api: Api) -> None:
    batch = [job(), job(meta=None, data=None), 7, job(content="a\x00b"), job()]
    answer = await open_api.client.post("/api/v1/jobs/batch", json=batch)
    assert answer.status_code == 422
    assert {e["pointer"] for e in answer.json()["errors"]} == {
        "/1/meta", "/1/data", "/2", "/3/content",
    }  # fmt: skip
    assert open_api.count("job") == 0
    answer = await open_api.client.post("/api/v1/jobs/batch?atomic=false", json=batch)
    assert answer.status_code == 202
    assert [item["result"] for item in answer.json()["items"]] == [
        "new", "invalid", "invalid", "invalid", "new",
    ]  # fmt: skip
    assert open_api.count("job") == 2
    answer = await open_api.client.post("/api/v1/jobs/batch?atomic=false", json=batch[1:4])
    assert answer.status_code == 422
    assert "/1" in {e["pointer"] for e in answer.json()["errors"]}


async def test_a_batch_of_lines_is_taken_like_an_array(open_api: Api) -> None:
    ids = [str(uuid4()) for _ in range(3)]
    lines = "\n".join(
        open_api.client.build_request("POST", "/", json=job(job_id=i)).content.decode()
        for i in ids
    )
    for expected in (False, True):
        answer = await open_api.client.post(
            "/api/v1/jobs/batch",
            content=lines + "\n\n",
            headers={"content-type": "application/x-ndjson"},
        )
        assert answer.status_code == 202
        items = answer.json()["items"]
        assert [(i["job_id"], i["duplicate"]) for i in items] == [(i, expected) for i in ids]
    broken = await open_api.client.post(
        "/api/v1/jobs/batch",
        content="{}\n{",
        headers={"content-type": "application/x-ndjson"},
    )
    assert broken.status_code == 400
    assert "/1" in {e["pointer"] for e in broken.json()["errors"]}


async def test_a_conflict_in_a_batch_is_told_by_its_place(open_api: Api) -> None:
    known = job(job_id=str(uuid4()).upper())
    await open_api.client.post("/api/v1/jobs", json=known)
    answer = await open_api.client.post(
        "/api/v1/jobs/batch", json=[job(), known | {"content": "x"}]
    )
    assert answer.status_code == 409
    assert [e["pointer"] for e in answer.json()["errors"]] == ["/1/job_id"]
    assert open_api.count("job") == 1


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"{}", 422),
        (b"[", 400),
        (b"[] []", 400),
        (b"", 400),
        (b'"x"', 422),
        (b"[]", 202),
        (b"[" + b"{}," * 10_000 + b"{}]", 413),
        (b"[" + b"1," * 700_000 + b"1]", 413),
        (b"[" + b"1, " * 5_000 + b"1", 400),
    ],
    ids=lambda value: repr(value)[:20],
)
async def test_a_batch_of_the_wrong_shape_is_refused(
    open_api: Api, content: bytes, status: int
) -> None:
    answer = await open_api.client.post(
        "/api/v1/jobs/batch", content=content, headers={"content-type": "application/json"}
    )
    assert answer.status_code == status


async def test_a_batch_that_is_too_large_gets_its_413(open_api: Api) -> None:
    answer = await open_api.client.post(
        "/api/v1/jobs/batch",
        content=b" " * 33_554_433,
        headers={"content-type": "application/json"},
    )
    assert answer.status_code == 413


async def test_the_simple_send_speaks_its_own_words(open_api: Api) -> None:
    message = {
        "type": "email",
        "recipient": "user@example.com",
        "content": "Hello {{ name }}!",
        "variables": {"name": "Ann"},
    }
    sent = await open_api.client.post("/api/v1/notifications/send", json=message)
    assert sent.status_code == 202
    assert set(sent.json()) == {"id", "status"}
    assert sent.json()["status"] == "pending"
    path = f"/api/v1/notifications/{sent.json()['id']}/status"
    before = (await open_api.client.get(path)).json()
    assert set(before) == {
        "id", "type", "recipient", "status", "attempts", "error", "created_at", "updated_at",
        "history",
    }  # fmt: skip
    assert (before["type"], before["recipient"]) == ("email", "user@example.com")
    behind(open_api, SEND)
    after = (await open_api.client.get(path)).json()
    assert after["status"] == "sent"
    assert [change["status"] for change in after["history"]] == ["pending", "processing", "sent"]
    expired = await open_api.client.post(
        "/api/v1/notifications/send", json=message | {"expires_at": "2025-01-01T00:00:00Z"}
    )
    told = (
        await open_api.client.get(f"/api/v1/notifications/{expired.json()['id']}/status")
    ).json()
    assert told["status"] == "failed"
    assert "expired" in told["error"]


@pytest.mark.parametrize(
    ("changes", "pointers"),
    [
        ({"recipient": "nobody"}, {"/recipient"}),
        ({"variables": []}, {"/variables"}),
        ({"content": None}, {"/template_id"}),
        ({"template_id": "nix", "content": None}, {"/template_id"}),
        ({"type": "push"}, {"/type"}),
        ({"type": "pigeon", "priority": "top"}, {"/type", "/priority"}),
        ({"send_after": "soon"}, {"/send_after"}),
    ],
)
async def test_a_simple_send_that_is_wrong_is_told_in_its_own_words(
    open_api: Api, changes: dict[str, object], pointers: set[str]
) -> None:
    message = {"type": "email", "recipient": "a@b.c", "content": "x", "variables": {}}
    answer = await open_api.client.post("/api/v1/notifications/send", json=message | changes)
    assert answer.status_code == 422, answer.text
    assert {e["pointer"] for e in answer.json()["errors"]} == pointers


async def test_figures_of_a_queue_are_those_of_the_contract(open_api: Api) -> None:
    await post(open_api)
    await post(open_api, send_after="2027-01-01T00:00:00Z")
    for path in ("/api/v1/queues/email/stats", "/monitoring/queues/email/stats"):
        stats = (await open_api.client.get(path)).json()
        assert set(stats) == {
            "queue", "waiting", "active", "delayed", "completed", "failed", "expired", "paused",
            "held", "processing_time_ms", "processing_time_p95_ms", "throughput_per_min",
            "error_rate", "oldest_waiting_s", "type", "total_completed", "total_failed",
        }  # fmt: skip
        assert (stats["waiting"], stats["delayed"], stats["type"]) == (1, 1, "postgres")
    assert (await open_api.client.get("/api/v1/queues/nix/stats")).status_code == 404
    listed = (await open_api.client.get("/api/v1/queues")).json()["items"]
    assert {"email", "webhook", "inbox"} <= {queue["queue"] for queue in listed}


async def test_health_says_that_nobody_works(open_api: Api) -> None:
    health = (await open_api.client.get("/monitoring/queues/health")).json()
    assert health["email"]["status"] == "healthy"
    assert health["email"]["concerns"] == []


async def health_of_email(api: Api, *, waiting: int) -> Any:
    """Return the health once it knows of so many jobs: figures may be a moment old."""
    async with asyncio.timeout(10):
        while True:
            health = (await api.client.get("/monitoring/queues/health")).json()
            if health["email"]["metrics"]["waiting"] == waiting:
                return health


async def test_waiting_work_without_a_dispatcher_is_a_concern(open_api: Api) -> None:
    await post(open_api)
    health = await health_of_email(open_api, waiting=1)
    assert health["email"]["status"] == "degraded"
    assert health["email"]["concerns"] == ["No dispatcher"]
    assert health["email"]["metrics"]["waiting"] == 1


async def test_a_pause_holds_until_it_is_resumed(open_api: Api) -> None:
    job_id = await post(open_api)
    paused = await open_api.client.post("/api/v1/queues/email/pause")
    assert paused.status_code == 200
    assert paused.json()["effective"] is True
    assert (await open_api.client.get("/api/v1/queues/email/stats")).json()["paused"] is True
    explained = (await open_api.client.get(f"/api/v1/jobs/{job_id}/explain")).json()
    assert explained["waiting_for"] == "lane paused"
    await open_api.client.post("/api/v1/queues/email/resume")
    assert (await open_api.client.get("/api/v1/queues/email/stats")).json()["paused"] is False
    assert open_api.rows("select action from outbox.operator_action order by action_id") == [
        ("pause",), ("resume",),
    ]  # fmt: skip


async def test_a_pause_answers_once_every_live_dispatcher_has_seen_it(open_api: Api) -> None:
    behind(
        open_api,
        "insert into outbox.dispatcher (epoch, name, version, pid, seen_version)"
        " values (7, 'd', '0', 1, 1)",
    )
    pausing = asyncio.create_task(open_api.client.post("/api/v1/lanes/default/email/pause"))
    while not open_api.rows("select 1 from outbox.lane where paused_at is not null"):
        await asyncio.sleep(0)
    assert not pausing.done()
    behind(open_api, "update outbox.dispatcher set seen_version = 1000")
    assert (await pausing).json()["effective"] is True


async def test_a_queue_deeper_than_its_limit_is_a_429_with_the_way_out(
    api: Api,
) -> None:
    from tests.api.conftest import running_api

    async with running_api(api.database.url, auth=False, queue_depth_max=2) as client:
        await client.post("/api/v1/jobs/batch", json=[job(), job()])
        await health_of_email(Api(client, api.database), waiting=2)
        answer = await client.post("/api/v1/jobs", json=job())
        assert answer.status_code == 429
        assert int(answer.headers["retry-after"]) >= 1
        assert answer.headers["ratelimit-limit"] == "2"
        assert answer.headers["ratelimit-remaining"] == "0"
        other = await client.post("/api/v1/jobs", json=job(queue="bulk"))
        assert other.status_code == 202


async def test_metrics_have_the_stores_figures_and_no_ids(open_api: Api) -> None:
    job_id = await post(open_api)
    await open_api.client.get(f"/api/v1/jobs/{job_id}")
    await health_of_email(open_api, waiting=1)
    text = (await open_api.client.get("/metrics")).text
    assert 'outbox_queue_size{queue="email",state="waiting"} 1.0' in text
    assert (
        'outbox_http_requests_total{method="POST",route="/api/v1/jobs",status="202"} 1.0' in text
    )
    assert "outbox_dispatchers 0.0" in text
    assert job_id not in text


async def test_what_was_caught_is_listed_and_shown_without_scripts(open_api: Api) -> None:
    behind(
        open_api,
        "insert into outbox.sink_message (tenant_id, caught_by, channel, recipient, subject, body,"
        " headers) values ('default', 'smtp', 'email', 'a@b.c', '<script>alert(1)</script>',"
        " 'plain', '{\"html\": \"<script>alert(2)</script><b>bold</b>\"}')",
    )
    (caught,) = (await open_api.client.get("/api/v1/sink")).json()["items"]
    assert caught["recipient"] == "a@b.c"
    for path in ("/", "/sink", f"/sink/{caught['id']}"):
        page = await open_api.client.get(path)
        assert page.status_code == 200, page.text
        assert page.headers["content-type"].startswith("text/html")
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert "<script>" not in page.text
        assert "&lt;script&gt;alert(1)" in page.text
    frame = await open_api.client.get(f"/sink/{caught['id']}/html")
    assert "<b>bold</b>" in frame.text
    assert frame.headers["content-security-policy"].startswith("sandbox; default-src 'none'")
    assert (await open_api.client.get("/assets/outbox.css")).status_code == 200
    assert (await open_api.client.get("/sink/999")).status_code == 404
    assert (await open_api.client.delete("/api/v1/sink")).status_code == 204
    assert (await open_api.client.get("/api/v1/sink")).json()["items"] == []


async def test_a_suppressed_address_is_listed_and_let_go(open_api: Api) -> None:
    behind(
        open_api,
        "insert into outbox.suppression (tenant_id, channel, address, code)"
        " values ('default', 'email', 'gone@example.com', 'smtp.5.1.1')",
    )
    listed = (await open_api.client.get("/api/v1/suppressions?limit=1")).json()
    assert listed["items"][0]["address"] == "gone@example.com"
    path = "/api/v1/suppressions/email/Gone@example.com"
    assert (await open_api.client.delete(path)).status_code == 204
    assert (await open_api.client.delete(path)).status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/v1/nothing", 404),
        ("GET", "/api/v1/jobs/%00", 404),
        ("GET", "/api/v1/recipients/a%00b", 404),
        ("PATCH", "/api/v1/jobs", 405),
        ("PUT", "/api/v1/queues/email/pause", 405),
        ("GET", "/api/v1/dead-letters/99999999999999999999", 404),
        ("GET", "/api/v1/dead-letters/x", 404),
        ("GET", "/sink/99999999999999999999999", 404),
        ("GET", "/api/v1/recipients/" + "x" * 129, 422),
    ],
)
async def test_what_is_not_there_is_a_problem_document(
    open_api: Api, method: str, path: str, status: int
) -> None:
    answer = await open_api.client.request(method, path)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == status
    if status == 405:
        assert answer.headers["allow"]
