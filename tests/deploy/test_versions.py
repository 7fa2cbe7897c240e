"""An older version on the schema of a newer one, and a newer one on its `pre` part: real code."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import psycopg
import pytest

from tests.cli.shell import Running, Shell, free_port, until
from tests.deploy import releases
from tests.deploy.releases import Release

pytestmark = pytest.mark.timeout(300)  # twelve processes start, and import all anew

JOB = {"channel": "inbox", "user_id": "ann", "content": "Hello", "data": {}, "meta": {}}


class Host:
    """One version against the database, and where its API answers."""

    def __init__(self, release: Release, shell: Shell, url: str) -> None:
        self.shell = shell
        self.port = free_port()
        shell.environ |= release.environment | {
            "OUTBOX_DATABASE_URL": url,
            "OUTBOX_PORT": str(self.port),
            "OUTBOX_AUTH": "off",
            "OUTBOX_LEAVE_S": "0.1",
        }

    def api(self) -> Running:
        api = self.shell.start("api")
        api.ready()
        return api

    def dispatcher(self) -> Running:
        dispatcher = self.shell.start("dispatcher")
        until(lambda: dispatcher.events("dispatcher ready"))
        return dispatcher

    def delivers(self) -> object:
        """Send a job in over HTTP, and wait until it is delivered."""
        with httpx.Client(base_url=f"http://127.0.0.1:{self.port}/api/v1", trust_env=False) as api:
            made = api.post("/jobs", json=JOB)
            assert made.status_code == 202, made.text
            place = f"/jobs/{made.json()['job_id']}"
            return until(lambda: api.get(place).json()["status"] == "sent")

    def ready(self) -> httpx.Response:
        return self._health("ready")

    def live(self) -> httpx.Response:
        return self._health("live")

    def _health(self, what: str) -> httpx.Response:
        return httpx.get(f"http://127.0.0.1:{self.port}/health/{what}", trust_env=False)


@pytest.fixture
def hosts(fresh: str, tmp_path: Path) -> Iterator[tuple[Host, Host]]:
    """An older and a newer version on one empty database."""
    made = releases.older(tmp_path), releases.newer(tmp_path)
    folders = [tmp_path / f"at {release.version}" for release in made]
    for folder in folders:
        folder.mkdir()
    with Shell(folders[0]) as first, Shell(folders[1]) as second:
        yield Host(made[0], first, fresh), Host(made[1], second, fresh)


def test_old_code_lives_on_the_new_pre_part_and_post_waits_until_it_has_gone(
    hosts: tuple[Host, Host], fresh: str
) -> None:
    old, new = hosts
    assert old.shell.run("migrate").code == 0
    old_api, old_dispatcher = old.api(), old.dispatcher()
    assert old.delivers()

    assert new.shell.run("migrate", "--phase", "pre").code == 0
    assert old.delivers()
    new_api = new.api()
    assert new.delivers()
    assert (old.ready().status_code, new.ready().status_code) == (200, 200)
    refused = new.shell.run("migrate", "--phase", "post")
    assert refused.code == 1
    assert refused.err.count(f"({releases.OLDER})") == 2, refused.err
    later = new.shell.run("migrate", "--phase", "post", "--or-later")
    assert (later.code, "Nothing was changed" in later.err) == (0, True)

    new_dispatcher = new.dispatcher()
    assert old_dispatcher.stop() == 0
    assert old.delivers()
    assert new.delivers()
    with psycopg.connect(fresh) as admin:
        found = admin.execute(
            "select distinct version, flavour from outbox.api_process"
        ).fetchall()
    assert set(found) == {(releases.OLDER, "old"), (releases.NEWER, "new")}
    refused = new.shell.run("migrate", "--phase", "post")
    assert (refused.code, "api " in refused.err, "dispatcher " in refused.err) == (1, True, False)

    waiting = new.shell.start("migrate", "--phase", "post", "--wait", "60")
    assert old_api.stop() == 0
    assert waiting.process.wait(60) == 0
    assert new.delivers()
    late = old.shell.run("dispatcher")
    assert (late.code, "migrated past this version" in late.err) == (3, True), late.err
    assert (new_api.stop(), new_dispatcher.stop()) == (0, 0)


def test_a_process_that_is_migrated_past_stops_by_itself_and_says_so(
    hosts: tuple[Host, Host], fresh: str
) -> None:
    old, _ = hosts
    assert old.shell.run("migrate").code == 0
    api, dispatcher = old.api(), old.dispatcher()
    assert old.delivers()
    with psycopg.connect(fresh) as admin:
        admin.execute("update outbox.alembic_version set version_num = '0007_post'")
    answer = until(lambda: found if (found := old.ready()).status_code == 503 else None)
    assert "past this version" in answer.json()["detail"]
    assert dispatcher.process.wait(60) == 3
    assert "past this version" in dispatcher.log.read_text()
    assert api.stop() == 0


def test_new_code_on_an_older_schema_is_live_and_not_ready_and_says_why(
    hosts: tuple[Host, Host], fresh: str
) -> None:
    old, new = hosts
    assert new.shell.run("migrate").code == 0
    api = new.api()
    assert (new.ready().status_code, new.live().status_code) == (200, 200)
    # As where a database is restored from a backup of before the upgrade.
    with psycopg.connect(fresh) as admin:
        admin.execute("drop schema outbox cascade")
    assert old.shell.run("migrate").code == 0
    answer = until(lambda: found if (found := new.ready()).status_code == 503 else None)
    assert answer.json()["detail"] == "The database is not migrated for this version."
    assert new.live().status_code == 200
    early = new.shell.run("dispatcher")
    assert (early.code, "0002_pre missing" in early.err) == (3, True), early.err
    assert new.shell.run("migrate", "--phase", "pre").code == 0
    assert until(lambda: new.ready().status_code == 200)
    assert api.stop() == 0
