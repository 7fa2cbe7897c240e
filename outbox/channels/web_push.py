"""The provider `webpush`: RFC 8030 requests, encrypted by RFC 8291, signed by RFC 8292 (VAPID).

The addresses are what browsers told: each goes through the guard. The topic is the job's id, so
that a repetition replaces what waits at the push service.
"""

from __future__ import annotations

import os
import time
from base64 import urlsafe_b64decode
from collections import OrderedDict
from datetime import UTC, datetime
from urllib.parse import urlsplit

import http_ece
import msgspec
import py_vapid
from cryptography.hazmat.primitives.asymmetric import ec

from outbox.channels.api_client import ApiClient, no_answer, reason_of, said_by
from outbox.channels.captured import sent_by
from outbox.channels.devices import to_each
from outbox.channels.http_client import HttpAnswer, HttpFailure
from outbox.channels.http_errors import classify_http, classify_http_trouble, retry_after_s
from outbox.channels.provider_config import ProviderConfig
from outbox.channels.provider_errors import WEB_PUSH_TABLE, classify, find_row
from outbox.errors import ConfigError
from outbox.message import Device, Message
from outbox.outcome import Delivered, Outcome, Rejected, Sent

TTL_S_MAX = 2_419_200
"""Four weeks, which is what messages without `expires_at` get; push services cap it."""
SIGNATURE_S = 12 * 3_600
"""How long a signature holds; RFC 8292 allows a day. It is made anew after half of that."""
ORIGINS_MAX = 256
RECORD_BYTES = 4_096


class WebPush:
    """Its secret is the VAPID private key: PEM, or base64url of DER or of the 32 bytes.

    Options: `subject`, a mailto: or https: URL that tells push services whom to ask.
    """

    def __init__(self, config: ProviderConfig, client: ApiClient) -> None:
        self._client = client
        self._subject = config.options.get("subject", "")
        self._vapid = vapid_key(config.secret)
        self._signed: OrderedDict[str, tuple[float, str]] = OrderedDict()
        try:
            self._signature("https://push.example.com")
        except py_vapid.VapidException:
            raise ConfigError(
                "OUTBOX_BROWSER_SUBJECT must be mailto:somebody@example.com or https://…"
            ) from None

    async def send(self, message: Message, *, timeout_s: float) -> Outcome:
        """Send to each of the user's browsers."""
        deadline = time.monotonic() + timeout_s
        return await to_each(message, lambda device: self._send(message, device, deadline))

    async def _send(self, message: Message, device: Device, deadline: float) -> Outcome:
        sent = msgspec.structs.replace(sent_by("webpush", message), recipient=device.address)
        try:
            body = encrypted((message.text or "").encode(), device)
            origin = _origin(device.address)
        except ValueError:
            reason = "The subscription's keys or its endpoint make no sense"
            return Rejected(code="browser.subscription", reason=reason, suppress=True, sent=sent)
        answer = await self._client.post(
            device.address,
            headers={
                "Authorization": self._signature(origin),
                "Content-Encoding": "aes128gcm",
                "Content-Type": "application/octet-stream",
                "TTL": str(_ttl_s(message)),
                "Topic": message.key.hex,
            },
            body=body,
            timeout_s=max(0.0, deadline - time.monotonic()),
        )
        if isinstance(answer, HttpFailure):
            if answer.trouble in ("blocked", "nxdomain"):
                return classify_http_trouble(
                    answer.trouble, "job", reason=answer.reason, sent=sent
                )
            outcome = no_answer(answer, sent)
            if answer.trouble != "certificate":
                return outcome
            return classify_http_trouble(
                answer.trouble, "endpoint", reason=answer.reason, scope_key=origin, sent=sent
            )
        if answer.status in (200, 201, 202):
            return Delivered(provider_message_id=answer.headers.get("Location"), sent=sent)
        return _refused(answer, origin, message, sent)

    def _signature(self, origin: str) -> str:
        """Return the Authorization header for a push service."""
        now_s = time.time()
        until_s, header = self._signed.get(origin, (0.0, ""))
        if until_s - now_s < SIGNATURE_S / 2:
            until_s = now_s + SIGNATURE_S
            claims = {"aud": origin, "sub": self._subject, "exp": int(until_s)}
            header = self._vapid.sign(claims)["Authorization"]
            self._signed[origin] = until_s, header
            if len(self._signed) > ORIGINS_MAX:
                self._signed.popitem(last=False)
        return header


def vapid_key(text: str) -> py_vapid.Vapid02:
    """Return the private key. Raises ConfigError, which never repeats it."""
    try:
        if "BEGIN" in text:
            key = py_vapid.Vapid02.from_pem(text.encode())
        else:
            key = py_vapid.Vapid02.from_string(text)
        if isinstance(key.private_key, ec.EllipticCurvePrivateKey):
            return key
    except (ValueError, TypeError, py_vapid.VapidException):
        pass
    raise ConfigError("OUTBOX_BROWSER_KEY is no private key for VAPID (P-256)")


def encrypted(plain: bytes, device: Device) -> bytes:
    """Return the body for one subscription. Raises ValueError where its keys are none."""
    if device.p256dh is None or device.auth is None:
        raise ValueError("a subscription without keys")
    auth = _unbase64(device.auth)
    if len(auth) != 16:
        raise ValueError("an auth secret has 16 bytes")
    body: bytes = http_ece.encrypt(
        plain,
        salt=os.urandom(16),
        private_key=ec.generate_private_key(ec.SECP256R1()),
        dh=_unbase64(device.p256dh),
        auth_secret=auth,
        rs=RECORD_BYTES,
        version="aes128gcm",
    )
    return body


def _unbase64(text: str) -> bytes:
    return urlsafe_b64decode(text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4))


def _origin(url: str) -> str:
    parts = urlsplit(url)
    if not parts.scheme or not parts.netloc:
        raise ValueError("no URL")
    return f"{parts.scheme}://{parts.netloc}"


def _ttl_s(message: Message) -> int:
    if message.expires_at is None:
        return TTL_S_MAX
    left_s = (message.expires_at - datetime.now(UTC)).total_seconds()
    return max(0, min(TTL_S_MAX, int(left_s)))


def _refused(answer: HttpAnswer, origin: str, message: Message, sent: Sent) -> Outcome:
    reason = reason_of(answer.status, said_by(answer))
    row = find_row(WEB_PUSH_TABLE, str(answer.status))
    if row is None:
        return classify_http(
            answer.status,
            answer.headers,
            "endpoint",
            reason=reason,
            attempt=message.attempt,
            scope_key=origin,
            sent=sent,
        )
    return classify(
        row,
        code=f"webpush.{answer.status}",
        reason=reason,
        retry_after_s=retry_after_s(answer.headers.get("Retry-After"), datetime.now(UTC)),
        scope_key=origin,
        sent=sent,
    )
