"""Attachments: fetched behind the guard or from a bucket, and what each trouble of that means."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from email.message import EmailMessage
from typing import Any

import pytest

from outbox.channels.attachments import Attachments
from outbox.channels.email import EmailChannel
from outbox.channels.file_types import file_type
from outbox.channels.s3 import parse_s3_url
from outbox.errors import ConfigError
from outbox.message import Attachment, Message
from outbox.outcome import Delivered, Misconfigured, Rejected, Retryable, SinkRow
from tests.channels.api_server import ApiServer, Call, Reply, api_server
from tests.channels.hook_server import HookServer, hook_server, raw_server
from tests.channels.mail_server import MailServer, mail_server
from tests.channels.messages import email
from tests.channels.s3_server import S3Server, s3_server

PDF = b"%PDF-1.7\n" + bytes(range(256)) * 40
PNG = b"\x89PNG\r\n\x1a\n" + b"\x00" * 64
ALLOW = {"WEBHOOK_ALLOW": "127.0.0.1"}


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@asynccontextmanager
async def mailing(**more: str) -> AsyncIterator[tuple[MailServer, EmailChannel]]:
    async with mail_server() as server:
        given = {"SMTP_URL": f"smtp://127.0.0.1:{server.port}", "MAIL_FROM": "shop@cinema.kz"}
        async with EmailChannel({**given, **ALLOW, **more}) as channel:
            yield server, channel


def attached(*attachments: Attachment, **changes: Any) -> Message:
    return email(attachments=attachments, **changes)


def at(hooks: HookServer, path: str = "/invoice.pdf", **more: Any) -> Attachment:
    return Attachment(url=f"http://127.0.0.1:{hooks.port}{path}", **more)


async def fetched(message: Message, *, timeout_s: float = 10.0, **settings: str) -> Any:
    attachments = Attachments({**ALLOW, **settings})
    try:
        return await attachments.fetch(message, timeout_s=timeout_s)
    finally:
        await attachments.close()


def files(mail: EmailMessage) -> list[tuple[str | None, str, object]]:
    return [
        (part.get_filename(), part.get_content_type(), part.get_payload(decode=True))
        for part in mail.iter_attachments()
    ]


# -- mail ------------------------------------------------------------------------------------


async def test_a_mail_has_what_its_url_and_its_key_name_byte_for_byte(bucket: S3Server) -> None:
    bucket.put("2026/счёт.txt", "Итого: 5\n".encode())
    async with hook_server() as hooks, mailing(S3_URL=bucket.url()) as (server, channel):
        hooks.body, hooks.headers = PDF, {"Content-Type": "application/pdf"}
        message = attached(at(hooks, "/a/invoice.pdf?token=1"), Attachment(s3="2026/счёт.txt"))
        outcome = await channel.deliver(message, timeout_s=30)
    assert isinstance(outcome, Delivered)
    (call,) = hooks.calls
    assert (call.method, call.path) == ("GET", "/a/invoice.pdf?token=1")
    mail = server.mails[0].parsed()
    assert mail.get_content_type() == "multipart/mixed"
    assert files(mail) == [
        ("invoice.pdf", "application/pdf", PDF),
        ("счёт.txt", "text/plain", "Итого: 5\n".encode()),
    ]
    text, html = mail.get_body(("plain",)), mail.get_body(("html",))
    assert text is not None
    assert html is not None
    assert text.get_content().startswith("Здравствуйте")
    assert outcome.sent is not None
    assert outcome.sent.content is not None
    assert b"PDF" not in outcome.sent.content


async def test_an_inline_picture_is_shown_by_its_cid_and_an_invoice_lies_beside_it() -> None:
    async with hook_server() as hooks, mailing() as (server, channel):
        hooks.body, hooks.headers = PNG, {"Content-Type": "image/png"}
        logo = at(hooks, "/x", filename="logo.png", inline=True)
        html = '<img src="cid:logo.png">'
        message = attached(logo, at(hooks, filename="Счёт №7 за ноябрь.png"), html=html)
        assert isinstance(await channel.deliver(message, timeout_s=30), Delivered)
    mail = server.mails[0].parsed()
    related, beside = mail.iter_parts()
    assert (related.get_content_type(), related.get_param("type")) == (
        "multipart/related",
        "multipart/alternative",
    )
    alternative, picture = related.iter_parts()
    assert alternative.get_content_type() == "multipart/alternative"
    assert (picture["Content-ID"], picture.get_content_disposition()) == ("<logo.png>", "inline")
    assert beside.get_filename() == "Счёт №7 за ноябрь.png"


@pytest.mark.parametrize("kind", ["postmark", "sendgrid"])
async def test_a_provider_over_http_gets_them_too(kind: str) -> None:
    def speak(call: Call) -> Reply:
        return Reply(200, {"ErrorCode": 0, "MessageID": "x"})

    async with hook_server() as hooks, api_server(speak) as server:
        hooks.body = PNG
        given = {"EMAIL_URL": f"{kind}+http://:secret@{server.place}", "MAIL_FROM": "a@b.kz"}
        async with EmailChannel({**given, **ALLOW}) as channel:
            message = attached(at(hooks, "/a.png"), at(hooks, "/b", filename="b.png", inline=True))
            assert isinstance(await channel.deliver(message, timeout_s=30), Delivered)
    sent = attachments_of(server)
    if kind == "postmark":
        names = [(a["Name"], a["ContentType"], a.get("ContentID")) for a in sent]
        assert names == [("a.png", "image/png", None), ("b.png", "image/png", "cid:b.png")]
    else:
        shown = [(a["filename"], a["type"], a["disposition"], a.get("content_id")) for a in sent]
        assert shown == [
            ("a.png", "image/png", "attachment", None),
            ("b.png", "image/png", "inline", "b.png"),
        ]


def attachments_of(server: ApiServer) -> list[dict[str, str]]:
    sent = server.calls[0].json
    found: list[dict[str, str]] = sent.get("Attachments") or sent["attachments"]
    return found


async def test_the_sandbox_names_them_and_fetches_nothing() -> None:
    async with hook_server() as hooks:
        async with EmailChannel({**ALLOW, "MODE": "sandbox"}) as channel:
            message = attached(at(hooks, filename="a.pdf"), Attachment(s3="k/b.pdf"))
            outcome = await channel.deliver(message, timeout_s=5)
        assert not hooks.calls
    assert isinstance(outcome, Delivered)
    (row,) = outcome.effects
    assert isinstance(row, SinkRow)
    assert json.loads(row.headers_json)["attachments"] == [
        {"url": f"http://127.0.0.1:{hooks.port}/invoice.pdf", "filename": "a.pdf"},
        {"s3": "k/b.pdf"},
    ]


async def test_a_connection_is_used_for_all_of_a_mail_s_files() -> None:
    async with hook_server() as hooks, mailing() as (_, channel):
        for _ in range(2):
            await channel.deliver(attached(at(hooks), at(hooks, "/2")), timeout_s=30)
    assert len(hooks.connections) == 1


# -- what goes wrong -------------------------------------------------------------------------


def told(outcome: Any) -> str:
    """Return T, P or C with its scope. None of it suppresses anybody, or is about a provider."""
    match outcome:
        case Rejected():
            assert not outcome.suppress
            return "P"
        case Retryable():
            assert (outcome.scope, outcome.ambiguous) == ("job", False)
            return "P after 3" if outcome.attempts_max == 3 else "T"
        case Misconfigured():
            return f"C {outcome.scope} {outcome.scope_key}".strip()
        case _:
            return "?"


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (404, "P"),
        (410, "P"),
        (400, "P after 3"),
        (302, "C job"),
        (401, "C job"),
        (403, "C job"),
        (408, "T"),
        (429, "T"),
        (500, "T"),
        (503, "T"),
    ],
)
async def test_each_answer_of_a_server_is_about_the_job_alone(status: int, expected: str) -> None:
    async with hook_server() as hooks, mailing() as (server, channel):
        hooks.status = status
        hooks.headers = {"Retry-After": "7", "Location": f"http://127.0.0.1:{hooks.port}/b"}
        message = attached(at(hooks, "/secret-place?token=geheim"))
        outcome = await channel.deliver(message, timeout_s=30)
    assert told(outcome) == expected
    assert isinstance(outcome, Rejected | Retryable | Misconfigured)
    assert outcome.code == f"attachment.{status}"
    assert outcome.reason == f"Attachment 1 cannot be fetched: its server answered {status}"
    assert outcome.sent is not None
    assert outcome.sent.recipient == "nurzhan@example.com"
    if status in (429, 503):
        assert isinstance(outcome, Retryable)
        assert outcome.retry_after_s == 7.0
    assert len(hooks.calls) == 1
    assert server.opened == 0


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:1/",
        "http://169.254.169.254/latest/meta-data/",
        "http://[::ffff:10.0.0.1]/",
        "http://2130706433/",
        "http://example.com:25/",
    ],
)
async def test_an_address_that_is_not_public_is_never_asked(url: str) -> None:
    outcome = await fetched(attached(Attachment(url=url)), WEBHOOK_ALLOW="")
    assert (told(outcome), outcome.code) == ("P", "attachment.blocked")
    assert "169.254" not in outcome.reason


async def test_a_name_that_leads_inside_is_never_asked() -> None:
    async def rebound(host: str) -> Sequence[str]:
        return ["127.0.0.1"]

    async with hook_server() as hooks:
        attachments = Attachments({}, lookup=rebound)
        message = attached(Attachment(url=f"http://files.example.com:{hooks.port}/a"))
        outcome = await attachments.fetch(message, timeout_s=5)
        await attachments.close()
        assert not hooks.connections
    assert (told(outcome), getattr(outcome, "code", None)) == ("P", "attachment.blocked")


async def test_a_proxy_from_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with hook_server() as hooks:
        assert isinstance(await fetched(attached(at(hooks))), Message)


async def test_a_server_that_says_nothing_is_given_half_of_the_time() -> None:
    async with hook_server() as hooks:
        hooks.hold = asyncio.Event()
        async with asyncio.timeout(5):
            outcome = await fetched(attached(at(hooks)), timeout_s=0.6)
    assert (told(outcome), outcome.code) == ("T", "attachment.timeout")


async def test_a_file_that_is_cut_off_is_not_sent() -> None:
    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        await writer.drain()

    async with raw_server(cut) as port:
        outcome = await fetched(attached(Attachment(url=f"http://127.0.0.1:{port}/a")))
    assert (told(outcome), outcome.code) == ("T", "attachment.lost")


async def test_a_file_that_comes_compressed_is_not_sent() -> None:
    async with hook_server() as hooks:
        hooks.headers, hooks.body = {"Content-Encoding": "gzip"}, b"\x1f\x8b\x08"
        outcome = await fetched(attached(at(hooks)))
    assert (told(outcome), outcome.code) == ("P", "attachment.encoding")


async def test_all_of_them_together_have_a_size_that_is_not_read_past() -> None:
    async with hook_server() as hooks:
        hooks.body = b"x" * 1_500
        one = await fetched(attached(at(hooks)), ATTACHMENTS_BYTES_MAX="2000")
        two = await fetched(attached(at(hooks), at(hooks)), ATTACHMENTS_BYTES_MAX="2000")
    assert isinstance(one, Message)
    assert (told(two), two.code) == ("P", "attachment.too_large")
    assert two.reason == "Attachment 2 makes the attachments larger than 2000 bytes together"


async def test_an_answer_without_end_and_without_a_length_is_left() -> None:
    sent = 0

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"x" * 65_536)
            sent += 65_536
            await writer.drain()

    async with raw_server(flood) as port:
        message = attached(Attachment(url=f"http://127.0.0.1:{port}/a"))
        outcome = await fetched(message, ATTACHMENTS_BYTES_MAX="100000")
    assert (told(outcome), outcome.code) == ("P", "attachment.too_large")
    assert sent < 20_000_000  # what kernel and reader took before they were closed


async def test_a_page_where_a_pdf_was_to_be_is_not_sent() -> None:
    async with hook_server() as hooks:
        hooks.body = b"<!DOCTYPE html><title>Sign in</title>"
        outcome = await fetched(attached(at(hooks, content_type="application/pdf")))
    assert (told(outcome), outcome.code) == ("P", "attachment.type")


# -- S3 --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "login", "key", "expected", "code"),
    [
        ("files", None, "gone.pdf", "P", "attachment.s3.missing"),
        ("files", None, "big.pdf", "P", "attachment.too_large"),
        ("nobody", None, "big.pdf", "C endpoint s3", "attachment.s3.bucket"),
        ("files", "AKIAOUTBOX:wrong", "big.pdf", "C endpoint s3", "attachment.s3.refused"),
        ("files", "AKIANOBODY:wrong", "big.pdf", "C endpoint s3", "attachment.s3.refused"),
    ],
)
async def test_each_answer_of_a_bucket(
    bucket: S3Server, place: str, login: str | None, key: str, expected: str, code: str
) -> None:
    bucket.put("big.pdf", PDF)
    url = bucket.url(place) if login is None else bucket.url(place, login=login)
    outcome = await fetched(attached(Attachment(s3=key)), S3_URL=url, ATTACHMENTS_BYTES_MAX="99")
    assert (told(outcome), outcome.code) == (expected, code)
    for secret in (key, "AKIA", "wrong", "127.0.0.1"):
        assert secret not in outcome.reason


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (Reply(500, b""), "T"),
        (Reply(503, b"<Error><Code>SlowDown</Code></Error>"), "T"),
        (Reply(400, b"<Error><Code>ExpiredToken</Code></Error>"), "C endpoint s3"),
        (Reply(301, b"<Error><Code>PermanentRedirect</Code></Error>"), "C endpoint s3"),
        ("HANG", "T"),
    ],
)
async def test_a_bucket_that_is_not_well(reply: Reply | str, expected: str) -> None:
    async with api_server(lambda call: Reply(500)) as server:
        server.replies.append(reply)
        outcome = await fetched(
            attached(Attachment(s3="a")),
            S3_URL=f"s3+http://k:s@{server.place}/bucket",
            timeout_s=1.0 if reply == "HANG" else 10.0,
        )
        assert told(outcome) == expected
    assert len(server.calls) == 1


async def test_a_bucket_that_cannot_be_reached_is_temporary() -> None:
    outcome = await fetched(
        attached(Attachment(s3="a")), S3_URL="s3+http://k:s@127.0.0.1:1/bucket"
    )
    assert (told(outcome), outcome.code) == ("T", "attachment.s3.away")


async def test_without_a_bucket_only_what_needs_one_is_held() -> None:
    outcome = await fetched(attached(Attachment(s3="a")))
    assert (told(outcome), outcome.code) == ("C endpoint s3", "attachment.s3.unset")


async def test_a_tenant_reads_below_its_own_folder_alone(bucket: S3Server) -> None:
    bucket.put("t/acme/a.pdf", PDF)
    bucket.put("a.pdf", b"%PDF-default's")
    own, shared = bucket.url("files/t/{tenant}"), bucket.url()
    for tenant, url, expected in (
        ("acme", own, PDF),
        ("default", shared, b"%PDF-default's"),
        ("other", own, "attachment.s3.missing"),
        ("acme", shared, "attachment.s3.tenant"),
        ("../t/acme", own, "attachment.s3.tenant"),
        ("a/c", own, "attachment.s3.tenant"),
    ):
        message = attached(Attachment(s3="a.pdf"), tenant_id=tenant)
        got = await fetched(message, S3_URL=url)
        found = got.parts[0].content if isinstance(got, Message) else got.code
        assert found == expected, (tenant, url)


@pytest.mark.parametrize(
    "url",
    [
        "https://host/bucket",
        "s3://host",
        "s3://host/B",
        "s3://key@host/bucket",
        "s3://host/bucket/a//b",
        "s3://host/bucket/../b",
        "s3://host/bucket?acl=public",
        "s3://host/bucket?region=a/b",
        "s3://host:port/bucket",
        "s3://host/bucket#x",
    ],
)
def test_a_bucket_that_is_none_is_refused_at_the_start(url: str) -> None:
    with pytest.raises(ConfigError, match="OUTBOX_S3_URL") as refusal:
        EmailChannel({"S3_URL": url})
    assert "host" not in str(refusal.value).replace("SECRET@host/bucket", "")


def test_amazon_s_host_names_its_region() -> None:
    place = parse_s3_url("s3://AK:a%2Fb@s3.eu-central-1.amazonaws.com/bucket/f/{tenant}")
    assert (place.region, place.secret, place.prefix) == ("eu-central-1", "a/b", "f/{tenant}")
    assert place.endpoint == "https://s3.eu-central-1.amazonaws.com"
    assert "a/b" not in repr(place)


# -- names and types -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/a/b%20c.pdf?d=e", "b c.pdf"),
        ("/%D1%81%D1%87%D1%91%D1%82.pdf", "счёт.pdf"),
        ("/a%0d%0aBcc:%20x@y.z", "a__Bcc: x@y.z"),
        ("/a/..%2F..%2Fetc%2Fpasswd", "passwd"),
        ("/..%5C", ".._"),
        ("/", "attachment-1.pdf"),
        ("/%2e%2e", "attachment-1.pdf"),
    ],
)
async def test_a_file_without_a_name_is_called_as_its_url_ends(path: str, name: str) -> None:
    async with hook_server() as hooks:
        hooks.body = PDF
        got = await fetched(attached(at(hooks, path)))
    assert got.parts[0].filename == name


HTML, ZIP, OLE = b"\n<HTML>", b"PK\x03\x04..", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"


@pytest.mark.parametrize(
    ("content", "wanted", "told", "expected"),
    [
        (PDF, None, "application/octet-stream", "application/pdf"),
        (PDF, None, "image/png", "application/pdf"),
        (PNG, None, None, "image/png"),
        (b"RIFF....WEBPVP8 ", None, None, "image/webp"),
        (b"\xff\xd8\xff\xe0", None, "image/JPEG; q=1", "image/jpeg"),
        (ZIP, None, DOCX, DOCX),
        (ZIP, None, "application/pdf", "application/zip"),
        (OLE, None, "application/msword", "application/msword"),
        (b"a,b\n", None, "text/csv; charset=utf-8", "text/csv"),
        (b"a,b\n", None, "image/png", "application/octet-stream"),
        (b"a,b\n", None, None, "application/octet-stream"),
        (b"a,b\n", None, "text/csv\r\nX: y", "application/octet-stream"),
        (b"a,b\n", None, "message/rfc822", "application/octet-stream"),
        (b"alert(1)", None, "text/javascript", "application/octet-stream"),
        (HTML, None, "text/html", "application/octet-stream"),
        (HTML, "text/html", None, "text/html"),
        (HTML, "application/pdf", "application/pdf", None),
        (PNG, "application/pdf", None, None),
        (b"text", "image/png", None, None),
        (PDF, "Application/PDF", None, "application/pdf"),
        (PDF, "application/octet-stream", None, "application/octet-stream"),
        (b"a,b\n", "text/csv", "text/html", "text/csv"),
        (
            ZIP,
            "application/vnd.oasis.opendocument.text",
            None,
            "application/vnd.oasis.opendocument.text",
        ),
    ],
)
def test_a_file_is_what_it_shows_else_what_is_said_of_it(
    content: bytes, wanted: str | None, told: str | None, expected: str | None
) -> None:
    assert file_type(content, wanted=wanted, told=told) == expected
