"""Schedules over HTTP: made, shown, paused, refused where they could never work."""

from __future__ import annotations

import pytest

from tests.api.conftest import Api, Row

WHERE = "/api/v1/schedules/digest"
JOB: Row = {"channel": "email", "to": "ann@example.com", "content": "Hi", "data": {}, "meta": {}}
DAILY: Row = {"trigger": {"cron": "0 9 * * *"}, "timezone": "Asia/Almaty", "job": JOB}


async def test_a_schedule_is_made_shown_paused_resumed_and_forgotten(api: Api) -> None:
    made = await api.client.put(WHERE, json=DAILY)
    assert made.status_code == 200, made.text
    assert made.json()["next_at"].endswith("T04:00:00Z")
    assert len(made.json()["next_fires"]) == 5
    assert api.count("job") == 0
    assert (await api.client.get(WHERE)).json() == made.json()
    paused = (await api.client.post(f"{WHERE}/pause")).json()
    assert (paused["enabled"], paused["next_at"], paused["next_fires"]) == (False, None, [])
    assert (await api.client.post(f"{WHERE}/resume")).json()["enabled"] is True
    listed = (await api.client.get("/api/v1/schedules")).json()["items"]
    assert [item["name"] for item in listed] == ["digest"]
    assert (await api.client.delete(WHERE)).status_code == 204
    for call in (api.client.get(WHERE), api.client.delete(WHERE)):
        assert (await call).status_code == 404
    actions = api.rows(
        "select action, actor from outbox.operator_action"
        " where not detail ? 'refused' order by action_id"
    )
    assert [row[0] for row in actions] == [
        f"schedule.{what}" for what in ("put", "pause", "resume", "delete")
    ]
    assert {row[1] for row in actions} == {"admin key"}


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"trigger": {"cron": "0 0 30 2 *"}}, "/trigger/cron"),
        ({"trigger": {"cron": "0 25 * * *"}}, "/trigger/cron"),
        ({"trigger": {"at": "2020-01-01T00:00"}}, "/trigger/at"),
        ({"trigger": {"every_s": 0}}, "/trigger/every_s"),
        ({"timezone": "Mars"}, "/timezone"),
        ({"job": JOB | {"chanel": "email"}}, "/job/chanel"),
        ({"job": JOB | {"send_after": "2030-01-01T00:00:00Z"}}, "/job/send_after"),
        ({"job": {"queue": "nobody", "payload": {}}}, "/job/queue"),
        ({"job": None}, ""),
        ({"clean": {"queue": "email", "status": "sent", "keep_last": 1}}, ""),
        ({"job": None, "clean": {"queue": "email", "status": "lost"}}, "/clean/status"),
        ({"misfire": "never"}, "/misfire"),
        ({"job": None, "clean": {"queue": "email", "status": "sent"}}, "/clean"),
        (
            {"job": None, "clean": {"queue": "emial", "status": "sent", "keep_last": 1}},
            "/clean/queue",
        ),
        ({"timezone": "localtime"}, "/timezone"),
        ({"timezone": "right/UTC"}, "/timezone"),
        ({"trigger": {"cron": "0 ٣ * * *"}}, "/trigger/cron"),
        ({"trigger": {"cron": "0 3 * * ３"}}, "/trigger/cron"),
    ],
)
async def test_a_schedule_that_could_never_work_is_refused_with_its_place(
    api: Api, change: Row, pointer: str
) -> None:
    answer = await api.client.put(WHERE, json=DAILY | change)
    assert answer.status_code == 422, answer.text
    assert pointer in [error["pointer"] for error in answer.json()["errors"]]
    assert api.count("schedule") == 0
    assert api.count("job") == 0


async def test_a_trigger_is_previewed(api: Api) -> None:
    wanted = {
        "trigger": {"cron": "30 2 * * *"},
        "timezone": "Europe/Berlin",
        "after": "2026-03-28T12:00:00Z",
        "count": 2,
    }
    answer = await api.client.post("/api/v1/schedule-previews", json=wanted)
    assert answer.json() == {"fires": ["2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"]}
    bad = await api.client.post("/api/v1/schedule-previews", json={"trigger": {"cron": "x"}})
    assert [e["pointer"] for e in bad.json()["errors"]] == ["/trigger/cron"]


async def test_a_schedule_is_its_tenant_s_own(api: Api) -> None:
    await api.client.put(WHERE, json=DAILY)
    key = await api.new_key("acme", "admin")
    async with api.with_key(key) as acme:
        assert (await acme.get(WHERE)).status_code == 404
        assert (await acme.put(WHERE, json=DAILY)).json()["tenant_id"] == "acme"
        assert (await acme.delete(WHERE)).status_code == 204
    assert (await api.client.get(WHERE)).status_code == 200
    reader = await api.new_key("default", "jobs:read")
    async with api.with_key(reader) as client:
        assert (await client.put(WHERE, json=DAILY)).status_code == 403
