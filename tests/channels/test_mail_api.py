"""Mail by HTTP: what Postmark and SendGrid are asked, and each row of their tables."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import pytest

from outbox.channels.email import EmailChannel
from outbox.channels.providers import ProviderSpec, provider_settings
from outbox.channels.registry import make_handler
from outbox.outcome import Delivered, Misconfigured, Outcome, Rejected, Retryable
from tests.channels.api_server import DROP, ApiServer, Call, Reply, api_server
from tests.channels.messages import KEY, email
from tests.channels.outcomes import told

TOKEN = "mail-secret-token"
SENDER = "Кинотеатр <noreply@cinema.kz>"


def postmark_no(code: int, message: str = "no") -> Reply:
    return Reply(422, {"ErrorCode": code, "Message": message})


def speak_postmark(call: Call) -> Reply:
    """Postmark's /email, as far as a sender meets it."""
    if call.headers["X-Postmark-Server-Token"] != TOKEN:
        return Reply(401, {"ErrorCode": 10, "Message": "No Account or Server API tokens"})
    mail = call.json
    if call.path != "/email" or "@" not in mail["To"]:
        return postmark_no(300, "Invalid 'To' address")
    return Reply(200, {"ErrorCode": 0, "Message": "OK", "MessageID": "b7bc2f4a", "To": mail["To"]})


def sendgrid_no(status: int, message: str, field: str | None = None) -> Reply:
    return Reply(status, {"errors": [{"message": message, "field": field, "help": None}]})


def speak_sendgrid(call: Call) -> Reply:
    """SendGrid's /v3/mail/send, as far as a sender meets it."""
    if call.headers["Authorization"] != f"Bearer {TOKEN}":
        return sendgrid_no(401, "The provided authorization grant is invalid")
    mail = call.json
    if call.path != "/v3/mail/send" or not all(part["value"] for part in mail["content"]):
        return sendgrid_no(400, "The content value must be a string", "content.0.value")
    return Reply(202, b"", {"X-Message-Id": "14c5d75ce93"})


SPEAK = {"postmark": speak_postmark, "sendgrid": speak_sendgrid}


@asynccontextmanager
async def mail_by(kind: str, token: str = TOKEN) -> AsyncIterator[tuple[ApiServer, EmailChannel]]:
    async with api_server(SPEAK[kind]) as server:
        settings = {"EMAIL_URL": f"{kind}+http://:{token}@{server.place}", "MAIL_FROM": SENDER}
        async with EmailChannel(settings) as channel:
            yield server, channel


async def answered(kind: str, reply: Reply | str) -> Outcome:
    async with mail_by(kind) as (server, channel):
        server.replies.append(reply)
        return await channel.deliver(email(), timeout_s=5)


async def test_postmark_gets_the_whole_mail() -> None:
    headers = {"Reply-To": "ask@cinema.kz", "X-Kind": "welcome"}
    async with mail_by("postmark") as (server, channel):
        outcome = await channel.deliver(email(headers=headers), timeout_s=5)
    assert isinstance(outcome, Delivered)
    assert outcome.provider_message_id == "b7bc2f4a"
    assert outcome.sent is not None
    assert (outcome.sent.provider, outcome.sent.recipient) == ("postmark", "nurzhan@example.com")
    assert server.calls[0].json == {
        "From": '"Кинотеатр" <noreply@cinema.kz>',
        "To": "nurzhan@example.com",
        "Subject": "Добро пожаловать, Нуржан!",
        "TextBody": email().text,
        "HtmlBody": email().html,
        "ReplyTo": "ask@cinema.kz",
        "Headers": [
            {"Name": "X-Kind", "Value": "welcome"},
            {"Name": "Message-ID", "Value": f"<{KEY}@cinema.kz>"},
            {"Name": "X-PM-KeepID", "Value": "true"},
        ],
        "Metadata": {"job_id": str(KEY)},
    }


