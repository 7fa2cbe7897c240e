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

pytestmark = pytest.mark.timeout(240)  # many processes, on a machine that may be busy


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
    # A database that is slow to let the first in is a 503, and may be asked again.
    until(lambda: api.post("/jobs/batch", json=jobs).status_code == 202)
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


def test_killed_children_are_started_again_and_nothing_is_lost_or_doubled(
    service: Shell, api: httpx.Client
) -> None:
    key = "an-admin-key-of-ours"
    settings = {"OUTBOX_API_WORKERS": "2", "OUTBOX_AUTH": "on", "OUTBOX_ADMIN_KEY": key}
    serving = service.start("serve", "--processes", "2", env=settings)
    serving.ready()
    assert "outbox keys create" not in serving.log.read_text()
    first = serving.children()
    assert set(first) == {"api-1", "api-2", "dispatcher-1", "dispatcher-2"}
    assert api.get("/jobs").status_code == 401
    api.headers["Authorization"] = f"Bearer {key}"
    job_ids = post(api)
    os.kill(first["dispatcher-1"], signal.SIGKILL)
    job_ids += post(api)
    os.kill(first["api-1"], signal.SIGKILL)
    os.kill(first["dispatcher-2"], signal.SIGKILL)
    until(lambda: len(serving.events("ready again")) == 3)
    died = serving.events("a process died; starting it again")
    assert {line["name"] for line in died} == {"api-1", "dispatcher-1", "dispatcher-2"}
    assert {line["how"] for line in died} == {"SIGKILL"}
    job_ids += post(api, 3)
    until_sent(service, job_ids)
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


def test_the_first_start_says_how_to_make_a_key_which_then_works(service: Shell) -> None:
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
