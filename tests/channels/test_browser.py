"""Web Push: encrypted for the browser, signed for the push service, and each row of its errors."""

from __future__ import annotations

import json
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import http_ece
import py_vapid
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from outbox.channels.browser import PLAIN_BYTES_MAX, BrowserChannel
from outbox.errors import ConfigError
from outbox.message import Device, Message
from outbox.outcome import AlsoTo, Delivered, Misconfigured, Outcome, Rejected, SinkRow
from tests.channels.api_server import DROP, HANG, ApiServer, Call, Reply, api_server
from tests.channels.messages import CREATED_AT, KEY
from tests.channels.outcomes import told

SUBJECT = "mailto:ops@cinema.example"


def base64(raw: bytes) -> str:
    return urlsafe_b64encode(raw).decode().rstrip("=")


def unbase64(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


_VAPID = py_vapid.Vapid02()
_VAPID.generate_keys()
VAPID_PEM = _VAPID.private_pem().decode()
VAPID_RAW = base64(_VAPID.private_key.private_numbers().private_value.to_bytes(32, "big"))
VAPID_PUBLIC = base64(
    _VAPID.public_key.public_bytes(
        serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
    )
)


@dataclass
class Browser:
    """A browser's subscription, with the private key that never leaves it."""

    name: str
    key: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP256R1())
    )
    auth: bytes = b"0123456789abcdef"

    def device(self, port: int) -> Device:
        point = self.key.public_key().public_bytes(
            serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
        )
        url = f"http://127.0.0.1:{port}/send/{self.name}"
        return Device(url, p256dh=base64(point), auth=base64(self.auth))

    def read(self, call: Call) -> Any:
        plain = http_ece.decrypt(
            call.body, private_key=self.key, auth_secret=self.auth, version="aes128gcm"
        )
        return json.loads(plain)


def speak_push(call: Call) -> Reply:
    """A push service (RFC 8030) that checks signature, encoding, TTL and size."""
    kind, _, parts = call.headers["Authorization"].partition(" ")
    token = dict(part.split("=", 1) for part in parts.split(","))
    if kind != "vapid" or not py_vapid.Vapid02.verify(call.headers["Authorization"]):
        return Reply(403, b"invalid JWT")
    claims = json.loads(unbase64(token["t"].split(".")[1]))
    host = call.headers["Host"]
    if claims["aud"] != f"http://{host}" or not 0 < claims["exp"] - time.time() <= 86_400:
        return Reply(403, b"invalid claims")
    if claims["sub"] != SUBJECT or token["k"] != VAPID_PUBLIC:
        return Reply(403, b"not the key of the subscription")
    if call.headers["Content-Encoding"] != "aes128gcm" or not call.headers["TTL"].isdigit():
        return Reply(400, b"missing TTL or encoding")
    if len(call.body) > 4_096:
        return Reply(413, b"too large")
    return Reply(201, b"", {"Location": f"http://{host}/message/1"})


def note(*devices: Device, **changes: Any) -> Message:
    given: dict[str, Any] = {
        "key": KEY,
        "tenant_id": "default",
        "queue": "browser",
        "channel": "browser",
        "devices": devices,
        "subject": "Билеты",
        "text": "Ваши билеты готовы",
        "data_json": b'{"film": "x", "push": {"url": "/tickets/7"}}',
        "created_at": CREATED_AT,
    }
    return Message(**{**given, **changes})


@asynccontextmanager
async def service(key: str = VAPID_PEM) -> AsyncIterator[tuple[ApiServer, BrowserChannel]]:
    async with api_server(speak_push) as server:
        settings = {
            "BROWSER_KEY": key,
            "BROWSER_SUBJECT": SUBJECT,
            "WEBHOOK_ALLOW": server.place,
        }
        async with BrowserChannel(settings) as channel:
            yield server, channel


