"""Every command in hard times: a sentence on stderr, an exit code for scripts, no traceback."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
import typer
from typer.main import get_command

from outbox_cli import commands
from tests.cli.shell import Shell
from tests.postgres import Database

pytestmark = pytest.mark.timeout(400)
"""Some forty processes each; a machine may be busy."""

ID = str(uuid.uuid4())
NEEDS: dict[str, list[str]] = {
    "jobs ls": [],
    "jobs show": [ID],
    "jobs explain": [ID],
    "jobs cancel": [ID],
    "jobs retry": [ID],
    "jobs promote": [ID],
    "jobs release": [ID],
    "jobs resend": [ID],
    "dead-letters ls": [],
    "dead-letters show": ["7"],
    "dead-letters replay": ["--all"],
    "dead-letters runs": [],
    "dead-letters follow": [ID],
    "dead-letters stop": [ID],
    "queues ls": [],
    "queues pause": ["email"],
    "queues resume": ["email"],
    "queues clean": ["email", "--status", "sent", "--older-than-s", "0"],
    "queues lane": ["email"],
    "queues limit": ["email"],
    "schedules ls": [],
    "schedules put": ["daily", "daily.json"],
    "schedules delete": ["daily"],
    "schedules pause": ["daily"],
    "schedules resume": ["daily"],
    "destinations ls": [],
    "destinations limit": ["host:example.com"],
    "destinations resume": ["host:example.com"],
    "templates push": ["t"],
    "templates ls": [],
    "templates preview": ["hi", "inbox", "en"],
    "recipients push": ["person.json"],
    "keys create": ["ci"],
    "keys ls": [],
    "keys revoke": [ID],
    "providers ls": [],
    "providers reencrypt": [],
    "send": ["job.json"],
    "top": [],
    "audit": ["failures"],
    "log": [],
    "doctor": [],
    "migrate": ["--check"],
}
"""What talks to the database, with arguments that are fine."""
STAYS = {"demo", "serve", "api", "dispatcher"}
"""Processes that stay: tests/cli/test_serve.py and test_demo.py."""
ALONE = {"config", "schedules preview"}
"""What needs no database; and all of `bench`, which has its own."""


def every_command() -> list[str]:
    app = typer.Typer()
    commands.add_to(app)
    found = []
    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]
        inner = getattr(command, "commands", None)
        found += [name] if inner is None else [f"{name} {each}" for each in inner]
    return found


@pytest.fixture
def folder(shell: Shell) -> Path:
    """A shell's folder with all files that the commands name."""
    place = shell.folder / "t" / "hi" / "inbox" / "en"
    place.mkdir(parents=True)
    (place / "text.txt").write_text("Hi")
    job = {"channel": "inbox", "user_id": "ann", "content": "Hi", "data": {}, "meta": {}}
    (shell.folder / "job.json").write_text(
        json.dumps(job | {"created_at": "2026-01-01T00:00:00Z"})
    )
    (shell.folder / "person.json").write_text('{"user_id": "ann"}')
    daily = {
        "trigger": {"every_s": 60},
        "clean": {"queue": "email", "status": "sent", "keep_last": 1},
    }
    (shell.folder / "daily.json").write_text(json.dumps(daily))
    shell.environ["OUTBOX_SECRET_KEY"] = "a-key-of-the-operator"
    return shell.folder


