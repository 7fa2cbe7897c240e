"""Handing jobs in over HTTP, and looking at them."""

from __future__ import annotations

import asyncio
import json
from uuid import uuid4

import httpx
import psycopg
import pytest

from outbox_api.identity import idempotent_id
from tests.api.conftest import Api, job
from tests.contract_cases import CASES, Case, prepare


async def test_a_job_is_stored_before_it_is_answered(open_api: Api) -> None:
    job_id = str(uuid4())
    answer = await open_api.client.post("/api/v1/jobs", json=job(job_id=job_id))
    assert answer.status_code == 202
    assert answer.json() == {"job_id": job_id, "status": "pending", "duplicate": False}
    assert answer.headers["location"] == f"/api/v1/jobs/{job_id}"
    shown = await open_api.client.get(answer.headers["location"])
    assert shown.status_code == 200
    seen = shown.json()
    assert seen["status"] == "pending"
    assert seen["attempts"] == 0
    assert seen["job"]["to"] == "ann@example.com"
    assert seen["created_at"].endswith("Z")


async def test_the_same_job_again_is_a_duplicate_and_other_content_a_conflict(
    open_api: Api,
) -> None:
    first = job(job_id=str(uuid4()))
    await open_api.client.post("/api/v1/jobs", json=first)
    again = await open_api.client.post("/api/v1/jobs", json=first)
    assert again.status_code == 200
    assert again.json()["duplicate"] is True
    other = await open_api.client.post("/api/v1/jobs", json=first | {"content": "Bye"})
    assert other.status_code == 409
    assert other.headers["content-type"] == "application/problem+json"
    assert other.json()["errors"][0]["pointer"] == "/job_id"
    assert open_api.count("job") == 1


async def test_fifty_connections_that_post_the_same_job_make_one(open_api: Api) -> None:
    same = job(job_id=str(uuid4()))
    answers = await asyncio.gather(
        *(open_api.client.post("/api/v1/jobs", json=same) for _ in range(50))
    )
    assert sorted({answer.status_code for answer in answers}) == [200, 202]
    assert sum(answer.status_code == 202 for answer in answers) == 1
    assert open_api.count("job") == 1
    assert open_api.count("entry") == 1


async def test_a_faulty_job_never_fails_those_that_share_its_commit(open_api: Api) -> None:
    bodies = [job(meta=None) if n % 5 == 0 else job() for n in range(40)]
    answers = await asyncio.gather(
        *(open_api.client.post("/api/v1/jobs", json=body) for body in bodies)
    )
    assert [answer.status_code for answer in answers] == [
        422 if n % 5 == 0 else 202 for n in range(40)
    ]
    assert open_api.count("job") == 32


async def test_a_job_that_waits_for_a_lock_keeps_no_other_waiting(open_api: Api) -> None:
    held = job(job_id=str(uuid4()))
    with psycopg.connect(open_api.database.admin_url) as rival:
        rival.execute(
            "insert into outbox.job_key (tenant_id, job_id, id, content_sha256)"
            " values ('default', %s, 1, 'x')",
            (held["job_id"],),
        )
        waiting = asyncio.create_task(open_api.client.post("/api/v1/jobs", json=held))
        others = await asyncio.gather(
            *(open_api.client.post("/api/v1/jobs", json=job()) for _ in range(20))
        )
        assert [answer.status_code for answer in others] == [202] * 20
        assert not waiting.done()
        answer = await waiting
        assert answer.status_code == 503
        assert answer.headers["retry-after"]
        rival.rollback()
    assert (await open_api.client.post("/api/v1/jobs", json=held)).status_code == 202


async def test_an_idempotency_key_makes_the_id_that_the_field_makes(open_api: Api) -> None:
    headers = {"idempotency-key": "order-42"}
    first = await open_api.client.post("/api/v1/jobs", json=job(), headers=headers)
    again = await open_api.client.post("/api/v1/jobs", json=job(), headers=headers)
    assert first.status_code == 202
    assert again.status_code == 200
    assert first.json()["job_id"] == str(idempotent_id("default", "order-42"))
    (row,) = open_api.rows("select outbox.idempotent_job_id('default', 'order-42')::text")
    assert row[0] == first.json()["job_id"]
    other = await open_api.client.post("/api/v1/jobs", json=job(subject="x"), headers=headers)
    assert other.status_code == 409


async def test_numbers_pass_as_they_were_written(open_api: Api) -> None:
    text = json.dumps(job(data=None))[:-1] + ', "data": {"n": 0.1000000000000000055511151231}}'
    answer = await open_api.client.post(
        "/api/v1/jobs", content=text, headers={"content-type": "application/json"}
    )
    shown = await open_api.client.get(answer.headers["location"])
    assert "0.1000000000000000055511151231" in shown.text


