"""The dashboard over HTTP: sign-in, roles, tokens of forms, and what its pages say."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from outbox_api.dashboard.routes import ROUTES
from outbox_api.operations import operation_of
from tests.api.conftest import Api, running_api
from tests.api.stage import FAIL, behind, post, status_of

HTML = {"accept": "text/html"}
TOKEN = re.compile(r'x-csrf-token": "([0-9a-f]{64})"')
PAGES = ["/", "/jobs", "/dead-letters", "/dead-letters/list", "/templates", "/recipients", "/sink"]
POSTS = sorted(
    found.path
    for found in map(operation_of, ROUTES)
    if found is not None and found.method == "POST" and found.path != "/sign-in"
)


def filled(path: str) -> str:
    """Return a path with something in each place."""
    path = path.replace("{lease_no}", "1").replace("{locale}", "en").replace("{channel}", "email")
    return re.sub(r"\{\w+\}", "6a9f7f26-4c0c-4a91-9f3d-b159c2dcb001", path)


@asynccontextmanager
async def signed_in(api: Api, key: str) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a browser with a session: it sends its cookie, and the token with every POST."""
    async with api.with_key(None) as client:
        client.headers.update(HTML)
        asked = await client.get("/sign-in")
        token = TOKEN.search(asked.text)
        assert token is not None
        answer = await client.post("/sign-in", data={"key": key, "csrf": token[1]})
        assert (answer.status_code, answer.headers["location"]) == (303, "/"), answer.text
        token = TOKEN.search((await client.get("/")).text)
        assert token is not None
        client.headers["x-csrf-token"] = token[1]
        yield client


async def test_a_browser_without_a_session_is_sent_to_sign_in_and_comes_back(api: Api) -> None:
    async with api.with_key(None) as client:
        asked = await client.get("/jobs", headers=HTML)
        assert (asked.status_code, asked.headers["location"]) == (303, "/sign-in?next=/jobs")
        elsewhere = await client.get("/sign-in?next=//evil.example", headers=HTML)
        assert "evil" not in elsewhere.text


async def test_the_session_s_cookie_is_no_key_and_only_pages_take_it(api: Api) -> None:
    key = await api.new_key("default", "jobs:read")
    async with signed_in(api, key) as client:
        (cookie,) = client.cookies.jar
        assert cookie.has_nonstandard_attr("HttpOnly")
        assert cookie.get_nonstandard_attr("SameSite") == "Lax"
        assert key not in (cookie.value or "")
        assert (await client.get("/")).status_code == 200
        assert (await client.get("/api/v1/jobs")).status_code == 401
        client.cookies.set("outbox_session", (cookie.value or "")[:-4] + "AAAA")
        async with api.with_key(None) as other:
            cookies = {"cookie": f"outbox_session={(cookie.value or '')[:-4]}AAAA"}
            assert (await other.get("/", headers=HTML | cookies)).status_code == 303


async def test_a_revoked_key_ends_its_sessions(api: Api) -> None:
    made = await api.client.post("/api/v1/api-keys", json={"name": "ann", "scopes": ["jobs:read"]})
    async with signed_in(api, made.json()["key"]) as client:
        await api.client.delete(f"/api/v1/api-keys/{made.json()['key_id']}")
        assert (await client.get("/jobs")).headers["location"] == "/sign-in?next=/jobs"


async def test_a_key_that_may_not_look_cannot_sign_in(api: Api) -> None:
    key = await api.new_key("default", "jobs:write")
    async with api.with_key(None) as client:
        token = TOKEN.search((await client.get("/sign-in", headers=HTML)).text)
        assert token is not None
        for given in (key, "obx_nobody_s"):
            answer = await client.post(
                "/sign-in", data={"key": given, "csrf": token[1]}, headers=HTML
            )
            assert answer.status_code == 403
            assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("path", POSTS)
async def test_no_form_is_taken_without_its_token(open_api: Api, path: str) -> None:
    for headers in ({}, {"x-csrf-token": "0" * 64}, {"origin": "https://evil.example"}):
        answer = await open_api.client.post(filled(path), headers=headers)
        assert answer.status_code == 403, answer.text


async def test_a_viewer_sees_no_button_and_is_refused_what_an_operator_may(api: Api) -> None:
    job_id = await post(api)
    behind(api, FAIL)
    viewer, operator = (
        await api.new_key("default", "jobs:read"),
        await api.new_key("default", "jobs:read", "jobs:write"),
    )
    async with signed_in(api, viewer) as client:
        page = await client.get(f"/jobs/{job_id}")
        assert "/retry" not in page.text
        assert (await client.post(f"/jobs/{job_id}/retry")).status_code == 403
        assert (await client.post(f"/jobs/{job_id}/reveal")).status_code == 403
        assert (await client.post("/queues/email/pause")).status_code == 403
    assert await status_of(api, job_id) == "failed"
    async with signed_in(api, operator) as client:
        assert "/retry" in (await client.get(f"/jobs/{job_id}")).text
        assert (await client.post(f"/jobs/{job_id}/retry")).status_code == 204
        assert (await client.post("/queues/email/pause")).status_code == 403
    assert await status_of(api, job_id) == "pending"
    (row,) = api.rows("select actor from outbox.operator_action where action = 'retry'")
    assert row[0] == "key of default"


