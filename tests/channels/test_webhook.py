from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Sequence
from pathlib import Path

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from outbox.channels.webhook import WebhookChannel
from outbox.errors import ConfigError
from outbox.outcome import Delivered, Misconfigured, Outcome, Rejected, Retryable, SinkRow
from tests.channels.certificates import make_authority
from tests.channels.hook_server import hook_server, raw_server
from tests.channels.messages import KEY, webhook
from tests.channels.test_http_errors import STATUSES, told

SECRETS = (
    "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
)
ALLOW = {"WEBHOOK_ALLOW": "127.0.0.1"}
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


async def post(url: str, *, timeout_s: float = 30.0, **changes: object) -> Outcome:
    async with WebhookChannel(ALLOW) as channel:
        return await channel.deliver(webhook(url, **changes), timeout_s=timeout_s)


async def test_the_receiver_gets_type_timestamp_and_the_data_byte_for_byte() -> None:
    async with hook_server() as hooks:
        outcome = await post(f"http://127.0.0.1:{hooks.port}/hook?a=b", traceparent=TRACEPARENT)
    assert isinstance(outcome, Delivered)
    (call,) = hooks.calls
    assert (call.method, call.path) == ("POST", "/hook?a=b")
    assert call.body == (
        b'{"type":"user_registered","timestamp":"2025-11-14T12:35:10Z",'
        b'"data":{"n": 1.10, "big": 12345678901234567890123}}'
    )
    assert call.headers["Content-Type"] == "application/json"
    assert call.headers["User-Agent"] == "Outbox-Webhook/1"
    assert call.headers["Host"] == f"127.0.0.1:{hooks.port}"
    assert call.headers["webhook-id"] == str(KEY)
    assert call.headers["traceparent"] == TRACEPARENT
    assert "webhook-signature" not in call.headers
    assert outcome.sent is not None
    assert outcome.sent.provider == "http"
    assert outcome.sent.content == call.body


async def test_a_trace_context_that_is_none_is_not_passed_on() -> None:
    async with hook_server() as hooks:
        await post(f"http://127.0.0.1:{hooks.port}/", traceparent="x\r\nHost: y")
    assert "traceparent" not in hooks.calls[0].headers


async def test_every_secret_signs_so_that_keys_can_rotate() -> None:
    async with hook_server() as hooks:
        await post(f"http://127.0.0.1:{hooks.port}/", secrets=SECRETS)
    (call,) = hooks.calls
    for secret in SECRETS:
        assert Webhook(secret).verify(call.body, dict(call.headers))
    assert len(call.headers["webhook-signature"].split(" ")) == 2
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRETS[0]).verify(call.body + b" ", dict(call.headers))


async def test_the_settings_secret_signs_what_has_none_of_its_own() -> None:
    given = {**ALLOW, "WEBHOOK_SECRET": " ".join(SECRETS)}
    async with hook_server() as hooks, WebhookChannel(given) as channel:
        url = f"http://127.0.0.1:{hooks.port}/"
        await channel.deliver(webhook(url), timeout_s=30)
        await channel.deliver(webhook(url, secrets=SECRETS[:1]), timeout_s=30)
    both, own = hooks.calls
    assert Webhook(SECRETS[1]).verify(both.body, dict(both.headers))
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRETS[1]).verify(own.body, dict(own.headers))


async def test_a_secret_that_cannot_sign_holds_the_endpoint() -> None:
    outcome = await post("http://127.0.0.1:1/", secrets=("whsec_!!",), endpoint="e1")
    assert isinstance(outcome, Misconfigured)
    assert (outcome.code, outcome.scope, outcome.scope_key) == ("webhook.secret", "endpoint", "e1")
    assert "!!" not in outcome.reason


