"""What commands change is written down: who, why, before and after; and what was refused."""

from __future__ import annotations

import getpass
import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import typer

from outbox.embedded import EmbeddedServer
from outbox_cli import commands
from outbox_cli.app import app
from tests.cli.shell import Shell
from tests.cli.test_hard_times import run_all
from tests.postgres import Database

WHO = f"cli:{getpass.getuser()}"
PASSWORD = "hunter2-of-ours"
DAILY = {"trigger": {"every_s": 60}, "clean": {"queue": "email", "status": "sent", "keep_last": 1}}


def logged(outbox: Shell) -> list[tuple[str, str, dict[str, object]]]:
    rows = outbox.run("log", "--json").json
    return [(row["actor"], row["action"], row["detail"]) for row in reversed(rows)]


def template(folder: Path, text: str) -> None:
    place = folder / "t" / "hi" / "inbox" / "en"
    place.mkdir(parents=True, exist_ok=True)
    (place / "text.txt").write_text(text)


@pytest.mark.timeout(400)
def test_every_command_that_changes_something_is_written_down_once_with_who_and_why(
    outbox: Shell, database: Database
) -> None:
    template(outbox.folder, "Hi {{ name }}")
    (outbox.folder / "daily.json").write_text(json.dumps(DAILY))
    (outbox.folder / "ann.json").write_text('{"user_id": "ann", "email": "ann@example.com"}')
    job = {"channel": "inbox", "user_id": "ann", "content": "Hi", "data": {}, "meta": {}}
    job |= {"send_after": "2027-01-01T00:00:00Z", "created_at": "2026-01-01T00:00:00Z"}
    made = [str(uuid.uuid4()) for _ in range(2)]
    jobs = [json.dumps(job | {"job_id": job_id}) for job_id in made]
    (outbox.folder / "jobs.json").write_text("\n".join(jobs))
    commands = {
        "send jobs.json": [],
        "templates push t": ["template.push"],
        "recipients push ann.json": ["recipient.push"],
        "keys create ci": ["key.create"],
        "schedules put daily daily.json": ["schedule.put"],
        "schedules pause daily": ["schedule.pause"],
        "schedules resume daily": ["schedule.resume"],
        "schedules delete daily": ["schedule.delete"],
        "queues pause inbox": ["pause"],
        "queues resume inbox": ["resume"],
        "queues limit inbox --rate 5": ["limit"],
        "queues clean inbox --status sent --older-than-s 0": ["clean"],
        "destinations limit host:example.com --rate 5": ["limit"],
        f"jobs promote {made[0]}": ["promote"],
        f"jobs cancel {made[0]}": ["cancel"],
        f"jobs resend {made[0]}": ["resend"],
        "jobs cancel --queue inbox": ["cancel", "cancel"],  # a line a job
    }
    why = {name: ["--why", "asked by Bob"] if said else [] for name, said in commands.items()}
    for name, (code, _, err) in run_all(outbox, why, "in turn").items():
        assert code == 0, (name, err)
    with database.admin_connect() as admin:
        rows = admin.execute(
            "select actor, action, detail ->> 'reason', detail::text"
            " from outbox.operator_action order by action_id"
        ).fetchall()
    for _, action, _, text in rows:
        told = json.loads(text).get("changes", [json.loads(text)])
        assert all("before" in one and "after" in one for one in told), (action, text)
    expected = [action for said in commands.values() for action in said]
    assert [row[:3] for row in rows] == [(WHO, action, "asked by Bob") for action in expected]
    assert "ann@example.com" not in str(rows)


LOOKING = "changes nothing"
NO_LINE = {
    **dict.fromkeys(
        "audit|config|dead-letters follow|dead-letters ls|dead-letters runs|"
        "dead-letters show|destinations ls|doctor|jobs explain|jobs ls|jobs show|keys ls|log|"
        "providers ls|queues lane|queues ls|schedules ls|schedules preview|"
        "templates ls|templates preview".split("|"),
        LOOKING,
    ),
    **dict.fromkeys(("api", "dispatcher", "serve"), "a process: what it does tells of itself"),
    "demo": "a database of its own",
    "bench": "databases of its own",
    "send": "a producer's: the jobs are their own record",
    "top": "its keys pause and resume as `queues` does",
}
"""Commands that leave no line, and why."""
TOLD = frozenset(
    "dead-letters replay|dead-letters stop|destinations limit|destinations resume|jobs cancel|"
    "jobs promote|jobs release|jobs resend|jobs retry|keys create|keys revoke|migrate|"
    "providers reencrypt|queues clean|queues limit|queues pause|queues resume|recipients push|"
    "schedules delete|schedules pause|schedules put|schedules resume|templates push".split("|")
)
"""Those that do, with before and after: by the functions and triggers that the API calls too."""


def leaves(command: Any, name: str = "") -> Iterator[str]:
    inner = getattr(command, "commands", None)
    if inner is None or name == "bench":
        yield name
        return
    for each, found in inner.items():
        yield from leaves(found, f"{name} {each}".strip())


