"""Replays over HTTP: the plan, the run, its progress, its end; by tenant and by scope."""

from __future__ import annotations

import psycopg

from tests.api.conftest import Api
from tests.api.stage import FAIL, behind, post

REPLAY = "/api/v1/dead-letters/replay"


def step(api: Api) -> None:
    """Do what a dispatcher would do."""
    with psycopg.connect(api.database.admin_url, autocommit=True) as admin:
        while admin.execute("select outbox.step_replay()").fetchone() != (None,):
            pass


async def test_a_replay_is_planned_begun_watched_and_over(api: Api) -> None:
    for _ in range(3):
        await post(api)
    behind(api, FAIL)
    order = {"queue": "email", "error_code": "recipient.no_address", "rate_per_s": 100}
    planned = await api.client.post(REPLAY, json=order | {"dry_run": True})
    assert planned.status_code == 200
    assert planned.json()["run"] is None
    assert planned.json()["plan"]["would_send"] == 3
    assert api.count("replay_run") == 0
    headers = {"idempotency-key": "k1"}
    begun = await api.client.post(REPLAY, json=order | {"why": "mended"}, headers=headers)
    assert begun.status_code == 202
    again = await api.client.post(REPLAY, json=order | {"why": "mended"}, headers=headers)
    assert again.status_code == 200
    assert again.json()["run"]["run_id"] == begun.json()["run"]["run_id"]
    other = await api.client.post(REPLAY, json={"queue": "sms"}, headers=headers)
    assert other.status_code == 409
    where = begun.headers["location"]
    running = (await api.client.get(where)).json()
    assert (running["state"], running["begun_by"], running["why"]) == (
        "running",
        "admin key",
        "mended",
    )
    assert running["dispatchers"] == 0
    step(api)
    done = (await api.client.get(where)).json()
    assert (done["state"], done["replayed"]) == ("done", 3)
    assert (await api.client.post(f"{where}/stop")).status_code == 409
    letters = (await api.client.get("/api/v1/dead-letters")).json()["items"]
    assert {letter["replayed_by"] for letter in letters} == {"admin key"}


async def test_a_replay_that_is_stopped_goes_no_further(api: Api) -> None:
    await post(api)
    behind(api, FAIL)
    run = (await api.client.post(REPLAY, json={})).json()["run"]
    stopped = await api.client.post(f"/api/v1/replays/{run['run_id']}/stop")
    assert (stopped.status_code, stopped.json()["stopped_by"]) == (200, "admin key")
    step(api)
    shown = (await api.client.get(f"/api/v1/replays/{run['run_id']}")).json()
    assert (shown["state"], shown["replayed"]) == ("stopped", 0)
    missing = await api.client.post("/api/v1/replays/0193281c-6e5b-7b0e-9a43-7f6a1d4cb002/stop")
    assert missing.status_code == 404


async def test_a_tenant_s_key_replays_and_sees_its_own_alone(api: Api) -> None:
    await post(api)
    behind(api, FAIL)
    run = (await api.client.post(REPLAY, json={})).json()["run"]
    key = await api.new_key("acme", "jobs:write", "jobs:read")
    async with api.with_key(key) as acme:
        planned = await acme.post(REPLAY, json={"dry_run": True})
        assert planned.json()["plan"]["matched"] == 0
        assert (await acme.get(f"/api/v1/replays/{run['run_id']}")).status_code == 404
        assert (await acme.post(f"/api/v1/replays/{run['run_id']}/stop")).status_code == 404
        assert (await acme.get("/api/v1/replays")).json()["items"] == []
        assert (await acme.post(REPLAY, json={"tenant_id": "default"})).status_code == 403
    reader = await api.new_key("default", "jobs:read")
    async with api.with_key(reader) as client:
        assert (await client.post(REPLAY, json={})).status_code == 403


async def test_lists_of_replays_come_in_pages_newest_first(api: Api) -> None:
    runs = [(await api.client.post(REPLAY, json={})).json()["run"]["run_id"] for _ in range(3)]
    page = (await api.client.get("/api/v1/replays", params={"limit": 2})).json()
    rest = await api.client.get(
        "/api/v1/replays", params={"limit": 2, "cursor": page["next_cursor"]}
    )
    found = [item["run_id"] for item in page["items"] + rest.json()["items"]]
    assert found == runs[::-1]
    wrong = await api.client.get("/api/v1/replays", params={"cursor": "nonsense"})
    assert wrong.status_code == 400


async def test_an_order_that_cannot_be_is_refused_with_pointers(api: Api) -> None:
    for order, pointer in (
        ({"rate_per_s": 0}, "/rate_per_s"),
        ({"limit": 0}, "/limit"),
        ({"qeue": "email"}, "/qeue"),
        ({"since": "2026-01-02T00:00:00Z", "until": "2026-01-01T00:00:00Z"}, "/until"),
        ({"tenant_id": "*"}, "/tenant_id"),
    ):
        answer = await api.client.post(REPLAY, json=order)
        assert answer.status_code == 422, order
        assert [e["pointer"] for e in answer.json()["errors"]] == [pointer]
    assert api.count("replay_run") == 0
