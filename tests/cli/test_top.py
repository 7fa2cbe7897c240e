"""`outbox top` in a real pseudo-terminal, and completion."""

from __future__ import annotations

from tests.cli.shell import Shell, until
from tests.cli.terminal import Terminal
from tests.postgres import Database


def test_top_shows_queues_and_pauses_and_resumes_by_a_key(
    outbox: Shell, database: Database
) -> None:
    def paused() -> list[tuple[str, ...]]:
        terminal.look_away()
        with database.admin_connect() as connection:
            return connection.execute("select queue from outbox.queue_pause").fetchall()

    with Terminal(outbox, "top", "--every-s", "0.2") as terminal:
        terminal.see(b"QUEUE")
        terminal.see(b"q leave")
        terminal.press(b"p")
        terminal.see(b"paused")
        (first,) = until(paused)
        terminal.press(b"\x1b[B")
        terminal.press(b"p")
        until(lambda: len(paused()) == 2)
        terminal.press(b"k")
        terminal.press(b"r")
        until(lambda: len(paused()) == 1)
        assert first not in paused()
        terminal.press(b"q")
        assert terminal.end()[0] == 0


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