async def test_sendgrid_gets_the_whole_mail() -> None:
    headers = {"Reply-To": "Ann <ask@cinema.kz>", "X-Kind": "welcome"}
    async with mail_by("sendgrid") as (server, channel):
        outcome = await channel.deliver(email(headers=headers), timeout_s=5)
    assert isinstance(outcome, Delivered)
    assert outcome.provider_message_id == "14c5d75ce93"
    assert server.calls[0].json == {
        "personalizations": [{"to": [{"email": "nurzhan@example.com"}]}],
        "from": {"email": "noreply@cinema.kz", "name": "Кинотеатр"},
        "reply_to": {"email": "ask@cinema.kz", "name": "Ann"},
        "subject": "Добро пожаловать, Нуржан!",
        "content": [
            {"type": "text/plain", "value": email().text},
            {"type": "text/html", "value": email().html},
        ],
        "headers": {"X-Kind": "welcome", "Message-ID": f"<{KEY}@cinema.kz>"},
        "custom_args": {"job_id": str(KEY)},
    }


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        *((postmark_no(code), "C lane") for code in (10, 400, 401, 405, 412, 413)),
        (postmark_no(406, "inactive recipient"), "P S"),
        *((postmark_no(code), "P") for code in (300, 402, 403)),
        (Reply(500, {"ErrorCode": 100, "Message": "maintenance"}), "T provider"),
        (postmark_no(99_999), "P after 3"),
        (Reply(403, b"no"), "C lane"),
        (Reply(429, b"", {"Retry-After": "9"}), "T destination"),
        (Reply(503, b""), "T"),
        (Reply(200, b"<html>a proxy's page</html>"), "done"),
        (DROP, "ambiguous"),
    ],
)
async def test_each_row_of_postmark_s_table(reply: Reply | str, expected: str) -> None:
    assert told(await answered("postmark", reply)) == expected


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (sendgrid_no(401, "no"), "C lane"),
        (sendgrid_no(403, "The from address does not match a verified Sender"), "C lane"),
        (
            sendgrid_no(400, "The from email does not contain a valid address", "from.email"),
            "C lane",
        ),
        (sendgrid_no(400, "Does not contain a valid address", "personalizations.0.to"), "P"),
        (sendgrid_no(413, "too large"), "P"),
        (sendgrid_no(429, "too many requests"), "T provider"),
        (sendgrid_no(404, "not found"), "T"),
        (Reply(500, b""), "T"),
        (Reply(302, b""), "C lane"),
        (DROP, "ambiguous"),
    ],
)
async def test_each_row_of_sendgrid_s_table(reply: Reply | str, expected: str) -> None:
    assert told(await answered("sendgrid", reply)) == expected


async def test_a_pause_that_sendgrid_asks_for_is_kept() -> None:
    reply = sendgrid_no(429, "too many requests")
    reply.headers["Retry-After"] = "30"
    outcome = await answered("sendgrid", reply)
    assert isinstance(outcome, Retryable)
    assert outcome.retry_after_s == 30.0


@pytest.mark.parametrize("kind", ["postmark", "sendgrid"])
async def test_a_wrong_token_holds_the_lane_and_is_not_told(kind: str) -> None:
    async with mail_by(kind, token="another-secret") as (_, channel):
        outcome = await channel.deliver(email(), timeout_s=5)
    assert isinstance(outcome, Misconfigured)
    assert outcome.scope == "lane"
    assert "another-secret" not in outcome.reason


@pytest.mark.parametrize("kind", ["postmark", "sendgrid"])
@pytest.mark.parametrize(
    "changes",
    [
        {"to": None},
        {"to": "not an address"},
        {"headers": {"Bcc": "x@example.com"}},
        {"headers": {"X-A": "b\r\nBcc: x@example.com"}},
        {"text": None, "html": None},
    ],
)
async def test_what_no_mail_can_be_is_told_before_anybody_is_asked(
    kind: str, changes: dict[str, Any]
) -> None:
    async with mail_by(kind) as (server, channel):
        outcome = await channel.deliver(email(**changes), timeout_s=5)
    assert isinstance(outcome, Rejected)
    assert not server.calls


async def test_a_subject_is_one_line_and_a_tenant_s_sender_is_its_own() -> None:
    message = email(subject="a\r\nBcc: x", sender="Acme <hi@acme.kz>")
    async with mail_by("postmark") as (server, channel):
        assert told(await channel.deliver(message, timeout_s=5)) == "done"
    mail = server.calls[0].json
    assert (mail["Subject"], mail["From"]) == ("a Bcc: x", '"Acme" <hi@acme.kz>')


async def test_a_tenant_s_own_provider_is_the_same_behind_the_guard() -> None:
    async with api_server(speak_postmark) as server:
        spec = ProviderSpec(
            provider_id=uuid4(),
            tenant_id="acme",
            channel="email",
            kind="postmark",
            name="main",
            config={"email_url": f"postmark+http://{server.place}", "mail_from": "hi@acme.kz"},
            credentials={"email_secret": TOKEN},
        )
        for allow, expected in ((server.place, "done"), ("", "C lane")):
            settings = provider_settings(spec, {"WEBHOOK_ALLOW": allow, "SMTP_URL": "smtp://m"})
            async with make_handler("email", settings) as channel:
                assert told(await channel.deliver(email(), timeout_s=5)) == expected
    assert len(server.calls) == 1
    assert server.calls[0].json["From"] == "hi@acme.kz"
