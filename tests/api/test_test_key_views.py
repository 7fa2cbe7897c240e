"""What test keys and viewers may see, walked over every GET: no new one can forget it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from itertools import product

import httpx
import pytest
from litestar.handlers import HTTPRouteHandler

from outbox_api.app import ROUTES
from outbox_api.auth import TEST_MAY
from outbox_api.operations import Operation, operation_of
from tests.api.conftest import ADMIN_KEY, Api, running_api
from tests.api.stage import FAIL, SEND, behind, post
from tests.postgres import Database

LIVE = "livemark"
TEST = "testmark"
SECRET = "secretmark"
"""In what a viewer may not see: addresses and what jobs say."""
ADDRESS = f"{LIVE}-{SECRET}@example.com"
STREAM_S = 0.3
"""What a stream has to say at once comes within that, or it is no stream of old rows."""
NOBODY_S = {"int": "1", "str": "1", "uuid": "6a9f7f26-4c0c-4a91-9f3d-b159c2dcb001"}
GETS = [
    found
    for found in (operation_of(route) for route in ROUTES if isinstance(route, HTTPRouteHandler))
    if found is not None and found.method == "GET"
]
CAUGHT = """
insert into outbox.sink_message
    (tenant_id, caught_by, channel, job_id, recipient, body, headers, test)
select tenant_id, 'sink', 'email', job_id, job ->> 'to', job ->> 'content',
    jsonb_build_object('html', job ->> 'content'), test
from outbox.job
"""
TEMPLATE = """
insert into outbox.template (tenant_id, code, channel, locale, version, body_text)
values ('default', 'hi', 'email', 'en', 1, 'Hi')
"""
REST = f"""
insert into outbox.inbox_message (id, tenant_id, user_id, body)
    values (1, 'default', '{LIVE}', '{LIVE} {SECRET}');
insert into outbox.device (tenant_id, user_id, channel, address)
    values ('default', '{LIVE}', 'push', '{LIVE}');
insert into outbox.operator_action (actor, action, tenant_id, detail)
    values ('{LIVE}', 'pause', 'default', '{{"reason": "{LIVE}"}}');
update outbox.lane set held_at = now(), hold_code = 'x', hold_reason = '{LIVE} <{ADDRESS}>'
    where scope = '';
update outbox.delivery as d
    set recipient = '{ADDRESS}', error_message = '550 5.1.1 <{ADDRESS}>: {LIVE}',
        lane_id = l.lane_id
    from outbox.job as j join outbox.lane as l on l.tenant_id = j.tenant_id and l.queue = j.queue
    where j.id = d.id and not j.test;
update outbox.dead_letter set error_message = '550 5.1.1 <{ADDRESS}>: {LIVE}'
    where id in (select id from outbox.job where not test);
