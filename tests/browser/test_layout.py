"""Pages fit: what is wider than the window scrolls by itself, never the page."""

from __future__ import annotations

import pytest

from tests.api.conftest import job
from tests.api.stage import FAIL, behind, post
from tests.browser.conftest import Site

WIDTHS = {"phone": 360, "tablet": 768, "desk": 1280}


@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS)
async def test_no_page_scrolls_sideways(site: Site, width: int) -> None:
    schedule = {"trigger": {"cron": "0 9 * * 1-5"}, "job": job()}
    put = await site.api.client.put("/api/v1/schedules/a-digest-with-a-long-name", json=schedule)
    assert put.status_code == 200, put.text
    await post(site.api)
    behind(site.api, FAIL)
    behind(
        site.api,
        "update outbox.lane set held_at = now(), probe_at = now(), hold_code = 'smtp.5.7.8',"
        " hold_reason = repeat('The server refuses our login and says much about it. ', 4)"
        " where queue = 'email'",
    )
    wide = []
    async with site.page(viewport={"width": width, "height": 800}) as page:
        await site.sign_in(page)
        for path in (
            *("/", "/queues/email", "/jobs", "/dead-letters", "/dead-letters/list", "/replays"),
            *("/templates", "/schedules", "/recipients", "/providers", "/sink", "/operator-log"),
        ):
            await page.goto(path)
            found = await page.evaluate("document.documentElement.scrollWidth")
            if found > width:
                wide.append((path, found))
    assert wide == []
