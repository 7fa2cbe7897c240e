"""An API that is told to stop: first nobody should send more, then it ends."""

from __future__ import annotations

import signal
import socket
from time import monotonic

import httpx

from tests.cli.shell import Shell, free_port, until
from tests.postgres import Database

LEAVE_S = 5.0
AT_ONCE_S = 8.0
"""What a slow machine needs to end a process; a stream that nobody ends lasts for minutes."""
JOB = {"channel": "inbox", "user_id": "ann", "content": "Hello", "data": {}, "meta": {}}


def test_an_api_is_not_ready_after_a_sigterm_and_answers_on_until_it_leaves(
    shell: Shell, database: Database
) -> None:
    port = free_port()
    shell.environ |= {
        "OUTBOX_DATABASE_URL": database.url,
        "OUTBOX_PORT": str(port),
        "OUTBOX_AUTH": "off",
        "OUTBOX_LEAVE_S": str(LEAVE_S),
    }
    serving = shell.start("api")
    serving.ready()
    kept = socket.create_connection(("127.0.0.1", port), timeout=20)
    assert "connection: close" not in _asked(kept)
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
        assert client.get("/health/ready").status_code == 200
        told_at = monotonic()
        serving.process.send_signal(signal.SIGTERM)
        until(lambda: client.get("/health/ready").status_code == 503 or None, within_s=LEAVE_S)
        assert client.get("/health/live").status_code == 200
        # Who keeps a connection open is sent away with the next answer, and the others go on.
        assert "connection: close" in _asked(kept)
        assert kept.recv(1) == b""
        kept.close()
        for _ in range(3):
            assert httpx.post(f"http://127.0.0.1:{port}/api/v1/jobs", json=JOB).status_code == 202
    assert serving.process.wait(20) == 0
    assert monotonic() - told_at >= LEAVE_S


def _asked(connection: socket.socket) -> str:
    """Ask over a connection that is to stay open; return the head of the answer."""
    connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    answer = b""
    while not answer.endswith(b"}"):
        answer += connection.recv(4096)
    assert answer.startswith(b"HTTP/1.1 200 ")
    return answer.decode().lower()


def test_an_api_leaves_at_once_although_somebody_follows_a_page(
    shell: Shell, database: Database
) -> None:
    port = free_port()
    shell.environ |= {
        "OUTBOX_DATABASE_URL": database.url,
        "OUTBOX_PORT": str(port),
        "OUTBOX_AUTH": "off",
        "OUTBOX_LEAVE_S": "0",
    }
    serving = shell.start("api")
    serving.ready()
    with (
        httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30) as browser,
        browser.stream("GET", "/live/overview") as followed,
    ):
        told = followed.iter_text()
        assert "event: overview" in next(told)
        told_at = monotonic()
        serving.process.send_signal(signal.SIGTERM)
        # The stream comes to its proper end: no error, and nothing that is cut off.
        assert "Traceback" not in "".join(told)
    assert serving.process.wait(20) == 0
    assert monotonic() - told_at < AT_ONCE_S