@pytest.mark.parametrize(
    ("text", "content_type"),
    [
        ('{"text": "Привет"}', "application/json"),
        ("Привет", "text/plain; charset=utf-8"),
        ("", "text/plain; charset=utf-8"),
    ],
)
async def test_a_rendered_text_is_the_body(text: str, content_type: str) -> None:
    async with hook_server() as hooks:
        assert isinstance(await post(f"http://127.0.0.1:{hooks.port}/", text=text), Delivered)
    assert hooks.calls[0].body == text.encode()
    assert hooks.calls[0].headers["Content-Type"] == content_type


async def test_custom_headers_go_along() -> None:
    async with hook_server() as hooks:
        await post(f"http://127.0.0.1:{hooks.port}/", headers={"Authorization": "Bearer abc"})
    assert hooks.calls[0].headers["Authorization"] == "Bearer abc"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Host", "internal"),
        ("Content-Length", "0"),
        ("transfer-encoding", "chunked"),
        ("Connection", "close"),
        ("Content-Type", "text/html"),
        ("User-Agent", "x"),
        ("webhook-id", "x"),
        ("Webhook-Signature", "x"),
        ("Proxy-Authorization", "x"),
        ("X-Forwarded-For", "127.0.0.1"),
        ("X-A", "b\r\nHost: internal"),
        ("X-A", "ж"),
    ],
)
async def test_a_reserved_or_malformed_header_is_rejected(name: str, value: str) -> None:
    async with hook_server() as hooks:
        outcome = await post(f"http://127.0.0.1:{hooks.port}/", headers={name: value})
    assert isinstance(outcome, Rejected)
    assert outcome.code == "webhook.header"
    assert not hooks.calls


async def test_each_row_of_the_table_means_the_same_over_the_wire() -> None:
    async with hook_server() as hooks, WebhookChannel(ALLOW) as channel:
        url = f"http://127.0.0.1:{hooks.port}/"
        for status, endpoint, job in STATUSES:
            if status < 200:
                continue  # no final status: what aiohttp's server cannot send as one
            hooks.status = status
            of_endpoint = await channel.deliver(webhook(url, endpoint="e1"), timeout_s=30)
            of_job = await channel.deliver(webhook(url), timeout_s=30)
            assert (told(of_endpoint), told(of_job)) == (endpoint, job), status
        hooks.headers = {"Retry-After": "9"}
        for status in (429, 503):
            hooks.status = status
            outcome = await channel.deliver(webhook(url), timeout_s=30)
            assert told(outcome) == "T destination"
            assert isinstance(outcome, Retryable)
            assert outcome.retry_after_s == 9.0


async def test_a_refusal_tells_status_and_the_start_of_the_answer_without_our_headers() -> None:
    async with hook_server() as hooks:
        hooks.status, hooks.body = 422, b"no:\n  Bearer sesame is wrong " + b"x" * 1_000
        outcome = await post(
            f"http://127.0.0.1:{hooks.port}/", headers={"Authorization": "Bearer sesame"}
        )
    assert isinstance(outcome, Retryable)
    assert (outcome.code, outcome.attempts_max, outcome.retry_after_s) == ("http.422", 3, 5.0)
    assert outcome.reason.startswith("The receiver answered 422: no: … is wrong xxx")
    assert "sesame" not in outcome.reason
    assert len(outcome.reason) < 400
    assert outcome.sent is not None


async def test_a_pause_that_the_receiver_asks_for_is_for_its_host() -> None:
    async with hook_server() as hooks:
        hooks.status, hooks.headers = 429, {"retry-after": "17"}
        outcome = await post(f"http://127.0.0.1:{hooks.port}/")
    assert isinstance(outcome, Retryable)
    assert (outcome.scope, outcome.retry_after_s) == ("destination", 17.0)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_is_never_followed(status: int) -> None:
    async with hook_server() as hooks:
        hooks.status = status
        hooks.headers = {"Location": f"http://127.0.0.1:{hooks.port}/elsewhere"}
        outcome = await post(f"http://127.0.0.1:{hooks.port}/", endpoint="e1")
    assert isinstance(outcome, Misconfigured)
    assert (outcome.scope, outcome.scope_key) == ("endpoint", "e1")
    assert [call.path for call in hooks.calls] == ["/"]