@pytest.mark.parametrize("key", [VAPID_PEM, VAPID_RAW], ids=["pem", "raw"])
async def test_the_browser_alone_can_read_what_it_is_told(key: str) -> None:
    browser, other = Browser("one"), Browser("other")
    async with service(key) as (server, channel):
        outcome = await channel.deliver(note(browser.device(server.port)), timeout_s=5)
    assert isinstance(outcome, Delivered)
    assert outcome.provider_message_id == f"http://{server.place}/message/1"
    assert outcome.sent is not None
    assert outcome.sent.recipient == f"http://{server.place}/send/one"
    (call,) = server.calls
    assert browser.read(call) == {
        "title": "Билеты",
        "body": "Ваши билеты готовы",
        "data": {"url": "/tickets/7"},
        "job_id": str(KEY),
    }
    with pytest.raises(http_ece.ECEException, match="InvalidTag"):
        other.read(call)
    assert call.headers["Topic"] == KEY.hex
    assert call.headers["TTL"] == "2419200"


async def test_every_message_has_a_key_and_a_salt_of_its_own() -> None:
    browser = Browser("one")
    async with service() as (server, channel):
        for _ in range(2):
            await channel.deliver(note(browser.device(server.port)), timeout_s=5)
    first, second = (call.body for call in server.calls)
    assert first[:16] != second[:16]
    assert first[21:86] != second[21:86]


async def test_the_ttl_is_what_is_left_until_expires_at() -> None:
    browser = Browser("one")
    soon = datetime.now(UTC) + timedelta(seconds=600)
    async with service() as (server, channel):
        device = browser.device(server.port)
        await channel.deliver(note(device, expires_at=soon), timeout_s=5)
        await channel.deliver(note(device, expires_at=CREATED_AT), timeout_s=5)
    ttls = [int(call.headers["TTL"]) for call in server.calls]
    assert 590 <= ttls[0] <= 600
    assert ttls[1] == 0


async def test_a_job_without_a_text_tells_the_whole_data() -> None:
    browser = Browser("one")
    async with service() as (server, channel):
        message = note(browser.device(server.port), subject=None, text=None, data_json=b'{"a": 1}')
        assert told(await channel.deliver(message, timeout_s=5)) == "done"
    assert browser.read(server.calls[0]) == {"data": {"a": 1}, "job_id": str(KEY)}


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (Reply(200, b""), "done"),
        (Reply(201, b""), "done"),
        (Reply(202, b""), "done"),
        (Reply(404, b""), "P S"),
        (Reply(410, b""), "P S"),
        (Reply(401, b""), "C endpoint"),
        (Reply(403, b""), "C endpoint"),
        (Reply(400, b""), "P"),
        (Reply(413, b""), "P"),
        (Reply(429, b"", {"Retry-After": "9"}), "T destination"),
        (Reply(500, b""), "T"),
        (Reply(502, b""), "T"),
        (Reply(503, b""), "T"),
        (Reply(503, b"", {"Retry-After": "9"}), "T destination"),
        (Reply(302, b"", {"Location": "http://127.0.0.1/"}), "C endpoint"),
        (DROP, "ambiguous"),
        (HANG, "ambiguous"),
    ],
)
async def test_each_row_of_the_table(reply: Reply | str, expected: str) -> None:
    outcome, server = await refused(reply)
    assert told(outcome) == expected
    if expected == "P S":
        assert isinstance(outcome, Rejected)
        assert outcome.gone == (f"http://{server.place}/send/one",)
    if expected == "C endpoint":
        assert isinstance(outcome, Misconfigured)
        assert outcome.scope_key == f"http://{server.place}"


async def refused(reply: Reply | str) -> tuple[Outcome, ApiServer]:
    async with service() as (server, channel):
        server.replies.append(reply)
        message = note(Browser("one").device(server.port))
        outcome = await channel.deliver(message, timeout_s=0.5 if reply == HANG else 5)
        return outcome, server


async def test_a_signature_of_another_key_holds_that_push_service_alone() -> None:
    other = py_vapid.Vapid02()
    other.generate_keys()
    async with service(other.private_pem().decode()) as (server, channel):
        outcome = await channel.deliver(note(Browser("one").device(server.port)), timeout_s=5)
    assert isinstance(outcome, Misconfigured)
    assert (outcome.code, outcome.scope) == ("webpush.403", "endpoint")


