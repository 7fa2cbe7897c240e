"""Ended jobs are deleted when an operator asks for it."""

from __future__ import annotations

import psycopg
import pytest

from tests.api.conftest import Api
from tests.api.stage import FAIL, SEND, behind, post, status_of


async def test_a_queue_is_cleaned_of_jobs_that_ended_long_enough_ago(open_api: Api) -> None:
    ended = [await post(open_api) for _ in range(3)]
    behind(open_api, SEND)
    waiting = await post(open_api)
    clean = "/api/v1/queues/email/clean"
    for order in (
        {"status": "sent", "older_than_s": 3600},
        {"status": "failed", "older_than_s": 0},
    ):
        answer = await open_api.client.post(clean, json=order)
        assert answer.json() == {"deleted": 0}
    first = await open_api.client.post(
        clean, json={"status": "sent", "older_than_s": 0, "limit": 2}
    )
    assert first.json() == {"deleted": 2}
    rest = await open_api.client.post(clean, json={"status": "sent", "older_than_s": 0})
    assert rest.json() == {"deleted": 1}
    assert (await open_api.client.get(f"/api/v1/jobs/{ended[0]}")).status_code == 404
    assert await status_of(open_api, waiting) == "pending"
    assert [open_api.count(t) for t in ("job", "job_key", "delivery", "entry")] == [1, 1, 0, 1]
    # What was deleted is forgotten, and that it was deleted is not.
    assert (await post(open_api, job_id=ended[0])) == ended[0]
    done = "select sum((detail ->> 'deleted')::int) from outbox.operator_action"
    assert open_api.rows(done) == [(3,)]


@pytest.mark.parametrize(
    ("order", "pointer"),
    [
        ({"status": "pending", "older_than_s": 0}, "/status"),
        ({"status": "sent"}, "/older_than_s"),
        ({"status": "sent", "older_than_s": -1}, "/older_than_s"),
        ({"status": "sent", "older_than_s": 0, "limit": 10_001}, "/limit"),
        ({"status": "sent", "older_than_s": 0, "dry_run": True}, "/dry_run"),
    ],
)
async def test_a_queue_is_not_cleaned_by_an_order_that_cannot_be(
    open_api: Api, order: dict[str, object], pointer: str
) -> None:
    answer = await open_api.client.post("/api/v1/queues/email/clean", json=order)
    assert answer.status_code == 422
    assert [e["pointer"] for e in answer.json()["errors"]] == [pointer]


async def test_a_retry_keeps_its_job_from_being_cleaned(open_api: Api) -> None:
    job_id = await post(open_api)
    behind(open_api, FAIL)
    with psycopg.connect(open_api.database.admin_url) as rival:
        rival.execute("select outbox.retry_job(id, 'ann') from outbox.job")
        clean = "/api/v1/queues/email/clean"
        order = {"status": "failed", "older_than_s": 0}
        assert (await open_api.client.post(clean, json=order)).json() == {"deleted": 0}
    assert await status_of(open_api, job_id) == "pending"


async def test_a_dead_letter_that_outlived_its_job_says_so(open_api: Api) -> None:
    await post(open_api)
    behind(open_api, FAIL)
    order = {"status": "failed", "older_than_s": 0}
    await open_api.client.post("/api/v1/queues/email/clean", json=order)
    (letter,) = (await open_api.client.get("/api/v1/dead-letters")).json()["items"]
    answer = await open_api.client.post(f"/api/v1/dead-letters/{letter['id']}/replay")
    assert answer.status_code == 409
    assert "no longer kept" in answer.json()["detail"]
