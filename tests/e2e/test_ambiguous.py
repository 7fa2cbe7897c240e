"""A delivery that went out and was never answered: sent again, held, or given up."""

from __future__ import annotations

import pytest

from tests.api.conftest import running_api
from tests.channels.mail_server import DROP, mail_server
from tests.e2e.test_channels_through_the_engine import delivering, notify, person, template
from tests.engine.desk import Desk, in_s


def prepared(desk: Desk, policy: str) -> None:
    template(desk)
    person(desk, "u1", email="a@example.com")
    desk.admin.execute("update outbox.template set on_ambiguous = %s", (policy,))


async def test_by_default_it_is_sent_again_under_the_same_key(desk: Desk) -> None:
    prepared(desk, "resend")
    async with mail_server() as server, delivering(desk, server):
        server.answer("body", DROP)
        job_id = notify(desk)
        await desk.until_status(job_id, "retrying")
        (entry,) = desk.rows("select id from outbox.entry")
        desk.admin.execute("select outbox.promote_job(%s, 'tester')", entry)
        await desk.until_status(job_id, "sent")
    first, second = (mail.parsed()["message-id"] for mail in server.mails)
    assert first == second


async def test_with_hold_it_waits_unprobed_until_it_is_released(desk: Desk) -> None:
    prepared(desk, "hold")
    async with mail_server() as server, delivering(desk, server):
        server.answer("body", DROP)
        job_id = notify(desk)
        await desk.until(lambda: desk.deliveries(job_id) != [])
        assert desk.status(job_id) == "pending"
        # Others go on, and nothing probes what is held: three times the probe's pause.
        for _ in range(3):
            await desk.until_status(notify(desk), "sent")
        assert desk.rows(
            "select scope, probe_at, hold_code from outbox.lane where held_at is not null"
        ) == [("ambiguous", None, "delivery.ambiguous")]
        assert desk.deliveries(job_id) == [("RETRYING", 1, "smtp.lost", False)]
        (entry,) = desk.rows("select id from outbox.entry")
        assert desk.value("select outbox.release_job(%s, 'tester')", *entry) == "released"
        await desk.until_status(job_id, "sent")
        assert desk.value("select outbox.release_job(%s, 'tester')", *entry) == "ended"
    assert len(server.mails) == 5
    assert desk.deliveries(job_id)[-1] == ("SENT", 2, None, False)


async def test_with_fail_it_is_a_dead_letter(desk: Desk) -> None:
    prepared(desk, "fail")
    async with mail_server() as server, delivering(desk, server):
        server.answer("body", DROP)
        job_id = notify(desk)
        await desk.until_status(job_id, "failed")
    assert len(server.mails) == 1
    assert desk.rows("select error_class, error_code, reason from outbox.dead_letter") == [
        ("ambiguous", "smtp.lost", "permanent")
    ]


@pytest.mark.parametrize(("policy", "status"), [("hold", "pending"), ("fail", "failed")])
async def test_what_a_dispatcher_died_with_may_have_been_delivered_too(
    desk: Desk, policy: str, status: str
) -> None:
    prepared(desk, policy)
    job_id = notify(desk)
    desk.admin.execute("update outbox.entry set crashes = 1")
    async with mail_server() as server, delivering(desk, server):
        await desk.until(lambda: desk.deliveries(job_id) != [])
        assert desk.status(job_id) == status
        assert server.mails == []
        if policy == "hold":
            (entry,) = desk.rows("select id from outbox.entry")
            desk.admin.execute("select outbox.release_job(%s, 'tester')", entry)
            await desk.until_status(job_id, "sent")


async def test_what_is_plainly_temporary_is_tried_again_whatever_the_policy(desk: Desk) -> None:
    prepared(desk, "fail")
    async with mail_server() as server, delivering(desk, server):
        server.answer("rcpt", "451 4.3.0 later")
        job_id = notify(desk)
        await desk.until_status(job_id, "retrying")


async def test_a_release_over_http_sends_it_and_says_no_to_what_is_not_held(desk: Desk) -> None:
    prepared(desk, "hold")
    async with (
        running_api(desk.database.url, auth=False) as api,
        mail_server() as server,
        delivering(desk, server),
    ):
        server.answer("body", DROP)
        job_id = notify(desk)
        await desk.until(lambda: desk.deliveries(job_id) != [])
        path = f"/api/v1/jobs/{job_id}/release"
        released = await api.post(path)
        assert released.status_code == 202, released.text
        await desk.until_status(job_id, "sent")
        assert (await api.post(path)).status_code == 409
        waiting = notify(desk, send_after=in_s(3600))
        assert (await api.post(f"/api/v1/jobs/{waiting}/release")).status_code == 409
    actions = desk.rows("select action from outbox.operator_action where id is not null")
    assert actions == [("release",)]
