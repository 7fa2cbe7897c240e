"""A tenant's own directory of users, over real HTTP: found, kept, in trouble, and mended."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from outbox_dispatcher import directory
from tests.api.conftest import ADMIN_KEY, running_api
from tests.channels.api_server import HANG, ApiServer, Call, Reply, api_server
from tests.engine.desk import Desk, Scripted, dispatching, in_s

TENANT = "acme"
KEY = "a-key-that-seals"
SECRET = "directory-secret-77"
ANN = {
    "email": "ann@example.com",
    "phone": "+77015550199",
    "locale": "ru",
    "timezone": "Asia/Almaty",
    "attributes": {"plan": "pro"},
    "opt_outs": ["news"],
}


@dataclass
class Stage:
    """A tenant with a directory, and a dispatcher."""

    desk: Desk
    client: httpx.AsyncClient
    server: ApiServer
    handler: Scripted
    people: dict[str, Any] = field(default_factory=dict)

    def speak(self, call: Call) -> Reply:
        asked = call.json["user_ids"]
        return Reply(200, {"recipients": {u: self.people[u] for u in asked if u in self.people}})

    def send(self, user_id: str, *, tenant: str = TENANT, **fields: Any) -> Any:
        job: dict[str, Any] = {"channel": "email", "data": {}, "meta": {}, "content": "Hello"}
        job |= {"user_id": user_id, "created_at": in_s(0)}
        return self.desk.enqueue(tenant=tenant, notify=True, **job | fields)

    def asked(self) -> list[list[str]]:
        return [call.json["user_ids"] for call in self.server.calls]

    def reason(self, job_id: Any) -> str:
        return str(
            self.desk.value("select last_error from outbox.notification where job_id = %s", job_id)
        )


@pytest.fixture
async def stage(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    monkeypatch.setattr(directory, "LOOKUP_S", 0.5)
    monkeypatch.setattr(directory, "PAUSE_S", 0.3)
    allow = {"webhook_allow": ("127.0.0.1",), "secret_key": KEY}
    async with running_api(desk.database.url, **allow) as client:
        async with api_server(lambda call: here.speak(call)) as server:
            here = Stage(desk, client, server, Scripted(), {"ann": ANN})
            client.headers["authorization"] = f"Bearer {ADMIN_KEY}"
            body = {
                "channel": "directory",
                "kind": "http",
                "name": "crm",
                "config": {"directory_url": f"http://{server.place}/users"},
                "credentials": {"directory_secret": SECRET},
            }
            stored = await client.post(f"/api/v1/providers?tenant_id={TENANT}", json=body)
            assert stored.status_code == 201, stored.text
            assert SECRET not in stored.text
            async with dispatching(
                desk,
                {},
                channels={"email": here.handler, "sms": here.handler},
                provider_settings={"WEBHOOK_ALLOW": "127.0.0.1"},
                secret_key=KEY,
                probe_s=0.2,
                heartbeat_s=0.2,
            ):
                yield here


async def test_a_user_is_reached_where_the_tenant_s_directory_says(stage: Stage) -> None:
    stage.desk.admin.execute(
        "insert into outbox.template (tenant_id, code, channel, locale, version, body_text)"
        " values ('acme', 'hi', 'email', 'ru', 1, 'Привет {{ user.attributes.plan }}'),"
        " ('acme', 'hi', 'email', 'en', 1, 'Hello')"
    )
    mail = stage.send("ann", content=None, template_code="hi")
    sms = stage.send("ann", channel="sms")
    for job_id in (mail, sms):
        await stage.desk.until_status(job_id, "sent")
    seen = {message.key: message for message in stage.handler.seen}
    assert (seen[mail].to, seen[mail].text) == (ANN["email"], "Привет pro")
    assert seen[sms].to == ANN["phone"]
    call = stage.server.calls[0]
    assert call.method == "POST"
    assert call.headers["Authorization"] == f"Bearer {SECRET}"


async def test_answers_are_kept_and_many_users_are_asked_for_together(stage: Stage) -> None:
    stage.people |= {f"u{n}": {"email": f"u{n}@example.com"} for n in range(60)}
    jobs = [stage.send(f"u{n}") for n in range(60)]
    for job_id in jobs:
        await stage.desk.until_status(job_id, "sent")
    assert sorted(u for part in stage.asked() for u in part) == sorted(set(stage.people) - {"ann"})
    assert max(map(len, stage.asked())) <= directory.BATCH
    calls = len(stage.server.calls)
    for job_id in [stage.send(f"u{n}") for n in range(60)]:
        await stage.desk.until_status(job_id, "sent")
    assert len(stage.server.calls) == calls


async def test_opt_outs_quiet_hours_and_suppressions_count_for_whom_the_directory_names(
    stage: Stage,
) -> None:
    there = datetime.now(UTC) + timedelta(hours=5)
    asleep = {
        "from": f"{there - timedelta(hours=1):%H:%M}",
        "to": f"{there + timedelta(hours=2):%H:%M}",
    }
    stage.people["bob"] = ANN | {"quiet_hours": asleep}
    stage.people["eve"] = {"email": "Eve@example.com"}
    await stage.client.put(
        f"/api/v1/suppressions/email/eve@example.com?tenant_id={TENANT}", json={}
    )
    await stage.desk.until_status(stage.send("ann", category="news"), "failed")
    await stage.desk.until_status(stage.send("bob"), "scheduled")
    await stage.desk.until_status(stage.send("eve"), "failed")
    await stage.desk.until_status(stage.send("ann", category="receipts"), "sent")


async def test_whom_the_directory_does_not_know_nobody_reaches(stage: Stage) -> None:
    job_id = stage.send("nobody")
    await stage.desk.until_status(job_id, "failed")
    assert stage.reason(job_id) == "User has no email"
    # An address of the job's own needs no directory to know it.
    await stage.desk.until_status(stage.send("nobody", to="x@example.com"), "sent")


@pytest.mark.parametrize("trouble", [Reply(503), Reply(429, headers={"Retry-After": "1"}), HANG])
async def test_a_directory_in_trouble_burns_no_try_and_keeps_nobody_else_waiting(
    stage: Stage, trouble: Reply | str
) -> None:
    stage.server.replies.extend([trouble, trouble])
    job_id = stage.send("ann", max_attempts=1)
    await stage.desk.until(lambda: bool(stage.server.calls))
    other = stage.send("zoe", tenant="other", to="zoe@example.com")
    await stage.desk.until_status(other, "sent")
    await stage.desk.until_status(job_id, "sent")
    attempts = stage.desk.deliveries(job_id)
    assert {status for status, *_ in attempts[:-1]} == {"RETRYING"}
    assert {attempt for _, attempt, _, _ in attempts} == {1}
    assert stage.desk.value("select count(*) from outbox.lane where held_at is not null") == 0


@pytest.mark.parametrize(
    ("refusal", "code"),
    [
        (Reply(401), "directory.401"),
        (Reply(404), "directory.404"),
        (Reply(400), "directory.400"),
        (Reply(302, headers={"Location": "http://10.0.0.1/"}), "directory.302"),
        (Reply(200, b"<html>"), "directory.answer"),
        (Reply(200, {"recipients": {"ann": {"email": ["x"]}}}), "directory.answer"),
    ],
)
async def test_a_directory_that_refuses_us_holds_its_tenant_s_lane_until_it_is_mended(
    stage: Stage, refusal: Reply, code: str
) -> None:
    stage.server.replies.append(refusal)
    job_id = stage.send("ann", max_attempts=1)
    await stage.desk.until(
        lambda: (
            (TENANT, code)
            in stage.desk.rows(
                "select tenant_id, detail ->> 'code' from outbox.operator_action"
                " where action = 'hold'"
            )
        )
    )
    await stage.desk.until_status(job_id, "sent")
    assert stage.desk.value("select count(*) from outbox.dead_letter") == 0


async def test_an_address_inside_is_refused_at_the_door_and_is_never_asked(stage: Stage) -> None:
    body = {"channel": "directory", "kind": "http", "name": "in", "config": {}}
    for url in ("http://169.254.169.254/latest", "https://user:pw@example.com/", "ftp://x.kz/"):
        refused = await stage.client.post(
            f"/api/v1/providers?tenant_id={TENANT}", json=body | {"config": {"directory_url": url}}
        )
        assert refused.status_code == 422, refused.text
        assert refused.json()["errors"][0]["pointer"] == "/config/directory_url"
    # Stored behind the door's back.
    stage.desk.admin.execute(
        "update outbox.provider set updated_at = now(),"
        ' config = \'{"directory_url": "http://10.0.0.1:1/"}\''
    )
    calls = len(stage.server.calls)
    job_id = stage.send("late")
    await stage.desk.until(
        lambda: (
            stage.desk.value("select count(*) from outbox.lane where hold_code like %s", "dir%")
            == 1
        )
    )
    await stage.desk.until_status(job_id, "pending")  # its probes go on meanwhile
    assert len(stage.server.calls) == calls


async def test_a_mistake_of_ours_over_one_user_takes_none_of_the_others_along(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.people |= {f"u{n}": {"email": f"u{n}@example.com"} for n in range(8)}
    find = directory.Directory.find

    async def stumbling(self: directory.Directory, user_ids: Iterable[str]) -> Any:
        users = list(user_ids)
        if "u3" in users:
            raise KeyError("u3@example.com")
        return await find(self, users)

    monkeypatch.setattr(directory.Directory, "find", stumbling)
    jobs = {user_id: stage.send(user_id) for user_id in stage.people if user_id != "ann"}
    bad = jobs.pop("u3")
    for job_id in jobs.values():
        await stage.desk.until_status(job_id, "sent")
    await stage.desk.until(lambda: stage.desk.deliveries(bad) != [])
    assert stage.desk.deliveries(bad) == [("RETRYING", 1, "dispatcher.error", False)]