async def test_a_list_of_addresses_makes_a_job_for_each(open_api: Api) -> None:
    listed = job(job_id=str(uuid4()), to=["a@example.com", "b@example.com"])
    answer = await open_api.client.post("/api/v1/jobs", json=listed)
    job_ids = answer.json()["job_ids"]
    assert len(job_ids) == 2
    shown = await open_api.client.get(f"/api/v1/jobs/{listed['job_id']}")
    assert shown.json()["status"] == "pending"
    assert set(shown.json()["job_ids"]) == set(job_ids)
    again = await open_api.client.post("/api/v1/jobs", json=listed)
    assert again.status_code == 200
    assert set(again.json()["job_ids"]) == set(job_ids)


async def test_a_traceparent_is_stored_and_a_broken_one_is_not(open_api: Api) -> None:
    good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    for given in (good, "nonsense"):
        await open_api.client.post("/api/v1/jobs", json=job(), headers={"traceparent": given})
    found = open_api.rows("select traceparent from outbox.job order by id")
    assert found == [(good,), (None,)]


async def test_a_caller_that_waits_learns_that_its_job_has_ended(open_api: Api) -> None:
    expired = job(expires_at="2025-11-26T00:00:00Z")
    answer = await open_api.client.post("/api/v1/jobs", json=expired, headers={"prefer": "wait=5"})
    assert answer.json()["status"] == "expired"
    job_id = str(uuid4())
    waiting = asyncio.create_task(
        open_api.client.post(
            "/api/v1/jobs", json=job(job_id=job_id), headers={"prefer": "wait=20"}
        )
    )
    while (await open_api.client.get(f"/api/v1/jobs/{job_id}")).status_code == 404:
        await asyncio.sleep(0)
    await open_api.client.post(f"/api/v1/jobs/{job_id}/cancel")
    answer = await waiting
    assert answer.status_code == 200
    assert answer.json()["status"] == "cancelled"
    assert answer.headers["preference-applied"] == "wait=20"


async def test_a_caller_waits_for_every_address_of_its_list(open_api: Api) -> None:
    listed = job(job_id=str(uuid4()), to=["a@example.com", "b@example.com"])
    waiting = asyncio.create_task(
        open_api.client.post("/api/v1/jobs", json=listed, headers={"prefer": "wait=20"})
    )
    path = f"/api/v1/jobs/{listed['job_id']}"
    while (shown := await open_api.client.get(path)).status_code == 404:
        await asyncio.sleep(0)
    first, second = shown.json()["job_ids"]
    await open_api.client.post(f"/api/v1/jobs/{first}/cancel")
    over = await open_api.client.post("/api/v1/jobs", json=listed, headers={"prefer": "wait=0.1"})
    assert (over.json()["status"], waiting.done()) == ("processing", False)
    await open_api.client.post(f"/api/v1/jobs/{second}/cancel")
    answer = await waiting
    assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
    assert answer.headers["preference-applied"] == "wait=20"


async def test_a_caller_whose_wait_is_over_gets_the_status_so_far(open_api: Api) -> None:
    answer = await open_api.client.post(
        "/api/v1/jobs", json=job(), headers={"prefer": "wait=0.05"}
    )
    assert answer.status_code == 202
    assert answer.json()["status"] == "pending"


async def test_the_http_door_tells_each_job_what_the_contract_says(api: Api) -> None:
    key = await api.new_key("default", "jobs:write")
    told: dict[str, object] = {}
    wanted: dict[str, object] = {}
    with psycopg.connect(api.database.admin_url, autocommit=True) as admin:
        prepare(admin)
        async with api.with_key(key) as client:
            for case in CASES:
                wanted[case.name] = case.http_pointers
                told[case.name] = await _pointers(client, case)
                admin.execute("delete from outbox.job_key")  # cases share their job_id
    assert told == wanted


async def _pointers(client: httpx.AsyncClient, case: Case) -> frozenset[str] | int | None:
    """Return what HTTP tells a job; None: it is accepted; a number: an answer out of place."""
    answer = await client.post(
        "/api/v1/jobs",
        content=case.text.encode("utf-8", "surrogatepass"),
        headers={"content-type": "application/json"},
    )
    if answer.status_code in (200, 202):
        return None
    if answer.status_code not in (413, 422):
        return answer.status_code
    return frozenset(error["pointer"] for error in answer.json()["errors"])


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"", {}, 400),
        (b"{", {}, 400),
        (b'{"a": NaN}', {}, 400),
        (b"\xff", {}, 400),
        (b'"\xed\xa0\x80"', {}, 400),
        (b"\xef\xbb\xbf{}", {}, 400),
        (b"{} {}", {}, 400),
        (b"a=b", {"content-type": "application/x-www-form-urlencoded"}, 415),
        (b"{}", {"content-type": "application/json; charset=utf-16"}, 415),
        (b"{}", {"content-encoding": "gzip"}, 415),
        (b"{}", {"content-type": "application/x-ndjson"}, 415),
        (b"[" * 200_000, {}, 422),
        (b'{"data":' * 30_000, {}, 422),
        (b"x" * 262_145, {}, 413),
        (b"{}", {"idempotency-key": "x" * 256}, 400),
    ],
    ids=lambda value: repr(value)[:30],
)
async def test_what_is_no_job_is_a_problem_and_nothing_is_stored(
    open_api: Api, body: bytes, headers: dict[str, str], status: int
) -> None:
    answer = await open_api.client.post(
        "/api/v1/jobs", content=body, headers={"content-type": "application/json", **headers}
    )
    assert answer.status_code == status
    problem = answer.json()
    assert problem["status"] == status
    assert problem["instance"] == "/api/v1/jobs"
    assert {"type", "title", "detail"} <= set(problem)
    assert open_api.count("job") == 0


