"""Queues: figures, health, pause, backpressure, metrics."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from outbox.store.queues import QueueRow
from outbox_api.backpressure import _too_deep
from tests.api.conftest import ADMIN_KEY, Api, job
from tests.api.stage import behind, post


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


def queue_row(*, waiting: int, completed: int, paused: bool) -> QueueRow:
    return QueueRow(
        queue="email",
        waiting=waiting,
        active=0,
        delayed=0,
        estimated=[],
        oldest_waiting_s=1.0,
        completed=completed,
        failed=0,
        expired=0,
        attempts=completed,
        duration_ms_sum=0,
        durations=[],
        total_completed=completed,
        total_failed=0,
        total_expired=0,
        total_cancelled=0,
        total_rescued=0,
        paused=paused,
        held=0,
        dispatchers=1,
    )


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


async def test_a_queue_and_its_lanes_are_paused_each_by_themselves(open_api: Api) -> None:
    job_id = await post(open_api)
    lane, queue = "/api/v1/lanes/default/email", "/api/v1/queues/email"

    def paused_and_by_itself() -> list[tuple[object, ...]]:
        return open_api.rows(
            "select distinct paused_at is not null, own_paused_at is not null from outbox.lane"
            " where queue = 'email' and tenant_id = 'default'"
        )

    await open_api.client.post(f"{queue}/pause")
    refused = await open_api.client.post(f"{lane}/resume")
    assert refused.status_code == 409
    assert "The whole queue is paused" in refused.json()["detail"]
    assert paused_and_by_itself() == [(True, False)]
    await open_api.client.post(f"{lane}/pause")
    # A narrower lane that is made meanwhile is paused as its main lane is.
    behind(open_api, "select outbox.scope_lane('default', 'email', 'template:welcome')")
    assert paused_and_by_itself() == [(True, True)]
    await open_api.client.post(f"{queue}/resume")
    assert paused_and_by_itself() == [(True, True)]
    assert (await open_api.client.get(f"{queue}/stats")).json()["paused"] is False
    explained = (await open_api.client.get(f"/api/v1/jobs/{job_id}/explain")).json()
    assert explained["waiting_for"] == "lane paused"
    assert (await open_api.client.post(f"{lane}/resume")).status_code == 200
    assert paused_and_by_itself() == [(False, False)]


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
        assert "ratelimit-reset" not in answer.headers, "nothing was sent: nobody knows"
        assert "room in" not in answer.json()["detail"]
        other = await client.post("/api/v1/jobs", json=job(queue="bulk"))
        assert other.status_code == 202
    key = await api.new_key("acme", "jobs:write")
    async with running_api(api.database.url, queue_depth_max=2) as client:
        client.headers["authorization"] = f"Bearer {ADMIN_KEY}"
        await health_of_email(Api(client, api.database), waiting=2)
        client.headers["authorization"] = f"Bearer {key}"
        for path, body in (
            ("/api/v1/jobs", job()),
            ("/api/v1/jobs/batch", [job()]),
            (
                "/api/v1/notifications/send",
                {"type": "email", "recipient": "a@example.com", "content": "x"},
            ),
        ):
            answer = await client.post(path, json=body)
            assert answer.status_code == 429
            assert answer.json()["detail"] == "The queue email takes no more jobs now."
            assert answer.headers["retry-after"] == "30"
            assert [name for name in answer.headers if name.startswith("ratelimit")] == []


@pytest.mark.parametrize(
    ("completed", "paused", "reset"),
    [(900, False, "2"), (900, True, None), (0, False, None), (1, False, "901"), (1, True, None)],
)
def test_when_there_will_be_room_is_told_only_where_the_pace_tells(
    completed: int, paused: bool, reset: str | None
) -> None:
    row = queue_row(waiting=2, completed=completed, paused=paused)
    problem = _too_deep(row, 2)
    assert problem.headers.get("ratelimit-reset") == reset
    assert ("room in" in problem.detail) == (reset is not None)
    assert int(problem.headers["retry-after"]) <= 60
    assert "ratelimit-reset" not in _too_deep(row, -10_000_000).headers, "too far ahead"


async def test_a_limit_or_a_clean_on_a_misspelt_queue_makes_no_queue(open_api: Api) -> None:
    client = open_api.client
    before = (await client.get("/api/v1/queues")).json()
    for answer in (
        await client.put("/api/v1/lanes/acme/nosuchy", json={"rate_per_s": 5}),
        await client.post(
            "/api/v1/queues/nosuchy/clean", json={"status": "sent", "older_than_s": 0}
        ),
    ):
        assert answer.status_code == 404, answer.text
    assert (await client.get("/api/v1/queues")).json() == before


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


async def test_metrics_tell_what_attempts_came_to_and_how_long_they_took(open_api: Api) -> None:
    await post(open_api)
    counted = (
        "insert into outbox.{} (lane_id, duration_ms_sum, pickup_ms_sum, durations, pickups,"
        " attempts{}) select lane_id, 1500, 20, array[1, 0, 2] || array_fill(0, array[14]),"
        " array[3] || array_fill(0, array[16]),"
        ' \'[["smtp", "SENT", "", 2], ["smtp", "RETRYING", "temporary", 1]]\'{}'
        " from outbox.lane where queue = 'email'"
    ).format
    behind(open_api, counted("stat_second", ", at", ", now()"))
    behind(open_api, counted("stat_total", "", ""))
    behind(open_api, "insert into outbox.stat_total (lane_id, late) values (0, 2)")
    text: list[str] = []
    while "outbox_late_outcomes_total 2.0" not in text:  # what it saw before is remembered
        text = (await open_api.client.get("/metrics")).text.splitlines()
    for line in (
        'outbox_attempts_total{error_class="",outcome="sent",provider="smtp",queue="email"} 4.0',
        'outbox_attempts_total{error_class="temporary",outcome="retrying",provider="smtp",'
        'queue="email"} 2.0',
        'outbox_attempt_duration_seconds_bucket{le="0.001",queue="email"} 2.0',
        'outbox_attempt_duration_seconds_bucket{le="0.005",queue="email"} 6.0',
        'outbox_attempt_duration_seconds_bucket{le="+Inf",queue="email"} 6.0',
        'outbox_attempt_duration_seconds_sum{queue="email"} 3.0',
        'outbox_pickup_latency_seconds_count{queue="email"} 6.0',
        'outbox_pickup_latency_seconds_sum{queue="email"} 0.04',
    ):
        assert line in text, line


async def test_the_p95_is_taken_to_lie_evenly_within_its_bucket(open_api: Api) -> None:
    await post(open_api)
    at_1_005_ms, bound_ms = "array_fill(0, array[10]) || 20 || array_fill(0, array[5])", 2500
    behind(
        open_api,
        "insert into outbox.stat_second (lane_id, at, sent, duration_ms_sum, durations)"
        f" select lane_id, now(), 20, 20100, {at_1_005_ms} from outbox.lane where queue = 'email'",
    )
    rows = (await open_api.client.get("/api/v1/queues")).json()["items"]
    (row,) = [row for row in rows if row["queue"] == "email"]
    assert row["processing_time_p95_ms"] == 1000 + 0.95 * (bound_ms - 1000)


async def test_a_queue_that_nobody_knows_is_not_paused(open_api: Api) -> None:
    for path in ("/api/v1/queues/emial/pause", "/api/v1/lanes/default/emial/pause"):
        answer = await open_api.client.post(path)
        assert answer.status_code == 404
        assert "never had a job" in answer.json()["detail"]
    refused = open_api.rows("select detail ->> 'refused' from outbox.operator_action")
    assert refused == [("404",), ("404",)]
