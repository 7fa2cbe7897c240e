"""Every operation that changes something is written down, and so is what was refused."""

from __future__ import annotations

import re
from collections.abc import Mapping

import psycopg
import pytest

from outbox_api.app import ROUTES
from outbox_api.operations import Operation, operation_of
from outbox_api.operator_log import REFUSALS_PER_S_MAX, UNLOGGED, Allowance
from tests.api.conftest import Api, job
from tests.api.test_dashboard import signed_in
from tests.postgres import Database


def action_of(operation: Operation) -> str:
    return f"page.{operation.name}" if operation.is_page else operation.name


CHANGING = sorted(
    (found for found in map(operation_of, ROUTES) if found is not None and found.method != "GET"),
    key=action_of,
)
SAMPLE = "0193281c-6e5b-7b0e-9a43-7f6a1d4cb001"


def place(operation: Operation) -> str:
    examples: Mapping[str, str] = operation.path_examples
    examples = {"lease_no": "1", **examples}
    return re.sub(r"\{(\w+)\}", lambda m: examples.get(m[1], SAMPLE), operation.path)


async def test_every_operation_that_changes_something_tells_who_was_refused(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A walk over all routes with a key that may do nothing: each is in the log, or excused."""
    monkeypatch.setattr("outbox_api.operator_log.REFUSALS_PER_S_MAX", 1_000)
    key = await api.new_key("acme", "jobs:read")
    api.rows("delete from outbox.operator_action returning 1")
    async with api.with_key(key) as client:
        for operation in CHANGING:
            if operation.needs in ("jobs:write", "admin"):
                answer = await client.request(operation.method, place(operation), json={})
                assert answer.status_code == 403, operation.name
    logged = {
        row[0]: row[1:]
        for row in api.rows(
            "select action, actor, tenant_id, detail ->> 'refused' from outbox.operator_action"
        )
    }
    expected = {
        action_of(found)
        for found in CHANGING
        if found.needs in ("jobs:write", "admin") and found.name not in UNLOGGED
    }
    assert set(logged) == expected
    assert set(logged.values()) == {("key of acme", "acme", "403")}


@pytest.mark.parametrize(
    ("path", "form", "action", "after"),
    [
        ("/queues/inbox/pause", {"reason": "x"}, "pause", {"paused": True}),
        ("/jobs/{job_id}/cancel", {}, "cancel", {"status": "cancelled"}),
        ("/jobs/{job_id}/promote", {}, "promote", {"status": "pending"}),
    ],
)
async def test_what_a_page_does_is_written_down_once_with_before_and_after(
    api: Api, path: str, form: dict[str, str], action: str, after: object
) -> None:
    later = job(channel="inbox", to=None, user_id="ann", send_after="2027-01-01T00:00:00Z")
    job_id = (await api.client.post("/api/v1/jobs", json=later)).json()["job_id"]
    whose = "default" if "job_id" in path else "*"
    key = await api.new_key(whose, "admin")
    api.rows("delete from outbox.operator_action returning 1")
    async with signed_in(api, key) as client:
        answer = await client.post(path.format(job_id=job_id), data=form)
    assert answer.status_code < 400, answer.text
    ((actor, said, detail),) = api.rows("select actor, action, detail from outbox.operator_action")
    assert (actor, said, detail["after"]) == (f"key of {whose}", action, after)
    assert detail["before"] != after
    assert detail.get("reason") == form.get("reason")


@pytest.mark.parametrize(
    "role", ["outbox_api", "outbox_dispatcher", "outbox_auditor", "outbox_producer"]
)
@pytest.mark.parametrize(
    "statement",
    [
        "update outbox.operator_action set actor = 'nobody'",
        "delete from outbox.operator_action",
        "truncate outbox.operator_action",
    ],
)
def test_nobody_can_change_or_delete_what_was_written_down(
    database: Database, role: str, statement: str
) -> None:
    with psycopg.connect(database.admin_url) as connection:
        connection.execute(f"set role {role}".encode())
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(statement.encode())


async def test_what_was_there_before_is_told_with_what_is_there_now_and_why(api: Api) -> None:
    why = {"outbox-reason": "asked by Bob"}
    for zone in ("UTC", "Asia/Almaty"):
        body = {"timezone": zone}
        answer = await api.client.put("/api/v1/tenants/acme", json=body, headers=why)
        assert answer.status_code < 300, answer.text
    rows = api.rows("select detail from outbox.operator_action order by action_id")
    assert rows[1][0]["before"] == {"timezone": "UTC"}
    assert rows[1][0]["after"] == {"timezone": "Asia/Almaty"}
    await api.client.put("/api/v1/lanes/acme/inbox", json={"weight": 2}, headers=why)
    ((detail,),) = api.rows("select detail from outbox.operator_action where action = 'limit'")
    assert (detail["before"]["weight"], detail["after"]["weight"]) == (1, 2)
    assert detail["reason"] == "asked by Bob"


def test_each_excuse_names_an_operation_and_its_reason() -> None:
    names = [found.name for found in map(operation_of, ROUTES) if found is not None]
    assert [names.count(name) for name in UNLOGGED] == [1] * len(UNLOGGED)
    assert all(UNLOGGED.values())


@pytest.mark.parametrize(
    ("method", "path", "body", "action"),
    [
        ("PUT", "/templates/t/inbox/en", {"text": "Hi"}, "put_template"),
        ("PUT", "/recipients/ann", {"email": "ann@example.com"}, "put_recipient"),
        ("PUT", "/tenants/acme", {"default_locale": "ru"}, "tenant.put"),
        (
            "PUT",
            "/schedules/d",
            {
                "trigger": {"every_s": 60},
                "clean": {"queue": "email", "status": "sent", "keep_last": 1},
            },
            "schedule.put",
        ),
        ("POST", "/queues/email/pause", None, "pause"),
    ],
)
async def test_what_was_done_is_written_down_once_with_who_and_why(
    api: Api, method: str, path: str, body: object, action: str
) -> None:
    answer = await api.client.request(
        method, f"/api/v1{path}", json=body, headers={"outbox-reason": "asked by Bob"}
    )
    assert answer.status_code < 300, answer.text
    rows = api.rows("select actor, action, detail ->> 'refused' from outbox.operator_action")
    assert rows == [("admin key", action, None)]
    shown = api.rows("select detail::text from outbox.operator_action")[0][0]
    assert "ann@" not in shown
    assert '"ann"' not in shown


async def test_what_changed_nothing_is_not_written_down(api: Api) -> None:
    await api.client.post("/api/v1/jobs/cancel", json={"queue": "email", "dry_run": True})
    assert api.count("operator_action") == 0


async def test_a_refusal_says_why_without_what_was_sent(api: Api) -> None:
    await api.client.put("/api/v1/recipients/ann", json={"email": 7, "qqq": "secret"})
    ((action, detail),) = api.rows("select action, detail from outbox.operator_action")
    assert action == "put_recipient"
    assert detail["refused"] == 422
    assert detail["pointers"] == ["/email", "/qqq"]
    assert "ann" not in str(detail)
    assert "secret" not in str(detail)


def test_a_wild_client_does_not_flood_the_log() -> None:
    allowance = Allowance()
    taken = [allowance.take() for _ in range(10 * REFUSALS_PER_S_MAX)]
    assert REFUSALS_PER_S_MAX <= sum(taken) <= 2 * REFUSALS_PER_S_MAX


async def test_the_log_is_read_in_pages_and_by_filters(api: Api) -> None:
    await api.client.put("/api/v1/recipients/ann", json={"email": 7})
    await api.client.post("/api/v1/queues/email/pause", headers={"outbox-reason": "the relay"})
    where = "/api/v1/operator-log"
    items = (await api.client.get(where)).json()["items"]
    assert [item["action"] for item in items] == ["pause", "put_recipient"]
    refused = (await api.client.get(where, params={"refused": "true"})).json()["items"]
    assert [item["action"] for item in refused] == ["put_recipient"]
    first = (await api.client.get(where, params={"limit": 1})).json()
    rest = await api.client.get(where, params={"limit": 1, "cursor": first["next_cursor"]})
    assert [item["action"] for item in rest.json()["items"]] == ["put_recipient"]
    key = await api.new_key("acme", "admin")
    async with api.with_key(key) as acme:
        found = (await acme.get(where)).json()["items"]
    assert [item["action"] for item in found] == ["key.create"]