"""
SEEN_BY_AN_ADMIN = {
    "/api/v1/jobs",
    "/api/v1/jobs/{job_id}",
    "/api/v1/jobs/{job_id}/deliveries",
    "/api/v1/dead-letters",
    "/api/v1/dead-letters/{dead_letter_id}",
    "/api/v1/replays",
    "/api/v1/replays/{run_id}",
    "/api/v1/recipients/{user_id}",
    "/api/v1/recipients/{user_id}/inbox",
    "/api/v1/recipients/{user_id}/devices",
    "/api/v1/rules",
    "/api/v1/schedules",
    "/api/v1/schedules/{name}",
    "/api/v1/sink",
    "/api/v1/operator-log",
    "/api/v1/suppressions",
    "/api/v1/api-keys",
    "/api/v1/tenants",
    "/api/v1/endpoints",
    "/dead-letters/list",
    "/queues/{queue}",
    "/jobs/{job_id}",
    "/live/jobs/{job_id}",
    "/operator-log",
    "/recipients",
    "/recipients/{user_id}",
    "/schedules/{name}",
    "/sink",
    "/sink/{message_id}",
    "/sink/{message_id}/html",
}
"""Where the live data are: the walk would prove nothing of a page that has none."""


async def ok(answering: httpx.Response) -> httpx.Response:
    assert answering.status_code < 300, answering.text
    return answering


async def live_data(api: Api) -> None:
    """Make something of each kind, told by the mark."""
    put, add = api.client.put, api.client.post
    person = {"email": ADDRESS, "attributes": {"name": LIVE}}
    await ok(await put(f"/api/v1/recipients/{LIVE}", json=person))
    behind(api, TEMPLATE)
    await ok(await put(f"/api/v1/suppressions/email/{ADDRESS}", json={"reason": "manual"}))
    rule = {"event_type": LIVE, "template_code": "hi", "channels": ["email"]}
    await ok(await add("/api/v1/rules", json=rule))
    scheduled = {"channel": "email", "to": ADDRESS, "content": f"{LIVE} {SECRET}"}
    meta = {"data": {}, "meta": {"event_type": "x", "priority": "normal"}}
    by_clock = {"trigger": {"every_s": 3600}, "job": scheduled | meta}
    await ok(await put(f"/api/v1/schedules/{LIVE}", json=by_clock))
    await ok(await add("/api/v1/endpoints", json={"url": f"https://{LIVE}.example.com/x"}))
    await ok(await put(f"/api/v1/tenants/{LIVE}", json={}))
    await ok(await add("/api/v1/api-keys", json={"name": LIVE, "scopes": ["jobs:read"]}))
    await ok(await put(f"/api/v1/destinations/host:{LIVE}.example.com", json={"rate_per_s": 5}))


async def jobs_of(client: httpx.AsyncClient, api: Api, mark: str) -> None:
    """Make a job that fails and one that is sent, of whoever the client is."""
    said = {"to": f"{mark}-{SECRET}@example.com", "content": f"{mark} {SECRET}"}
    acting = Api(client, api.database)
    await post(acting, **said)
    behind(api, FAIL)
    await post(acting, **said)
    behind(api, SEND)


def what_is_live(api: Api) -> dict[str, list[object]]:
    """Return what can stand in each place of a path."""

    def ids(query: str) -> list[object]:
        return [row[0] for row in api.rows(query)]

    live = ids("select job_id from outbox.job where not test")
    return {
        "job_id": live,
        "notification_id": live,
        "dead_letter_id": ids(
            "select d.dead_letter_id from outbox.dead_letter as d"
            " join outbox.job as j on j.id = d.id where not j.test"
        ),
        "message_id": ids("select message_id from outbox.sink_message where not test"),
        "run_id": ids("select run_id from outbox.replay_run"),
        "rule_id": ids("select rule_id from outbox.rule"),
        "endpoint_id": ids("select endpoint_id from outbox.endpoint"),
        "name": [LIVE, f"host:{LIVE}.example.com"],
        "user_id": [LIVE],
        "tenant_id": ["default"],
        "queue": ["email"],
        "code": ["hi"],
        "channel": ["email"],
        "locale": ["en"],
        "lease_no": [1],
    }


def paths(found: Operation, known: dict[str, list[object]]) -> Iterator[str]:
    """Yield the paths of a route with what is live in each place."""
    names = re.findall(r"\{(\w+)\}", found.path)
    places = [known.get(name) or [NOBODY_S[found.path_types[name]]] for name in names]
    for values in product(*places):
        yield found.path.format(**dict(zip(names, values, strict=True)))


async def look(client: httpx.AsyncClient, path: str) -> tuple[int, str]:
    """Return the status and what was said; of a stream, what comes at once."""
    said = ""
    async with client.stream("GET", path) as answer:
        endless = answer.headers.get("content-type", "").startswith("text/event-stream")
        try:
            async with asyncio.timeout(STREAM_S if endless else 30):
                async for part in answer.aiter_text():
                    said += part
                    if endless and "data:" in said and said.endswith("\n\n"):
                        break
        except TimeoutError:
            assert endless, path
    return answer.status_code, said


@pytest.fixture
async def api(database: Database) -> AsyncIterator[Api]:
    """The API with all that needs a secret key of the operator's."""
    async with running_api(database.url, secret_key="k" * 32) as client:
        client.headers["authorization"] = f"Bearer {ADMIN_KEY}"
        yield Api(client, database)


