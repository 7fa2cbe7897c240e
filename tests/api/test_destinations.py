"""Destinations by HTTP: what they are limited to, what they wait for, and who may say so."""

from __future__ import annotations

import pytest

from tests.api.conftest import Api
from tests.api.test_explanations import desk, dispatcher, explained
from tests.engine.desk import Desk

__all__ = ["desk"]

URL = "/api/v1/destinations/host:hooks.example.com"


async def test_a_rate_is_set_shown_and_taken_away(open_api: Api) -> None:
    client = open_api.client
    assert (await client.get(URL)).status_code == 404
    put = await client.put(URL, json={"rate_per_s": 20, "burst": 40})
    assert put.status_code == 200, put.text
    assert (put.json()["rate_per_s"], put.json()["breaker"]) == (20, "closed")
    assert (await client.get(URL)).json()["burst"] == 40
    listed = (await client.get("/api/v1/destinations")).json()["items"]
    assert [row["name"] for row in listed] == ["host:hooks.example.com"]
    assert (await client.put(URL, json={})).json()["rate_per_s"] is None
    assert (await client.get("/api/v1/destinations")).json()["items"] == []


@pytest.mark.parametrize(
    ("name", "body", "pointer"),
    [
        ("host:a.example", {"rate_per_s": 0}, "/rate_per_s"),
        ("host:a.example", {"burst": 5}, "/burst"),
        ("host:a.example", {"rate": 5}, "/rate"),
        ("a.example", {"rate_per_s": 5}, "/path/name"),
    ],
)
async def test_what_cannot_be_a_limit_is_refused(
    open_api: Api, name: str, body: dict[str, object], pointer: str
) -> None:
    refused = await open_api.client.put(f"/api/v1/destinations/{name}", json=body)
    assert refused.status_code == 422, refused.text
    assert refused.json()["errors"][0]["pointer"] == pointer


async def test_a_pause_is_explained_and_ends_by_a_call_and_the_rate_stays(
    open_api: Api, desk: Desk
) -> None:
    dispatcher(desk, "queue:work")
    job_id = desk.enqueue()
    desk.admin.execute(
        "select outbox.set_destination('host:hooks.example.com', 5, null, false, 't')"
    )
    desk.admin.execute("select outbox.pause_destination('host:hooks.example.com', 600)")
    desk.admin.execute(
        "update outbox.entry set lane_id = outbox.scope_lane('default', 'work',"
        " 'destination:host:hooks.example.com')"
    )
    why = await explained(open_api, job_id)
    assert why["waiting_for"] == "destination paused"
    assert why["next_at"] == (await open_api.client.get(URL)).json()["paused_until"]
    metrics = (await open_api.client.get("/metrics")).text
    assert 'outbox_destinations_shut{why="paused"} 1.0' in metrics
    resumed = await open_api.client.post(f"{URL}/resume")
    assert (resumed.json()["paused_until"], resumed.json()["rate_per_s"]) == (None, 5)
    assert (await explained(open_api, job_id))["waiting_for"] == "dispatcher"


async def test_an_open_breaker_is_explained_and_closed_by_a_call(
    open_api: Api, desk: Desk
) -> None:
    dispatcher(desk, "queue:work")
    job_id = desk.enqueue()
    report = "select outbox.report_destinations(7, array['host:hooks.example.com'], %s, %s)"
    desk.admin.execute(report, ([11], [10]))
    desk.admin.execute(
        "update outbox.entry set lane_id = outbox.scope_lane('default', 'work',"
        " 'destination:host:hooks.example.com')"
    )
    assert (await open_api.client.get(URL)).json()["breaker"] == "closed"
    desk.admin.execute(report, ([11], [11]))
    shown = (await open_api.client.get(URL)).json()
    assert (shown["breaker"], shown["good"], shown["bad"]) == ("open", 11, 11)
    why = await explained(open_api, job_id)
    assert (why["waiting_for"], why["next_at"]) == ("breaker open", shown["open_until"])
    desk.admin.execute("update outbox.destination set open_until = clock_timestamp()")
    assert (await open_api.client.get(URL)).json()["breaker"] == "half_open"
    assert (await explained(open_api, job_id))["waiting_for"] == "breaker half open"
    assert (await open_api.client.post(f"{URL}/resume")).json()["breaker"] == "closed"
    assert (await open_api.client.post(f"{URL}/resume")).status_code == 404


async def test_destinations_are_nothing_for_a_tenant_s_own_key(api: Api) -> None:
    async with api.with_key(await api.new_key("acme", "admin", "jobs:read")) as client:
        for method, path in (("GET", "/api/v1/destinations"), ("GET", URL), ("PUT", URL)):
            answer = await client.request(method, path, json={})
            assert answer.status_code == 403, (method, path, answer.text)
