"""Tenants, providers and suppressions over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest

from outbox.sealing import Keyring, Sealed
from outbox.store.providers import open_credentials
from tests.api.conftest import ADMIN_KEY, Api, running_api
from tests.postgres import Database

SECRET_KEY = "a-secret-key-of-the-operator"
SMTP: dict[str, Any] = {
    "channel": "email",
    "kind": "smtp",
    "name": "main",
    "config": {"smtp_url": "smtp://smtp.example.com:587", "mail_from": "a@example.com"},
    "credentials": {"smtp_username": "acme", "smtp_password": "hunter2!"},
}
PATH = "/api/v1/providers"


@pytest.fixture
async def sealing_api(database: Database) -> AsyncIterator[Api]:
    """The API with a secret key."""
    async with running_api(database.url, secret_key=SECRET_KEY) as client:
        client.headers["authorization"] = f"Bearer {ADMIN_KEY}"
        yield Api(client, database)


async def test_a_provider_is_stored_and_its_credentials_are_never_shown(sealing_api: Api) -> None:
    made = await sealing_api.client.post(PATH, json=SMTP, params={"tenant_id": "acme"})
    assert made.status_code == 201, made.text
    provider_id = made.json()["provider_id"]
    shown = await sealing_api.client.get(f"{PATH}/{provider_id}")
    listed = await sealing_api.client.get(PATH)
    assert shown.json() == made.json() == listed.json()["items"][0]
    assert shown.json()["config"] == SMTP["config"]
    assert shown.json()["has_credentials"] is True
    assert shown.json()["key_id"] == Keyring(SECRET_KEY).newest
    ((stored, key_id, detail),) = sealing_api.rows(
        "select p.credentials, p.key_id, (select string_agg(a.detail::text, '')"
        " from outbox.operator_action as a) from outbox.provider as p"
    )
    for text in (made.text, shown.text, listed.text, detail, repr(bytes(stored))):
        assert "hunter2" not in text
    opened = open_credentials(
        Keyring(SECRET_KEY), Sealed(key_id, bytes(stored)), made_id(provider_id)
    )
    assert opened == SMTP["credentials"]


def made_id(text: str) -> Any:
    from uuid import UUID

    return UUID(text)


async def test_a_change_without_credentials_keeps_them(sealing_api: Api) -> None:
    path = f"{PATH}/{uuid4()}"
    first = await sealing_api.client.put(path, json=SMTP)
    assert first.status_code == 200, first.text
    before = sealing_api.rows("select credentials from outbox.provider")
    changed = {**SMTP, "preference": 5}
    del changed["credentials"]
    second = await sealing_api.client.put(path, json=changed)
    assert (second.json()["preference"], second.json()["has_credentials"]) == (5, True)
    assert sealing_api.rows("select credentials from outbox.provider") == before
    emptied = await sealing_api.client.put(path, json={**changed, "credentials": {}})
    assert emptied.json()["has_credentials"] is False


@pytest.mark.parametrize(
    ("changes", "pointers"),
    [
        ({"channel": "pigeon"}, {"/channel"}),
        ({"kind": "uucp"}, {"/kind"}),
        ({"config": {}}, {"/config/smtp_url", "/config/mail_from"}),
        ({"config": SMTP["config"] | {"database_url": "x"}}, {"/config/database_url"}),
        ({"config": SMTP["config"] | {"smtp_url": "smtp://a:b@c.de"}}, {"/config/smtp_url"}),
        ({"config": SMTP["config"] | {"smtp_url": "gopher://c.de"}}, {"/config"}),
        ({"config": SMTP["config"] | {"mail_from": "no address"}}, {"/config"}),
        ({"credentials": {"secret_key": "x"}}, {"/credentials/secret_key"}),
        ({"credentials": {"smtp_username": "alone"}}, {"/config"}),
        ({"preference": -1, "name": ""}, {"/preference", "/name"}),
    ],
)
async def test_a_provider_that_cannot_work_is_refused(
    sealing_api: Api, changes: dict[str, Any], pointers: set[str]
) -> None:
    answer = await sealing_api.client.post(PATH, json={**SMTP, **changes})
    assert answer.status_code == 422, answer.text
    assert {error["pointer"] for error in answer.json()["errors"]} == pointers
    assert sealing_api.count("provider") == 0


async def test_without_a_secret_key_no_credentials_are_kept(api: Api) -> None:
    answer = await api.client.post(PATH, json=SMTP)
    assert answer.status_code == 422
    assert "OUTBOX_SECRET_KEY" in answer.text
    without = {key: value for key, value in SMTP.items() if key != "credentials"}
    assert (await api.client.post(PATH, json=without)).status_code == 201


async def test_two_providers_of_a_channel_cannot_have_one_name(sealing_api: Api) -> None:
    await sealing_api.client.post(PATH, json=SMTP)
    again = await sealing_api.client.post(PATH, json=SMTP)
    assert again.status_code == 409, again.text
    other = await sealing_api.client.post(PATH, json=SMTP, params={"tenant_id": "acme"})
    assert other.status_code == 201


async def test_a_tenant_s_key_sees_and_changes_its_own_providers_alone(sealing_api: Api) -> None:
    mine = (await sealing_api.client.post(PATH, json=SMTP)).json()["provider_id"]
    async with sealing_api.with_key(await sealing_api.new_key("acme", "admin")) as acme:
        assert (await acme.get(PATH)).json()["items"] == []
        assert (await acme.get(f"{PATH}/{mine}")).status_code == 404
        assert (await acme.put(f"{PATH}/{mine}", json=SMTP)).status_code == 404
        assert (await acme.delete(f"{PATH}/{mine}")).status_code == 404
        assert (await acme.get(PATH, params={"tenant_id": "default"})).status_code == 403
        made = await acme.post(PATH, json=SMTP)
        assert made.json()["tenant_id"] == "acme"
        assert (await acme.delete(f"{PATH}/{made.json()['provider_id']}")).status_code == 204
    async with sealing_api.with_key(await sealing_api.new_key("acme", "jobs:read")) as reader:
        assert (await reader.get(PATH)).status_code == 403
    assert sealing_api.count("provider") == 1


async def test_a_tenant_s_settings_are_checked_and_stored(api: Api) -> None:
    body = {
        "default_locale": "kk",
        "timezone": "Asia/Almaty",
        "sender": "Acme <hello@acme.kz>",
        "phone_region": "KZ",
        "own_providers": True,
    }
    put = await api.client.put("/api/v1/tenants/acme", json=body)
    assert put.status_code == 200, put.text
    assert {key: put.json()[key] for key in body} == body
    bad = await api.client.put(
        "/api/v1/tenants/acme",
        json={"timezone": "Mars", "sender": "x\r\nBcc: y", "phone_region": "kz"},
    )
    assert bad.status_code == 422
    wrong = {error["pointer"] for error in bad.json()["errors"]}
    assert wrong == {"/phone_region"}
    bad = await api.client.put(
        "/api/v1/tenants/acme", json={"timezone": "Mars", "sender": "x\r\nBcc: y"}
    )
    assert {error["pointer"] for error in bad.json()["errors"]} == {"/timezone", "/sender"}


async def test_a_tenant_s_own_key_cannot_send_under_another_name(api: Api) -> None:
    await api.client.put("/api/v1/tenants/acme", json={"sender": "hello@acme.kz"})
    async with api.with_key(await api.new_key("acme", "admin")) as acme:
        path = "/api/v1/tenants/acme"
        refused = await acme.put(path, json={"sender": "ceo@bank.kz"})
        assert refused.status_code == 403
        kept = await acme.put(path, json={"sender": "hello@acme.kz", "timezone": "Asia/Almaty"})
        assert kept.status_code == 200
        assert (await acme.put("/api/v1/tenants/default", json={})).status_code == 403


async def test_an_address_is_suppressed_until_a_time_or_for_ever(api: Api) -> None:
    path = "/api/v1/suppressions/email/Ann@Example.com"
    put = await api.client.put(path, json={"reason": "asked", "expires_at": "2999-01-01T00:00Z"})
    assert put.status_code == 422  # no seconds: no RFC 3339 time
    put = await api.client.put(
        path, json={"reason": "asked", "expires_at": "2999-01-01T00:00:00Z"}
    )
    assert put.status_code == 200, put.text
    assert (put.json()["address"], put.json()["code"]) == ("ann@example.com", "manual")
    (listed,) = (await api.client.get("/api/v1/suppressions")).json()["items"]
    assert listed["expires_at"] == "2999-01-01T00:00:00Z"
    api.rows("update outbox.suppression set expires_at = now() - interval '1 s'")
    assert (await api.client.get("/api/v1/suppressions")).json()["items"] == []
    for_ever = await api.client.put(path, json={})
    assert for_ever.json()["expires_at"] is None
    assert (await api.client.delete(path)).status_code == 204
    past = await api.client.put(path, json={"expires_at": "2020-01-01T00:00:00Z"})
    assert past.status_code == 422
    nowhere = await api.client.put("/api/v1/suppressions/pigeon/x", json={})
    assert nowhere.status_code == 422