async def stage(api: Api, test: httpx.AsyncClient) -> dict[str, list[object]]:
    """Make all there is to see; return what can stand in each place of a path."""
    await jobs_of(api.client, api, LIVE)
    await live_data(api)
    await jobs_of(test, api, TEST)
    behind(api, CAUGHT)
    behind(api, REST)
    wanted = {"reason": "permanent", "error_code": LIVE}
    why = {"outbox-reason": LIVE}
    await ok(await api.client.post("/api/v1/dead-letters/replay", json=wanted, headers=why))
    return what_is_live(api)


async def test_no_page_and_no_route_shows_a_test_key_what_is_live(api: Api) -> None:
    async with api.with_key(await key_for_tests(api)) as test:
        known = await stage(api, test)
        seen_by_an_admin: set[str] = set()
        told_of: dict[str, tuple[int, bool]] = {}
        for found in GETS:
            for path in paths(found, known):
                if found.path in SEEN_BY_AN_ADMIN - seen_by_an_admin:
                    if LIVE in (await look(api.client, path))[1]:
                        seen_by_an_admin.add(found.path)
                status, said = await look(test, path)
                if found.needs != "open":
                    told_of[path] = (status, LIVE in said.replace(path, ""))
                    allowed = f"GET {found.path}" in TEST_MAY
                    assert (status != 403) is allowed, (path, status)
        shown = ("/api/v1/dead-letters", "/api/v1/sink", "/sink")
        own = {path: await look(test, path) for path in shown}
        listed = (await test.get("/api/v1/jobs")).json()["items"]
    assert [path for path, (_, leaks) in told_of.items() if leaks] == []
    assert SEEN_BY_AN_ADMIN - seen_by_an_admin == set()
    assert [path for path, (_, said) in own.items() if TEST not in said] == []
    assert sorted((row["mode"], row["status"]) for row in listed) == [
        ("test", "failed"),
        ("test", "sent"),
    ]


async def key_for_tests(api: Api) -> str:
    wanted = {"name": "ci", "mode": "test", "scopes": ["jobs:write", "jobs:read"]}
    made = await api.client.post("/api/v1/api-keys", json=wanted)
    return str(made.json()["key"])


async def test_no_page_shows_a_viewer_an_address_or_what_a_job_says(api: Api) -> None:
    seen_by_an_admin, leaks = set(), []
    viewer = await api.new_key("default", "jobs:read")
    async with api.with_key(await key_for_tests(api)) as test, api.with_key(viewer) as client:
        known = await stage(api, test)
        for found in (found for found in GETS if found.is_page and found.needs != "open"):
            for path in paths(found, known):
                status, said = await look(client, path)
                assert (status == 403) is (found.needs != "jobs:read"), (path, status)
                if SECRET in said:
                    leaks.append(path)
                if found.path.startswith("/sink") and SECRET in (await look(api.client, path))[1]:
                    seen_by_an_admin.add(found.path)
        bar = (await look(client, "/jobs"))[1]
        assert (await look(client, "/operator-log"))[0] == 403  # as the API's
    assert leaks == []
    assert seen_by_an_admin == {"/sink", "/sink/{message_id}", "/sink/{message_id}/html"}
    assert 'href="/sink"' in bar
    assert "/operator-log" not in bar


async def test_what_a_test_key_may_take_are_routes_that_there_are() -> None:
    there_are = {
        f"{found.method} {found.path}" for found in map(operation_of, ROUTES) if found is not None
    }
    assert TEST_MAY - there_are == set()
