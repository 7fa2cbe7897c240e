"""Unsubscribing with one click (RFC 8058): from the mail that came to the next that does not."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from email.message import EmailMessage
from typing import Any

import httpx
import pytest

from outbox.channels.registry import make_handler
from outbox.opting_out import OptOut, OptOutLinks
from outbox.sealing import Keyring
from tests.api.conftest import ADMIN_KEY, running_api
from tests.channels.api_server import ApiServer, Call, Reply, api_server
from tests.channels.mail_server import MailServer, mail_server
from tests.engine.desk import Desk, Scripted, dispatching, in_s

SECRET = "a-key-that-signs-links"
ANN = "Ann.Lee@example.com"
LINK = re.compile(r"<(https?://[^<>\s]+)>")


@dataclass
class Stage:
    """A service with a mail server behind it."""

    desk: Desk
    client: httpx.AsyncClient
    mails: MailServer

    async def send(self, *wanted: str, **fields: object) -> None:
        job: dict[str, Any] = {"channel": "email", "subject": "Hi", "data": {}, "meta": {}}
        job["content"] = "Hello"
        job_id = self.desk.enqueue(notify=True, created_at=in_s(0), **job | fields)
        await self.desk.until_status(job_id, *wanted or ("sent",))

    @property
    def mail(self) -> EmailMessage:
        return self.mails.mails[-1].parsed()

    @property
    def link(self) -> str:
        found = LINK.fullmatch(self.mail["List-Unsubscribe"])
        assert found is not None
        return found[1]


@pytest.fixture
async def stage(desk: Desk) -> AsyncIterator[Stage]:
    async with mail_server() as mails:
        settings = {
            "SMTP_URL": f"smtp://127.0.0.1:{mails.port}",
            "MAIL_FROM": "shop@example.com",
        }
        async with running_api(
            desk.database.url, public_url="http://127.0.0.1", secret_key=f"newer-key-0000 {SECRET}"
        ) as client:
            url = str(client.base_url).rstrip("/")
            channels = {"email": make_handler("email", settings), "sms": Scripted()}
            async with dispatching(desk, {}, channels=channels, public_url=url, secret_key=SECRET):
                yield Stage(desk, client, mails)


def opt_outs(desk: Desk) -> list[tuple[str, list[str]]]:
    return desk.rows("select user_id, opt_outs from outbox.recipient order by user_id")


async def test_one_post_to_the_link_of_a_mail_opts_its_user_out_of_the_category(
    stage: Stage,
) -> None:
    stage.desk.admin.execute(
        "insert into outbox.recipient (tenant_id, user_id, email, opt_outs)"
        " values ('default', 'ann', %s, '{surveys}')",
        (ANN,),
    )
    await stage.send(user_id="ann", category="news")
    assert stage.mail["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert ANN.partition("@")[0] not in stage.link
    # As a mailbox provider does it: no key, no cookie, a form of one field.
    pressed = await stage.client.post(stage.link, data={"List-Unsubscribe": "One-Click"})
    assert pressed.status_code == 200, pressed.text
    assert opt_outs(stage.desk) == [("ann", ["news", "surveys"])]
    assert stage.desk.rows("select provider, status, detail from outbox.receipt") == [
        ("unsubscribe", "opted_out", "news")
    ]
    again = await stage.client.post(stage.link)
    assert again.status_code == 200
    assert opt_outs(stage.desk) == [("ann", ["news", "surveys"])]
    await stage.send("failed", user_id="ann", category="news")
    await stage.send("sent", user_id="ann", category="receipts")
    assert len(stage.mails.mails) == 2


async def test_looking_at_the_link_asks_and_changes_nothing(stage: Stage) -> None:
    await stage.send(to=ANN, category="news")
    page = await stage.client.get(stage.link)
    assert page.status_code == 200
    assert 'form method="post"' in page.text
    assert "<strong>news</strong>" in page.text
    assert ANN not in page.text
    assert page.headers["referrer-policy"] == "no-referrer"
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
    assert opt_outs(stage.desk) == []


async def test_an_address_without_a_user_opts_out_by_itself_of_that_category_alone(
    stage: Stage,
) -> None:
    await stage.send(to=ANN, category="news")
    assert (await stage.client.post(stage.link)).status_code == 200
    await stage.send("failed", to=ANN.upper(), category="news")
    await stage.send("sent", to=ANN, category="receipts")
    await stage.send("sent", to=ANN)
    await stage.send("sent", to="bob@example.com", category="news")
    headers = {"authorization": f"Bearer {ADMIN_KEY}"}
    shown = await stage.client.get(f"/api/v1/recipients/email:{ANN.lower()}", headers=headers)
    assert shown.json()["opt_outs"] == ["news"]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"category": "transactional"},
        {"category": "news", "headers": {"List-Unsubscribe": "<mailto:stop@example.com>"}},
        {"category": "news", "headers": {"list-unsubscribe-post": "no"}},
    ],
)
async def test_mail_that_needs_no_link_or_brings_its_own_gets_none_of_ours(
    stage: Stage, fields: Mapping[str, object]
) -> None:
    await stage.send(to=ANN, **fields)
    assert "/unsubscribe/" not in str(stage.mail["List-Unsubscribe"])
    assert stage.mail["List-Unsubscribe-Post"] in (None, "no")


async def test_a_template_may_have_the_link_in_its_words(stage: Stage) -> None:
    await stage.send(to=ANN, category="news", content="Bye: {{ job.unsubscribe_url }}")
    (link,) = re.findall(r"http\S+", stage.mail.get_content().replace("=\n", ""))
    assert (await stage.client.post(link)).status_code == 200
    assert len(opt_outs(stage.desk)) == 1


@pytest.mark.parametrize("harm", ["cut", "changed", "of another key", "nothing"])
async def test_a_link_that_is_none_of_ours_changes_nothing(stage: Stage, harm: str) -> None:
    await stage.send(to=ANN, category="news")
    path, token = stage.link.rsplit("/", 1)
    foreign = OptOutLinks("https://x", Keyring("somebody-else-s-key")).link(
        OptOut(
            "default",
            "email",
            "news",
            stage.desk.value("select job_id from outbox.job"),
            "u",
            None,
        )
    )
    assert foreign is not None
    token = {
        "cut": token[:-6],
        "changed": token[:30] + ("A" if token[30] != "A" else "B") + token[31:],
        "of another key": foreign.rsplit("/", 1)[1],
        "nothing": "%00é",
    }[harm]
    for method in ("GET", "POST"):
        answer = await stage.client.request(method, f"{path}/{token}")
        assert answer.status_code == 404
    assert opt_outs(stage.desk) == []


async def test_a_link_of_the_longest_names_still_fits_a_header_line(stage: Stage) -> None:
    await stage.send(to=f"{'a' * 64}@{'b' * 60}.{'c' * 60}.example.com", category="n" * 64)
    lines = stage.mails.mails[-1].content.split(b"\r\n")
    assert max(map(len, lines)) <= 998
    assert (await stage.client.post(stage.link)).status_code == 200
    await stage.send(
        "failed", to=f"{'a' * 64}@{'b' * 60}.{'c' * 60}.example.com", category="n" * 64
    )


def speak(call: Call) -> Reply:
    if call.path == "/email":
        return Reply(200, {"ErrorCode": 0, "MessageID": "1"})
    return Reply(202, {})


async def test_providers_over_http_are_given_the_same_headers(desk: Desk) -> None:
    def headers_of(server: ApiServer) -> dict[str, str]:
        told = server.calls[-1].json
        if "Headers" in told:
            return {each["Name"]: each["Value"] for each in told["Headers"]}
        headers: dict[str, str] = told["headers"]
        return headers

    async with api_server(speak) as server:
        for kind in ("postmark", "sendgrid"):
            settings = {
                "EMAIL_URL": f"{kind}+http://:key@{server.place}",
                "MAIL_FROM": "shop@example.com",
            }
            channels = {"email": make_handler("email", settings)}
            async with dispatching(
                desk, {}, channels=channels, public_url="https://n.shop.kz", secret_key=SECRET
            ):
                job_id = desk.enqueue(
                    channel="email", to=ANN, content="Hi", data={}, meta={}, category="news",
                    created_at=in_s(0), notify=True,
                )  # fmt: skip
                await desk.until_status(job_id, "sent", "failed")
            headers = headers_of(server)
            assert headers["List-Unsubscribe"].startswith("<https://n.shop.kz/unsubscribe/")
            assert headers["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
