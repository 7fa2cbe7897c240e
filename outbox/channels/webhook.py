"""The channel `webhook`: a signed POST to an address that somebody else chose.

The body is `{"type", "timestamp", "data"}`, with `data` byte for byte as the producer sent it;
or the rendered text, where the job has a template. The signature is Standard Webhooks'; its id
is the job's, the same over all retries, so that the receiver can drop what it has seen.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from datetime import UTC
from types import TracebackType
from typing import Literal, Self

import msgspec
from multidict import CIMultiDict

from outbox.channels.captured import refused_test
from outbox.channels.guard import Blocked, Guard, Lookup
from outbox.channels.guard_allow import parse_allow
from outbox.channels.headers import HeaderRefused, check_headers
from outbox.channels.http_client import HttpAnswer, HttpClient
from outbox.channels.http_errors import classify_http, classify_http_trouble
from outbox.channels.log import LogChannel
from outbox.channels.providers import chosen_provider, own_deadline_s
from outbox.channels.sink import SinkChannel
from outbox.channels.webhook_signature import SecretRefused, key_of, signature_header
from outbox.errors import ConfigError
from outbox.message import Message
from outbox.outcome import Delivered, Misconfigured, Outcome, Rejected, Sent

USER_AGENT = "Outbox-Webhook/1"
REASON_CHARS_MAX = 300

RESERVED = frozenset(
    {
        "accept-encoding",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "cookie",
        "expect",
        "forwarded",
        "host",
        "keep-alive",
        "te",
        "traceparent",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "user-agent",
        "via",
    }
)
RESERVED_PREFIXES = ("proxy-", "webhook-", "x-forwarded-")
"""Headers (in lower case) that a job may not bring along."""

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}\Z")
_ENCODE = msgspec.json.Encoder().encode


class WebhookChannel:
    """Providers: `http` (the default), `log`, `sink`.

    Settings: `WEBHOOK_ALLOW` opens hosts and networks past the guard; `WEBHOOK_SECRET` (one or
    several, separated by spaces) signs what has no secret of its own. Raises ConfigError.
    """

    def __init__(self, settings: Mapping[str, str], *, lookup: Lookup | None = None) -> None:
        provider = chosen_provider(settings, "webhook", known={"http"})
        self._capture: LogChannel | SinkChannel | None = None
        if provider == "log":
            self._capture = LogChannel("webhook")
        elif provider == "sink":
            self._capture = SinkChannel("webhook")
        self._secrets = tuple(settings.get("WEBHOOK_SECRET", "").split())
        for secret in self._secrets:
            try:
                key_of(secret)
            except SecretRefused as error:
                raise ConfigError(f"OUTBOX_WEBHOOK_SECRET: {error}") from None
        self._guard = Guard(parse_allow(settings.get("WEBHOOK_ALLOW", "")), lookup=lookup)
        self._client = HttpClient(self._guard)

    async def __aenter__(self) -> Self:
        if self._capture is None:
            await self._client.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._capture is None:
            await self._client.__aexit__(kind, error, trace)

    async def deliver(self, message: Message, *, timeout_s: float) -> Outcome:
        """POST one message. `message.to` is the URL, of an endpoint or the job's own."""
        if not message.to:
            return Rejected(code="recipient.no_address", reason="User has no webhook")
        body = body_of(message)
        sent = Sent(
            provider="http" if self._capture is None else None,
            recipient=message.to,
            content=body,
            template_version=message.template_version,
        )
        own_address: Literal["job", "endpoint"] = "job" if message.endpoint is None else "endpoint"
        scope_key = message.endpoint or str(message.key)
        try:
            headers = self._headers(message, body)
        except HeaderRefused as error:
            return Rejected(code="webhook.header", reason=str(error), sent=sent)
        except SecretRefused as error:
            return Misconfigured(
                code="webhook.secret",
                reason=str(error),
                scope=own_address,
                scope_key=scope_key,
                sent=sent,
            )
        if self._capture is not None:
            shown = msgspec.structs.replace(
                message, text=body.decode("utf-8", "replace"), headers=dict(headers)
            )
            return await self._capture.deliver(shown, timeout_s=timeout_s)
        if (refused := refused_test(message)) is not None:
            return refused
        try:
            url = self._guard.check_url(message.to)
        except Blocked as error:
            return classify_http_trouble(
                "blocked", own_address, reason=str(error), scope_key=scope_key, sent=sent
            )
        result = await self._client.post(
            url, headers=headers, body=body, timeout_s=own_deadline_s(timeout_s)
        )
        if not isinstance(result, HttpAnswer):
            return classify_http_trouble(
                result.trouble,
                own_address,
                reason=result.reason,
                body_sent=result.body_sent,
                scope_key=scope_key,
                sent=sent,
            )
        if 200 <= result.status <= 299:
            return Delivered(sent=sent)
        return classify_http(
            result.status,
            result.headers,
            own_address,
            reason=_reason(result, message),
            attempt=message.attempt,
            scope_key=scope_key,
            sent=sent,
        )

    def _headers(self, message: Message, body: bytes) -> CIMultiDict[str]:
        """Return all headers. Raises HeaderRefused, SecretRefused."""
        check_headers(
            message.headers,
            reserved=RESERVED,
            reserved_prefixes=RESERVED_PREFIXES,
            ascii_only=True,
        )
        message_id = str(message.key)
        timestamp_s = int(time.time())
        headers = CIMultiDict(message.headers)
        headers["Content-Type"] = _content_type(message)
        headers["User-Agent"] = USER_AGENT
        headers["Accept-Encoding"] = "identity"
        headers["webhook-id"] = message_id
        headers["webhook-timestamp"] = str(timestamp_s)
        secrets = message.secrets or self._secrets
        if secrets:
            headers["webhook-signature"] = signature_header(
                secrets, message_id=message_id, timestamp_s=timestamp_s, body=body
            )
        if message.traceparent is not None and _TRACEPARENT.match(message.traceparent):
            headers["traceparent"] = message.traceparent
        return headers


def body_of(message: Message) -> bytes:
    """Return the body: the rendered text, else type, timestamp (RFC 3339, Z) and data."""
    if message.text is not None:
        return message.text.encode("utf-8", "replace")
    return b'{"type":%b,"timestamp":%b,"data":%b}' % (
        _ENCODE(message.event_type),
        _ENCODE(message.created_at.astimezone(UTC)),
        message.data_json,
    )


def _content_type(message: Message) -> str:
    if message.text is None:
        return "application/json"
    try:
        msgspec.json.decode(message.text, type=msgspec.Raw)
    except (msgspec.DecodeError, UnicodeEncodeError):
        return "text/plain; charset=utf-8"
    return "application/json"


def _reason(answer: HttpAnswer, message: Message) -> str:
    """Return status and the start of the answer, without what the job's headers had in them."""
    text = " ".join(answer.body[: 4 * REASON_CHARS_MAX].decode("utf-8", "replace").split())
    for value in (*message.headers.values(), *message.secrets):
        if len(value) >= 6:
            text = text.replace(value, "…")
    shown = f": {text[:REASON_CHARS_MAX]}" if text else ""
    return f"The receiver answered {answer.status}{shown}"
