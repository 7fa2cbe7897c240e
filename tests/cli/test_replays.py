"""Dead letters replayed from the command line."""

from __future__ import annotations

from tests.api.stage import FAIL
from tests.cli.shell import Shell
from tests.cli.test_commands import inbox_job, send
from tests.postgres import Database


def test_dead_letters_are_replayed_by_a_filter_with_a_plan_first(
    outbox: Shell, database: Database
) -> None:
    job_ids = send(outbox, inbox_job(), inbox_job())
    with database.admin_connect(autocommit=True) as admin:
        admin.execute(FAIL.encode())
        planned = outbox.run("dead-letters", "replay", "--queue", "inbox", "--dry-run")
        assert planned.code == 0
        assert "2 dead letters fit: 2 would be sent" in planned.err
        assert job_ids[0] in planned.out
        order = ("--error", "recipient.no_address", "--rate", "100", "--why", "mended")
        begun = outbox.run("dead-letters", "replay", *order, "--detach", "--json").json["run"]
        assert (begun["state"], begun["why"], begun["plan"]["would_send"]) == (
            "running",
            "mended",
            2,
        )
        # Both at once: this machine may be slow between two of its steps.
        admin.execute("update outbox.replay_run set stepped_at = now() - interval '1 s'")
        admin.execute("select outbox.step_replay()")
        followed = outbox.run("dead-letters", "follow", begun["run_id"], "--json").json
        assert (followed["state"], followed["replayed"]) == ("done", 2)
        slow = outbox.run("dead-letters", "replay", "--all", "--detach", "--json").json["run"]
    stopped = outbox.run("dead-letters", "stop", slow["run_id"], "--json").json
    assert stopped["state"] == "stopped"
    assert outbox.run("dead-letters", "stop", slow["run_id"]).code == 1
    runs = outbox.run("dead-letters", "runs", "--json").json
    assert [run["state"] for run in runs] == ["stopped", "done"]
    shown = outbox.run("audit", "replays", "--json").json
    assert {(row["job_id"], row["why"]) for row in shown} == {(j, "mended") for j in job_ids}


def test_a_replay_of_nothing_in_particular_is_refused(outbox: Shell) -> None:
    for arguments in (
        (),
        ("1", "--queue", "email"),
        ("--reason", "bored"),
        ("--all", "--rate", "0"),
    ):
        done = outbox.run("dead-letters", "replay", *arguments)
        assert done.code == 2, arguments
