"""What is done with jobs after they were accepted."""

from __future__ import annotations

from tests.api.conftest import Api, job
from tests.api.stage import CLAIM, FAIL, SEND, behind, post, status_of


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


async def test_the_key_of_one_resend_is_not_taken_for_another(open_api: Api) -> None:
    headers = {"idempotency-key": "k"}
    alike: dict[str, object] = {"created_at": "2026-11-01T10:00:00Z"}
    one, other = await post(open_api, **alike), await post(open_api, **alike)
    behind(open_api, SEND)
    first = await open_api.client.post(f"/api/v1/jobs/{one}/resend", headers=headers)
    assert first.status_code == 202, first.text
    refused = await open_api.client.post(f"/api/v1/jobs/{other}/resend", headers=headers)
    assert refused.status_code == 409
    assert [e["pointer"] for e in refused.json()["errors"]] == ["/header/idempotency-key"]
    again = await open_api.client.post(f"/api/v1/jobs/{one}/resend", headers=headers)
    assert (again.status_code, again.json()["job_id"]) == (200, first.json()["job_id"])


async def test_a_failed_job_of_an_erased_person_is_not_tried_again(open_api: Api) -> None:
    client = open_api.client
    await client.put("/api/v1/recipients/ann", json={"email": "ann@example.com"})
    job_id = await post(open_api, user_id="ann", to=None)
    behind(open_api, FAIL)
    erased = await client.delete("/api/v1/recipients/ann/data")
    assert erased.status_code == 200, erased.text
    for path in (f"jobs/{job_id}/retry", f"dead-letters/{job_id}/replay"):
        refused = await client.post(f"/api/v1/{path}")
        assert refused.status_code == 409
        assert "has been erased" in refused.json()["detail"]
    planned = await client.post("/api/v1/dead-letters/replay", json={"dry_run": True})
    assert (planned.json()["plan"]["would_send"], planned.json()["plan"]["gone"]) == (0, 1)
    assert await status_of(open_api, job_id) == "failed"
    assert open_api.count("entry") == 0