def run_all(
    shell: Shell, wanted: dict[str, list[str]], how: str = ""
) -> dict[str, tuple[int, str, str]]:
    """Run them all as scripts do; return (exit code, stdout, stderr) of each."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "tests.cli.forked"],
        cwd=shell.folder,
        env=shell.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        input=json.dumps([how, [[*name.split(), *given] for name, given in wanted.items()]]),
        capture_output=True,
        text=True,
        timeout=380,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    results = dict(zip(wanted, json.loads(done.stdout), strict=True))
    for name, (_, out, err) in results.items():
        assert "Traceback" not in out + err, (name, err)
        assert "fault of Outbox's own" not in err, (name, err)
        assert "hunter2" not in out + err, name
    return results


def is_a_sentence(err: str) -> bool:
    """One of ours, with no more than a list of faults below."""
    first, *rest = err.splitlines()
    return first.startswith("outbox: ") and all(line.startswith("  ") for line in rest)


def test_the_table_has_every_command() -> None:
    named = {name for name in every_command() if not name.startswith("bench ")}
    assert named == set(NEEDS) | STAYS | ALONE


@pytest.mark.usefixtures("folder")
def test_with_the_database_away_every_command_says_so_and_ends_with_3(shell: Shell) -> None:
    shell.environ["OUTBOX_DATABASE_URL"] = "postgresql://me:hunter2@127.0.0.1:1/outbox"
    for name, (code, out, err) in run_all(shell, NEEDS).items():
        assert code == 3, (name, code, err)
        if name != "doctor":  # its finding is its output
            assert out == "", name
            assert is_a_sentence(err), (name, err)


@pytest.mark.usefixtures("folder")
def test_a_login_that_is_in_no_role_is_told_what_to_run(shell: Shell, database: Database) -> None:
    with database.admin_connect(autocommit=True) as admin:
        role = f"nobody_{uuid.uuid4().hex[:8]}"
        admin.execute(f"create role {role} login password 'hunter2hunter2'".encode())
    try:
        at = database.url.partition("@")[2]
        shell.environ["OUTBOX_DATABASE_URL"] = f"postgresql://{role}:hunter2hunter2@{at}"
        for name, (code, out, err) in run_all(shell, NEEDS).items():
            assert code in (1, 3), (name, code, err)
            assert "migrat" in out + err, (name, err)
            if name != "doctor":
                assert is_a_sentence(err), (name, err)
    finally:
        with database.admin_connect(autocommit=True) as admin:
            admin.execute(f"drop role {role}".encode())


@pytest.mark.usefixtures("folder")
def test_an_option_that_there_is_not_is_exit_code_2_for_every_command(shell: Shell) -> None:
    wrong = {name: ["--nonsense"] for name in every_command()}
    for name, (code, out, err) in run_all(shell, wrong).items():
        assert (code, out) == (2, ""), name
        assert "--nonsense" in err, name


@pytest.mark.usefixtures("folder")
def test_ctrl_c_ends_every_command_with_130_and_no_complaint(shell: Shell) -> None:
    for name, (code, out, err) in run_all(shell, NEEDS, "interrupt").items():
        assert (code, out, err) == (130, "", ""), (name, code, err)


@pytest.mark.usefixtures("folder")
def test_a_reader_that_has_gone_ends_no_command_in_a_complaint(
    shell: Shell, database: Database
) -> None:
    """As in `outbox jobs ls | head -0`. What was asked for is done all the same."""
    shell.environ["OUTBOX_DATABASE_URL"] = database.url
    quiet = {name: given for name, given in NEEDS.items() if name != "dead-letters replay"}
    for json_too in ([], ["--json"]):
        wanted = {
            name: [*given, *json_too]
            for name, given in quiet.items()
            if not json_too or name != "migrate"
        }
        for name, (code, _, err) in run_all(shell, wanted, "deaf").items():
            assert code in (0, 1), (name, code, err)
            assert "pipe" not in err.lower(), (name, err)


def test_with_stdout_closed_a_command_says_so_and_does_nothing(outbox: Shell) -> None:
    for command in (("--help",), ("config",), ("jobs", "ls"), ("keys", "create", "ci")):
        done = outbox.run(*command, redirect=">&-")
        assert (done.code, done.out) == (1, ""), command
        assert is_a_sentence(done.err), done.err
        assert "stdout is closed" in done.err
    assert outbox.run("keys", "ls", "--json", redirect="2>&-").json == []
    assert "the file is empty" in outbox.run("send", "-", redirect="<&-").err


def test_an_answer_that_cannot_be_written_is_told_and_no_key_is_made_unseen(
    outbox: Shell,
) -> None:
    for command in (("--help",), ("config", "--json"), ("queues", "ls", "--json"), ("config",)):
        done = outbox.run(*command, redirect=">/dev/full")
        assert done.code == 1, command
        assert is_a_sentence(done.err), done.err
        assert "No space left" in done.err, done.err
    for redirect in (">/dev/full", "| exec true"):
        done = outbox.run("keys", "create", "ci", redirect=redirect)
        assert is_a_sentence(done.err), done.err
        assert "was not made" in done.err
    assert outbox.run("keys", "ls", "--json").json == []
    assert [row["action"] for row in outbox.run("log", "--json").json] == ["key.create"] * 2


def test_everything_that_lists_or_shows_takes_json() -> None:
    app = typer.Typer()
    commands.add_to(app)
    root = get_command(app)
    without = {"serve", "api", "dispatcher", "migrate"}
    for path in every_command():
        command = root
        for part in path.split():
            command = command.commands[part]  # type: ignore[attr-defined]
        options = {option for parameter in command.params for option in parameter.opts}
        assert ("--json" in options) == (path not in without), path