@pytest.mark.parametrize(("endpoint", "scope"), [("e1", "endpoint"), (None, "job")])
async def test_a_401_holds_the_endpoint_or_else_the_job(endpoint: str | None, scope: str) -> None:
    async with hook_server() as hooks:
        hooks.status = 401
        outcome = await post(f"http://127.0.0.1:{hooks.port}/", endpoint=endpoint)
    assert isinstance(outcome, Misconfigured)
    assert outcome.scope == scope


async def test_a_404_holds_the_endpoint_at_the_fourth_attempt() -> None:
    async with hook_server() as hooks:
        hooks.status = 404
        url = f"http://127.0.0.1:{hooks.port}/"
        assert isinstance(await post(url, endpoint="e1", attempt=3), Retryable)
        assert isinstance(await post(url, endpoint="e1", attempt=4), Misconfigured)


async def test_an_answer_is_read_only_up_to_its_cap() -> None:
    async with hook_server() as hooks, WebhookChannel(ALLOW) as channel:
        hooks.body = b"x" * 5_000_000
        message = webhook(f"http://127.0.0.1:{hooks.port}/")
        assert isinstance(await channel.deliver(message, timeout_s=30), Delivered)
        assert isinstance(await channel.deliver(message, timeout_s=30), Delivered)
        assert len(hooks.connections) == 2


async def test_a_connection_is_used_again() -> None:
    async with hook_server() as hooks, WebhookChannel(ALLOW) as channel:
        for _ in range(5):
            await channel.deliver(webhook(f"http://127.0.0.1:{hooks.port}/"), timeout_s=30)
        assert len(hooks.connections) == 1


async def test_a_proxy_from_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with hook_server() as hooks:
        assert isinstance(await post(f"http://127.0.0.1:{hooks.port}/"), Delivered)


async def test_cookies_are_not_kept() -> None:
    async with hook_server() as hooks, WebhookChannel(ALLOW) as channel:
        hooks.headers = {"Set-Cookie": "session=1; Path=/"}
        for _ in range(2):
            await channel.deliver(webhook(f"http://127.0.0.1:{hooks.port}/"), timeout_s=30)
    assert "Cookie" not in hooks.calls[1].headers


class TestNoAnswer:
    async def test_a_receiver_that_never_answers_is_ambiguous(self) -> None:
        async with hook_server() as hooks:
            hooks.hold = asyncio.Event()
            outcome = await post(f"http://127.0.0.1:{hooks.port}/", timeout_s=0.3)
        assert isinstance(outcome, Retryable)
        assert (outcome.code, outcome.ambiguous) == ("http.timeout", True)

    async def test_a_connection_that_is_never_made_is_not_ambiguous(self) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            outcome = await post(f"http://127.0.0.1:{taken.getsockname()[1]}/")
        assert isinstance(outcome, Retryable)
        assert (outcome.code, outcome.ambiguous) == ("http.connect", False)

    async def test_a_connection_that_closes_after_the_request_is_ambiguous(self) -> None:
        async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"}}")

        async with raw_server(close) as port:
            outcome = await post(f"http://127.0.0.1:{port}/")
        assert isinstance(outcome, Retryable)
        assert (outcome.code, outcome.ambiguous) == ("http.lost", True)

    async def test_an_answer_that_is_no_http_is_ambiguous(self) -> None:
        async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"}}")
            writer.write(b"220 mail.test ESMTP\r\n")
            await writer.drain()

        async with raw_server(babble) as port:
            outcome = await post(f"http://127.0.0.1:{port}/")
        assert isinstance(outcome, Retryable)
        assert (outcome.code, outcome.ambiguous) == ("http.protocol", True)

    async def test_a_status_stands_even_if_the_rest_never_comes(self) -> None:
        async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"}}")
            writer.write(b"HTTP/1.1 201 Created\r\nContent-Length: 100\r\n\r\nhalf")
            await writer.drain()
            await reader.read()

        async with raw_server(half) as port:
            assert isinstance(await post(f"http://127.0.0.1:{port}/", timeout_s=0.5), Delivered)

    async def test_a_cut_off_answer_keeps_its_status(self) -> None:
        async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"}}")
            writer.write(b"HTTP/1.1 500 Oops\r\nContent-Length: 100\r\n\r\nhalf")
            await writer.drain()

        async with raw_server(cut) as port:
            outcome = await post(f"http://127.0.0.1:{port}/")
        assert isinstance(outcome, Retryable)
        assert (outcome.code, outcome.ambiguous) == ("http.500", False)

    async def test_endless_headers_do_not_make_the_process_grow(self) -> None:
        async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"}}")
            writer.write(b"HTTP/1.1 200 OK\r\n")
            while True:
                writer.write(b"X-A: " + b"a" * 4_000 + b"\r\n")
                await writer.drain()

        async with raw_server(flood) as port:
            outcome = await post(f"http://127.0.0.1:{port}/", timeout_s=5)
        assert isinstance(outcome, Retryable)
        assert outcome.ambiguous


