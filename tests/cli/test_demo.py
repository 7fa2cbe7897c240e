"""The demo, as a newcomer sees it."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import psycopg

from outbox.embedded import EmbeddedServer
from tests.cli.shell import Shell

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


def caught(data_dir: Path) -> list[tuple[str, str, str]]:
    with EmbeddedServer.acquire(data_dir) as server, psycopg.connect(server.admin_url) as admin:
        return admin.execute(
            "select caught_by, recipient, coalesce(subject, '') from outbox.sink_message"
        ).fetchall()


def test_the_demo_delivers_everything_twice_in_a_row_and_exits_0(shell: Shell) -> None:
    first = shell.run("demo", "--once")
    assert first.code == 0, first.out + first.err
    assert f"{len(EXPECTED)} of {len(EXPECTED)} as expected" in first.out
    again = shell.run("demo", "--once", "--json")
    assert again.code == 0, again.out + again.err
    acts = {act["title"]: act["status"] for act in json.loads(again.out)}
    assert acts == EXPECTED
    arrived = caught(shell.folder / ".outbox-demo")
    assert sum(by == "http" for by, _, _ in arrived) == 2
    subjects = {subject for _, _, subject in arrived}
    assert "Нуржан, добро пожаловать!" in subjects
    assert "Чёрная пятница: скидка 50% на билеты" in subjects
    assert not (shell.folder / ".outbox").exists()


def test_a_taken_port_and_foreign_settings_do_not_disturb_the_demo(shell: Shell) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        shell.environ |= {
            "OUTBOX_PORT": str(taken.getsockname()[1]),
            "OUTBOX_DATABASE_URL": "postgresql://me:hunter2@127.0.0.1:1/production",
            "OUTBOX_SMTP_URL": "smtp://127.0.0.1:1",
            "OUTBOX_MAIL_FROM": "me@example.com",
        }
        done = shell.run("demo", "--once")
    assert done.code == 0, done.out + done.err
    assert "hunter2" not in done.out + done.err


def test_the_demo_stays_until_it_is_interrupted_and_leaves_nothing_running(shell: Shell) -> None:
    running = shell.start("demo")
    lines = []
    while "Look at" not in (line := running.line()):
        lines.append(line)
        assert running.process.poll() is None, "\n".join(lines) + running.log.read_text()
    assert running.stop() == 0
    pid_file = shell.folder / ".outbox-demo" / "postgres" / "data" / "postmaster.pid"
    assert not pid_file.exists()
