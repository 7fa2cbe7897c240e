"""Many jobs in one request."""

from __future__ import annotations

from uuid import uuid4

import pytest

from tests.api.conftest import Api, job


async def test_a_batch_is_all_or_nothing_and_tells_every_fault(open_api: Api) -> None:
    batch = [job(), job(meta=None, data=None), 7, job(content="a\x00b"), job()]
    answer = await open_api.client.post("/api/v1/jobs/batch", json=batch)
    assert answer.status_code == 422
    assert {e["pointer"] for e in answer.json()["errors"]} == {
        "/1/meta", "/1/data", "/2", "/3/content",
    }  # fmt: skip
    assert open_api.count("job") == 0
    answer = await open_api.client.post("/api/v1/jobs/batch?atomic=false", json=batch)
    assert answer.status_code == 202
    assert [item["result"] for item in answer.json()["items"]] == [
        "new", "invalid", "invalid", "invalid", "new",
    ]  # fmt: skip
    assert open_api.count("job") == 2
    answer = await open_api.client.post("/api/v1/jobs/batch?atomic=false", json=batch[1:4])
    assert answer.status_code == 422
    assert "/1" in {e["pointer"] for e in answer.json()["errors"]}


async def test_a_batch_of_lines_is_taken_like_an_array(open_api: Api) -> None:
    ids = [str(uuid4()) for _ in range(3)]
    lines = "\n".join(
        open_api.client.build_request("POST", "/", json=job(job_id=i)).content.decode()
        for i in ids
    )
    for expected in (False, True):
        answer = await open_api.client.post(
            "/api/v1/jobs/batch",
            content=lines + "\n\n",
            headers={"content-type": "application/x-ndjson"},
        )
        assert answer.status_code == 202
        items = answer.json()["items"]
        assert [(i["job_id"], i["duplicate"]) for i in items] == [(i, expected) for i in ids]
    broken = await open_api.client.post(
        "/api/v1/jobs/batch",
        content="{}\n{",
        headers={"content-type": "application/x-ndjson"},
    )
    assert broken.status_code == 400
    assert "/1" in {e["pointer"] for e in broken.json()["errors"]}


async def test_a_conflict_in_a_batch_is_told_by_its_place(open_api: Api) -> None:
    known = job(job_id=str(uuid4()).upper())
    await open_api.client.post("/api/v1/jobs", json=known)
    answer = await open_api.client.post(
        "/api/v1/jobs/batch", json=[job(), known | {"content": "x"}]
    )
    assert answer.status_code == 409
    assert [e["pointer"] for e in answer.json()["errors"]] == ["/1/job_id"]
    assert open_api.count("job") == 1


async def test_of_a_batch_only_those_jobs_are_blamed_that_conflict(open_api: Api) -> None:
    async def clashes(*batch: object, key: str | None = None) -> dict[str, str]:
        headers = {"idempotency-key": key} if key is not None else {}
        answer = await open_api.client.post("/api/v1/jobs/batch", json=batch, headers=headers)
        assert answer.status_code == 409, answer.text
        return {e["pointer"]: e["message"] for e in answer.json()["errors"]}

    one, other = job(job_id=str(uuid4())), {"content": "other"}
    in_batch = {"/1/job_id": "is that of job 0 of this batch, with other content"}
    before = {"/1/job_id": "was accepted before with other content"}
    assert await clashes(one, one | other, one) == in_batch
    assert open_api.count("job") == 0
    await open_api.client.post("/api/v1/jobs/batch", json=[one])
    assert await clashes(one, one | other, one) == before
    key = {"idempotency-key": "k"}
    stored = await open_api.client.post("/api/v1/jobs/batch", json=[job(), job()], headers=key)
    assert stored.status_code == 202
    assert await clashes(job(), job(content="x"), key="k") == before
    whole = job(to=["a@example.com", "b@example.com"], job_id=str(uuid4()))
    assert await clashes(whole, whole | other) == in_batch


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"{}", 422),
        (b"[", 400),
        (b"[] []", 400),
        (b"", 400),
        (b'"x"', 422),
        (b"[]", 202),
        (b"[" + b"{}," * 10_000 + b"{}]", 413),
        (b"[" + b"1," * 700_000 + b"1]", 413),
        (b"[" + b"1, " * 5_000 + b"1", 400),
    ],
    ids=lambda value: repr(value)[:20],
)
async def test_a_batch_of_the_wrong_shape_is_refused(
    open_api: Api, content: bytes, status: int
) -> None:
    answer = await open_api.client.post(
        "/api/v1/jobs/batch", content=content, headers={"content-type": "application/json"}
    )
    assert answer.status_code == status


async def test_a_batch_that_is_too_large_gets_its_413(open_api: Api) -> None:
    answer = await open_api.client.post(
        "/api/v1/jobs/batch",
        content=b" " * 33_554_433,
        headers={"content-type": "application/json"},
    )
    assert answer.status_code == 413
