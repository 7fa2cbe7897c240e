"""From enqueue to phones, browsers, and a chat that moved: and what the store learns of it."""

from __future__ import annotations

from contextlib import AsyncExitStack
from uuid import UUID, uuid5

from outbox.channels.browser import BrowserChannel
from outbox.channels.push import PushChannel
from outbox.channels.telegram import TelegramChannel
from tests.channels.api_server import Reply, api_server
from tests.channels.test_browser import SUBJECT, VAPID_PEM, Browser, speak_push
from tests.channels.test_push import Firebase, error, service_account
from tests.channels.test_telegram import TOKEN, no, speak_telegram
from tests.e2e.test_channels_through_the_engine import notify, person, template
from tests.engine.desk import Desk, dispatching


def device(desk: Desk, user_id: str, channel: str, address: str, *keys: str | None) -> None:
    desk.admin.execute(
        "insert into outbox.device (tenant_id, user_id, channel, address, p256dh, auth)"
        " values ('default', %s, %s, %s, %s, %s)",
        (user_id, channel, address, *(keys or (None, None))),
    )


def devices(desk: Desk) -> set[str]:
    return {str(row[0]) for row in desk.rows("select address from outbox.device")}


async def test_a_job_reaches_all_phones_and_one_that_is_away_gets_a_job_of_its_own(
    desk: Desk,
) -> None:
    template(desk, channel="push")
    for token in ("phone", "tablet", "old"):
        device(desk, "u1", "push", token)
    device(desk, "u2", "push", "a-stranger-s")
    firebase = Firebase()
    firebase.by_token = {
        "tablet": error(500, "INTERNAL", "INTERNAL"),
        "old": error(404, "NOT_FOUND", "UNREGISTERED"),
    }
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(api_server(firebase.speak))
        firebase.port = server.port
        channel = PushChannel(
            {"PUSH_KEY": service_account(server.port), "PUSH_URL": f"fcm+http://{server.place}"}
        )
        await stack.enter_async_context(dispatching(desk, {}, channels={"push": channel}))
        job_id = notify(desk, channel="push")
        await desk.until_status(job_id, "sent")
        child: UUID = uuid5(job_id, "tablet")
        await desk.until_status(child, "retrying")
        firebase.by_token.clear()
        desk.admin.execute("update outbox.entry set available_at = clock_timestamp()")
        await desk.until_status(child, "sent")
        told = [call.json["message"]["token"] for call in server.calls if call.path != "/token"]
    assert sorted(told[:3]) == ["old", "phone", "tablet"]
    assert set(told[3:]) == {"tablet"}
    assert devices(desk) == {"phone", "tablet", "a-stranger-s"}
    assert desk.deliveries(job_id) == [("SENT", 1, None, False)]
    assert desk.rows("select count(*) from outbox.suppression") == [(0,)]
    assert desk.rows("select count(*) from outbox.notification") == [(2,)]


async def test_a_browser_that_is_gone_is_forgotten_and_a_user_without_any_is_a_dead_letter(
    desk: Desk,
) -> None:
    template(desk, channel="browser")
    browser = Browser("one")
    async with api_server(speak_push) as server:
        known = browser.device(server.port)
        device(desk, "u1", "browser", known.address, known.p256dh, known.auth)
        settings = {"BROWSER_KEY": VAPID_PEM, "BROWSER_SUBJECT": SUBJECT}
        channel = BrowserChannel(settings | {"WEBHOOK_ALLOW": server.place})
        async with dispatching(desk, {}, channels={"browser": channel}):
            told = notify(desk, channel="browser")
            await desk.until_status(told, "sent")
            server.replies.append(Reply(410, b""))
            gone = notify(desk, channel="browser")
            await desk.until_status(gone, "failed")
            nobody = notify(desk, channel="browser")
            await desk.until_status(nobody, "failed")
    assert browser.read(server.calls[0])["body"] == "Здравствуйте, Нуржан."
    assert desk.deliveries(gone) == [("FAILED", 1, "webpush.410", False)]
    assert desk.deliveries(nobody) == [("FAILED", 1, "recipient.no_address", False)]
    assert devices(desk) == set()


async def test_a_chat_that_moved_is_moved_in_the_directory(desk: Desk) -> None:
    template(desk, channel="telegram")
    person(desk, "u1", telegram_chat_id="-99")
    async with api_server(speak_telegram) as server:
        server.replies.append(no(400, "upgraded", migrate_to_chat_id=-100500))
        channel = TelegramChannel({"TELEGRAM_URL": f"telegram+http://{TOKEN}@{server.place}"})
        async with dispatching(desk, {}, channels={"telegram": channel}):
            job_id = notify(desk, channel="telegram")
            await desk.until_status(job_id, "sent")
    assert desk.rows("select telegram_chat_id from outbox.recipient") == [("-100500",)]


async def test_a_chat_that_blocked_the_bot_is_suppressed(desk: Desk) -> None:
    template(desk, channel="telegram")
    person(desk, "u1", telegram_chat_id="42")
    async with api_server(speak_telegram) as server:
        server.replies.append(no(403, "Forbidden: bot was blocked by the user"))
        channel = TelegramChannel({"TELEGRAM_URL": f"telegram+http://{TOKEN}@{server.place}"})
        async with dispatching(desk, {}, channels={"telegram": channel}):
            first = notify(desk, channel="telegram")
            await desk.until_status(first, "failed")
            second = notify(desk, channel="telegram")
            await desk.until_status(second, "failed")
    assert len(server.calls) == 1
    assert desk.deliveries(second) == [("FAILED", 1, "recipient.suppressed", False)]


async def test_a_push_service_that_asks_for_a_pause_pauses_itself_and_no_other(desk: Desk) -> None:
    template(desk, channel="browser")
    async with AsyncExitStack() as stack:
        busy = await stack.enter_async_context(api_server(speak_push))
        down = await stack.enter_async_context(api_server(speak_push))
        for user, name, server in (
            ("u1", "one", busy),
            ("u1", "two", down),
            ("u2", "three", down),
        ):
            known = Browser(name).device(server.port)
            device(desk, user, "browser", known.address, known.p256dh, known.auth)
        settings = {"BROWSER_KEY": VAPID_PEM, "BROWSER_SUBJECT": SUBJECT}
        channel = BrowserChannel(settings | {"WEBHOOK_ALLOW": "127.0.0.1"})
        await stack.enter_async_context(dispatching(desk, {}, channels={"browser": channel}))
        busy.replies.append(Reply(429, b"", {"Retry-After": "600"}))
        down.replies.append(Reply(500, b""))
        told = notify(desk, channel="browser")
        paused = "select name from outbox.destination where paused_until > clock_timestamp()"
        await desk.until(lambda: bool(desk.rows(paused)))
        assert desk.rows(paused) == [(f"host:{busy.place}",)]
        # Who has a browser elsewhere is told at once.
        person(desk, "u2")
        other = notify(desk, channel="browser", user_id="u2")
        await desk.until_status(other, "sent")
        assert desk.status(told) == "retrying"
