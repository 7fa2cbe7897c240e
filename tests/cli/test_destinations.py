"""`outbox destinations`: what the fleet keeps to, shown and set from a shell."""

from __future__ import annotations

from tests.cli.shell import Shell
from tests.postgres import Database

NAME = "host:hooks.example.com"


def test_a_destination_is_limited_shown_and_resumed(outbox: Shell, database: Database) -> None:
    assert outbox.run("destinations", "ls").code == 0
    limited = outbox.run("destinations", "limit", NAME, "--rate", "5", "--json")
    assert (limited.json["name"], limited.json["rate_per_s"]) == (NAME, 5)
    with database.admin_connect(autocommit=True) as admin:
        admin.execute("select outbox.pause_destination(%s, 600)", (NAME,))
    (row,) = outbox.run("destinations", "ls", "--json").json
    assert row["paused_until"] is not None
    assert NAME in outbox.run("destinations", "ls").out
    resumed = outbox.run("destinations", "resume", NAME, "--json").json
    assert (resumed["paused_until"], resumed["rate_per_s"]) == (None, 5)
    assert outbox.run("destinations", "limit", NAME).code == 0
    assert outbox.run("destinations", "ls", "--json").json == []


def test_what_cannot_be_a_destination_or_a_limit_is_refused_in_a_sentence(outbox: Shell) -> None:
    for name, rate, told in (
        ("hooks.example.com", "5", "must be"),
        (NAME, "0", "--rate"),
        (NAME, "nan", "--rate"),
    ):
        done = outbox.run("destinations", "limit", name, "--rate", rate)
        assert done.code == 2, done.err
        assert told in done.err
