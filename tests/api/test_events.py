"""Events, and the rules that make jobs of them."""

from __future__ import annotations

import asyncio
from uuid import UUID, uuid5

import pytest

from tests.api.conftest import Api


async def make_rule(api: Api, **changes: object) -> str:
    rule = {"event_type": "user_registered", "template_code": "hi", "channels": ["email"]}
    answer = await api.client.post("/api/v1/rules", json=rule | changes)
    assert answer.status_code == 201, answer.text
    rule_id: str = answer.json()["rule_id"]
    return rule_id


@pytest.fixture
async def rules_api(open_api: Api) -> Api:
    await open_api.client.put("/api/v1/templates/hi/email/en", json={"text": "Hi"})
    return open_api


EVENT = {
    "event_id": "6a9f7f26-4c0c-4a91-9f3d-b159c2dcb001",
    "event_type": "user_registered",
    "user_id": "f3aa4a0e-97d4-4e21-a2b4-9fb7c8d9f001",
    "data": {"plan": "pro", "price": 0.30},
    "occurred_at": "2025-11-14T12:35:10Z",
}


async def test_an_event_and_its_jobs_are_stored_together_and_once(rules_api: Api) -> None:
    now = await make_rule(rules_api, priority="high", channels=["email", "database"])
    later = await make_rule(rules_api, delay_s=3600, expires_after_s=7200)
    await make_rule(rules_api, condition={"path": "plan", "op": "eq", "value": "free"})
    await make_rule(rules_api, enabled=False)
    await make_rule(rules_api, event_type="other")
    answer = await rules_api.client.post("/api/v1/events", json=EVENT)
    assert answer.status_code == 202, answer.text
    event_id = UUID(EVENT["event_id"])  # type: ignore[arg-type]
    assert set(answer.json()["job_ids"]) == {
        str(uuid5(event_id, f"{now}email")),
        str(uuid5(event_id, f"{now}inbox")),
        str(uuid5(event_id, f"{later}email")),
    }
    delayed = (
        await rules_api.client.get(f"/api/v1/jobs/{uuid5(event_id, f'{later}email')}")
    ).json()
    assert delayed["status"] == "scheduled"
    assert delayed["event_id"] == str(event_id)
    assert delayed["expires_at"] is not None
    urgent = (await rules_api.client.get(f"/api/v1/jobs/{uuid5(event_id, f'{now}email')}")).json()
    assert urgent["priority"] == "high"
    again = await rules_api.client.post("/api/v1/events", json=EVENT)
    assert (again.status_code, again.json()["duplicate"]) == (200, True)
    assert set(again.json()["job_ids"]) == set(answer.json()["job_ids"])
    other = await rules_api.client.post("/api/v1/events", json=EVENT | {"data": {}})
    assert other.status_code == 409
    assert rules_api.count("job") == 3
    assert rules_api.count("event") == 1


async def test_the_same_event_from_many_connections_makes_its_jobs_once(rules_api: Api) -> None:
    await make_rule(rules_api)
    answers = await asyncio.gather(
        *(rules_api.client.post("/api/v1/events", json=EVENT) for _ in range(20))
    )
    assert sorted(answer.status_code for answer in answers) == [200] * 19 + [202]
    assert rules_api.count("job") == 1


async def test_an_event_whose_job_is_at_fault_is_not_stored(rules_api: Api) -> None:
    rule_id = await make_rule(rules_api)
    await rules_api.client.delete("/api/v1/templates/hi/email/en")
    answer = await rules_api.client.post("/api/v1/events", json=EVENT)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == f"/rules/{rule_id}/template_code"
    assert rules_api.count("event") == 0


@pytest.mark.parametrize(
    ("changes", "pointers"),
    [
        ({"event_id": None, "user_id": None}, {"/user_id"}),
        ({"event_id": None}, {"/event_id"}),
        ({"event_id": "x", "occurred_at": "now"}, {"/event_id", "/occurred_at"}),
        ({"data": []}, {"/data"}),
        ({"kind": 1}, {"/kind"}),
    ],
)
async def test_an_event_of_the_wrong_shape_is_refused(
    rules_api: Api, changes: dict[str, object], pointers: set[str]
) -> None:
    answer = await rules_api.client.post("/api/v1/events", json=EVENT | changes)
    assert answer.status_code == 422
    assert {e["pointer"] for e in answer.json()["errors"]} == pointers


