"""No route passes over what it does not know: parameters and members are refused, on every one."""

from __future__ import annotations

import pytest
from litestar.handlers import HTTPRouteHandler

from outbox_api.app import ROUTES
from outbox_api.operations import Operation, operation_of
from tests.api.conftest import Api

LENIENT = {"take_callback", "ask_to_unsubscribe", "unsubscribe"}


def operations() -> list[Operation]:
    over_http = [route for route in ROUTES if isinstance(route, HTTPRouteHandler)]
    found = [described for described in map(operation_of, over_http) if described is not None]
    return [described for described in found if not described.is_page]


def at(told: Operation) -> str:
    path = told.path.format(**told.path_examples)
    assert "{" not in path
    return path


def test_only_what_others_call_by_links_of_ours_is_lenient() -> None:
    assert {told.name for told in operations() if told.lenient} == LENIENT


async def test_every_route_refuses_a_parameter_that_it_does_not_know(open_api: Api) -> None:
    passed: dict[str, str] = {}
    for told in operations():
        if told.lenient:
            continue
        answer = await open_api.client.request(told.method, at(told), params={"no_such": "1"})
        pointers = [fault["pointer"] for fault in answer.json().get("errors", [])]
        if answer.status_code != 400 or "/query/no_such" not in pointers:
            passed[told.name] = f"{answer.status_code} {answer.text[:80]}"
    assert passed == {}


async def test_every_route_refuses_a_member_that_it_does_not_know(open_api: Api) -> None:
    passed: dict[str, str] = {}
    for told in operations():
        if told.lenient:
            continue
        member: dict[str, object] = {"no_such": 1}
        batch = told.name == "post_batch"
        answer = await open_api.client.request(
            told.method, at(told), json=[member] if batch else member
        )
        pointers = [fault["pointer"] for fault in answer.json().get("errors", [])]
        if answer.status_code != 422 or ("/0/no_such" if batch else "/no_such") not in pointers:
            passed[told.name] = f"{answer.status_code} {answer.text[:80]}"
    assert passed == {}


@pytest.mark.parametrize(
    ("content", "status"),
    [(b"", 200), (b" ", 200), (b"{}", 200), (b"garbage{", 400), (b"[]", 422), (b"null", 422)],
)
async def test_a_body_that_says_nothing_is_no_body(
    open_api: Api, content: bytes, status: int
) -> None:
    answer = await open_api.client.post("/api/v1/queues/email/resume", content=content)
    assert answer.status_code == status, answer.text


async def test_a_whole_queue_is_not_paused_where_one_tenants_lane_was_meant(api: Api) -> None:
    where = "/api/v1/queues/email/pause"
    asked = await api.client.post(where, params={"tenant_id": "acme"})
    told = await api.client.post(where, json={"tenant_id": "acme", "reason": "x"})
    assert (asked.status_code, told.status_code) == (400, 422)
    assert [fault["pointer"] for fault in told.json()["errors"]] == ["/reason", "/tenant_id"]
    assert (await api.client.get("/api/v1/queues/email/stats")).json()["paused"] is False
    log = (await api.client.get("/api/v1/operator-log")).json()["items"]
    refused = [(entry["action"], entry["detail"]["refused"]) for entry in log]
    assert refused == [("pause_queue", 422), ("pause_queue", 400)]
