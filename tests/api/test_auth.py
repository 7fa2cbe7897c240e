"""Who may do what: keys, scopes, tenants, and what stands behind them in the database."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import httpx
import psycopg
import pytest

from outbox.store import jobs
from outbox.store.pool import Database
from tests.api.conftest import ADMIN_KEY, Api, job, running_api
from tests.postgres import Database as OwnDatabase


@pytest.mark.parametrize("key", [None, "obx_nobody", "x" * 5000, "ключ"])
async def test_without_a_key_that_is_known_there_is_a_401(api: Api, key: str | None) -> None:
    headers = {} if key is None else {"authorization": f"Bearer {key}".encode()}
    async with httpx.AsyncClient(base_url=api.client.base_url, trust_env=False) as client:
        answer = await client.get("/api/v1/jobs", headers=headers)  # type: ignore[arg-type]
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.json()["status"] == 401


async def test_a_key_is_shown_once_and_stored_as_a_hash(api: Api) -> None:
    made = await api.client.post("/api/v1/api-keys", json={"name": "shop", "scopes": ["admin"]})
    assert made.status_code == 201
    key = made.json()["key"]
    assert key.startswith("obx_")
    listed = await api.client.get("/api/v1/api-keys")
    assert listed.json()["items"][0]["name"] == "shop"
    assert key not in listed.text
    assert key not in str(api.rows("select * from outbox.api_key"))


async def test_scopes_bound_what_a_key_may_do(api: Api) -> None:
    writer = api.with_key(await api.new_key("default", "jobs:write"))
    reader = api.with_key(await api.new_key("default", "jobs:read"))
    async with writer, reader:
        assert (await writer.post("/api/v1/jobs", json=job())).status_code == 202
        assert (await writer.get("/api/v1/jobs")).status_code == 403
        assert (await reader.get("/api/v1/jobs")).status_code == 200
        refused = await reader.post("/api/v1/jobs", json=job())
        assert refused.status_code == 403
        assert "jobs:write" in refused.json()["detail"]
        assert (await reader.get("/api/v1/api-keys")).status_code == 403


async def test_a_revoked_key_and_an_expired_one_are_out(api: Api) -> None:
    made = (
        await api.client.post("/api/v1/api-keys", json={"name": "a", "scopes": ["jobs:read"]})
    ).json()
    async with api.with_key(made["key"]) as client:
        assert (await client.get("/api/v1/jobs")).status_code == 200
        revoked = await api.client.delete(f"/api/v1/api-keys/{made['key_id']}")
        assert revoked.status_code == 204
        assert (await client.get("/api/v1/jobs")).status_code == 401
    expired = await api.new_key("default", "jobs:read")
    with psycopg.connect(api.database.admin_url) as admin:
        admin.execute("update outbox.api_key set expires_at = now() - interval '1 second'")
    async with api.with_key(expired) as client:
        assert (await client.get("/api/v1/jobs")).status_code == 401


async def test_another_tenants_things_are_not_there(api: Api) -> None:
    job_id = str(uuid4())
    await api.client.post("/api/v1/jobs", json=job(job_id=job_id, tenant_id="acme"))
    await api.client.put("/api/v1/recipients/ann?tenant_id=acme", json={"email": "a@b.c"})
    await api.client.put("/api/v1/templates/t/email/en?tenant_id=acme", json={"text": "Hello"})
    other = api.with_key(await api.new_key("globex", "admin"))
    own = api.with_key(await api.new_key("acme", "admin"))
    async with other, own:
        for path in (
            f"jobs/{job_id}", f"jobs/{job_id}/deliveries", f"jobs/{job_id}/explain",
            f"notifications/{job_id}/status", "recipients/ann", "templates/t/email/en",
        ):  # fmt: skip
            assert (await other.get(f"/api/v1/{path}")).status_code == 404, path
            assert (await own.get(f"/api/v1/{path}")).status_code == 200, path
        for action in ("cancel", "retry", "promote", "resend"):
            answer = await other.post(f"/api/v1/jobs/{job_id}/{action}")
            assert answer.status_code == 404, action
        assert (await other.get("/api/v1/jobs")).json()["items"] == []
        assert len((await own.get("/api/v1/jobs")).json()["items"]) == 1
        assert (await other.get("/api/v1/jobs?tenant_id=acme")).status_code == 403
        cancel = await other.post("/api/v1/jobs/cancel", json={"queue": "email"})
        assert cancel.json()["matched"] == 0
        same_id = await other.post("/api/v1/jobs", json=job(job_id=job_id))
        assert same_id.status_code == 202
        assert (await other.get(f"/api/v1/jobs/{job_id}")).json()["tenant_id"] == "globex"
    ambiguous = await api.client.get(f"/api/v1/jobs/{job_id}")
    assert ambiguous.status_code == 409
    named = await api.client.get(f"/api/v1/jobs/{job_id}?tenant_id=acme")
    assert named.json()["tenant_id"] == "acme"


async def test_a_tenants_key_acts_on_its_own_lanes_and_makes_keys_for_itself_alone(
    api: Api,
) -> None:
    async with api.with_key(await api.new_key("acme", "admin")) as client:
        assert (await client.post("/api/v1/queues/email/pause")).status_code == 403
        assert (await client.post("/api/v1/lanes/globex/email/pause")).status_code == 403
        assert (await client.post("/api/v1/lanes/acme/email/pause")).status_code == 200
        assert (await client.get("/metrics")).status_code == 403
        for tenant in ("globex", "*"):
            made = await client.post(
                "/api/v1/api-keys",
                json={"name": "x", "tenant_id": tenant, "scopes": ["admin"]},
            )
            assert made.status_code == 403
        own = await client.post("/api/v1/api-keys", json={"name": "x", "scopes": ["admin"]})
        assert own.json()["tenant_id"] == "acme"
        keys = (await client.get("/api/v1/api-keys")).json()["items"]
        assert {key["tenant_id"] for key in keys} == {"acme"}


async def test_row_level_security_stands_behind_a_query_that_forgets_the_tenant(
    api: Api, database: OwnDatabase
) -> None:
    for tenant in ("acme", "globex"):
        await api.client.post("/api/v1/jobs", json=job(tenant_id=tenant))
    async with Database(database.url) as store:
        async with store.transaction("acme") as connection:
            for table in ("job", "job_key", "entry", "lane", "api_notification"):
                cursor = await connection.execute(f"select count(*) from outbox.{table}".encode())
                assert await cursor.fetchone() == (1,), table
            found = await jobs.page(connection, jobs.JobFilter(), before=None, limit=10)
            assert [row.tenant_id for row in found.rows] == ["acme"]
        for statement in (
            "insert into outbox.template (tenant_id, code, channel, locale, version)"
            " values ('globex', 'x', 'email', 'en', 1)",
            "insert into outbox.api_key (name, key_sha256, prefix, tenant_id, scopes)"
            " values ('x', 'x', 'x', '*', '{admin}')",
            "update outbox.job set user_id = 'x'",
            "delete from outbox.delivery",
            "update outbox.setting set template_check = false",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                async with store.transaction("acme") as connection:
                    await connection.execute(statement.encode())


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "0.0.0.0", ""])
async def test_without_keys_only_a_loopback_name_may_be_the_host(open_api: Api, host: str) -> None:
    answer = await open_api.client.get("/api/v1/jobs", headers={"host": host})
    assert answer.status_code == 403


@pytest.mark.parametrize("host", ["localhost", "localhost:1234", "127.0.0.1", "[::1]:8080"])
async def test_without_keys_each_loopback_name_will_do(open_api: Api, host: str) -> None:
    answer = await open_api.client.get("/api/v1/jobs", headers={"host": host})
    assert answer.status_code == 200


@pytest.mark.parametrize(
    "path", ["/health/live", "/health/ready", "/monitoring/queues/health", "/schema"]
)
async def test_health_and_the_schema_need_no_key(api: Api, path: str) -> None:
    async with api.with_key(None) as client:
        assert (await client.get(path)).status_code == 200


async def test_a_page_asks_browsers_for_a_key(api: Api) -> None:
    async with api.with_key(None) as client:
        asked = await client.get("/sink")
        assert asked.status_code == 401
        assert asked.headers["www-authenticate"].startswith("Basic")
        shown = await client.get("/sink", auth=("", ADMIN_KEY))
        assert shown.status_code == 200


async def test_when_postgres_is_away_it_is_a_503_at_once_and_all_is_well_when_it_is_back(
    own_server: object,
) -> None:
    from outbox.embedded import EmbeddedServer

    assert isinstance(own_server, EmbeddedServer)
    async with running_api(own_server.url, auth=False) as client:
        assert (await client.post("/api/v1/jobs", json=job())).status_code == 202
        await asyncio.to_thread(own_server.stop_immediate)
        loop = asyncio.get_running_loop()
        for method, path, body in (
            ("POST", "/api/v1/jobs", job()),
            ("POST", "/api/v1/jobs/batch", [job()]),
            ("GET", "/api/v1/jobs", None),
            ("GET", "/health/ready", None),
            ("GET", "/monitoring/queues/health", None),
        ):
            began_s = loop.time()
            answer = await client.request(method, path, json=body)
            assert answer.status_code == 503, path
            assert loop.time() - began_s < 1.0, path
            if path != "/monitoring/queues/health":
                assert answer.headers["retry-after"]
                assert "postgres" not in answer.text.lower()
        assert (await client.get("/health/live")).status_code == 200
        await asyncio.to_thread(own_server.start)
        async with asyncio.timeout(20):
            while (await client.get("/health/ready")).status_code != 200:
                pass
        assert (await client.post("/api/v1/jobs", json=job())).status_code == 202


async def test_a_database_that_is_not_migrated_is_a_503(database: OwnDatabase) -> None:
    with database.admin_connect() as admin:
        admin.execute("drop schema outbox cascade")
    async with running_api(database.url, auth=False) as client:
        for method, path, body in (
            ("POST", "/api/v1/jobs", job()), ("GET", "/api/v1/jobs", None),
            ("GET", "/health/ready", None),
        ):  # fmt: skip
            assert (await client.request(method, path, json=body)).status_code == 503, path


async def test_a_key_is_not_made_under_an_idempotency_key(api: Api) -> None:
    answer = await api.client.post(
        "/api/v1/api-keys",
        json={"name": "shop", "scopes": ["jobs:write"]},
        headers={"idempotency-key": "k1"},
    )
    assert answer.status_code == 400
    assert [e["pointer"] for e in answer.json()["errors"]] == ["/header/idempotency-key"]
    assert api.count("api_key") == 0