async def test_a_rule_is_shown_replaced_listed_and_deleted(rules_api: Api) -> None:
    rule_id = await make_rule(rules_api, name="welcome")
    path = f"/api/v1/rules/{rule_id}"
    assert (await rules_api.client.get(path)).json()["name"] == "welcome"
    rule = {"event_type": "e", "template_code": "hi", "channels": ["sms"], "name": "new"}
    replaced = await rules_api.client.put(path, json=rule)
    assert (replaced.status_code, replaced.json()["channels"]) == (200, ["sms"])
    listed = (await rules_api.client.get("/api/v1/rules")).json()["items"]
    assert [one["name"] for one in listed] == ["new"]
    assert (await rules_api.client.delete(path)).status_code == 204
    assert (await rules_api.client.get(path)).status_code == 404


async def test_a_rule_s_id_that_another_tenant_has_is_not_found_and_changes_nothing(
    api: Api,
) -> None:
    template = "/api/v1/templates/hi/email/en"
    await api.client.put(template, json={"text": "Hi"})
    path = f"/api/v1/rules/{await make_rule(api, name='welcome')}"
    async with api.with_key(await api.new_key("acme", "admin")) as acme:
        await acme.put(template, json={"text": "Hi"})
        rule = {"event_type": "e", "template_code": "hi", "channels": ["email"], "name": "stolen"}
        assert (await acme.put(path, json=rule)).status_code == 404
    assert (await api.client.get(path)).json()["name"] == "welcome"


async def test_a_rule_that_cannot_work_is_refused(rules_api: Api) -> None:
    rule = {"event_type": "e", "template_code": "hi", "channels": ["email"]}
    for changes, pointers in (
        ({"template_code": "nix"}, {"/template_code"}),
        ({"channels": []}, {"/channels"}),
        ({"channels": ["pigeon"]}, {"/channels/0"}),
        ({"delay_s": -1, "priority": "top"}, {"/delay_s", "/priority"}),
        ({"condition": {"path": "a", "op": "like", "value": 1}}, {"/condition/op"}),
        ({"condition": {"any": [{"not": {"path": "a", "op": "in", "value": 1}}]}},
         {"/condition/any/0/not/value"}),
    ):  # fmt: skip
        answer = await rules_api.client.post("/api/v1/rules", json=rule | changes)
        assert answer.status_code == 422, changes
        assert {e["pointer"] for e in answer.json()["errors"]} == pointers, changes


async def test_a_rule_whose_jobs_could_never_be_sent_is_refused(rules_api: Api) -> None:
    rule = {"event_type": "e", "template_code": "hi", "channels": ["email"]}
    never = rule | {"delay_s": 60, "expires_after_s": 60}
    answer = await rules_api.client.post("/api/v1/rules", json=never)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/expires_after_s")


async def test_a_rule_is_made_once_under_an_idempotency_key(rules_api: Api) -> None:
    rule = {"event_type": "e", "template_code": "hi", "channels": ["email"]}
    rule["condition"] = {"path": "price", "op": "gt", "value": 0.30}  # type: ignore[assignment]
    key = {"Idempotency-Key": "rule 1"}
    made = await rules_api.client.post("/api/v1/rules", json=rule, headers=key)
    again = await rules_api.client.post("/api/v1/rules", json=rule, headers=key)
    assert (made.status_code, again.status_code) == (201, 200)
    assert again.json() == made.json()
    other = await rules_api.client.post(
        "/api/v1/rules", json=rule | {"event_type": "other"}, headers=key
    )
    assert other.status_code == 409
    assert other.json()["errors"][0]["pointer"] == "/header/idempotency-key"
    assert (await rules_api.client.get("/api/v1/rules")).json()["items"] == [made.json()]
