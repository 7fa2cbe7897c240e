"""Why a job waits, in every state in which one can: the explanation tells the truth."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest

from tests.api.conftest import Api
from tests.engine.desk import QUEUE, Desk, in_s


@pytest.fixture
def desk(open_api: Api) -> Iterator[Desk]:
    desk = Desk(open_api.database)
    yield desk
    desk.close()


def dispatcher(desk: Desk, *handlers: str, epoch: int = 7) -> None:
    """Have a dispatcher that is alive, and does nothing."""
    desk.admin.execute(
        "insert into outbox.dispatcher (epoch, name, version, pid, seen_version, handlers)"
        " values (%s, 'd', '0', 1, 1000000, %s)",
        (epoch, list(handlers)),
    )


async def explained(api: Api, job_id: UUID) -> dict[str, Any]:
    answer = await api.client.get(f"/api/v1/jobs/{job_id}/explain")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_a_job_of_the_future_waits_for_its_time(open_api: Api, desk: Desk) -> None:
    dispatcher(desk, "queue:work")
    at = in_s(3600)
    why = await explained(open_api, desk.enqueue(send_after=at))
    assert why["waiting_for"] == "send_after"
    assert why["next_at"][:19] == at.isoformat()[:19]


async def test_a_job_in_a_paused_lane_is_told_since_when_and_by_whom(
    open_api: Api, desk: Desk
) -> None:
    dispatcher(desk, "queue:work")
    job_id = desk.enqueue()
    await open_api.client.post("/api/v1/lanes/default/work/pause")
    why = await explained(open_api, job_id)
    assert why["waiting_for"] == "lane paused"
    assert "anybody" in why["explanation"]
    assert why["since"] is not None


async def test_a_job_in_a_held_lane_is_told_since_when_and_why(open_api: Api, desk: Desk) -> None:
    dispatcher(desk, "queue:work")
    job_id = desk.enqueue()
    desk.admin.execute(
        "select outbox.hold_lane('default', 'work', '', 'smtp.auth', 'the login was refused', 30)"
    )
    why = await explained(open_api, job_id)
    assert why["waiting_for"] == "lane held"
    assert why["lane"]["hold_code"] == "smtp.auth"
    assert why["lane"]["hold_reason"] == "the login was refused"
    assert (why["since"], why["next_at"]) == (why["lane"]["held_at"], why["lane"]["probe_at"])


async def test_a_due_job_without_a_dispatcher_says_so(open_api: Api, desk: Desk) -> None:
    why = await explained(open_api, desk.enqueue())
    assert (why["waiting_for"], why["dispatchers_alive"]) == ("no dispatcher", 0)


async def test_a_due_job_whose_handler_nobody_has_says_so(open_api: Api, desk: Desk) -> None:
    dispatcher(desk, "channel:email", "queue:other")
    why = await explained(open_api, desk.enqueue())
    assert why["waiting_for"] == "no handler"
    assert "queue work" in why["explanation"]


async def test_a_job_that_was_handed_back_for_want_of_a_handler_is_pending_and_says_so(
    open_api: Api, desk: Desk
) -> None:
    dispatcher(desk, "channel:email")
    job_id = desk.enqueue()
    desk.admin.execute(
        "update outbox.entry set waits = 4, available_at = now() + '30 s'::interval"
    )
    why = await explained(open_api, job_id)
    assert (why["waiting_for"], why["status"]) == ("no handler", "pending")
    assert why["next_at"] is not None


async def test_a_job_over_its_lane_s_rate_is_told_the_rate_and_about_when(
    open_api: Api, desk: Desk
) -> None:
    dispatcher(desk, "queue:work")
    desk.limit(rate_per_s=2)
    desk.enqueue()
    job_id = desk.enqueue()
    desk.admin.execute(
        "insert into outbox.bucket (name, tokens) select 'lane:' || lane_id, 0 from outbox.lane"
        " where queue = 'work'"
    )
    desk.admin.execute(
        "update outbox.bucket set filled_at = clock_timestamp() + '5 s'::interval"
    )  # so that it stays empty while we look
    why = await explained(open_api, job_id)
    assert why["waiting_for"] == "rate"
    assert "2 a second" in why["explanation"]
    assert why["next_at"] is not None


async def test_a_job_over_its_lane_s_concurrency_is_told_so(open_api: Api, desk: Desk) -> None:
    dispatcher(desk, "queue:work")
    desk.limit(concurrency_max=3)
    job_id = desk.enqueue()
    desk.admin.execute(
        "insert into outbox.lane_share (lane_id, epoch, places, wanted) values (%s, 7, 3, 3)",
        (desk.lane(QUEUE),),
    )
    why = await explained(open_api, job_id)
    assert why["waiting_for"] == "concurrency"
    assert "3 at once" in why["explanation"]
    # What the dead have does not count.
    desk.admin.execute("update outbox.dispatcher set rescued_at = now()")
    dispatcher(desk, "queue:work", epoch=8)
    assert (await explained(open_api, job_id))["waiting_for"] == "dispatcher"


async def test_a_job_that_may_go_is_told_its_place_in_line(open_api: Api, desk: Desk) -> None:
    dispatcher(desk, "queue:work")
    desk.limit(rate_per_s=2, concurrency_max=3)
    desk.enqueue()
    why = await explained(open_api, desk.enqueue())
    assert (why["waiting_for"], why["ahead"]) == ("dispatcher", 1)


SOON = "available_at = now() + interval '1 h'"
SNOOZED = (
    "with e as (update outbox.entry set waits = 2, available_at = now() + interval '1 h'"
    " returning id) insert into outbox.delivery (id, finished_at, lease_no, series, attempt,"
    " terminal, status, tenant_id, error_class, error_code, error_message) select id, now(), 1,"
    " 1, 1, false, 'RETRYING', 'default', 'snoozed', '{}', 'its hours, in Asia/Almaty' from e"
)
OWN_LANE = (
    "update outbox.entry set lane_id = outbox.scope_lane('default', 'work', 'destination:host:x')"
)
WAITS = {
    "backoff": (f"update outbox.entry set waits = 1, attempt = 2, {SOON}", "Attempt 2 failed"),
    "snooze": (f"update outbox.entry set waits = 2, {SOON}", "put off"),
    "quiet hours": (SNOOZED.format("recipient.quiet_hours"), "next_at: its hours, in Asia/Almaty"),
    "send window": (SNOOZED.format("tenant.send_window"), "next_at: its hours, in Asia/Almaty"),
    "destination paused": (f"update outbox.entry set waits = 3, {SOON}", "asked for a pause"),
    "outcome": (
        "update outbox.entry set claimed_by = 7, claimed_at = now(), attempt = 1,"
        " lease_until = now() + interval '1 min'",
        "Attempt 1 is running on d",
    ),
    "breaker open": (
        "with d as (insert into outbox.destination (name, opened_at, open_s, open_until)"
        f" values ('host:x', now(), 30, now() + interval '30 s')) {OWN_LANE}",
        "host:x failed",
    ),
    "breaker half open": (
        "with d as (insert into outbox.destination (name, opened_at, open_s, open_until)"
        f" values ('host:x', now(), 30, now() - interval '1 s')) {OWN_LANE}",
        "One job is being tried",
    ),
    "lane held": (
        "update outbox.entry set lane_id = outbox.hold_lane('default', 'work', 'ambiguous',"
        " 'delivery.ambiguous', 'It may have been delivered', null)",
        "release or cancel it",
    ),
}


@pytest.mark.parametrize("state", WAITS)
async def test_in_every_other_state_the_explanation_says_what_is_waited_for(
    open_api: Api, desk: Desk, state: str
) -> None:
    statement, words = WAITS[state]
    dispatcher(desk, "queue:work")
    job_id = desk.enqueue()
    desk.admin.execute(statement.encode())
    why = await explained(open_api, job_id)
    assert why["waiting_for"] == state
    assert words in why["explanation"]


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ("SENT", "was taken"),
        ("FAILED", "dead letter"),
        ("EXPIRED", "expires_at passed"),
        ("CANCELLED", "was withdrawn"),
    ],
)
async def test_a_job_that_has_ended_waits_for_nothing_and_is_told_how_it_ended(
    open_api: Api, desk: Desk, status: str, words: str
) -> None:
    job_id = desk.enqueue()
    desk.admin.execute(
        "with e as (delete from outbox.entry returning id) insert into outbox.delivery"
        " (id, finished_at, lease_no, series, attempt, terminal, status, tenant_id)"
        " select id, now(), 1, 1, 1, true, %s, 'default' from e",
        (status,),
    )
    why = await explained(open_api, job_id)
    assert (why["waiting_for"], why["status"]) == (None, status.lower())
    assert words in why["explanation"]


# -- limits over HTTP -----------------------------------------------------------------------


async def test_limits_are_set_shown_and_logged(open_api: Api, desk: Desk) -> None:
    limits = {"weight": 3, "concurrency_max": 5, "rate_per_s": 2.5, "burst": 4}
    unlimited = {"weight": 1, "concurrency_max": None, "rate_per_s": None, "burst": None}
    answer = await open_api.client.put("/api/v1/lanes/default/work", json=limits)
    assert answer.status_code == 200, answer.text
    shown = (await open_api.client.get("/api/v1/lanes/default/work")).json()
    assert {name: shown[name] for name in limits} == limits
    assert (shown["places_taken"], shown["tokens"]) == (0, 4)
    assert desk.rows("select action, tenant_id, detail from outbox.operator_action") == [
        ("limit", "default", {"queue": "work", "before": unlimited, "after": limits})
    ]
    await open_api.client.put("/api/v1/lanes/default/work", json={})
    shown = (await open_api.client.get("/api/v1/lanes/default/work")).json()
    assert (shown["weight"], shown["rate_per_s"], shown["tokens"]) == (1, None, None)


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"concurrency_max": 0}, "/concurrency_max"),
        ({"concurrency_max": 10**30}, "/concurrency_max"),
        ({"rate_per_s": -1}, "/rate_per_s"),
        ({"rate_per_s": 1e300}, "/rate_per_s"),
        ({"rate_per_s": "fast"}, "/rate_per_s"),
        ({"weight": 0}, "/weight"),
        ({"burst": 3}, "/burst"),
        ({"speed": 3}, "/speed"),
    ],
)
async def test_limits_that_cannot_be_are_a_422_that_names_them(
    open_api: Api, desk: Desk, body: dict[str, object], pointer: str
) -> None:
    answer = await open_api.client.put("/api/v1/lanes/default/work", json=body)
    assert answer.status_code == 422, answer.text
    assert [fault["pointer"] for fault in answer.json()["errors"]] == [pointer]
    assert desk.rows("select 1 from outbox.operator_action where not detail ? 'refused'") == []


async def test_a_tenant_sees_its_own_lane_and_changes_no_limit(api: Api) -> None:
    await api.client.put("/api/v1/lanes/acme/email", json={"rate_per_s": 5})
    async with api.with_key(await api.new_key("acme", "admin")) as own:
        assert (await own.get("/api/v1/lanes/acme/email")).json()["rate_per_s"] == 5
        assert (await own.put("/api/v1/lanes/acme/email", json={})).status_code == 403
        assert (await own.get("/api/v1/lanes/default/email")).status_code == 403
    async with api.with_key(await api.new_key("*", "jobs:read")) as reader:
        assert (await reader.put("/api/v1/lanes/acme/email", json={})).status_code == 403
    assert (await api.client.get("/api/v1/lanes/acme/nix")).status_code == 404
