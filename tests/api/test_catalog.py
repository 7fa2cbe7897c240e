"""Templates and recipients over HTTP."""

from __future__ import annotations

from urllib.parse import quote
from uuid import uuid4

import psycopg
import pytest

from tests.api.conftest import Api, job

WELCOME = {
    "subject": "Добро пожаловать, {{ first_name }}!",
    "text": "Здравствуйте, {{ first_name }}: {{ login_url }}",
    "html": "<p>{{ first_name }}</p>",
    "schema": {"type": "object", "required": ["first_name"]},
}
PATH = "/api/v1/templates/welcome_email/email/ru"


async def test_each_put_that_changes_something_makes_a_version(open_api: Api) -> None:
    first = await open_api.client.put(PATH, json=WELCOME)
    assert first.status_code == 201
    assert first.json()["version"] == 1
    assert first.json()["schema"] == WELCOME["schema"]
    same = await open_api.client.put(PATH, json=WELCOME)
    assert (same.status_code, same.json()["version"]) == (200, 1)
    second = await open_api.client.put(PATH, json=WELCOME | {"subject": "Привет"})
    assert (second.status_code, second.json()["version"]) == (200, 2)
    newest = (await open_api.client.get(PATH)).json()
    assert newest["subject"] == "Привет"
    oldest = (await open_api.client.get(PATH, params={"version": 1})).json()
    assert oldest["subject"] == WELCOME["subject"]
    versions = (await open_api.client.get(f"{PATH}/versions")).json()["items"]
    assert [version["version"] for version in versions] == [2, 1]


async def test_a_deleted_template_is_gone_until_it_is_put_again(open_api: Api) -> None:
    await open_api.client.put(PATH, json=WELCOME)
    assert (await open_api.client.delete(PATH)).status_code == 204
    assert (await open_api.client.get(PATH)).status_code == 404
    assert (await open_api.client.delete(PATH)).status_code == 404
    refused = await open_api.client.post(
        "/api/v1/jobs", json=job(content=None, template_code="welcome_email")
    )
    assert refused.json()["errors"][0]["pointer"] == "/template_code"
    again = await open_api.client.put(PATH, json=WELCOME)
    assert again.json()["version"] == 2


async def test_a_locale_is_stored_under_its_usual_name(open_api: Api) -> None:
    put = await open_api.client.put("/api/v1/templates/t/database/PT_br", json={"text": "x"})
    assert (put.json()["channel"], put.json()["locale"]) == ("inbox", "pt-BR")
    assert (await open_api.client.get("/api/v1/templates/t/inbox/pt-BR")).status_code == 200


@pytest.mark.parametrize(
    "code", ["two words", "привет", "a?b", "a\nb", "%2e", "#1", "a/b", "a%2Fb"]
)
async def test_a_stored_template_tells_where_it_lies_whatever_its_name(
    open_api: Api, code: str
) -> None:
    path = f"/api/v1/templates/{quote(code, safe='')}/email/en"
    stored = await open_api.client.put(path, json={"text": "x"})
    assert stored.status_code == 201, stored.text
    shown = await open_api.client.get(stored.headers["location"])
    assert shown.json()["code"] == code


async def test_templates_are_listed_in_pages(open_api: Api) -> None:
    for code in ("a", "b", "c"):
        await open_api.client.put(f"/api/v1/templates/{code}/email/en", json={"text": "x"})
    page = (await open_api.client.get("/api/v1/templates", params={"limit": 2})).json()
    assert [item["code"] for item in page["items"]] == ["a", "b"]
    rest = await open_api.client.get("/api/v1/templates", params={"cursor": page["next_cursor"]})
    assert [item["code"] for item in rest.json()["items"]] == ["c"]
    assert rest.json()["next_cursor"] is None


@pytest.mark.parametrize(
    ("path", "body", "pointers"),
    [
        ("t/email/en", {"text": "{{ a"}, {"/text"}),
        ("t/email/en", {"text": "x", "html": "{% for %}", "subject": "{{"}, {"/html", "/subject"}),
        ("t/email/en", {"text": "x", "schema": {"type": 7}}, {"/schema"}),
        ("t/email/en", {"subject": "x"}, {""}),
        ("t/email/en", {"text": 7, "html": [], "body": 1}, {"/text", "/html", "/body"}),
        ("t/email/en", {"text": "x", "keep_content": "some"}, {"/keep_content"}),
        ("t/email/en", {"text": "a\x00b"}, {"/text"}),
        ("t/pigeon/e!", {"text": "x"}, {"/path/channel", "/path/locale"}),
    ],
)
async def test_a_template_that_cannot_work_is_refused_with_its_faults(
    open_api: Api, path: str, body: object, pointers: set[str]
) -> None:
    answer = await open_api.client.put(f"/api/v1/templates/{path}", json=body)
    assert answer.status_code == 422, answer.text
    assert {error["pointer"] for error in answer.json()["errors"]} == pointers
    assert open_api.count("template") == 0


async def test_a_preview_renders_and_lists_what_the_data_lack(open_api: Api) -> None:
    await open_api.client.put(PATH, json=WELCOME)
    preview = await open_api.client.post(
        f"{PATH}/preview", json={"data": {"first_name": "Айдана", "login_url": "https://x.kz"}}
    )
    assert preview.json()["subject"] == "Добро пожаловать, Айдана!"
    assert preview.json()["missing"] == []
    lacking = (
        await open_api.client.post(f"{PATH}/preview", json={"data": {"first_name": "А"}})
    ).json()
    assert lacking["missing"] == ["login_url"]
    assert lacking["error"]["code"] == "template.variable"
    job_id = str(uuid4())
    recorded = job(
        job_id=job_id,
        content=None,
        template_code="welcome_email",
        data={"first_name": "Б", "login_url": "u"},
    )
    assert (await open_api.client.post("/api/v1/jobs", json=recorded)).status_code == 202
    shown = await open_api.client.post(f"{PATH}/preview", json={"job_id": job_id})
    assert shown.json()["text"] == "Здравствуйте, Б: u"
    tried = await open_api.client.post(
        f"{PATH}/preview", json={"data": {"first_name": "В"}, "text": "{{ first_name }}!"}
    )
    assert tried.json()["text"] == "В!"


