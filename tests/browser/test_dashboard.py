"""What whoever is on call does with the dashboard, in Chromium."""

from __future__ import annotations

import asyncio
import json
import re

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Route, expect

from outbox.backoff import Backoff
from outbox.message import Message
from outbox.outcome import Delivered, Outcome, Retryable
from tests.api.conftest import job
from tests.api.stage import FAIL, behind, post
from tests.api.test_progress import Long
from tests.browser.conftest import Site
from tests.engine.desk import QUEUE, Scripted, dispatching

USER = "7d3c2f00-0000-4000-8000-000000000001"
TEMPLATE = "/api/v1/templates/welcome/email/en"
DEAD = 500
PARTLY = re.compile(r"^([1-9]\d?|[1-4]\d\d)$")
"""As many as lie between none and all of them."""


async def test_a_queue_that_is_paused_starts_nothing_until_it_is_resumed(site: Site) -> None:
    handler = Scripted()
    async with dispatching(site.desk, {QUEUE: handler}), site.page() as page:
        first = site.desk.enqueue()
        await site.desk.until_status(first, "sent")
        await site.sign_in(page)
        await page.goto(f"/queues/{QUEUE}")
        await page.get_by_label("Reason").fill("the relay is down")
        await page.get_by_role("button", name=f"Pause {QUEUE}").click()
        await expect(page.get_by_role("status")).to_contain_text("every dispatcher has seen it")
        second = site.desk.enqueue()
        await expect(page.locator(".figures div", has_text="Waiting").locator("dd")).to_have_text(
            "1"
        )
        assert handler.times_seen(second) == 0
        await page.get_by_role("button", name="Resume", exact=True).click()
        await site.desk.until_status(second, "sent")
    (row,) = site.desk.rows(
        "select actor, detail ->> 'reason' from outbox.operator_action where action = 'pause'"
    )
    assert row == ("admin key", "the relay is down")


async def test_a_job_is_found_by_its_user(site: Site) -> None:
    job_id = await post(site.api, user_id=USER)
    await post(site.api)
    async with site.page() as page:
        await site.sign_in(page)
        await page.keyboard.press("/")
        await page.keyboard.type(USER)
        await page.keyboard.press("Enter")
        await expect(page.locator("tbody tr")).to_have_count(1)
        await page.locator("tbody th a").click()
        await expect(page.get_by_role("heading", level=1)).to_have_text(job_id)


async def test_a_job_that_is_retried_is_followed_without_a_reload(site: Site) -> None:
    async def deliver(message: Message) -> Outcome:
        return (
            Delivered()
            if message.attempt > 1
            else Retryable(code="smtp.451", reason="come back later")
        )

    job_id = site.desk.enqueue()
    async with site.page() as page:
        await site.sign_in(page)
        await page.goto(f"/jobs/{job_id}")
        status = page.locator("[data-status]")
        await expect(status).to_have_text("pending")
        await page.evaluate("window.stayed = true")
        async with dispatching(
            site.desk, {QUEUE: Scripted(deliver)}, backoff=Backoff(delays_s=(600.0,))
        ):
            await expect(status).to_have_text("retrying")
            await expect(page.locator(".timeline")).to_contain_text("smtp.451")
            await page.get_by_role("button", name="Promote").click()
            await expect(status).to_have_text("sent")
        assert await page.evaluate("window.stayed")


async def test_a_long_attempt_s_progress_moves_without_a_reload(site: Site) -> None:
    handler = Long()
    async with site.page() as page, dispatching(site.desk, {QUEUE: handler}):
        await site.sign_in(page)
        job_id = site.desk.enqueue(notify=True)
        await page.goto(f"/jobs/{job_id}")
        bar = page.get_by_role("progressbar", name="Progress of the attempt")
        for done in (1, 3):
            handler.say(done, 4, f"frame {done}")
            await expect(bar).to_have_attribute("value", str(done / 4))
            await expect(page.locator(".state")).to_contain_text(f"{done * 25} %: frame {done}")
        assert (await Axe().run(page)).response["violations"] == []
        handler.end()
        await expect(page.locator("[data-status]")).to_have_text("sent")
        await expect(bar).to_have_count(0)


async def test_a_group_of_dead_letters_is_replayed_at_a_rate_with_its_progress(
    site: Site,
) -> None:
    for _ in range(DEAD):
        site.desk.enqueue()
    behind(site.api, FAIL)
    async with site.page() as page:
        await site.sign_in(page)
        await page.goto("/dead-letters")
        await page.get_by_role("link", name="Replay…").click()
        await expect(page.get_by_role("heading", level=1)).to_have_text(
            f"Replay {DEAD} dead letters"
        )
        sent = page.locator(".figures div", has_text="Would be sent").locator("dd")
        await expect(sent).to_have_text(str(DEAD))
        assert site.desk.value("select count(*) from outbox.entry") == 0, "a dry run does nothing"
        async with dispatching(site.desk, {QUEUE: Scripted()}):
            await page.get_by_label("Rate").fill("150")
            await page.get_by_role("button", name="Replay").click()
            bar = page.locator("progress")
            await expect(bar).to_have_attribute("value", PARTLY)
            await expect(page.locator("[data-state]")).to_have_text("done")
            assert await bar.evaluate("bar => bar.value") == DEAD


