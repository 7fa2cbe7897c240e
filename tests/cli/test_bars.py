"""Progress bars, before somebody who sits at a terminal; and none where a script reads."""

from __future__ import annotations

import json

from tests.api.stage import FAIL
from tests.cli.shell import Shell
from tests.cli.terminal import Terminal
from tests.cli.test_commands import inbox_job, send
from tests.postgres import Database

BAR = "━"
DEAD = 40


def test_sending_a_file_shows_how_much_of_it_is_through(outbox: Shell) -> None:
    lines = [json.dumps(inbox_job()) for _ in range(3_000)]
    file = outbox.folder / "jobs.ndjson"
    file.write_text("\n".join(lines))
    with Terminal(outbox, "send", "jobs.ndjson") as terminal:
        code, shown = terminal.end()
    assert code == 0, shown
    frames = [frame for frame in shown.replace("\n", "\r").split("\r") if frame.strip()]
    bars = [frame for frame in frames if BAR in frame]
    assert bars, shown
    assert all(frame.startswith("sending ") and "/" in frame for frame in bars), bars
    assert "3000" in frames[-1], "the bar goes, and what was done stays"
    assert BAR not in frames[-1]


def test_a_replay_shows_how_far_it_has_come(outbox: Shell, database: Database) -> None:
    send(outbox, *(inbox_job() for _ in range(DEAD)))
    with database.admin_connect(autocommit=True) as admin:
        admin.execute(FAIL.encode())
        with Terminal(outbox, "dead-letters", "replay", "--all", "--rate", "10") as terminal:
            terminal.see(b"40 dead letters fit")
            terminal.see(b"replaying")
            terminal.see(b"0/40 0 sent")
            for so_far in (b"10/40 10 sent", b"20/40 20 sent"):
                # A second of a dispatcher's.
                admin.execute("update outbox.replay_run set stepped_at = now() - interval '1 s'")
                admin.execute("select outbox.step_replay()")
                terminal.see(so_far)
            admin.execute("update outbox.replay_run set rate_per_s = 1000")
            admin.execute("update outbox.replay_run set stepped_at = now() - interval '1 s'")
            admin.execute("select outbox.step_replay()")
            code, shown = terminal.end()
    assert code == 0, shown
    last = shown.split(BAR)[-1].replace("\r", "\n").strip().splitlines()
    assert any(line.split() == ["replayed", "40"] for line in last), shown
    assert any(line.split() == ["state", "done"] for line in last), shown


def test_a_benchmark_shows_how_far_it_has_come(outbox: Shell, database: Database) -> None:
    command = ("bench", "drain", "--jobs", "300", "--rounds", "1", "--url", database.admin_url)
    with Terminal(outbox, *command) as terminal:
        terminal.see(b"measuring")
        terminal.see(BAR.encode())
        code, shown = terminal.end()
    assert code == 0, shown
    assert "jobs_per_s" in shown
