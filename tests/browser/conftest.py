"""A real Chromium before a real server: what a page does when somebody uses it."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
from playwright.async_api import Browser, Page, async_playwright

from tests.api.conftest import ADMIN_KEY, Api, running_api
from tests.engine.desk import Desk
from tests.postgres import Database

NAMES = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--no-proxy-server",
]


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    """A browser; where there is none, the test skips."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip("no Chromium: apt install chromium, and these tests run")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=found, args=ARGUMENTS)
        yield browser
        await browser.close()


@dataclass
class Site:
    """A dashboard, and a browser to look at it with."""

    api: Api
    desk: Desk
    browser: Browser
    url: str

    @asynccontextmanager
    async def page(self, *, refused: bool = False, **settings: object) -> AsyncIterator[Page]:
        """Open a tab that nobody has signed in with; an error in its console fails the test.

        `refused`: the test presses a button that is refused, which the console tells too.
        """
        context = await self.browser.new_context(base_url=self.url, **settings)  # type: ignore[arg-type]
        page = await context.new_page()
        page.set_default_timeout(20_000)
        said: list[str] = []
        page.on("console", lambda m: said.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: said.append(str(error)))
        foreign: list[str] = []
        page.on("request", lambda r: None if r.url.startswith(self.url) else foreign.append(r.url))
        yield page
        await context.close()
        assert [text for text in said if not (refused and "422" in text)] == []
        assert foreign == []

    async def sign_in(self, page: Page, key: str = ADMIN_KEY) -> None:
        """Sign in as a person does."""
        await page.goto("/sign-in")
        await page.get_by_label("API key").fill(key)
        await page.get_by_role("button", name="Sign in").click()
        await page.wait_for_url("**/")


@pytest.fixture
async def site(browser: Browser, database: Database, desk: Desk) -> AsyncIterator[Site]:
    """The dashboard, with keys asked for."""
    async with running_api(database.url) as client:
        client.headers["authorization"] = f"Bearer {ADMIN_KEY}"
        yield Site(Api(client, database), desk, browser, str(client.base_url).rstrip("/"))