async def test_a_body_that_says_it_is_too_large_is_refused_before_it_is_read(
    open_api: Api,
) -> None:
    url = open_api.client.base_url
    reader, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(
        b"POST /api/v1/jobs HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        b"content-length: 10000000000\r\n\r\n"
    )
    await writer.drain()
    assert (await reader.readline()).split()[1] == b"413"
    writer.close()
    await writer.wait_closed()


async def test_a_body_that_grows_too_large_is_refused_as_it_streams(open_api: Api) -> None:
    async def endless() -> object:
        for _ in range(64):
            yield b" " * 65_536

    answer = await open_api.client.post(
        "/api/v1/jobs",
        content=endless(),  # type: ignore[arg-type]
        headers={"content-type": "application/json"},
    )
    assert answer.status_code == 413


async def test_jobs_are_listed_newest_first_in_pages(open_api: Api) -> None:
    ids = [str(uuid4()) for _ in range(5)]
    for job_id in ids:
        await open_api.client.post("/api/v1/jobs", json=job(job_id=job_id))
    seen: list[str] = []
    cursor: str | None = None
    while True:
        query = {"limit": "2"} | ({"cursor": cursor} if cursor else {})
        page = (await open_api.client.get("/api/v1/jobs", params=query)).json()
        seen += [item["job_id"] for item in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == ids[::-1]


async def test_jobs_are_found_by_each_of_their_keys(open_api: Api) -> None:
    wanted = job(
        job_id=str(uuid4()),
        user_id="ann",
        queue="bulk",
        meta={"event_id": "e1", "campaign_id": "c1"},
    )
    await open_api.client.post("/api/v1/jobs/batch", json=[wanted, job(), job()])
    for query in (
        {"user_id": "ann"},
        {"queue": "bulk"},
        {"event_id": "e1"},
        {"campaign_id": "c1"},
        {"campaign_id": "c1", "status": "pending", "tenant_id": "default"},
        {"queue": "bulk", "since": "2020-01-01T00:00:00Z", "until": "2100-01-01T00:00:00+06:00"},
    ):
        page = (await open_api.client.get("/api/v1/jobs", params=query)).json()
        assert [item["job_id"] for item in page["items"]] == [wanted["job_id"]], query
    empty = await open_api.client.get("/api/v1/jobs", params={"status": "sent"})
    assert empty.json() == {"items": [], "next_cursor": None}


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ({"limit": "0"}, "/query/limit"),
        ({"limit": "many"}, "/query/limit"),
        ({"status": "lost"}, "/query/status"),
        ({"since": "yesterday"}, "/query/since"),
        ({"since": "2025-01-01T00:00:00"}, "/query/since"),
        ({"cursor": "nonsense"}, "/query/cursor"),
        ({"statsu": "failed"}, "/query/statsu"),
        ({"user_id": "a\x00b"}, "/query/user_id"),
    ],
)
async def test_a_query_that_makes_no_sense_is_refused(
    open_api: Api, query: dict[str, str], pointer: str
) -> None:
    answer = await open_api.client.get("/api/v1/jobs", params=query)
    assert answer.status_code == 400
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]


async def test_deliveries_and_explain_tell_of_a_job(open_api: Api) -> None:
    expired = job(job_id=str(uuid4()), expires_at="2025-11-26T00:00:00Z")
    waiting = job(job_id=str(uuid4()))
    await open_api.client.post("/api/v1/jobs/batch", json=[expired, waiting])
    told = (await open_api.client.get(f"/api/v1/jobs/{expired['job_id']}/deliveries")).json()
    assert [item["status"] for item in told["items"]] == ["EXPIRED"]
    assert [item["status"] for item in told["history"]] == ["expired"]
    explained = (await open_api.client.get(f"/api/v1/jobs/{waiting['job_id']}/explain")).json()
    assert explained["waiting_for"] == "no dispatcher"
    explained = (await open_api.client.get(f"/api/v1/jobs/{expired['job_id']}/explain")).json()
    assert explained["status"] == "expired"


@pytest.mark.parametrize("path", ["", "/deliveries", "/explain"])
@pytest.mark.parametrize("job_id", ["f4d7c0c3-7bd2-4d5b-9891-93f6ac0242ef", "not-a-uuid"])
async def test_a_job_that_there_is_not_is_a_404(open_api: Api, job_id: str, path: str) -> None:
    answer = await open_api.client.get(f"/api/v1/jobs/{job_id}{path}")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