WHOLE = {
    "email": "ann@example.com",
    "phone": "+77011234567",
    "telegram_chat_id": "42",
    "locale": "pt_br",
    "timezone": "Asia/Almaty",
    "attributes": {"plan": "pro", "n": 0.1},
    "opt_outs": ["marketing"],
    "quiet_hours": {"from": "22:00", "to": "08:00"},
}


async def test_a_recipient_is_put_shown_replaced_and_deleted(open_api: Api) -> None:
    path = "/api/v1/recipients/user:42"
    created = await open_api.client.put(path, json=WHOLE)
    assert created.status_code == 201
    shown = (await open_api.client.get(path)).json()
    assert {name: shown[name] for name in WHOLE} == WHOLE | {"locale": "pt-BR"}
    replaced = await open_api.client.put(path, json={"email": "b@example.com"})
    assert replaced.status_code == 200
    assert replaced.json()["phone"] is None
    assert (await open_api.client.delete(path)).status_code == 204
    assert (await open_api.client.get(path)).status_code == 404
    assert (await open_api.client.delete(path)).status_code == 404


async def test_a_recipient_may_have_any_id(open_api: Api) -> None:
    for user_id in ("a/b", "/", "a%2Fb", "ю/?"):
        path = f"/api/v1/recipients/{quote(user_id, safe='')}"
        stored = await open_api.client.put(path, json={"email": "a@example.com"})
        assert (stored.status_code, stored.json()["user_id"]) == (201, user_id)
        assert (await open_api.client.get(path)).json()["user_id"] == user_id
        assert (await open_api.client.delete(f"{path}/data")).status_code == 200
        gone = await open_api.client.get(path)
        assert (gone.status_code, gone.json()["detail"]) == (404, "There is no such recipient.")


async def test_every_fault_of_a_recipient_is_told(open_api: Api) -> None:
    wrong = {
        "email": "nobody",
        "timezone": "Mars/Olympus",
        "locale": "?",
        "attributes": [],
        "phone": "+7\n1",
    }
    answer = await open_api.client.put("/api/v1/recipients/ann", json=wrong)
    assert answer.status_code == 422
    assert {e["pointer"] for e in answer.json()["errors"]} == {f"/{name}" for name in wrong}
    for name, value, pointer in (
        ("quiet_hours", {"from": "25:00", "to": "08:00"}, "/quiet_hours/from"),
        ("opt_outs", ["a", 7], "/opt_outs/1"),
        ("fcm", [], "/fcm"),
        ("timezone", "localtime", "/timezone"),
        ("timezone", "posixrules", "/timezone"),
    ):
        answer = await open_api.client.put("/api/v1/recipients/ann", json={name: value})
        assert [e["pointer"] for e in answer.json()["errors"]] == [pointer], answer.text


async def test_erasure_withdraws_live_jobs_and_leaves_nothing_personal(open_api: Api) -> None:
    await open_api.client.put("/api/v1/recipients/ann", json={"email": "ann@example.com"})
    job_id = str(uuid4())
    await open_api.client.post("/api/v1/jobs", json=job(job_id=job_id, to=None, user_id="ann"))
    erased = await open_api.client.delete("/api/v1/recipients/ann/data")
    assert erased.status_code == 200
    assert erased.json()["cancelled"] == 1
    shown = (await open_api.client.get(f"/api/v1/jobs/{job_id}")).json()
    assert shown["status"] == "cancelled"
    assert shown["user_id"] == erased.json()["pseudonym"]
    everything = str([open_api.rows(f"select * from outbox.{t}") for t in ("job", "delivery")])
    assert "ann@example.com" not in everything
    assert "Hello" not in everything
    assert (await open_api.client.get("/api/v1/recipients/ann")).status_code == 404


async def test_an_inbox_is_listed_and_read(open_api: Api) -> None:
    inbox = job(to=None, user_id="ann", channel="database", job_id=str(uuid4()))
    assert (await open_api.client.post("/api/v1/jobs", json=inbox)).status_code == 202
    with psycopg.connect(open_api.database.admin_url) as admin:
        admin.execute(
            "insert into outbox.inbox_message (id, tenant_id, user_id, subject, body)"
            " select id, tenant_id, user_id, 'Hi', 'Hello' from outbox.job"
        )
    path = "/api/v1/recipients/ann/inbox"
    page = (await open_api.client.get(path)).json()
    assert page["unread"] == 1
    (message,) = page["items"]
    assert message["job_id"] == inbox["job_id"]
    read = await open_api.client.post(f"{path}/{message['id']}/read")
    assert read.json()["read_at"] is not None
    again = await open_api.client.post(f"{path}/{message['id']}/read")
    assert again.json()["read_at"] == read.json()["read_at"]
    assert (await open_api.client.get(path, params={"unread": "true"})).json()["items"] == []
    assert (await open_api.client.post(f"{path}/999/read")).status_code == 404
    assert (await open_api.client.get("/api/v1/recipients/bob/inbox")).json()["items"] == []
