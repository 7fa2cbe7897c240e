"""The commands that look and mend, against a database of the test's own."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
import typer

from outbox.embedded import SERVICE_ROLE, EmbeddedServer
from outbox.migrate import migrate
from outbox.sealing import Keyring, Sealed
from outbox.store.providers import open_credentials, place_of
from outbox_cli import doctor
from tests.cli.shell import COMMAND, Shell
from tests.postgres import RUN, Database, binaries_of

TOMORROW = (datetime.now(UTC) + timedelta(days=1)).isoformat()
EXAMPLES = Path(__file__).parents[2] / "examples"


def inbox_job(**fields: object) -> dict[str, object]:
    job: dict[str, object] = {
        "job_id": str(uuid.uuid4()),
        "channel": "inbox",
        "user_id": "ann",
        "content": "Hello",
        "data": {},
        "meta": {},
    }
    return job | fields


def send(shell: Shell, *jobs: dict[str, object], tenant: str = "default") -> list[str]:
    lines = "\n".join(json.dumps(job) for job in jobs)
    done = shell.run("send", "-", "--json", "--tenant", tenant, stdin=lines)
    assert done.code == 0, done.err
    job_ids: list[str] = done.json["job_ids"]
    return job_ids


def ids(shell: Shell, *arguments: str) -> list[str]:
    return [job["job_id"] for job in shell.run("jobs", "ls", "--json", *arguments).json]


# -- looking ---------------------------------------------------------------------------------


def test_every_list_of_an_empty_store_is_an_empty_json_list(outbox: Shell) -> None:
    for group in ("jobs", "dead-letters", "templates", "keys"):
        done = outbox.run(group, "ls", "--json")
        assert (done.code, done.json) == (0, []), group
    queues = {row["queue"] for row in outbox.run("queues", "ls", "--json").json}
    assert {"email", "inbox", "sms", "webhook"} <= queues


def test_settings_are_shown_with_their_source_and_without_their_secrets(shell: Shell) -> None:
    env = {"OUTBOX_ADMIN_KEY": "hunter2hunter2", "OUTBOX_PORT": "8123"}
    done = shell.run("config", "--json", env=env)
    shown = {row["name"]: row for row in done.json}
    assert shown["OUTBOX_PORT"] == {"name": "OUTBOX_PORT", "value": "8123", "source": "env"}
    assert shown["OUTBOX_HOST"]["source"] == "default"
    assert "hunter2" not in done.out
    assert "8123" in shell.run("config", env=env).out


def test_the_doctor_objects_to_a_server_that_forgets_and_says_what_to_do(outbox: Shell) -> None:
    done = outbox.run("doctor", "--json")
    states = {check["name"]: check["state"] for check in done.json}
    # The shared test server runs without fsync; nothing else is wrong with it.
    assert done.code == 1
    assert [name for name, state in states.items() if state == "fault"] == ["durability"]
    assert states["database"] == states["migrations"] == states["partitions"] == "ok"
    assert states["dispatchers"] == "warning"
    assert "outbox serve" in outbox.run("doctor").out


def test_the_doctor_names_what_due_jobs_wait_for(outbox: Shell, database: Database) -> None:
    send(outbox, inbox_job())
    limited = outbox.run("queues", "limit", "inbox", "--rate", "2", "--concurrency", "3", "--json")
    assert (limited.json["rate_per_s"], limited.json["concurrency_max"]) == (2, 3)
    with database.admin_connect(autocommit=True) as admin:
        admin.execute("update outbox.entry set available_at = now() - interval '5 min'")
        admin.execute(
            "insert into outbox.dispatcher (epoch, name, version, pid, handlers)"
            " values (7, 'd', '0', 1, '{channel:email}')"
        )
    found = {check["name"]: check for check in outbox.run("doctor", "--json").json}
    assert found["handlers"]["state"] == "fault"
    assert "channel inbox" in found["handlers"]["found"]
    assert "2 a second, 3 at once" in found["limits reached"]["found"]
    assert found["backlog"]["state"] == "ok", "more dispatchers would not help"


def test_the_doctor_names_everything_that_keeps_jobs_and_what_to_do(
    outbox: Shell, database: Database
) -> None:
    send(outbox, inbox_job())
    outbox.run("queues", "pause", "email")
    with database.admin_connect(autocommit=True) as admin:
        admin.execute("select outbox.hold_lane('default', 'sms', '', 'sms.auth', 'no login', 30)")
        admin.execute("select outbox.hold_lane('default', 'push', 'ambiguous', 'lost', 'x', null)")
        admin.execute(
            "insert into outbox.destination (name, opened_at, open_s, open_until) values"
            " ('host:broken.example', now(), 30, now() + interval '1 h')"
        )
        admin.execute("select outbox.pause_destination('host:busy.example', 600)")
        admin.execute("update outbox.entry set available_at = now() - interval '5 min'")
        checks = outbox.run("doctor", "--json").json
    said = [f"{c['name']}: {c['found']} → {c['advice']}" for c in checks if c["state"] != "ok"]
    for words in (
        "dispatchers: none is alive → Start",
        "backlog: the oldest due job waits",
        "paused: email → `outbox queues resume",
        "sms.auth no login → Mend",
        "(ambiguous) since",
        "→ Nobody tries these: `outbox jobs release`",
        "destination: host:broken.example has an open breaker",
        "destination: host:busy.example asked for a pause",
    ):
        assert any(words in line for line in said), (words, said)
    names = {check["name"] for check in checks}
    assert names >= {
        "database", "settings", "privileges", "clock", "autovacuum", "transactions", "partitions",
        "limits", "migrations",
    }  # fmt: skip


def test_a_limit_on_a_misspelt_queue_is_refused_on_the_command_line(outbox: Shell) -> None:
    done = outbox.run("queues", "limit", "nosuch", "--rate", "1")
    assert done.code == 2
    assert "nosuch has no handler here, and never had a job" in done.err


def test_limits_that_cannot_be_are_refused_on_the_command_line(outbox: Shell) -> None:
    for name, value in {"--rate": "-1", "--concurrency": "99999999999", "--weight": "0"}.items():
        done = outbox.run("queues", "limit", "inbox", name, value)
        assert (done.code, done.out) == (2, ""), name
        assert name in done.err
    done = outbox.run("queues", "limit", "inbox", "--burst", "5")
    assert done.code == 2
    assert "--burst needs a --rate" in done.err
    shown = outbox.run("queues", "lane", "inbox", "--json").json
    assert (shown["weight"], shown["rate_per_s"], shown["concurrency_max"]) == (1, None, None)


def test_audit_queries_are_listed_and_take_their_parameters(outbox: Shell) -> None:
    (job_id,) = send(outbox, inbox_job(user_id="zoe"))
    names = {query["name"] for query in outbox.run("audit", "--json").json}
    assert {"user_history", "failures", "unsent"} <= names
    done = outbox.run("audit", "user_history", "user_id=zoe", "--json")
    assert [row["job_id"] for row in done.json] == [job_id]
    wrong = outbox.run("audit", "user_history", "usr=zoe")
    assert wrong.code == 2
    assert "usr" in wrong.err
    for name, value in (
        ("failures", "days=x"),
        ("failures", f"days={2**31}"),
        ("job_history", "job_id=x"),
    ):
        wrong = outbox.run("audit", name, value)
        assert (wrong.code, value.partition("=")[0] in wrong.err) == (2, True), wrong.err
        assert "The database" not in wrong.err


# -- sending ---------------------------------------------------------------------------------


def test_a_job_that_was_sent_is_shown_with_its_history(outbox: Shell) -> None:
    (job_id,) = send(outbox, inbox_job(user_id="Нұржан"))
    shown = outbox.run("jobs", "show", job_id, "--json").json
    assert shown["status"] == "pending"
    assert shown["job"]["user_id"] == "Нұржан"
    assert [step["status"] for step in shown["history"]] == ["pending"]
    assert job_id in outbox.run("jobs", "show", job_id).out


def test_a_file_that_is_sent_twice_is_stored_once(outbox: Shell) -> None:
    path = outbox.folder / "jobs.json"
    path.write_text(json.dumps([inbox_job(), inbox_job()]))
    first = outbox.run("send", str(path), "--json").json
    again = outbox.run("send", str(path), "--json").json
    assert (first["new"], first["duplicate"]) == (2, 0)
    assert (again["new"], again["duplicate"]) == (0, 2)
    assert first["job_ids"] == again["job_ids"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "empty"),
        ("hello", "line 1"),
        ("{", "line 1"),
        ('{"job_id": 1}\n{"job_id":', "line 2"),
        ("[1, 2", "JSON"),
        ("\x00\x01", "line 1"),
        ("[]", "0 accepted"),
    ],
)
def test_garbage_is_told_in_a_sentence_and_stores_nothing(
    outbox: Shell, text: str, told: str
) -> None:
    done = outbox.run("send", "-", stdin=text)
    assert done.code == (0 if text == "[]" else 1)
    assert told in done.err
    assert ids(outbox) == []


def test_recipients_that_nest_too_deep_are_refused_in_words_that_fit(outbox: Shell) -> None:
    done = outbox.run("recipients", "push", "-", stdin="[" * 5000 + "]" * 5000)
    assert done.code == 1
    assert "too deep" in done.err
    assert "job" not in done.err


def test_a_faulty_job_is_named_by_its_place_in_the_file(outbox: Shell) -> None:
    bad = inbox_job(usr="typo", send_after="tomorrow")
    lines = "\n".join(json.dumps(job) for job in (inbox_job(), bad, inbox_job()))
    done = outbox.run("send", "-", stdin=lines)
    assert done.code == 1
    assert "job 2: /usr" in done.err
    assert "job 2: /send_after" in done.err
    assert ids(outbox) == []


def test_the_good_jobs_of_a_file_are_stored_where_that_is_asked_for(outbox: Shell) -> None:
    good = inbox_job()
    lines = "\n".join(
        (json.dumps(good), json.dumps(inbox_job(typo=1)), '{"data": {"x": "\\u0000"}}')
    )
    done = outbox.run("send", "-", "--skip-bad", "--json", stdin=lines)
    assert done.code == 1
    assert (done.json["new"], done.json["invalid"]) == (1, 2)
    assert [(f["index"], f["pointer"]) for f in done.json["faults"]] == [
        (1, "/typo"),
        (2, "/data/x"),
    ]
    assert ids(outbox) == [good["job_id"]]


def test_the_same_id_with_other_content_is_a_conflict(outbox: Shell) -> None:
    job = inbox_job()
    send(outbox, job)
    done = outbox.run("send", "-", stdin=json.dumps(job | {"content": "Bye"}))
    assert done.code == 1
    assert str(job["job_id"]) in done.err


def test_numbers_keep_every_digit_on_their_way_in(outbox: Shell, database: Database) -> None:
    exact = "12345678901234567890.1234567890123456789"
    text = json.dumps(inbox_job()).replace('"data": {}', f'"data": {{"n": {exact}}}')
    assert outbox.run("send", "-", stdin=text).code == 0
    with database.admin_connect() as admin:
        row = admin.execute("select job -> 'data' ->> 'n' from outbox.job").fetchone()
    assert row == (exact,)


# -- mending ---------------------------------------------------------------------------------


def test_a_waiting_job_is_cancelled_and_one_that_has_ended_is_not(outbox: Shell) -> None:
    first, second = send(outbox, inbox_job(), inbox_job(send_after=TOMORROW))
    done = outbox.run("jobs", "cancel", first, "--json")
    assert (done.code, done.json[0]["result"]) == (0, "cancelled")
    assert outbox.run("jobs", "cancel", first).code == 1
    assert outbox.run("jobs", "promote", second, "--json").json[0]["result"] == "promoted"
    unknown = outbox.run("jobs", "retry", str(uuid.uuid4()))
    assert unknown.code == 1
    assert "no job" in unknown.out


def test_a_campaign_is_cancelled_by_filter_after_a_dry_run(outbox: Shell) -> None:
    send(outbox, *(inbox_job(meta={"campaign_id": "bf"}) for _ in range(3)), inbox_job())
    dry = outbox.run("jobs", "cancel", "--campaign", "bf", "--dry-run", "--json").json
    assert dry == {"waiting": 3, "processing": 0, "dry_run": True}
    assert len(ids(outbox, "--status", "pending")) == 4
    done = outbox.run("jobs", "cancel", "--campaign", "bf", "--json").json
    assert done["waiting"] == 3
    assert len(ids(outbox, "--status", "cancelled")) == 3
    assert len(ids(outbox, "--status", "pending")) == 1


def test_a_drain_delivers_what_is_due_and_exits_0(outbox: Shell) -> None:
    job_ids = send(outbox, *(inbox_job() for _ in range(5)))
    later = send(outbox, inbox_job(send_after=TOMORROW))
    done = outbox.run("dispatcher", "--drain")
    assert done.code == 0, done.err
    assert sorted(ids(outbox, "--status", "sent")) == sorted(job_ids)
    assert ids(outbox, "--status", "scheduled") == later
    new = outbox.run("jobs", "resend", job_ids[0], "--json").json
    assert new["resend_of"] == job_ids[0]
    assert outbox.run("dispatcher", "--drain", "--processes", "2").code == 0
    assert new["job_id"] in ids(outbox, "--status", "sent")


def test_only_the_named_queues_are_drained(outbox: Shell) -> None:
    bulk, plain = send(outbox, inbox_job(queue="bulk"), inbox_job())
    assert outbox.run("dispatcher", "--drain", "--queues", "bulk").code == 0
    assert ids(outbox, "--status", "sent") == [bulk]
    assert ids(outbox, "--status", "pending") == [plain]


def test_a_paused_queue_is_drained_of_nothing_until_it_is_resumed(outbox: Shell) -> None:
    (job_id,) = send(outbox, inbox_job())
    paused = outbox.run("queues", "pause", "inbox", "--json")
    assert (paused.code, paused.json["unseen_by"]) == (0, 0)
    assert outbox.run("dispatcher", "--drain").code == 0
    assert ids(outbox, "--status", "pending") == [job_id]
    assert "paused" in outbox.run("queues", "ls").out
    assert outbox.run("queues", "resume", "inbox").code == 0
    assert outbox.run("dispatcher", "--drain").code == 0
    assert ids(outbox, "--status", "sent") == [job_id]


def test_a_queue_that_nobody_has_is_not_paused_and_the_others_are_named(outbox: Shell) -> None:
    done = outbox.run("queues", "pause", "emial")
    assert (done.code, done.out) == (1, "")
    assert "No queue is called 'emial'" in done.err
    assert "email" in done.err
    assert not [row for row in outbox.run("queues", "ls", "--json").json if row["paused"]]


def test_a_start_after_a_restore_pauses_every_queue_first(outbox: Shell) -> None:
    (job_id,) = send(outbox, inbox_job())
    assert outbox.run("dispatcher", "--drain", "--start-paused").code == 0
    assert ids(outbox, "--status", "pending") == [job_id]


def test_a_dead_letter_is_listed_shown_and_replayed(outbox: Shell) -> None:
    outbox.run("templates", "push", str(EXAMPLES / "templates"))
    outbox.run("recipients", "push", str(EXAMPLES / "recipients.json"))
    assert outbox.run("send", str(EXAMPLES / "welcome_without_address.json")).code == 0
    assert outbox.run("dispatcher", "--drain").code == 0
    (letter,) = outbox.run("dead-letters", "ls", "--json").json
    assert letter["error_message"] == "User has no email"
    assert (letter["attempts"], letter["reason"]) == (1, "permanent")
    shown = outbox.run("dead-letters", "show", str(letter["id"]), "--json").json
    assert shown["job"]["template_code"] == "welcome_email"
    job_id = shown["job"]["job_id"]
    assert outbox.run("dead-letters", "show", job_id, "--json").json == shown
    assert "dead letter" in outbox.run("jobs", "explain", job_id).out
    assert outbox.run("dead-letters", "replay", str(letter["id"])).code == 0
    assert outbox.run("jobs", "ls", "--json").json[0]["status"] == "pending"
    assert outbox.run("dead-letters", "replay", "999").code == 1
    too_big = outbox.run("dead-letters", "replay", "9" * 23)
    assert too_big.code == 2
    assert str(2**63 - 1) in too_big.err


def test_keys_are_made_listed_and_revoked_and_shown_once(outbox: Shell) -> None:
    scopes = ("--scope", "jobs:write", "--scope", "admin")
    made = outbox.run("keys", "create", "ci", "--tenant", "acme", *scopes, "--json").json
    assert made["key"].startswith("obx_")
    assert (made["tenant_id"], made["scopes"]) == ("acme", ["jobs:write", "admin"])
    listed = outbox.run("keys", "ls", "--json")
    assert made["key"] not in listed.out
    assert [key["name"] for key in listed.json] == ["ci"]
    assert outbox.run("keys", "revoke", made["key_id"]).code == 0
    assert outbox.run("keys", "ls", "--json").json[0]["revoked_at"] is not None
    assert outbox.run("keys", "create", "x", "--scope", "everything").code == 2


def test_templates_are_pushed_once_and_previewed(outbox: Shell) -> None:
    pushed = outbox.run("templates", "push", str(EXAMPLES / "templates"), "--json").json
    assert all(row["new_version"] for row in pushed)
    again = outbox.run("templates", "push", str(EXAMPLES / "templates"), "--json").json
    assert not any(row["new_version"] for row in again)
    data = json.dumps({"first_name": "Нуржан"})
    args = ("templates", "preview", "welcome_email", "email", "ru", "--data", "-")
    lacking = outbox.run(*args, stdin=data)
    assert lacking.code == 1
    assert "login_url" in lacking.err
    full = outbox.run(*args, stdin=json.dumps({"first_name": "Нуржан", "login_url": "u"}))
    assert full.code == 0
    assert "Здравствуйте, Нуржан!" in full.out


def test_a_broken_template_stores_none_of_its_folder(outbox: Shell) -> None:
    for code, text in (("good", "Hello"), ("bad", "{{ x")):
        place = outbox.folder / "t" / code / "email" / "en"
        place.mkdir(parents=True)
        (place / "text.txt").write_text(text)
    done = outbox.run("templates", "push", "t")
    assert done.code == 1
    assert "bad/email/en text line 1" in done.err
    (outbox.folder / "empty").mkdir()
    nothing = outbox.run("templates", "push", "empty", "--json")
    assert (nothing.code, nothing.out) == (1, "")
    assert "no template in empty" in nothing.err
    assert outbox.run("templates", "ls", "--json").json == []


# -- what cannot work ------------------------------------------------------------------------


def test_bad_settings_are_refused_in_sentences_all_at_once(shell: Shell) -> None:
    env = {"OUTBOX_PORT": "eighty", "OUTBOX_PROT": "1", "OUTBOX_AUTH": "off"}
    for command in (("serve",), ("jobs", "ls")):
        done = shell.run(*command, env=env | {"OUTBOX_HOST": "0.0.0.0"})
        assert done.code == 2, command
        assert "OUTBOX_PORT" in done.err
        assert "did you mean OUTBOX_PORT?" in done.err
        assert "loopback" in done.err
        assert done.out == ""


def test_a_wrong_command_line_is_exit_code_2(shell: Shell) -> None:
    for command in (
        ("nonsense",),
        ("jobs", "show", "no-uuid"),
        ("jobs", "ls", "--status", "snet"),
    ):
        assert shell.run(*command).code == 2, command


def test_a_database_that_is_away_is_exit_code_3_and_a_sentence(shell: Shell) -> None:
    shell.environ["OUTBOX_DATABASE_URL"] = "postgresql://me:hunter2@127.0.0.1:1/outbox"
    for command in (("jobs", "ls"), ("serve",), ("audit", "failures"), ("migrate",)):
        done = shell.run(*command)
        assert done.code == 3, (command, done.err)
        assert "hunter2" not in done.err + done.out
        assert done.err.count("\n") <= 2, done.err


def test_a_database_that_is_not_migrated_says_so_and_migrate_mends_it(
    shell: Shell, own_server: EmbeddedServer
) -> None:
    with psycopg.connect(own_server.admin_url, autocommit=True) as admin:
        admin.execute("create database fresh")
    shell.environ["OUTBOX_DATABASE_URL"] = own_server.service_url(database="fresh")
    for command in (("jobs", "ls"), ("serve",), ("doctor",)):
        done = shell.run(*command)
        assert done.code in (1, 3), (command, done.err)
        assert "outbox migrate" in done.err + done.out
    assert shell.run("migrate", "--check").code == 1
    refused = shell.run("migrate")
    assert refused.code == 1
    assert "--admin-url" in refused.err
    done = shell.run("migrate", "--admin-url", own_server.admin_url_of("fresh"))
    assert done.code == 0, done.err
    assert shell.run("migrate", "--check").code == 0
    assert ids(shell) == []


def test_a_command_that_only_reads_makes_no_database(shell: Shell) -> None:
    done = shell.run("jobs", "ls")
    assert done.code == 3
    assert "outbox serve" in done.err
    assert not (shell.folder / ".outbox").exists()


def test_the_schema_is_printed_without_a_database(shell: Shell) -> None:
    done = shell.run("migrate", "--sql")
    assert done.code == 0
    assert "create table outbox.job" in done.out


def test_credentials_are_put_under_a_new_key_and_the_old_one_can_go(
    outbox: Shell, database: Database
) -> None:
    provider_id = uuid.uuid4()
    sealed = Keyring("the-old-key-of-ours").seal(b'{"a":"b"}', place=place_of(provider_id))
    with psycopg.connect(database.admin_url) as admin:
        admin.execute(
            "insert into outbox.provider (provider_id, tenant_id, channel, kind, name,"
            " credentials, key_id) values (%s, 'acme', 'email', 'smtp', 'main', %s, %s)",
            (provider_id, sealed.content, sealed.key_id),
        )
    new = {"OUTBOX_SECRET_KEY": "the-new-key-of-ours"}
    unreadable = outbox.run("providers", "reencrypt", env=new)
    assert (unreadable.code, str(provider_id) in unreadable.err) == (1, True)
    both = {"OUTBOX_SECRET_KEY": "the-new-key-of-ours the-old-key-of-ours"}
    done = outbox.run("providers", "reencrypt", "--json", env=both)
    assert done.json["reencrypted"] == 1
    (row,) = outbox.run("providers", "ls", "--json", env=new).json
    assert row["key_id"] == done.json["key_id"] == Keyring("the-new-key-of-ours").newest
    assert "a" not in row
    with psycopg.connect(database.admin_url) as admin:
        found = admin.execute("select credentials, key_id from outbox.provider").fetchone()
    assert found is not None
    opened = open_credentials(
        Keyring("the-new-key-of-ours"), Sealed(found[1], bytes(found[0])), provider_id
    )
    assert opened == {"a": "b"}


def interrupted_while_loading(shell: Shell) -> tuple[int, str]:
    """Return a command's exit code and what it told when it got a SIGINT during its imports."""
    with subprocess.Popen(
        [sys.executable, "-X", "importtime", *COMMAND[1:], "config"],
        cwd=shell.folder,
        env=shell.environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as loading:
        assert loading.stderr is not None
        told = ""
        for line in loading.stderr:
            told += line
            if "typer" in line:
                loading.send_signal(signal.SIGINT)
                break
        told += loading.stderr.read()
        return loading.wait(), told


def test_ctrl_c_while_the_command_line_still_loads_ends_it_without_a_traceback(
    shell: Shell,
) -> None:
    # On a busy machine a command may be through before we have read that it loads: again then.
    for _ in range(10):
        code, told = interrupted_while_loading(shell)
        if code != 0:
            break
    assert code == -signal.SIGINT
    assert "Traceback" not in told
    assert "KeyboardInterrupt" not in told


def test_the_doctor_names_what_keeps_wal_and_dead_rows_back_though_no_session_shows(
    pytestconfig: pytest.Config,
    postgres_version: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    binaries = binaries_of(postgres_version)
    if binaries is None:
        pytest.skip(f"no binaries of Postgres {postgres_version} on this machine")
    settings = {"wal_level": "logical", "max_prepared_transactions": "5"}
    with (
        pytestconfig.stash[RUN].data_dir() as data_dir,
        EmbeddedServer.acquire(data_dir, binaries=binaries, settings=settings) as server,
    ):
        migrate(server.admin_url, service_role=SERVICE_ROLE)
        monkeypatch.setenv("OUTBOX_DATABASE_URL", server.url)

        def kept_back() -> list[tuple[str, str, str]]:
            with contextlib.suppress(typer.Exit):
                doctor.doctor(json=True)
            return [
                (check["state"], check["found"], check["advice"])
                for check in json.loads(capsys.readouterr().out)
                if check["name"] in ("replication slots", "prepared transactions")
            ]

        assert [state for state, *_ in kept_back()] == ["ok", "ok"]
        with psycopg.connect(server.admin_url, autocommit=True) as admin:
            admin.execute("select pg_create_physical_replication_slot('old_standby', true)")
            admin.execute("select pg_create_logical_replication_slot('cdc', 'pgoutput')")
            admin.execute("begin; create table forgotten (); prepare transaction 'it''s mine'")
            # A two-phase commit that is under way is nobody's mistake.
            assert [state for state, *_ in kept_back()] == ["warning", "warning", "ok"]
            monkeypatch.setattr(doctor, "PREPARED_S_MAX", 0.0)
            *slots, prepared = kept_back()
            found = {name: words for _, said, words in slots for name in [said.split()[0]]}
            assert set(found) == {"old_standby", "cdc"}
            assert "pg_drop_replication_slot('cdc')" in found["cdc"]
            assert all(
                "nobody reads it) keeps" in said and "of WAL" in said for _, said, _ in slots
            )
            assert prepared[1].startswith("'it''s mine' of ")
            assert "rollback prepared 'it''s mine'" in prepared[2]
            # What it advises does it.
            admin.execute("rollback prepared 'it''s mine'")
            for name in found:
                admin.execute("select pg_drop_replication_slot(%s)", (name,))
        assert [state for state, *_ in kept_back()] == ["ok", "ok"]
