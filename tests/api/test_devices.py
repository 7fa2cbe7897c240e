"""FCM tokens and Web Push subscriptions over HTTP."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.conftest import Api

PEOPLE = "/api/v1/recipients"
SUBSCRIPTION = {
    "endpoint": "https://push.example.com/send/1",
    "expirationTime": None,
    "keys": {
        "p256dh": "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpk"
        "NtoIAiw4",
        "auth": "BTBZMqHH6r4Tts7J_aSIgg",
    },
}


async def addresses(api: Api, user: str) -> list[str]:
    listed = await api.client.get(f"{PEOPLE}/{user}/devices")
    return [item["address"] for item in listed.json()["items"]]


async def test_devices_are_registered_listed_and_forgotten(open_api: Api) -> None:
    first = await open_api.client.post(f"{PEOPLE}/u1/fcm-tokens", json={"token": "t:1"})
    assert first.status_code == 201
    again = await open_api.client.post(f"{PEOPLE}/u1/fcm-tokens", json={"token": "t:1"})
    assert (again.status_code, again.json()["device_id"]) == (200, first.json()["device_id"])
    browser = await open_api.client.post(f"{PEOPLE}/u1/push-subscriptions", json=SUBSCRIPTION)
    assert (browser.status_code, browser.json()["channel"]) == (201, "browser")
    assert "keys" not in browser.text
    assert await addresses(open_api, "u1") == ["https://push.example.com/send/1", "t:1"]
    path = f"{PEOPLE}/u1/devices/{first.json()['device_id']}"
    assert (await open_api.client.delete(path)).status_code == 204
    assert (await open_api.client.delete(path)).status_code == 404
    assert await addresses(open_api, "u1") == ["https://push.example.com/send/1"]


async def test_a_device_belongs_to_whoever_registered_it_last(open_api: Api) -> None:
    await open_api.client.post(f"{PEOPLE}/u1/fcm-tokens", json={"token": "shared"})
    moved = await open_api.client.post(f"{PEOPLE}/u2/fcm-tokens", json={"token": "shared"})
    assert moved.status_code == 200
    assert await addresses(open_api, "u1") == []
    assert await addresses(open_api, "u2") == ["shared"]


async def test_a_user_has_at_most_twenty_and_the_one_seen_longest_ago_goes(open_api: Api) -> None:
    for number in range(21):
        await open_api.client.post(f"{PEOPLE}/u1/fcm-tokens", json={"token": f"t{number}"})
    assert await addresses(open_api, "u1") == [f"t{number}" for number in range(20, 0, -1)]


async def test_a_recipient_that_is_deleted_takes_its_devices_along(open_api: Api) -> None:
    await open_api.client.put(f"{PEOPLE}/u1", json={"email": "ann@example.com"})
    await open_api.client.post(f"{PEOPLE}/u1/fcm-tokens", json={"token": "t1"})
    assert (await open_api.client.delete(f"{PEOPLE}/u1")).status_code == 204
    assert await addresses(open_api, "u1") == []


async def test_erasure_takes_the_devices_along(open_api: Api) -> None:
    await open_api.client.post(f"{PEOPLE}/u1/fcm-tokens", json={"token": "t1"})
    assert (await open_api.client.delete(f"{PEOPLE}/u1/data")).status_code == 200
    assert await addresses(open_api, "u1") == []


@pytest.mark.parametrize(
    ("kind", "body", "pointers"),
    [
        ("fcm-tokens", {"token": ""}, {"/token"}),
        ("fcm-tokens", {"token": "a b"}, {"/token"}),
        ("fcm-tokens", {"token": "x" * 2_049}, {"/token"}),
        ("push-subscriptions", SUBSCRIPTION | {"endpoint": "ftp://x/"}, {"/endpoint"}),
        ("push-subscriptions", SUBSCRIPTION | {"endpoint": "https://a:b@x/"}, {"/endpoint"}),
        (
            "push-subscriptions",
            SUBSCRIPTION | {"keys": {"p256dh": "AAAA", "auth": "!"}},
            {"/keys/p256dh", "/keys/auth"},
        ),
    ],
)
async def test_what_is_no_device_is_refused_with_its_faults(
    open_api: Api, kind: str, body: dict[str, Any], pointers: set[str]
) -> None:
    refused = await open_api.client.post(f"{PEOPLE}/u1/{kind}", json=body)
    assert refused.status_code == 422
    assert {error["pointer"] for error in refused.json()["errors"]} == pointers
