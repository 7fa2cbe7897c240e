"""What is never in a line of the log: addresses, payloads, texts, keys; whatever goes wrong."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.cli.shell import Shell, free_port, until
from tests.postgres import Database

MARK = "zq7personal"
"""In everything that is somebody's own."""
HOPELESS = {"max_attempts": 1, "meta": {"note": MARK}}


@pytest.fixture
def shell(tmp_path: Path, database: Database) -> Iterator[Shell]:
    with Shell(tmp_path) as shell:
        shell.environ |= {
            "OUTBOX_DATABASE_URL": database.url,
            "OUTBOX_PORT": str(free_port()),
            "OUTBOX_AUTH": "off",
            "OUTBOX_LOG_LEVEL": "debug",
            "OUTBOX_WEBHOOK_ALLOW": "127.0.0.1",
            "OUTBOX_WEBHOOK_SECRET": "whsec_" + "A" * 32,
            "OUTBOX_SMTP_URL": f"smtp://{MARK}:{MARK}@127.0.0.1:1?starttls=off",
            "OUTBOX_MAIL_FROM": "us@example.com",
        }
        yield shell


def jobs() -> list[dict[str, object]]:
    """Jobs that end, or fail, or break the contract, each in its own way."""
    words = {"content": f"Dear {MARK}", "data": {"name": MARK}, "headers": {"x-note": MARK}}
    hook = f"http://127.0.0.1:1/{MARK}?token={MARK}"
    return [
        {"channel": "inbox", "user_id": MARK, **words, **HOPELESS},
        {"channel": "email", "to": f"{MARK}@example.com", **words, **HOPELESS},
        {"channel": "email", "to": f"{MARK} is no address", **words, **HOPELESS},
        {"channel": "webhook", "to": hook, "data": {"name": MARK}, **HOPELESS},
        {"channel": "webhook", "to": f"http://10.0.0.1/{MARK}", "data": {}, **HOPELESS},
        {"channel": "sms", "to": f"+7701{MARK}", **words, **HOPELESS},
        {"channel": "inbox", "user_id": MARK, "content": "{{ x }}", "data": {}, **HOPELESS},
        {"channel": "inbox", "user_id": MARK, "content": f"{{% {MARK}", "data": {}, **HOPELESS},
        {"channel": MARK, "to": MARK, "data": MARK},
    ]  # fmt: skip


def test_nothing_personal_is_in_the_log_whatever_goes_wrong(shell: Shell) -> None:
    serving = shell.start("serve")
    url = serving.ready()
    with httpx.Client(base_url=url, trust_env=False, timeout=30) as client:
        person = {"email": f"{MARK}@example.com", "attributes": {"name": MARK}}
        client.put(f"/api/v1/recipients/{MARK}", json=person)
        client.put(f"/api/v1/recipients/{MARK}", json=person | {"phone": [MARK]})
        client.post("/api/v1/jobs", content=f'{{"to": "{MARK}')
        client.get(f"/api/v1/jobs?user_id={MARK}&status={MARK}")
        accepted = [client.post("/api/v1/jobs", json=each).status_code for each in jobs()]
        assert accepted.count(202) >= 6, accepted
        ended = until(lambda: _ended(client, accepted.count(202)))
        assert {"sent", "failed"} <= ended
    assert serving.stop() == 0
    text = serving.log.read_text()
    assert '"job failed"' in text
    assert '"job completed"' in text
    assert [line for line in text.splitlines() if MARK in line] == []


def _ended(client: httpx.Client, wanted: int) -> set[str]:
    rows = client.get("/api/v1/jobs?limit=100").json()["items"]
    waiting = [row for row in rows if row["status"] not in ("sent", "failed")]
    held = [row for row in waiting if row["waiting_for"] in ("lane held", "backoff")]
    assert len(rows) == wanted
    return {row["status"] for row in rows} if len(waiting) == len(held) else set()