def test_every_command_is_in_the_log_or_says_why_not() -> None:
    commands.add_to(app)
    assert set(leaves(typer.main.get_command(app))) == TOLD | set(NO_LINE)


def test_what_was_before_and_after_is_told_and_no_secret_is(
    outbox: Shell, database: Database
) -> None:
    template(outbox.folder, "Hi")
    outbox.run("templates", "push", "t")
    template(outbox.folder, "Bye")
    outbox.run("templates", "push", "t")
    key = outbox.run("keys", "create", "ci", "--json").json
    outbox.run("keys", "revoke", key["key_id"])
    outbox.run("queues", "limit", "inbox", "--rate", "5")
    outbox.run("queues", "limit", "inbox", "--rate", "7")
    outbox.run("queues", "pause", "inbox")
    first, second, made, revoked, _, limit, pause = [detail for *_, detail in logged(outbox)]
    assert first["before"] is None
    assert (second["before"], second["after"]["version"]) == ({"version": 1}, 2)  # type: ignore[index]
    assert made["after"]["scopes"] == ["jobs:write"]  # type: ignore[index]
    assert revoked["before"] == {"revoked_at": None}
    assert limit["before"]["rate_per_s"] == 5  # type: ignore[index]
    assert limit["after"]["rate_per_s"] == 7  # type: ignore[index]
    assert (pause["before"], pause["after"]) == ({"paused": False}, {"paused": True})
    assert key["key"] not in str(logged(outbox))


def test_what_a_command_was_refused_is_written_down_with_its_sentence(outbox: Shell) -> None:
    template(outbox.folder, "Hi {{ name")
    unknown = str(uuid.uuid4())
    commands: dict[tuple[str, ...], tuple[str, str]] = {
        ("templates", "push", "t"): ("template.push", "Nothing was stored"),
        ("keys", "revoke", unknown): ("key.revoke", "no key"),
        ("schedules", "pause", "daily"): ("schedule.pause", "no schedule"),
        ("queues", "pause", "emial"): ("pause", "No queue"),
        ("queues", "limit", "inbox", "--burst", "5"): ("limit", "--rate"),
        ("jobs", "retry", unknown): ("retry", "no job"),
        ("jobs", "resend", unknown): ("resend", "no job"),
        ("dead-letters", "replay", "7"): ("replay", "unknown"),
        ("dead-letters", "stop", unknown): ("replay.stop", "no replay"),
    }
    for command, (action, because) in commands.items():
        before = len(logged(outbox))
        assert outbox.run(*command, "--why", "x").code in (1, 2), command
        (row,) = logged(outbox)[before:]
        assert row[:2] == (WHO, action), command
        assert because.lower() in str(row[2]["because"]).lower(), (command, row)
        assert row[2]["refused"] == 1, command
    assert len(outbox.run("log", "--refused", "--json").json) == len(commands)


def test_a_migration_is_written_down_with_the_revisions_before_and_after(
    shell: Shell, own_server: EmbeddedServer
) -> None:
    with psycopg.connect(own_server.admin_url, autocommit=True) as admin:
        admin.execute("create database told")
    shell.environ["OUTBOX_DATABASE_URL"] = own_server.service_url(database="told")
    admin_url = own_server.admin_url_of("told")
    for _ in range(2):  # what is up to date already is no action
        assert shell.run("migrate", "--admin-url", admin_url).code == 0
    (row,) = logged(shell)
    assert row[:2] == (WHO, "migrate")
    assert row[2]["before"] == {"revisions": []}
    assert row[2]["after"] == {"revisions": ["0001_post"]}


@pytest.mark.parametrize("table", ["provider", "endpoint"])
def test_of_addresses_and_credentials_nothing_that_lets_anybody_in_is_told(
    database: Database, table: str
) -> None:
    """By whatever door a row comes: whoever writes the line need not think of it."""
    insert = {
        "provider": "insert into outbox.provider (tenant_id, channel, kind, name, config,"
        " credentials, key_id) values ('acme', 'email', 'smtp', 'x', jsonb_build_object("
        f"'smtp_url', 'smtp://me:{PASSWORD}@host'), '{PASSWORD}', 'k')",
        "endpoint": "insert into outbox.endpoint (tenant_id, url, secrets, key_id) values ('acme',"
        f" 'https://me:{PASSWORD}@hooks.example.com/{PASSWORD}?t={PASSWORD}', '{PASSWORD}', 'k')",
    }[table]
    with psycopg.connect(database.admin_url) as admin:
        admin.execute(insert.encode())
        admin.execute(f"update outbox.{table} set enabled = false".encode())
        row = admin.execute(
            "insert into outbox.operator_action (actor, action, tenant_id)"
            " values ('ann', 'x', 'acme') returning detail"
        ).fetchone()
    assert row is not None
    first, second = row[0]["changes"]
    assert PASSWORD not in str(row)
    assert ("hooks.example.com" in str(first)) == (table == "endpoint")
    assert (second["before"], second["after"]) == ({"enabled": True}, {"enabled": False})