async def test_a_template_is_edited_beside_its_preview_and_stored_as_a_new_version(
    site: Site,
) -> None:
    body = {"subject": "Hello {{ name }}", "text": "Hi", "html": "<p>Hi {{ name }}</p>"}
    assert (await site.api.client.put(TEMPLATE, json=body)).status_code == 201
    async with site.page() as page:
        await site.sign_in(page)
        await page.goto("/templates/welcome/email/en")
        await expect(page.locator("#preview")).to_contain_text("Missing in the data: name")
        await page.get_by_label("Sample data").fill('{"name": "Ann"}')
        await expect(page.locator("#preview .subject")).to_have_text("Hello Ann")
        await page.locator("textarea[name=html]").fill("<b>Dear {{ name }}</b>")
        frame = page.frame_locator("iframe[name=preview-frame]")
        await expect(frame.locator("b")).to_have_text("Dear Ann")
        await page.get_by_role("button", name="Save").click()
        await expect(page.get_by_role("heading", level=1)).to_contain_text("version 2")
        await page.get_by_role("button", name="Send a test").click()
        await expect(page.get_by_role("status")).to_contain_text("in the sink")


async def test_whoever_types_and_saves_before_a_preview_has_come_ends_no_request(
    site: Site,
) -> None:
    body = {"subject": "Hello {{ name }}", "text": "Hi"}
    assert (await site.api.client.put(TEMPLATE, json=body)).status_code == 201
    asked: list[str] = []
    may_go = asyncio.Event()

    async def hold(route: Route) -> None:
        asked.append(route.request.post_data or "")
        await may_go.wait()
        await route.continue_()

    async with site.page() as page:
        await site.sign_in(page)
        await page.goto("/templates/welcome/email/en")
        await expect(page.locator("#preview")).to_contain_text("Missing in the data: name")
        await page.route("**/preview*", hold)
        async with page.expect_request("**/preview*"):
            await page.get_by_label("Sample data").fill('{"name": "Ann"}')
        await page.get_by_label("Sample data").fill('{"name": "Bob"}')
        await page.get_by_role("button", name="Send a test").click()
        await expect(page.get_by_role("status")).to_contain_text("in the sink")
        assert len(asked) == 1
        may_go.set()
        await expect(page.locator("#preview .subject")).to_have_text("Hello Bob")


async def test_a_schedule_is_typed_in_and_an_open_alert_is_looked_after(site: Site) -> None:
    site.desk.admin.execute(
        "insert into outbox.alert (rule, subject, severity, state, streak, value, since,"
        " opened_at) values ('backlog_age', 'email', 'critical', 'open', 1, 900, now(), now())"
    )
    async with site.page(refused=True) as page:
        await site.sign_in(page)
        await page.get_by_role("button", name="I look after it").click()
        await expect(page.locator(".alerts")).to_contain_text("admin key looks after it")
        await page.goto("/schedules")
        await page.get_by_text("A new schedule").click()
        await page.get_by_label("Name").fill("digest")
        await page.get_by_label("Cron").fill("0 25 * * *")
        await page.locator("textarea[name=job]").fill(json.dumps(job()))
        await page.get_by_role("button", name="Store").click()
        await expect(page.locator("#told .bad")).to_contain_text("/trigger/cron")
        await page.get_by_label("Cron").fill("0 9 * * 1-5")
        await page.get_by_role("button", name="Store").click()
        await expect(page.locator("tbody")).to_contain_text("0 9 * * 1-5")


async def test_a_viewer_has_no_buttons_for_what_an_operator_does(site: Site) -> None:
    job_id = await post(site.api)
    behind(site.api, FAIL)
    key = await site.api.new_key("default", "jobs:read")
    async with site.page() as page:
        await site.sign_in(page, key)
        for path in (f"/jobs/{job_id}", "/queues/email", "/dead-letters", "/dead-letters/list"):
            await page.goto(path)
            buttons = page.locator("main button:not([data-range])")
            names = {name.strip() for name in await buttons.all_inner_texts()}
            assert names <= {"Filter", "Search"}, path
            assert await page.get_by_role("link", name="Replay…").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_axe_finds_nothing_on_any_page(site: Site, scheme: str) -> None:
    body = {"subject": "Hello {{ name }}", "html": "<p>Hi {{ name }}</p>"}
    await site.api.client.put(TEMPLATE, json=body)
    await site.api.client.put(f"/api/v1/recipients/{USER}", json={"email": "ann@example.com"})
    schedule = {"trigger": {"cron": "0 9 * * 1-5"}, "job": job()}
    put = await site.api.client.put("/api/v1/schedules/digest", json=schedule)
    assert put.status_code == 200, put.text
    failed = await post(site.api, user_id=USER)
    behind(site.api, FAIL)
    waiting = await post(site.api)
    await site.api.client.post("/api/v1/queues/email/pause")
    paths = ["/", "/queues/email", "/jobs", f"/jobs/{failed}", f"/jobs/{waiting}"]
    paths += ["/dead-letters", "/dead-letters/list", "/dead-letters/replay", "/replays"]
    paths += ["/templates", "/templates/welcome/email/en", "/providers", "/recipients"]
    paths += [f"/recipients/{USER}", "/sink", "/operator-log", "/schedules", "/schedules/digest"]
    found = []
    async with site.page(color_scheme=scheme) as page:
        await page.goto("/sign-in")
        found += (await Axe().run(page)).response["violations"]
        await site.sign_in(page)
        for path in paths:
            await page.goto(path)
            for each in (await Axe().run(page)).response["violations"]:
                nodes = [node["html"][:120] for node in each["nodes"]]
                found.append((path, each["id"], nodes))
    assert found == []
