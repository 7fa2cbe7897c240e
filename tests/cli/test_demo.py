"""The demo, as a newcomer sees it."""

from __future__ import annotations

import socket
from io import StringIO
from pathlib import Path

import httpx
import psycopg
import pytest
from rich.console import Console

from outbox.embedded import EmbeddedServer
from outbox.message import uuid7
from outbox_cli.demo.screen import results
from outbox_cli.demo.story import Act
from tests.cli.shell import Shell

pytestmark = pytest.mark.timeout(240)  # half a dozen processes, on a machine that may be busy

EXPECTED = {
    "Welcome mail in Russian": "sent",
    "Black Friday, too late": "expired",
    "New film, too late": "expired",
    "Black Friday, still in time": "sent",
    "New film, still in time": "sent",
    "Signed webhook": "sent",
    "Simple send": "sent",
    "Rule makes a mail": "sent",
    "Rule makes an in-app message": "sent",
    "User without an address": "failed",
}


@pytest.mark.parametrize("width", [50, 80, 100, 140])
def test_the_table_tells_what_arrived_in_full_however_narrow_the_terminal(width: int) -> None:
    acts = [
        Act(
            title="Welcome mail in Russian",
            channel="email",
            wanted="sent",
            job_id=uuid7(),
            took_s=0.2,
            status="sent",
            recipient="nurzhan@example.com",
            said="Нуржан, добро пожаловать!",
        ),
        Act(title="User without an address", channel="email", wanted="failed", job_id=uuid7()),
    ]
    screen = Console(width=width, file=StringIO())
    screen.print(results(acts, width=width))
    assert isinstance(screen.file, StringIO)
    shown = screen.file.getvalue()
    assert "…" not in shown
    words = " ".join(shown.split())
    for told in (
        "Welcome",
        "email",
        "sent",
        "0.2",
        "nurzhan@example.com",
        "добро",
        "User without",
    ):
        assert told in words


def caught(data_dir: Path) -> list[tuple[str, str, str]]:
    with EmbeddedServer.acquire(data_dir) as server, psycopg.connect(server.admin_url) as admin:
        return admin.execute(
            "select caught_by, recipient, coalesce(subject, '') from outbox.sink_message"
        ).fetchall()


def test_the_demo_delivers_everything_whatever_surrounds_it_and_works_again(shell: Shell) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        surroundings = {
            "OUTBOX_PORT": str(taken.getsockname()[1]),
            "OUTBOX_DATABASE_URL": "postgresql://me:hunter2@127.0.0.1:1/production",
            "OUTBOX_SMTP_URL": "smtp://127.0.0.1:1",
            "OUTBOX_MAIL_FROM": "me@example.com",
        }
        done = shell.run("demo", "--once", "--json", env=surroundings)
    assert done.code == 0, done.out + done.err
    assert "hunter2" not in done.out + done.err
    assert {act["title"]: act["status"] for act in done.json} == EXPECTED
    arrived = caught(shell.folder / ".outbox-demo")
    assert sorted(by for by, _, _ in arrived) == ["http"] + ["smtp"] * 5
    subjects = {subject for _, _, subject in arrived}
    assert "Нуржан, добро пожаловать!" in subjects
    assert "Чёрная пятница: скидка 50% на билеты" in subjects

    # On the same folder, and staying until it is told to stop.
    running = shell.start("demo")
    lines: list[str] = []
    while not lines or "Look at" not in lines[-1]:
        lines.append(running.line())
        assert running.process.poll() is None, "\n".join(lines) + running.log.read_text()
    assert f"{len(EXPECTED)} of {len(EXPECTED)} as expected." in lines
    page = httpx.get(lines[-1].rpartition(" ")[2], trust_env=False)
    assert page.status_code == 200
    assert "Чёрная пятница" in page.text
    assert running.stop() == 0
    pid_file = shell.folder / ".outbox-demo" / "postgres" / "data" / "postmaster.pid"
    assert not pid_file.exists()
    assert not (shell.folder / ".outbox").exists()