class TestGuarded:
    @pytest.mark.parametrize(
        "url",
        ["http://127.0.0.1/", "http://10.0.0.1/", "ftp://example.com/", "http://u:p@example.com/"],
    )
    async def test_a_blocked_address_ends_a_job_and_holds_an_endpoint(self, url: str) -> None:
        async with WebhookChannel({}) as channel:
            own = await channel.deliver(webhook(url), timeout_s=5)
            endpoints = await channel.deliver(webhook(url, endpoint="e1"), timeout_s=5)
        assert isinstance(own, Rejected)
        assert own.code == "http.blocked"
        assert isinstance(endpoints, Misconfigured)
        assert endpoints.scope == "endpoint"

    async def test_a_name_that_does_not_exist_ends_a_job_and_holds_an_endpoint(self) -> None:
        async def unknown(host: str) -> Sequence[str]:
            raise socket.gaierror(socket.EAI_NONAME, "unknown")

        async with WebhookChannel({}, lookup=unknown) as channel:
            own = await channel.deliver(webhook("http://gone.example.com/"), timeout_s=5)
            endpoints = await channel.deliver(
                webhook("http://gone.example.com/", endpoint="e1"), timeout_s=5
            )
        assert isinstance(own, Rejected)
        assert own.code == "http.nxdomain"
        assert isinstance(endpoints, Misconfigured)

    async def test_a_resolver_that_is_away_is_temporary(self) -> None:
        async def away(host: str) -> Sequence[str]:
            raise socket.gaierror(socket.EAI_AGAIN, "later")

        async with WebhookChannel({}, lookup=away) as channel:
            outcome = await channel.deliver(webhook("http://example.com/"), timeout_s=5)
        assert isinstance(outcome, Retryable)
        assert (outcome.code, outcome.ambiguous) == ("http.dns", False)

    async def test_a_name_that_is_rebound_to_this_machine_reaches_nothing(self) -> None:
        async def rebound(host: str) -> Sequence[str]:
            return ["127.0.0.1"]

        async with hook_server() as hooks:
            async with WebhookChannel({}, lookup=rebound) as channel:
                url = f"http://rebind.example.com:{hooks.port}/"
                outcome = await channel.deliver(webhook(url), timeout_s=5)
            assert not hooks.connections
        assert isinstance(outcome, Rejected)
        assert outcome.code == "http.blocked"

    async def test_the_connection_goes_to_the_very_address_that_was_checked(self) -> None:
        """A resolver that answers otherwise the second time is never asked a second time."""
        asked: list[str] = []

        async def rebinding(host: str) -> Sequence[str]:
            asked.append(host)
            return ["127.0.0.1"] if len(asked) == 1 else ["192.0.2.1"]

        async with hook_server() as hooks:
            allow = {"WEBHOOK_ALLOW": f"127.0.0.1:{hooks.port}"}
            async with WebhookChannel(allow, lookup=rebinding) as channel:
                url = f"http://rebind.example.com:{hooks.port}/"
                assert isinstance(await channel.deliver(webhook(url), timeout_s=5), Delivered)
        assert asked == ["rebind.example.com"]
        assert hooks.calls[0].headers["Host"] == f"rebind.example.com:{hooks.port}"