async def test_personal_data_is_masked_until_asked_for_and_asking_is_written_down(
    api: Api,
) -> None:
    job_id = await post(api, to="ann@example.com")
    key = await api.new_key("default", "jobs:read", "jobs:write")
    async with signed_in(api, key) as client:
        assert "ann@example.com" not in (await client.get(f"/jobs/{job_id}")).text
        assert "ann@example.com" in (await client.post(f"/jobs/{job_id}/reveal")).text
    (row,) = api.rows(
        "select actor, detail ->> 'job_id' from outbox.operator_action where action = 'job.reveal'"
    )
    assert row == ("key of default", job_id)


async def test_a_recipient_s_addresses_are_masked_until_asked_for_and_asking_is_written_down(
    api: Api,
) -> None:
    put = {"email": "ann@example.com"}
    admin = await api.new_key("default", "admin")
    async with api.with_key(admin) as client:
        assert (await client.put("/api/v1/recipients/ann", json=put)).status_code < 300
    viewer = await api.new_key("default", "jobs:read")
    async with signed_in(api, viewer) as client:
        assert (await client.post("/recipients/ann/reveal")).status_code == 403
    operator = await api.new_key("default", "jobs:read", "jobs:write")
    async with signed_in(api, operator) as client:
        page = (await client.get("/recipients/ann?tenant_id=default")).text
        assert "ann@example.com" not in page
        assert "/recipients/ann/reveal" in page
        shown = await client.post("/recipients/ann/reveal?tenant_id=default")
        assert "ann@example.com" in shown.text
        assert (await client.post("/recipients/nobody/reveal")).status_code == 404
    rows = api.rows(
        "select actor, detail ->> 'user_id' from outbox.operator_action"
        " where action = 'recipient.reveal'"
    )
    assert rows == [("key of default", "ann")]


async def test_a_job_is_cancelled_for_a_reason_that_the_log_keeps(api: Api) -> None:
    later = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    job_id = await post(api, send_after=later)
    operator = await api.new_key("default", "jobs:read", "jobs:write")
    async with signed_in(api, operator) as client:
        assert 'id="why"' in (await client.get(f"/jobs/{job_id}")).text
        cancelled = await client.post(f"/jobs/{job_id}/cancel", data={"reason": "Заказ отменён"})
        assert cancelled.status_code == 204
        assert (await client.post(f"/jobs/{job_id}/cancel")).status_code < 500
    assert await status_of(api, job_id) == "cancelled"
    (row,) = api.rows(
        "select actor, detail ->> 'reason' from outbox.operator_action"
        " where action = 'cancel' and id is not null"
    )
    assert row == ("key of default", "Заказ отменён")


async def test_a_job_is_found_by_any_of_its_keys(open_api: Api) -> None:
    user, campaign = "7d3c2f00-0000-4000-8000-000000000001", "winter"
    job_id = await post(open_api, user_id=user, meta={"campaign_id": campaign})
    other = await post(open_api)
    for key in (user, campaign):
        found = await open_api.client.get("/jobs", params={"q": key})
        assert job_id in found.text
        assert other not in found.text
    by_id = await open_api.client.get("/jobs", params={"q": job_id})
    assert (by_id.status_code, by_id.headers["location"]) == (303, f"/jobs/{job_id}")
    none = await open_api.client.get("/jobs", params={"q": "nobody"})
    assert "No job has this key" in none.text


async def test_a_tenant_s_key_sees_no_other_tenant_s_job(api: Api) -> None:
    job_id = await post(api)
    key = await api.new_key("acme", "jobs:read")
    async with signed_in(api, key) as client:
        assert (await client.get(f"/jobs/{job_id}")).status_code == 404
        assert job_id not in (await client.get("/jobs")).text


async def test_pages_load_nothing_from_elsewhere_and_hold_no_inline_script(
    open_api: Api,
) -> None:
    await post(open_api)
    for path in [*PAGES, "/providers", "/operator-log", "/queues/email"]:
        page = await open_api.client.get(path)
        assert page.status_code == 200, page.text
        assert "script-src 'self'" in page.headers["content-security-policy"]
        assert not re.search(r"<style|\sstyle=|\son\w+=|<script>|https?://", page.text), path


async def test_a_stream_tells_of_a_change_and_ends_with_the_server(api: Api) -> None:
    job_id = await post(api)
    async with running_api(api.database.url, auth=False) as client:
        async with client.stream("GET", f"/live/jobs/{job_id}") as stream:
            lines = stream.aiter_lines()
            assert await anext(lines) == "event: job"
            behind(api, FAIL)
            async for line in lines:
                if "recipient.no_address" in line:
                    break
