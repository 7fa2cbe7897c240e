"""Webhook endpoints over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import pytest

from outbox.sealing import Keyring, Sealed
from outbox.store.endpoints import open_secrets
from tests.api.conftest import ADMIN_KEY, Api, running_api
from tests.postgres import Database

SECRET_KEY = "a-secret-key-of-the-operator"
PATH = "/api/v1/endpoints"
HOOK: dict[str, Any] = {"url": "https://shop.example.com/hooks", "event_types": ["order_paid"]}


@pytest.fixture
async def api(database: Database) -> AsyncIterator[Api]:
    """The API with a secret key."""
    async with running_api(database.url, secret_key=SECRET_KEY) as client:
        client.headers["authorization"] = f"Bearer {ADMIN_KEY}"
        yield Api(client, database)


def kept(api: Api, endpoint_id: str) -> list[tuple[str, bool]]:
    """Return an endpoint's secrets, and whether each has an end."""
    ((secrets, key_id),) = api.rows(
        "select secrets, key_id from outbox.endpoint where endpoint_id = %s", endpoint_id
    )
    opened = open_secrets(Keyring(SECRET_KEY), Sealed(key_id, bytes(secrets)), UUID(endpoint_id))
    return [(each.secret, each.until is not None) for each in opened]


async def test_a_secret_is_shown_once_and_rotates_with_an_overlap(api: Api) -> None:
    made = await api.client.post(PATH, json=HOOK)
    assert made.status_code == 201, made.text
    endpoint_id, first = made.json()["endpoint_id"], made.json()["secret"]
    shown = await api.client.get(f"{PATH}/{endpoint_id}")
    assert "secret" not in shown.json()
    listed = await api.client.get(PATH)
    assert listed.json()["items"] == [shown.json()]
    turned = await api.client.post(f"{PATH}/{endpoint_id}/rotate", json={"overlap_s": 60})
    second = turned.json()["secret"]
    assert kept(api, endpoint_id) == [(second, False), (first, True)]
    changed = await api.client.put(f"{PATH}/{endpoint_id}", json=HOOK | {"enabled": False})
    assert changed.json()["enabled"] is False
    assert kept(api, endpoint_id) == [(second, False), (first, True)]
    at_once = await api.client.post(f"{PATH}/{endpoint_id}/rotate", json={"overlap_s": 0})
    assert kept(api, endpoint_id)[0] == (at_once.json()["secret"], False)


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"url": "http://127.0.0.1/x"}, "/url"),
        ({"url": "http://[::ffff:10.0.0.1]/"}, "/url"),
        ({"url": "http://2130706433/"}, "/url"),
        ({"url": "https://user:pass@shop.example.com/"}, "/url"),
        ({"url": "ftp://shop.example.com/"}, "/url"),
        ({"url": "https://shop.example.com:6379/"}, "/url"),
        ({"secret": "whsec_!"}, "/secret"),
        ({"event_types": [""]}, "/event_types/0"),
    ],
)
async def test_an_endpoint_that_nothing_may_be_sent_to_is_refused(
    api: Api, changes: dict[str, Any], pointer: str
) -> None:
    answer = await api.client.post(PATH, json=HOOK | changes)
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"][0]["pointer"] == pointer
    assert api.count("endpoint") == 0


async def test_without_a_secret_key_there_are_no_endpoints(database: Database) -> None:
    async with running_api(database.url, auth=False) as client:
        answer = await client.post(PATH, json=HOOK)
    assert answer.status_code == 422
    assert "OUTBOX_SECRET_KEY" in answer.text


async def test_another_tenant_s_endpoint_is_not_there(api: Api) -> None:
    mine = (await api.client.post(PATH, json=HOOK)).json()["endpoint_id"]
    async with api.with_key(await api.new_key("acme", "admin")) as acme:
        assert (await acme.get(PATH)).json()["items"] == []
        assert (await acme.get(f"{PATH}/{mine}")).status_code == 404
        assert (await acme.put(f"{PATH}/{mine}", json=HOOK)).status_code == 404
        assert (await acme.post(f"{PATH}/{mine}/rotate", json={})).status_code == 404
        assert (await acme.delete(f"{PATH}/{mine}")).status_code == 404
        hook = {"channel": "webhook", "endpoint": mine, "data": {}, "meta": {}}
        refused = await acme.post("/api/v1/jobs", json=hook)
        assert refused.json()["errors"] == [
            {"pointer": "/endpoint", "message": "no such endpoint"}
        ]
    assert (await api.client.delete(f"{PATH}/{mine}")).status_code == 204


async def test_an_event_goes_to_the_endpoints_that_listen_to_it(api: Api) -> None:
    listening = (await api.client.post(PATH, json=HOOK)).json()["endpoint_id"]
    await api.client.post(PATH, json=HOOK | {"event_types": ["other"]})
    await api.client.post(PATH, json=HOOK | {"enabled": False})
    await api.client.post(PATH, json=HOOK, params={"tenant_id": "acme"})
    event = {
        "event_id": str(uuid4()),
        "event_type": "order_paid",
        "user_id": "u1",
        "data": {"order": 7},
    }
    told = await api.client.post("/api/v1/events", json=event)
    assert told.status_code == 202, told.text
    (job_id,) = told.json()["job_ids"]
    ((job, status),) = api.rows(
        "select j.job, n.status from outbox.job as j join outbox.notification as n using (id)"
        " where j.job_id = %s",
        job_id,
    )
    assert (job["endpoint"], job["data"], status) == (listening, {"order": 7}, "pending")
    again = await api.client.post("/api/v1/events", json=event)
    assert again.json()["job_ids"] == [job_id]
    assert api.count("job") == 1