class TestTls:
    async def test_the_name_is_verified_though_the_address_is_ours(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def local(host: str) -> Sequence[str]:
            return ["127.0.0.1"]

        authority = make_authority(tmp_path, host="hooks.example.com")
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca_file))
        async with (
            hook_server(authority.server) as hooks,
            WebhookChannel(ALLOW, lookup=local) as channel,
        ):
            right = await channel.deliver(
                webhook(f"https://hooks.example.com:{hooks.port}/"), timeout_s=5
            )
            wrong = await channel.deliver(
                webhook(f"https://other.example.com:{hooks.port}/", endpoint="e1"), timeout_s=5
            )
        assert isinstance(right, Delivered)
        assert isinstance(wrong, Misconfigured)
        assert (wrong.code, wrong.scope) == ("http.certificate", "endpoint")

    async def test_a_certificate_of_nobody_we_know_holds(self, tmp_path: Path) -> None:
        async with hook_server(make_authority(tmp_path).server) as hooks:
            outcome = await post(f"https://127.0.0.1:{hooks.port}/")
        assert isinstance(outcome, Misconfigured)
        assert (outcome.code, outcome.scope) == ("http.certificate", "job")

    async def test_a_server_without_tls_is_temporary(self) -> None:
        async with hook_server() as hooks:
            outcome = await post(f"https://127.0.0.1:{hooks.port}/")
        assert isinstance(outcome, Retryable)
        assert outcome.code == "http.tls"


async def test_a_job_without_an_address_is_rejected() -> None:
    async with WebhookChannel({}) as channel:
        outcome = await channel.deliver(webhook(None), timeout_s=5)
    assert isinstance(outcome, Rejected)
    assert outcome.code == "recipient.no_address"


async def test_the_sandbox_keeps_the_body() -> None:
    async with hook_server() as hooks:
        async with WebhookChannel({**ALLOW, "MODE": "sandbox"}) as channel:
            url = f"http://127.0.0.1:{hooks.port}/"
            outcome = await channel.deliver(webhook(url), timeout_s=5)
        assert not hooks.calls
    assert isinstance(outcome, Delivered)
    (row,) = outcome.effects
    assert isinstance(row, SinkRow)
    assert row.recipient == url
    assert row.body.startswith('{"type":"user_registered"')
    kept = {name.lower(): value for name, value in json.loads(row.headers_json).items()}
    assert kept["content-type"] == "application/json"
    assert kept["webhook-id"] == str(KEY)


@pytest.mark.parametrize(
    "given",
    [
        {"WEBHOOK_SECRET": "whsec_!!"},
        {"WEBHOOK_SECRET": "whsec_YQ=="},
        {"WEBHOOK_ALLOW": "http://intranet"},
        {"WEBHOOK_PROVIDER": "carrier-pigeon"},
    ],
)
def test_a_malformed_setting_is_refused_at_the_start(given: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="OUTBOX_WEBHOOK") as refusal:
        WebhookChannel(given)
    assert "!!" not in str(refusal.value)


@pytest.mark.parametrize("status", [200, 202, 204])
async def test_an_answer_without_a_body_is_an_answer(status: int) -> None:
    async with hook_server() as hooks, WebhookChannel(ALLOW) as channel:
        hooks.status, hooks.body = status, b""
        for _ in range(2):
            message = webhook(f"http://127.0.0.1:{hooks.port}/")
            assert isinstance(await channel.deliver(message, timeout_s=5), Delivered)
        assert len(hooks.connections) == 1
