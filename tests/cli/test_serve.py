"""`outbox serve` and what it is made of, as processes that are killed in every way."""

from __future__ import annotations

import functools
import os
import signal
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
import psycopg
import pytest

from outbox.embedded import EmbeddedServer
from tests.cli.shell import Shell, free_port, gone, until

JOBS = 300


@pytest.fixture
def service(shell: Shell) -> Shell:
    """A shell for `serve` on its own embedded server, without keys."""
    shell.environ |= {
        "OUTBOX_DATA_DIR": str(shell.folder / "data"),
        "OUTBOX_PORT": str(free_port()),
        "OUTBOX_AUTH": "off",
        "OUTBOX_DRAIN_S": "5",
    }
    return shell


@pytest.fixture
def api(service: Shell) -> Iterator[httpx.Client]:
    url = f"http://127.0.0.1:{service.environ['OUTBOX_PORT']}/api/v1"
    with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
        yield client


def inbox_job() -> dict[str, object]:
    return {
        "job_id": str(uuid.uuid4()),
        "channel": "inbox",
        "user_id": "ann",
        "content": "Hello",
        "data": {},
        "meta": {},
    }


def post(api: httpx.Client, count: int = JOBS) -> list[str]:
    """Hand in jobs; once this has returned they are acknowledged."""
    jobs = [inbox_job() for _ in range(count)]
    answer = api.post("/jobs/batch", json=jobs)
    assert answer.status_code == 202, answer.text
    return [str(job["job_id"]) for job in jobs]


def delivered(folder: Path) -> list[tuple[str, int]]:
    """Return each job that was sent, and how often its inbox has it."""
    with EmbeddedServer.acquire(folder / "data") as server:
        with psycopg.connect(server.admin_url) as admin:
            return admin.execute(
                "select n.job_id::text, count(m.message_id)::int from outbox.notification as n"
                " left join outbox.inbox_message as m on m.id = n.id"
                " where n.status = 'sent' group by n.job_id"
            ).fetchall()


def until_sent(service: Shell, job_ids: list[str]) -> None:
    """Wait until each job was sent, and see that each was put into the inbox once."""
    rows = until(lambda: [r for r in [delivered(service.folder)] if len(r) == len(job_ids)])[0]
    assert sorted(rows) == sorted((job_id, 1) for job_id in job_ids)


def test_one_line_says_ready_and_a_sigterm_ends_it_all_with_0(
    service: Shell, api: httpx.Client
) -> None:
    serving = service.start("serve")
    url = serving.ready()
    assert url == f"http://127.0.0.1:{service.environ['OUTBOX_PORT']}"
    assert httpx.get(f"{url}/health/ready", trust_env=False).status_code == 200
    answer = api.post("/jobs", json=inbox_job(), headers={"Prefer": "wait=20"})
    assert answer.json()["status"] == "sent", answer.text
    children = serving.children()
    assert set(children) == {"api-1", "dispatcher-1"}
    assert serving.stop() == 0
    assert serving.rest() == ""
    assert all(gone(pid) for pid in children.values())
    # The last one to leave has stopped the embedded server.
    assert not (service.folder / "data" / "postgres" / "data" / "postmaster.pid").exists()


def test_a_killed_dispatcher_is_started_again_and_nothing_is_lost_or_doubled(
    service: Shell, api: httpx.Client
) -> None:
    serving = service.start("serve")
    serving.ready()
    first = serving.children()["dispatcher-1"]
    job_ids = post(api)
    os.kill(first, signal.SIGKILL)
    job_ids += post(api)
    until_sent(service, job_ids)
    (died,) = serving.events("a process died; starting it again")
    assert (died["name"], died["how"]) == ("dispatcher-1", "SIGKILL")
    assert serving.children()["dispatcher-1"] != first
    assert serving.stop() == 0


def test_a_killed_api_is_started_again_on_the_same_port(service: Shell, api: httpx.Client) -> None:
    serving = service.start("serve")
    serving.ready()
    os.kill(serving.children()["api-1"], signal.SIGKILL)
    until(lambda: serving.events("ready again"))
    until_sent(service, post(api, 3))
    assert serving.stop() == 0


def test_after_a_kill_of_everything_a_new_start_delivers_what_was_acknowledged(
    service: Shell, api: httpx.Client
) -> None:
    serving = service.start("serve")
    serving.ready()
    job_ids = post(api)
    serving.kill_all()
    with (service.folder / "data" / "postgres" / "data" / "postmaster.pid").open() as file:
        os.kill(int(file.readline()), signal.SIGKILL)
    again = service.start("serve")
    again.ready()
    until_sent(service, job_ids)
    assert again.stop() == 0


