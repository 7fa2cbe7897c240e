"""Every operation that changes something is written down, and so is what was refused."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pytest

from outbox_api.app import ROUTES
from outbox_api.operations import Operation, operation_of
from outbox_api.operator_log import REFUSALS_PER_S_MAX, UNLOGGED, Allowance
from tests.api.conftest import Api

CHANGING = sorted(
    (
        found
        for found in map(operation_of, ROUTES)
        if found is not None and found.method != "GET" and not found.is_page
    ),
    key=lambda found: found.name,
)
SAMPLE = "0193281c-6e5b-7b0e-9a43-7f6a1d4cb001"


def place(operation: Operation) -> str:
    examples: Mapping[str, str] = operation.path_examples
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
        found.name
        for found in CHANGING
        if found.needs in ("jobs:write", "admin") and found.name not in UNLOGGED
    }
    assert set(logged) == expected
    assert set(logged.values()) == {("key of acme", "acme", "403")}


def test_each_excuse_names_an_operation_and_its_reason() -> None:
    names = {found.name for found in map(operation_of, ROUTES) if found is not None}
    assert set(UNLOGGED) <= names
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
            {"trigger": {"every_s": 60}, "clean": {"queue": "email", "status": "sent"}},
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
