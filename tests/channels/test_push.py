"""FCM: the token exchange, what a phone is told, several devices, and each row of its errors."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import google.auth.jwt
import msgspec
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from outbox.channels.push import PushChannel
from outbox.errors import ConfigError
from outbox.message import Device, Message
from outbox.outcome import AlsoTo, Delivered, Misconfigured, Outcome, Rejected, Retryable
from tests.channels.api_server import DROP, HANG, ApiServer, Call, Reply, api_server
from tests.channels.messages import CREATED_AT, KEY
from tests.channels.outcomes import told

PROJECT = "cinema-1"
_KEY = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
PRIVATE_PEM = _KEY.private_bytes(
    serialization.Encoding.PEM,
    serialization.PrivateFormat.PKCS8,
    serialization.NoEncryption(),
).decode()
PUBLIC_PEM = _KEY.public_key().public_bytes(
    serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
)


def push(*tokens: str, **changes: Any) -> Message:
    given: dict[str, Any] = {
        "key": KEY,
        "tenant_id": "default",
        "queue": "push",
        "channel": "push",
        "devices": tuple(Device(token) for token in tokens or ("token-1",)),
        "subject": "Билеты",
        "text": "Ваши билеты готовы",
        "data_json": b'{"film": "x", "push": {"url": "/tickets/7", "n": 1.10}}',
        "created_at": CREATED_AT,
    }
    return Message(**{**given, **changes})


def error(status: int, name: str, fcm: str | None = None, **detail: Any) -> Reply:
    details: list[dict[str, object]] = [detail] if detail else []
    if fcm is not None:
        kind = "type.googleapis.com/google.firebase.fcm.v1.FcmError"
        details.append({"@type": kind, "errorCode": fcm})
    body = {"code": status, "message": f"no: {name}", "status": name, "details": details}
    return Reply(status, {"error": body})


@dataclass
class Firebase:
    """Google's token endpoint and FCM's send, as far as a sender meets them."""

    port: int = 0
    issued: list[str] = field(default_factory=list)
    live: set[str] = field(default_factory=set)
    expires_in: int = 3_600
    by_token: dict[str, Reply] = field(default_factory=dict)

    def speak(self, call: Call) -> Reply:
        if call.path == "/token":
            return self._exchange(call.form)
        if call.path != f"/v1/projects/{PROJECT}/messages:send":
            return error(404, "NOT_FOUND")
        if call.headers["Authorization"].removeprefix("Bearer ") not in self.live:
            return error(401, "UNAUTHENTICATED")
        token = call.json["message"]["token"]
        name = f"projects/{PROJECT}/messages/{token}"
        return self.by_token.get(token, Reply(200, {"name": name}))

    def _exchange(self, form: dict[str, str]) -> Reply:
        assert form["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer"
        url = f"http://127.0.0.1:{self.port}/token"
        try:
            claims = google.auth.jwt.decode(  # type: ignore[no-untyped-call]
                form["assertion"], certs=PUBLIC_PEM, audience=url
            )
        except ValueError:
            return Reply(400, {"error": "invalid_grant"})
        assert claims["iss"] == f"sender@{PROJECT}.iam.gserviceaccount.com"
        assert claims["scope"].endswith("/auth/firebase.messaging")
        assert claims["exp"] - claims["iat"] == 3_600
        token = f"ya29.{len(self.issued)}"
        self.issued.append(token)
        self.live.add(token)
        return Reply(200, {"access_token": token, "expires_in": self.expires_in})


def service_account(port: int, private_key: str = PRIVATE_PEM) -> str:
    account = {
        "type": "service_account",
        "project_id": PROJECT,
        "private_key_id": "k1",
        "private_key": private_key,
        "client_email": f"sender@{PROJECT}.iam.gserviceaccount.com",
        "token_uri": f"http://127.0.0.1:{port}/token",
    }
    return msgspec.json.encode(account).decode()


@asynccontextmanager
async def fcm() -> AsyncIterator[tuple[Firebase, ApiServer, PushChannel]]:
    firebase = Firebase()
    async with api_server(firebase.speak) as server:
        firebase.port = server.port
        settings = {
            "PUSH_KEY": service_account(server.port),
            "PUSH_URL": f"fcm+http://{server.place}",
        }
        async with PushChannel(settings) as channel:
            yield firebase, server, channel


def sends(server: ApiServer) -> list[Call]:
    return [call for call in server.calls if call.path != "/token"]


async def test_a_notification_reaches_a_phone() -> None:
    async with fcm() as (_, server, channel):
        outcome = await channel.deliver(push(), timeout_s=5)
    assert isinstance(outcome, Delivered)
    assert outcome.provider_message_id == f"projects/{PROJECT}/messages/token-1"
    assert outcome.sent is not None
    assert (outcome.sent.provider, outcome.sent.recipient) == ("fcm", "token-1")
    (call,) = sends(server)
    assert call.json == {
        "message": {
            "token": "token-1",
            "notification": {"title": "Билеты", "body": "Ваши билеты готовы"},
            "data": {"url": "/tickets/7", "n": "1.10", "job_id": str(KEY)},
            "android": {"notification": {"tag": str(KEY)}},
            "apns": {"headers": {"apns-collapse-id": str(KEY)}},
        }
    }


async def test_a_job_without_a_text_is_data_alone() -> None:
    message = push(subject=None, text=None, data_json='{"a": "ы", "b": {"c": [1]}}'.encode())
    async with fcm() as (_, server, channel):
        assert told(await channel.deliver(message, timeout_s=5)) == "done"
    (call,) = sends(server)
    sent = call.json["message"]
    assert sent["data"] == {"a": "ы", "b": '{"c": [1]}', "job_id": str(KEY)}
    assert "notification" not in sent
    assert sent["android"] == {}


async def test_the_ttl_is_what_is_left_until_expires_at() -> None:
    expires_at = datetime.now(UTC) + timedelta(seconds=600)
    async with fcm() as (_, server, channel):
        await channel.deliver(push(expires_at=expires_at), timeout_s=5)
    sent = sends(server)[0].json["message"]
    assert 590 <= int(sent["android"]["ttl"].removesuffix("s")) <= 600
    assert sent["apns"]["headers"]["apns-expiration"] == str(int(expires_at.timestamp()))
    assert 590 <= int(sent["webpush"]["headers"]["TTL"]) <= 600


# -- the access token ------------------------------------------------------------------------


async def test_one_token_serves_many_messages() -> None:
    async with fcm() as (firebase, server, channel):
        await channel.deliver(push("a", "b", "c"), timeout_s=5)
        await channel.deliver(push("d"), timeout_s=5)
    assert len(sends(server)) == 4
    assert len(firebase.issued) == 1


async def test_a_token_that_is_refused_is_exchanged_once() -> None:
    async with fcm() as (firebase, server, channel):
        assert told(await channel.deliver(push(), timeout_s=5)) == "done"
        firebase.live.clear()
        assert told(await channel.deliver(push(), timeout_s=5)) == "done"
        assert len(firebase.issued) == 2
        server.replies.extend([error(403, "PERMISSION_DENIED"), error(401, "x")])
        server.replies.insert(1, Reply(200, {"access_token": "ya29.x", "expires_in": 60}))
        outcome = await channel.deliver(push(), timeout_s=5)
    assert told(outcome) == "C lane"


async def test_a_token_is_exchanged_before_it_runs_out(monkeypatch: pytest.MonkeyPatch) -> None:
    async with fcm() as (firebase, _, channel):
        await channel.deliver(push(), timeout_s=5)
        later = time.monotonic() + 3_301
        monkeypatch.setattr("outbox.channels.fcm.time.monotonic", lambda: later)
        await channel.deliver(push(), timeout_s=5)
    assert len(firebase.issued) == 2


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (Reply(400, {"error": "invalid_grant"}), "C lane"),
        (Reply(401, {"error": "invalid_client"}), "C lane"),
        (Reply(429, {}), "T provider"),
        (Reply(503, {}), "T provider"),
        (Reply(200, b"what?"), "T"),
        (DROP, "T"),
        (HANG, "T"),
    ],
)
async def test_without_a_token_nothing_was_sent(reply: Reply | str, expected: str) -> None:
    async with fcm() as (_, server, channel):
        server.replies.append(reply)
        outcome = await channel.deliver(push(), timeout_s=0.5 if reply == HANG else 5)
    assert told(outcome) == expected
    assert not sends(server)


# -- the error table -------------------------------------------------------------------------

_VIOLATION: dict[str, Any] = {
    "fieldViolations": [{"field": "message.token", "description": "invalid"}]
}
_OTHER: dict[str, Any] = {
    "fieldViolations": [{"field": "message.data[0].value", "description": "invalid"}]
}


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (error(404, "NOT_FOUND", "UNREGISTERED"), "P S"),
        (error(400, "INVALID_ARGUMENT", "INVALID_ARGUMENT", **_VIOLATION), "P S"),
        (error(400, "INVALID_ARGUMENT", **_VIOLATION), "P S"),
        (error(400, "INVALID_ARGUMENT", "INVALID_ARGUMENT", **_OTHER), "P"),
        (error(400, "INVALID_ARGUMENT"), "P"),
        (error(403, "PERMISSION_DENIED", "SENDER_ID_MISMATCH"), "P"),
        (error(429, "RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED"), "T provider"),
        (error(503, "UNAVAILABLE", "UNAVAILABLE"), "T provider"),
        (error(500, "INTERNAL", "INTERNAL"), "T"),
        (Reply(502, b"<html>Bad Gateway</html>"), "T"),
        (error(401, "UNAUTHENTICATED", "THIRD_PARTY_AUTH_ERROR"), "C lane"),
        (error(401, "UNAUTHENTICATED"), "C lane"),
        (error(403, "PERMISSION_DENIED"), "C lane"),
        (Reply(404, b"no such project"), "T"),
        (DROP, "ambiguous"),
        (HANG, "ambiguous"),
    ],
)
async def test_each_row_of_the_table(reply: Reply | str, expected: str) -> None:
    outcome = await refused(reply)
    assert told(outcome) == expected
    if expected == "P S":
        assert isinstance(outcome, Rejected)
        assert (outcome.suppress, outcome.gone) == (False, ("token-1",))


async def refused(reply: Reply | str) -> Outcome:
    """Answer each send with `reply`, also after a new token."""
    async with fcm() as (firebase, server, channel):
        await channel.deliver(push("warm-up"), timeout_s=5)
        if isinstance(reply, Reply):
            firebase.by_token["token-1"] = reply
        else:
            server.replies.append(reply)
        return await channel.deliver(push(), timeout_s=0.5 if reply == HANG else 5)


async def test_a_pause_that_fcm_asks_for_is_kept() -> None:
    reply = error(429, "RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED")
    reply.headers["Retry-After"] = "60"
    outcome = await refused(reply)
    assert isinstance(outcome, Retryable)
    assert outcome.retry_after_s == 60.0


# -- several devices -------------------------------------------------------------------------

GONE = error(404, "NOT_FOUND", "UNREGISTERED")
AWAY = error(503, "UNAVAILABLE", "UNAVAILABLE")
BAD = error(400, "INVALID_ARGUMENT")


async def to_devices(**replies: Reply) -> Outcome:
    async with fcm() as (firebase, _, channel):
        firebase.by_token = replies
        return await channel.deliver(push("phone", "tablet", "old"), timeout_s=5)


async def test_all_devices_are_told() -> None:
    outcome = await to_devices()
    assert isinstance(outcome, Delivered)
    assert outcome.provider_message_id is not None
    names = outcome.provider_message_id.split()
    assert [name.rpartition("/")[2] for name in names] == ["phone", "tablet", "old"]
    assert (outcome.effects, outcome.gone) == ((), ())


async def test_one_device_is_enough_and_the_others_go_on_by_themselves() -> None:
    outcome = await to_devices(tablet=AWAY, old=GONE)
    assert isinstance(outcome, Delivered)
    assert outcome.effects == (AlsoTo(address="tablet"),)
    assert outcome.gone == ("old",)


async def test_where_no_device_took_it_the_job_is_retried_as_a_whole() -> None:
    outcome = await to_devices(phone=AWAY, tablet=BAD, old=GONE)
    assert isinstance(outcome, Retryable)
    assert outcome.gone == ("old",)


async def test_a_configuration_error_beside_a_permanent_one_holds() -> None:
    third_party = error(401, "UNAUTHENTICATED", "THIRD_PARTY_AUTH_ERROR")
    outcome = await to_devices(phone=third_party, tablet=BAD, old=GONE)
    assert isinstance(outcome, Misconfigured)
    assert outcome.gone == ("old",)


async def test_where_all_devices_are_gone_the_job_ends_and_they_are_forgotten() -> None:
    outcome = await to_devices(phone=GONE, tablet=GONE, old=GONE)
    assert isinstance(outcome, Rejected)
    assert outcome.gone == ("phone", "tablet", "old")


# -- what no phone can be told ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"devices": (), "to": None}, "recipient.no_address"),
        ({"text": None, "html": "<p>x</p>"}, "push.html"),
        ({"data_json": b'{"push": [1]}'}, "push.data"),
        ({"data_json": b'{"push": {"from": "x"}}'}, "push.data"),
        ({"data_json": b'{"push": {"google.x": "x"}}'}, "push.data"),
        ({"text": "ы" * 2_048}, "push.too_large"),
    ],
)
async def test_what_fcm_cannot_carry_is_permanent(changes: dict[str, Any], code: str) -> None:
    async with fcm() as (_, server, channel):
        outcome = await channel.deliver(push(**changes), timeout_s=5)
    assert isinstance(outcome, Rejected)
    assert outcome.code == code
    assert not server.calls


async def test_a_job_s_own_token_needs_no_directory() -> None:
    async with fcm() as (_, server, channel):
        message = push(devices=(), to="its-own")
        assert told(await channel.deliver(message, timeout_s=5)) == "done"
    assert sends(server)[0].json["message"]["token"] == "its-own"


@pytest.mark.parametrize(
    "key",
    ["{}", "secret-text", service_account(1, private_key="secret-text")],
    ids=["empty", "text", "no-key"],
)
def test_a_key_that_is_none_is_refused_at_the_start_and_not_told(key: str) -> None:
    with pytest.raises(ConfigError, match="OUTBOX_PUSH_KEY") as refusal:
        PushChannel({"PUSH_KEY": key})
    assert "secret-text" not in str(refusal.value)
    assert quote(key) not in str(refusal.value)