def test_children_end_with_a_parent_that_was_killed(service: Shell) -> None:
    serving = service.start("serve")
    serving.ready()
    children = serving.children()
    serving.process.send_signal(signal.SIGKILL)
    until(lambda: all(gone(pid) for pid in children.values()))
    pid_file = service.folder / "data" / "postgres" / "data" / "postmaster.pid"
    until(lambda: not pid_file.exists())


def test_a_killed_embedded_postgres_is_started_again(service: Shell, api: httpx.Client) -> None:
    serving = service.start("serve")
    serving.ready()
    job_ids = post(api, 50)
    with (service.folder / "data" / "postgres" / "data" / "postmaster.pid").open() as file:
        os.kill(int(file.readline()), signal.SIGKILL)
    until(lambda: serving.events("the embedded Postgres is gone; starting it again"))
    until(lambda: _ready(api))
    until_sent(service, job_ids + post(api, 50))
    assert serving.stop() == 0


def test_a_taken_port_is_refused_before_anything_is_started(service: Shell) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = service.run("serve", env={"OUTBOX_PORT": port})
    assert done.code == 2
    assert port in done.err
    assert not (service.folder / "data").exists()


def test_the_first_start_says_how_to_make_a_key_and_the_admin_key_works(service: Shell) -> None:
    serving = service.start("serve", env={"OUTBOX_AUTH": "on"})
    url = serving.ready()
    assert "outbox keys create" in serving.log.read_text()
    made = service.run("keys", "create", "me", "--scope", "jobs:write", "--json").json["key"]
    send = ("send", "-", "--url", url, "--json")
    refused = service.run(*send, stdin='{"channel": "inbox"}')
    assert refused.code == 1
    assert "401" in refused.err
    faulty = service.run(*send, "--key", made, stdin='{"channel": "inbox"}')
    assert faulty.code == 1
    assert "job 1: /" in faulty.err
    lines = '{"channel": "inbox", "user_id": "a", "content": "x", "data": {}, "meta": {}}\n' * 3
    done = service.run(*send, "--key", made, stdin=lines)
    assert (done.code, done.json["new"]) == (0, 3), done.err
    assert serving.stop() == 0

    key = "an-admin-key-of-ours"
    with_key = service.start("serve", env={"OUTBOX_AUTH": "on", "OUTBOX_ADMIN_KEY": key})
    url = with_key.ready()
    assert "outbox keys create" not in with_key.log.read_text()
    listed = httpx.get(
        f"{url}/api/v1/jobs", headers={"Authorization": f"Bearer {key}"}, trust_env=False
    )
    assert len(listed.json()["items"]) == 3
    assert with_key.stop() == 0


def test_dispatchers_have_health_and_figures_on_ports_of_their_own(
    service: Shell,
) -> None:
    port = free_port()
    assert service.run("migrate").code == 0
    running = service.start(
        "dispatcher", "--processes", "2", env={"OUTBOX_METRICS_PORT": str(port)}
    )
    for number in (0, 1):
        url = f"http://127.0.0.1:{port + number}"
        until(functools.partial(_answers, f"{url}/health/ready"))
        assert _answers(f"{url}/health/live")
        text = httpx.get(f"{url}/metrics", trust_env=False).text
        assert "outbox_dispatcher_ready 1\n" in text
        assert "outbox_dispatcher_running 0\n" in text
    assert running.stop() == 0


def test_a_broken_plugin_setting_stops_the_start_with_its_sentence(service: Shell) -> None:
    done = service.run("serve", env={"OUTBOX_MAIL_FROM": "nobody at all"})
    assert done.code == 2
    assert "OUTBOX_MAIL_FROM" in done.err


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


def _ready(api: httpx.Client) -> bool:
    return _answers(str(api.base_url).removesuffix("/api/v1/") + "/health/ready")


def test_several_api_processes_and_dispatchers_share_the_work(
    service: Shell, api: httpx.Client
) -> None:
    serving = service.start("serve", "--processes", "2", env={"OUTBOX_API_WORKERS": "2"})
    serving.ready()
    assert set(serving.children()) == {"api-1", "api-2", "dispatcher-1", "dispatcher-2"}
    until_sent(service, post(api, 100))
    assert serving.stop() == 0
