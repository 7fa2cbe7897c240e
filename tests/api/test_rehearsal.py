"""A template's version goes live only if the newest real payloads can be rendered with it."""

from __future__ import annotations

import psycopg
import pytest

from tests.api.conftest import Api, job
from tests.api.stage import FAIL, SEND, behind, post

PATH = "/api/v1/templates/greet/email"
SOUND = {"subject": "Hello", "text": "Hello {{ name }}"}
UNFIT = {"subject": "Hello", "text": "Hello {{ name }} of {{ town }}"}


async def send(api: Api, **data: object) -> str:
    return await post(api, content=None, template_code="greet", data=data)


async def test_a_version_that_a_recent_payload_lacks_a_variable_for_is_refused(
    open_api: Api,
) -> None:
    await open_api.client.put(f"{PATH}/en", json=SOUND)
    await send(open_api, name="Ann", town="Almaty")
    job_id = await send(open_api, name="Secret Bob")
    behind(open_api, SEND)
    for locale, status in (("en", 1), ("ru", None)):
        refused = await open_api.client.put(f"{PATH}/{locale}", json=UNFIT)
        assert refused.status_code == 422, refused.text
        told = refused.json()
        assert "of the newest 2 payloads 1 cannot be rendered" in told["detail"]
        (fault,) = told["errors"]
        assert f"in {locale}, with the payload of job {job_id}" in fault["message"]
        assert "town" in fault["message"]
        assert "Secret Bob" not in refused.text
        shown = await open_api.client.get(f"{PATH}/{locale}")
        assert shown.json().get("version") == status


async def test_it_is_stored_all_the_same_where_somebody_insists(open_api: Api) -> None:
    await open_api.client.put(f"{PATH}/en", json=SOUND)
    await send(open_api, name="Ann")
    stored = await open_api.client.put(f"{PATH}/en?force=true", json=UNFIT)
    assert (stored.status_code, stored.json()["version"]) == (200, 2)
    # The same again is the same version, and needs no force.
    again = await open_api.client.put(f"{PATH}/en", json=UNFIT)
    assert (again.status_code, again.json()["version"]) == (200, 2)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"schema": {"type": "object", "required": ["town"]}}, "/town"),
        ({"text": "{{ name.first }}"}, "name.first"),
        ({"text": "{{ '%0500000d' | format(n) }}" * 9, "html": "{{ name }}"}, ""),
    ],
)
async def test_a_schema_or_a_limit_that_a_payload_breaks_counts_too(
    open_api: Api, change: dict[str, object], why: str
) -> None:
    await open_api.client.put(f"{PATH}/en", json=SOUND)
    await send(open_api, name="Ann", n=7)
    refused = await open_api.client.put(f"{PATH}/en", json=SOUND | change)
    assert refused.status_code == 422, refused.text
    assert why in refused.json()["errors"][0]["message"]


async def test_it_is_rendered_as_it_would_be_with_user_meta_and_job(open_api: Api) -> None:
    await open_api.client.put(f"{PATH}/en", json=SOUND)
    await open_api.client.put(
        "/api/v1/recipients/ann", json={"email": "a@b.kz", "attributes": {"plan": "pro"}}
    )
    await post(open_api, content=None, template_code="greet", to=None, user_id="ann")
    text = "{{ name }} {{ user.attributes.plan }} {{ meta.event_type }} {{ job.created_at }}"
    assert (await open_api.client.put(f"{PATH}/en", json={"text": text})).status_code == 200
    text = "{{ user.attributes.town }}"
    assert (await open_api.client.put(f"{PATH}/en", json={"text": text})).status_code == 422


async def test_payloads_that_never_fitted_and_those_of_erased_people_do_not_count(
    open_api: Api,
) -> None:
    await open_api.client.put(f"{PATH}/en", json=SOUND)
    await send(open_api, name="Ann")
    behind(open_api, FAIL.replace("recipient.no_address", "template.variable"))
    await open_api.client.put("/api/v1/recipients/bob", json={"email": "bob@b.kz"})
    await post(
        open_api, content=None, template_code="greet", to=None, user_id="bob", data={"name": "Bob"}
    )
    await open_api.client.delete("/api/v1/recipients/bob/data")
    assert (await open_api.client.put(f"{PATH}/en", json=UNFIT)).status_code == 200


async def test_another_tenant_s_payloads_are_nobody_else_s(api: Api) -> None:
    key = await api.new_key("acme", "admin")
    await api.client.put(f"{PATH}/en", json=SOUND)
    await send(api, name="Ann")
    async with api.with_key(key) as client:
        assert (await client.put(f"{PATH}/en", json=UNFIT)).status_code == 201
    with psycopg.connect(api.database.url) as connection:
        connection.execute("set role outbox_api")
        connection.execute("select set_config('outbox.tenant', 'acme', true)")
        with pytest.raises(psycopg.Error, match="another tenant"):
            connection.execute(
                "select outbox.recent_payloads('default', 'greet', 'email', 'en', 9)"
            )


async def test_the_newest_payloads_of_a_locale_count_behind_any_number_of_others(
    open_api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("outbox_api.routes.templates.PAYLOADS_MAX", 2)
    await open_api.client.put(f"{PATH}/en", json=SOUND)
    who = {"email": "a@b.kz", "locale": "kz_KZ"}
    await open_api.client.put("/api/v1/recipients/ann", json=who)
    fields = {"content": None, "template_code": "greet", "data": {"name": "Ann"}}
    of_kz = [
        await post(open_api, **fields, locale="KZ"),
        await post(open_api, **fields, locale=None, to=None, user_id="ann"),
    ]
    for _ in range(3):
        await post(open_api, **fields | {"data": {"name": "Ann", "town": "Almaty"}}, locale="ru")
    assert (await open_api.client.put(f"{PATH}/ru", json=UNFIT)).status_code == 201
    refused = await open_api.client.put(f"{PATH}/kz", json=UNFIT)
    assert refused.status_code == 422
    told = [fault["message"] for fault in refused.json()["errors"]]
    assert [any(job_id in message for message in told) for job_id in of_kz] == [True, True]


async def test_other_templates_payloads_do_not_count(open_api: Api) -> None:
    await open_api.client.put(f"{PATH}/en", json=SOUND)
    await post(open_api, **job())
    assert (await open_api.client.put(f"{PATH}/en", json=UNFIT)).status_code == 200
