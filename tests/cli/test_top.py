"""`outbox top` in a real pseudo-terminal, and completion."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import time

from tests.cli.shell import COMMAND, Shell, until
from tests.postgres import Database

WAIT_S_MAX = 60.0


def test_top_shows_queues_and_pauses_and_resumes_by_a_key(
    outbox: Shell, database: Database
) -> None:
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, "top", "--every-s", "0.2"],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        cwd=outbox.folder,
        env=outbox.environ | {"TERM": "xterm", "COLUMNS": "120", "LINES": "40"},
    )
    os.close(slave)
    shown = b""

    def see(words: bytes) -> None:
        nonlocal shown
        deadline = time.monotonic() + WAIT_S_MAX
        while words not in shown:
            ready, _, _ = select.select([master], [], [], deadline - time.monotonic())
            assert ready, shown[-2_000:]
            shown += os.read(master, 65_536)
        shown = shown[shown.index(words) + len(words) :]

    def paused() -> list[tuple[str, ...]]:
        while select.select([master], [], [], 0)[0]:  # who is not read from cannot go on
            os.read(master, 65_536)
        with database.admin_connect() as connection:
            return connection.execute("select queue from outbox.queue_pause").fetchall()

    try:
        see(b"QUEUE")
        see(b"q leave")
        os.write(master, b"p")
        see(b"paused")
        (first,) = until(paused)
        os.write(master, b"\x1b[B")
        os.write(master, b"p")
        until(lambda: len(paused()) == 2)
        os.write(master, b"k")
        os.write(master, b"r")
        until(lambda: len(paused()) == 1)
        assert first not in paused()
        os.write(master, b"q")
        assert process.wait(WAIT_S_MAX) == 0
    finally:
        process.kill()
        process.wait()
        os.close(master)


def test_top_is_one_look_for_a_script(outbox: Shell) -> None:
    look = outbox.run("top", "--json").json
    assert look["dispatchers"] == 0
    assert {queue["queue"] for queue in look["queues"]} >= {"email", "webhook"}
    assert "QUEUE" in outbox.run("top").out


def test_a_shell_s_completion_is_told_the_commands(outbox: Shell) -> None:
    asked = {
        "_OUTBOX_COMPLETE": "complete_bash",
        "COMP_WORDS": "outbox dead",
        "COMP_CWORD": "1",
    }
    assert outbox.run(env=asked).out.split() == ["dead-letters"]
