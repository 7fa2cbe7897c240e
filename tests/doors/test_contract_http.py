"""The contract's cases through HTTP: the same pointers as in Python and SQL, and nothing stored.

One server for all of them, since each costs a second to start; what differs is told by name.
"""

from __future__ import annotations

import httpx

import outbox
from tests.api.conftest import ADMIN_KEY, Api, running_api
from tests.contract_cases import CASES, JOB_ID, Case
from tests.postgres import Database

ACCEPTED = (200, 202)
REFUSED = (413, 422)


def body_of(case: Case) -> bytes:
    """Return the case's text; what is stored stays, so ids that cases share are made new."""
    text = case.text
    if case.http_pointers is None:
        text = text.replace(JOB_ID, str(outbox.uuid7()))
    return text.encode()


def told(answer: httpx.Response) -> tuple[int, frozenset[str] | None]:
    if answer.status_code in ACCEPTED:
        return answer.status_code, None
    assert answer.headers["content-type"] == "application/problem+json"
    errors = answer.json().get("errors", [])
    assert all(error["message"] for error in errors)
    return answer.status_code, frozenset(error["pointer"] for error in errors)


async def test_http_tells_a_job_what_the_contract_says(doors: Database) -> None:
    differing: dict[str, object] = {}
    async with running_api(doors.url) as admin:
        admin.headers["authorization"] = f"Bearer {ADMIN_KEY}"
        api = Api(admin, doors)
        key = await api.new_key("default", "jobs:write")
        async with api.with_key(key) as client:
            for case in CASES:
                before = api.count("job_key") if case.http_pointers is not None else 0
                answer = await client.post(
                    "/api/v1/jobs",
                    content=body_of(case),
                    headers={"content-type": "application/json"},
                )
                status, pointers = told(answer)
                statuses = ACCEPTED if case.http_pointers is None else REFUSED
                if pointers != case.http_pointers or status not in statuses:
                    differing[case.name] = (status, pointers, case.http_pointers)
                elif pointers is not None and api.count("job_key") != before:
                    differing[case.name] = "something was stored"
    assert differing == {}


async def test_a_batch_tells_the_faults_of_its_jobs_by_index(doors: Database) -> None:
    bad = [case for case in CASES if case.http_pointers and case.at_sql]
    small = [case for case in bad if len(case.text) < 10_000]
    async with running_api(doors.url) as admin:
        admin.headers["authorization"] = f"Bearer {ADMIN_KEY}"
        api = Api(admin, doors)
        key = await api.new_key("default", "jobs:write")
        before = api.count("job_key")
        async with api.with_key(key) as client:
            answer = await client.post(
                "/api/v1/jobs/batch",
                content=f"[{','.join(case.text for case in small)}]".encode(),
                headers={"content-type": "application/json"},
            )
        assert api.count("job_key") == before
    status, pointers = told(answer)
    assert status == 422
    wanted = frozenset(
        f"/{n}{p}" for n, case in enumerate(small) for p in case.http_pointers or ()
    )
    assert pointers == wanted