async def test_an_endpoint_inside_the_network_is_never_called() -> None:
    browser = Browser("one")
    async with service() as (server, _):
        settings = {"BROWSER_KEY": VAPID_PEM, "BROWSER_SUBJECT": SUBJECT}
        async with BrowserChannel(settings) as channel:
            outcome = await channel.deliver(note(browser.device(server.port)), timeout_s=5)
    assert isinstance(outcome, Rejected)
    assert (outcome.code, outcome.gone) == ("http.blocked", ())
    assert not server.calls


@pytest.mark.parametrize(
    "broken",
    [
        {"p256dh": "AAAA"},
        {"auth": "AAAA"},
        {"p256dh": None},
        {"p256dh": base64(b"\4" + b"x" * 64)},
    ],
)
async def test_a_subscription_with_keys_that_make_no_sense_is_forgotten(
    broken: dict[str, str | None],
) -> None:
    async with service() as (server, channel):
        good = Browser("one").device(server.port)
        given = {"p256dh": good.p256dh, "auth": good.auth, **broken}
        outcome = await channel.deliver(note(Device(good.address, **given)), timeout_s=5)
    assert isinstance(outcome, Rejected)
    assert (outcome.code, outcome.gone) == ("browser.subscription", (good.address,))


async def test_a_browser_that_is_gone_does_not_keep_another_from_being_told() -> None:
    browsers = [Browser("one"), Browser("two"), Browser("three")]
    async with service() as (server, channel):
        devices = [browser.device(server.port) for browser in browsers]
        server.replies.extend([Reply(201, b""), Reply(410, b""), Reply(503, b"")])
        outcome = await channel.deliver(note(*devices), timeout_s=5)
        order = [call.path.rpartition("/")[2] for call in server.calls]
    assert isinstance(outcome, Delivered)
    by_name = dict(zip(("one", "two", "three"), devices, strict=True))
    assert outcome.gone == (by_name[order[1]].address,)
    assert outcome.effects == (AlsoTo(address=by_name[order[2]].address),)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"devices": ()}, "recipient.no_address"),
        ({"devices": (), "to": "https://push.example.com/unknown"}, "recipient.no_address"),
        ({"text": None, "html": "<p>x</p>"}, "browser.html"),
        ({"data_json": b'{"push": 1}'}, "browser.data"),
        ({"text": "x" * PLAIN_BYTES_MAX}, "browser.too_large"),
    ],
)
async def test_what_no_browser_can_be_told_is_permanent(
    changes: dict[str, Any], code: str
) -> None:
    async with service() as (server, channel):
        device = Browser("one").device(server.port)
        outcome = await channel.deliver(note(device, **changes), timeout_s=5)
    assert isinstance(outcome, Rejected)
    assert outcome.code == code
    assert not server.calls


async def test_the_largest_message_that_is_let_through_is_one_that_push_services_take() -> None:
    browser = Browser("one")
    frame = len(b'{"job_id":"","data":{},"body":""}') + len(str(KEY))
    text = "x" * (PLAIN_BYTES_MAX - frame)
    async with service() as (server, channel):
        message = note(browser.device(server.port), subject=None, text=text, data_json=b"{}")
        assert told(await channel.deliver(message, timeout_s=5)) == "done"
    assert len(server.calls[0].body) == 4_096


async def test_the_sandbox_keeps_what_a_browser_would_have_read() -> None:
    async with BrowserChannel({"MODE": "sandbox"}) as channel:
        outcome = await channel.deliver(note(Browser("one").device(1)), timeout_s=5)
    assert isinstance(outcome, Delivered)
    (row,) = outcome.effects
    assert isinstance(row, SinkRow)
    assert json.loads(row.body)["title"] == "Билеты"


@pytest.mark.parametrize(
    "settings",
    [
        {"BROWSER_KEY": "not-a-key", "BROWSER_SUBJECT": SUBJECT},
        {"BROWSER_KEY": VAPID_PEM},
        {"BROWSER_KEY": VAPID_PEM, "BROWSER_SUBJECT": "ops"},
    ],
)
def test_a_key_or_subject_that_is_none_is_refused_at_the_start(settings: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="OUTBOX_BROWSER_") as refusal:
        BrowserChannel(settings)
    assert "not-a-key" not in str(refusal.value)
