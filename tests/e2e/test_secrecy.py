"""A full run, and then all that it wrote is searched for its secrets and for personal data."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import quote
from uuid import uuid4

import httpx
import pytest

from tests.channels.api_server import ApiServer, api_server
from tests.channels.hook_server import HookServer, hook_server
from tests.channels.mail_server import MailServer, mail_server
from tests.cli.shell import Running, Shell, free_port
from tests.e2e import rude_world
from tests.e2e.otlp import Collector, collecting

pytestmark = pytest.mark.timeout(240)

ADMIN_KEY = "obx_the-first-key-0d41"
SECRETS = {
    "OUTBOX_ADMIN_KEY": ADMIN_KEY,
    "OUTBOX_SECRET_KEY": "the-key-of-all-secrets-7b11",
    "OUTBOX_WEBHOOK_SECRET": "whsec_c2VjcmV0LW9mLXdlYmhvb2tzLTRmNzE=",
}
SMTP_PASSWORD = "smtp-pass-5c90"
TENANT_PASSWORD = "tenant-pass-91ee"
GATEWAY_SECRET = "gateway-pass-3aa2"
URL_TOKEN = "token-in-a-url-66d0"
DATABASE_PASSWORD = "database-pass-17fd"

EMAIL = "Nurzhan.Abenov@example.com"
PHONE = "+77015550199"
NAME = "Нуржан"
SUBJECT = "Biopsy"
CONTENT = "negative"
USER = "nurzhan-7781"
PERSONAL = (EMAIL, EMAIL.partition("@")[0], PHONE, NAME, SUBJECT, CONTENT, USER)
DEADLINE_S = 90.0


@dataclass
class Written:
    """What the run wrote, by where."""

    texts: dict[str, str] = field(default_factory=dict)

    def add(self, where: str, text: str) -> None:
        self.texts[where] = self.texts.get(where, "") + text

    def traces(self, needles: tuple[str, ...]) -> list[str]:
        """Return where each needle was found, in any way of writing it."""
        found = []
        for where, text in self.texts.items():
            low = text.lower()
            for needle in needles:
                ways = {needle, quote(needle), quote(needle, safe=""), json.dumps(needle)[1:-1]}
                for way in ways:
                    at = low.find(way.lower())
                    if at >= 0:
                        found.append(
                            f"{where}: {needle!r} in {text[max(0, at - 200) : at + 60]!r}"
                        )
                        break
        return found


Servers: TypeAlias = tuple[MailServer, HookServer, ApiServer]


@dataclass
class Run:
    """A service in processes of its own, its receivers, and what it said."""

    client: httpx.AsyncClient
    mails: MailServer
    hooks: HookServer
    others: ApiServer
    written: Written

    @property
    def api(self) -> str:
        return str(self.client.base_url).rstrip("/")

    async def call(self, method: str, path: str, *, status: int, **content: Any) -> Any:
        answer = await self.client.request(method, f"/api/v1{path}", **content)
        assert answer.status_code == status, answer.text
        if answer.headers.get("content-type", "").startswith("application/problem+json"):
            self.written.add("problem documents", answer.text + "\n")
        return answer.json() if answer.content else None

    async def job(self, wanted: str, **fields: Any) -> str:
        job = {"channel": "email", "data": {}, "meta": {}, "job_id": str(uuid4())} | fields
        accepted = await self.call("POST", "/jobs", status=202, json=job)
        job_id: str = accepted["job_id"]
        now = None
        try:
            async with asyncio.timeout(DEADLINE_S):
                while True:
                    now = await self.call("GET", f"/jobs/{job_id}/explain", status=200)
                    state = "held" if now["waiting_for"] == "lane held" else now["status"]
                    if state == wanted:
                        return job_id
                    await asyncio.sleep(0.05)
        except TimeoutError:
            pytest.fail(f"{job} is not {wanted}: {now}")


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


@pytest.fixture
async def servers() -> AsyncIterator[Servers]:
    async with AsyncExitStack() as stack:
        yield (
            await stack.enter_async_context(mail_server(offers_login=True)),
            await stack.enter_async_context(hook_server()),
            await stack.enter_async_context(api_server(rude_world.RudeWorld().speak)),
        )


@pytest.fixture
def shell(tmp_path: Path, collector: Collector, servers: Servers) -> Iterator[Shell]:
    mails, hooks, others = servers
    with Shell(tmp_path) as shell:
        shell.environ |= (
            SECRETS
            | rude_world.settings(others.port)
            | {
                "OUTBOX_DATA_DIR": str(tmp_path / "data"),
                "OUTBOX_PORT": str(free_port()),
                "OUTBOX_LOG_LEVEL": "debug",
                "OUTBOX_SMTP_URL": f"smtp://mailer:{SMTP_PASSWORD}@127.0.0.1:{mails.port}",
                "OUTBOX_MAIL_FROM": "shop@example.com",
                "OUTBOX_SMS_URL": f"gateway+http://sms:{GATEWAY_SECRET}@127.0.0.1:{hooks.port}/sms",
                "OUTBOX_WEBHOOK_ALLOW": "127.0.0.1",
                "OUTBOX_ALERT_WEBHOOK": f"{collector.url}/alerts?{URL_TOKEN}",
                "OUTBOX_BACKOFF_S": "0.1",
                "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
                "OTEL_BSP_SCHEDULE_DELAY": "50",
                "OTEL_METRIC_EXPORT_INTERVAL": "300",
            }
        )
        yield shell


async def live(run: Run) -> list[str]:
    """Have all go well that can, and all go wrong that can; return the secrets it made."""
    whole = {
        "email": EMAIL,
        "phone": PHONE,
        "telegram_chat_id": rude_world.CHAT,
        "attributes": {"first_name": NAME},
        "quiet_hours": {"from": "00:00", "to": "00:00"},
    }
    await run.call("PUT", f"/recipients/{USER}", status=201, json=whole)
    template = {"subject": f"{SUBJECT} of {{{{ first_name }}}}", "text": CONTENT}
    await run.call("PUT", "/templates/biopsy/email/en", status=201, json=template)
    told = {"template_code": "biopsy", "data": {"first_name": NAME}, "user_id": USER}
    await run.job("sent", **told)
    await run.job("failed", **told | {"data": {}, "job_id": str(uuid4())})
    # A server that says what it was told.
    run.mails.answer("rcpt", f"450 4.2.0 <{EMAIL}> of {NAME} later", f"550 5.7.1 <{EMAIL}> no")
    await run.job("failed", **told)
    run.mails.answer("body", f"554 5.6.0 {SUBJECT} {CONTENT} is spam", "DROP")
    await run.job("failed", **told)
    await run.job("sent", to=EMAIL, subject=SUBJECT, content=CONTENT)
    run.hooks.status, run.hooks.body = 422, f"{EMAIL} {PHONE} {CONTENT} {GATEWAY_SECRET}".encode()
    await run.job("failed", channel="sms", to=PHONE, content=CONTENT, max_attempts=2)
    place = f"http://127.0.0.1:{run.hooks.port}/hook/{URL_TOKEN}?key={URL_TOKEN}"
    await run.job("failed", channel="webhook", to=place, data={"for": EMAIL}, max_attempts=2)
    invoice = [{"url": place, "filename": f"{NAME}.pdf"}]
    await run.job("failed", to=EMAIL, content=CONTENT, attachments=invoice, max_attempts=1)
    endpoint = await run.call("POST", "/endpoints", status=201, json={"url": place})
    run.hooks.status = 401
    await run.job("held", channel="webhook", endpoint=endpoint["endpoint_id"], data={"n": NAME})
    # A tenant whose own server refuses its login, repeating it.
    # A client goes on to the next mechanism when one is refused.
    no = f"535 5.7.8 {TENANT_PASSWORD} is not the password of {EMAIL}"
    run.mails.answer("auth", *[no] * 5)
    provider = {
        "channel": "email",
        "kind": "smtp",
        "name": "main",
        "receipts": "standard",
        "config": {
            "smtp_url": f"smtp://127.0.0.1:{run.mails.port}",
            "mail_from": "hi@acme.kz",
        },
        "credentials": {
            "smtp_username": "acme",
            "smtp_password": TENANT_PASSWORD,
            "receipt_secret": SECRETS["OUTBOX_WEBHOOK_SECRET"],
        },
    }
    stored = await run.call("POST", "/providers?tenant_id=acme", status=201, json=provider)
    await run.job("held", tenant_id="acme", to=EMAIL, content=CONTENT, subject=SUBJECT)
    async with asyncio.timeout(DEADLINE_S):
        while not (await run.call("GET", "/alerts", status=200))["items"]:
            await asyncio.sleep(0.1)
    said = {"content": CONTENT, "subject": SUBJECT, "data": {"first_name": NAME}}
    made = await rude_world.live_everywhere(run, run.others, api=run.api, user=USER, said=said)
    await be_refused(run, provider, stored["provider_id"])
    await run.call("DELETE", f"/recipients/{USER}/data", status=200)
    return made


async def be_refused(run: Run, provider: dict[str, Any], provider_id: str) -> None:
    """Have personal data and secrets in whatever is refused."""
    sound = {"channel": "email", "to": EMAIL, "content": CONTENT, "data": {}, "meta": {}}
    for odd in (
        {"to": f"{EMAIL}\r\nBcc: {EMAIL}"},
        {"channel": "sms", "to": {"phone": PHONE}},
        {"subject": [SUBJECT]},
        {"data": NAME},
        {"meta": {"priority": NAME}},
        {"expires_at": PHONE},
        {"headers": {"X-Name\n": NAME}},
        {"template_code": "no-such", "content": None},
        {NAME.encode().hex(): EMAIL},
    ):
        await run.call("POST", "/jobs", status=422, json=sound | odd)
    await run.call("POST", "/jobs", status=400, content=f'{{"to": "{EMAIL}", {NAME}')
    same = sound | {"job_id": str(uuid4())}
    await run.call("POST", "/jobs", status=202, json=same)
    await run.call("POST", "/jobs", status=409, json=same | {"content": f"not {CONTENT}"})
    await run.call("POST", "/jobs/batch", status=422, json=[sound, sound | {"to": 7, "x": EMAIL}])
    await run.call("PUT", "/recipients/x", status=422, json={"email": f"{EMAIL} {NAME}"})
    await run.call("PUT", "/recipients/x", status=422, json={"timezone": NAME, "locale": PHONE})
    await run.call(
        "PUT", "/templates/b/email/en", status=422, json={"text": "{{ first_name last_name }}"}
    )
    await run.call("POST", "/providers", status=422, json=provider | {"kind": TENANT_PASSWORD})
    odd_url = {"smtp_url": f"smtp://acme:{TENANT_PASSWORD}@[127.0.0.1"}
    await run.call("POST", "/providers", status=422, json=provider | {"config": odd_url})
    await run.call(
        "POST", "/endpoints", status=422, json={"url": f"https://user:{URL_TOKEN}@10.0.0.1/"}
    )
    await run.call("POST", f"/callbacks/{provider_id}", status=401, json={"events": [EMAIL]})
    nobody = {"Authorization": f"Bearer {TENANT_PASSWORD}"}
    await run.call("GET", "/jobs", status=401, headers=nobody)


async def test_a_full_run_writes_no_secret_and_nothing_personal_anywhere(
    shell: Shell, collector: Collector, servers: Servers
) -> None:
    written = Written()
    serving = await asyncio.to_thread(shell.start, "serve")
    url = await asyncio.to_thread(serving.ready)
    headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
    async with httpx.AsyncClient(
        base_url=url, headers=headers, timeout=60, trust_env=False
    ) as client:
        made = await live(Run(client, *servers, written))
        written.add("metrics", (await client.get("/metrics")).text)
        written.add("health", (await client.get("/monitoring/queues/health")).text)
    assert any("process" in span.name for span in collector.spans)
    for command in (["doctor"], ["config"], ["queues", "list"], ["providers", "list"]):
        done = await asyncio.to_thread(shell.run, *command)
        written.add(f"outbox {command[0]}", done.out + done.err)
    nowhere = f"postgresql://outbox:{DATABASE_PASSWORD}@127.0.0.1:{free_port()}/none"
    done = await asyncio.to_thread(shell.run, "doctor", env={"OUTBOX_DATABASE_URL": nowhere})
    assert done.code != 0
    written.add("outbox doctor without a database", done.out + done.err)
    collect(written, shell.folder, serving, collector, await asyncio.to_thread(serving.stop))
    # That it can be found at all: the log is there, and has what it should have.
    assert "job failed" in written.texts["stderr-0.log"]
    assert "postgres.log" in written.texts
    assert "problem documents" in written.texts
    secrets = (
        *SECRETS.values(),
        SMTP_PASSWORD,
        TENANT_PASSWORD,
        GATEWAY_SECRET,
        URL_TOKEN,
        DATABASE_PASSWORD,
        *rude_world.KNOWN_SECRETS,
        *rude_world.ADDRESSES,
        *made,
    )
    assert written.traces(secrets + PERSONAL) == []


def collect(
    written: Written, folder: Path, serving: Running, collector: Collector, code: int
) -> None:
    """Take in what the processes left behind: their output, the server's log, telemetry."""
    assert code == 0
    written.add("stdout", serving.rest())
    for path in (*folder.glob("*.log"), *folder.rglob("postgres.log*")):
        written.add(path.name, path.read_text(errors="replace"))
    for body in collector.bodies:
        written.add("telemetry and alerts", body.decode("utf-8", "replace"))
