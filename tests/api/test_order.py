"""Order and duplicates over HTTP: what callers are told of them."""

from __future__ import annotations

from typing import Any

from tests.api.conftest import Api, job
from tests.api.stage import CLAIM, FAIL, behind, post

HEAD_FAILS = FAIL.replace("delete from outbox.entry", "delete from outbox.entry where lane_id > 0")


async def explained(api: Api, job_id: str) -> dict[str, Any]:
    found: dict[str, Any] = (await api.client.get(f"/api/v1/jobs/{job_id}/explain")).json()
    return found


async def test_a_follower_is_told_behind_whom_it_waits(open_api: Api) -> None:
    head, second, third = [await post(open_api, ordering_key="a") for _ in range(3)]
    why = await explained(open_api, third)
    assert (why["status"], why["waiting_for"]) == ("pending", "ordering head")
    assert (why["waiting_behind"], why["ahead"]) == (head, 2)
    assert why["explanation"].startswith("2 job(s) with the same ordering_key go before it.")
    assert why["lane"]["queue"] == "email"
    assert (await explained(open_api, head))["waiting_behind"] is None
    shown = (await open_api.client.get(f"/api/v1/jobs/{second}")).json()
    assert (shown["status"], shown["waiting_for"]) == ("pending", "ordering head")
    behind(open_api, CLAIM + " where lane_id > 0")
    assert (await explained(open_api, second))["waiting_behind"] == head


async def test_a_follower_is_not_promoted(open_api: Api) -> None:
    _, follower = [await post(open_api, ordering_key="a") for _ in range(2)]
    answer = await open_api.client.post(f"/api/v1/jobs/{follower}/promote")
    assert answer.status_code == 409
    assert "ordering_key" in answer.json()["detail"]


async def test_a_dead_head_that_holds_is_named_and_given_up_by_a_cancel(open_api: Api) -> None:
    behind(open_api, "update outbox.setting set ordering_on_failure = 'hold'")
    head, follower = [await post(open_api, ordering_key="a") for _ in range(2)]
    behind(open_api, HEAD_FAILS)
    why = await explained(open_api, follower)
    assert why["waiting_behind"] == head
    assert "which failed and keeps it back" in why["explanation"]
    answer = await open_api.client.post(f"/api/v1/jobs/{head}/cancel")
    assert (answer.status_code, answer.json()["status"]) == (200, "failed")
    assert "has just ended" in (await explained(open_api, follower))["explanation"]
    assert (await open_api.client.post(f"/api/v1/jobs/{head}/cancel")).status_code == 409


async def test_a_queue_counts_followers_as_waiting_but_not_as_an_old_backlog(
    open_api: Api,
) -> None:
    for _ in range(3):
        await post(open_api, ordering_key="a")
    behind(open_api, "update outbox.entry set available_at = now() - interval '1 hour'")
    behind(open_api, CLAIM + " where lane_id > 0")
    stats = (await open_api.client.get("/api/v1/queues/email/stats")).json()
    assert (stats["waiting"], stats["active"]) == (2, 1)
    assert not stats["oldest_waiting_s"]


async def test_a_duplicate_is_answered_with_the_job_that_was_kept(open_api: Api) -> None:
    keyed: dict[str, object] = {"dedup_key": "welcome", "dedup_window_s": 60}
    kept = await post(open_api, **keyed)
    answer = await open_api.client.post("/api/v1/jobs", json=job(**keyed))
    assert answer.status_code == 200
    assert answer.json() == {"job_id": kept, "status": "pending", "duplicate": True}
    batch = await open_api.client.post("/api/v1/jobs/batch", json=[job(**keyed), job()])
    items = batch.json()["items"]
    assert [item["result"] for item in items] == ["duplicate", "new"]
    assert items[0]["job_id"] == kept
