"""Mail through a provider's HTTP API: Postmark's and SendGrid's, or a server that speaks them.

`Message-ID` is the job's, as over SMTP; the job's id goes along, so that receipts name it.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache

import msgspec

from outbox.channels.addresses import AddressRefused, parse_named_mailbox
from outbox.channels.api_client import ApiClient, by_status, no_answer, reason_of, said_by
from outbox.channels.captured import sent_by
from outbox.channels.http_client import HttpAnswer, HttpFailure
from outbox.channels.http_errors import retry_after_s
from outbox.channels.mime import one_line
from outbox.channels.provider_config import ProviderConfig
from outbox.channels.provider_errors import (
    POSTMARK_TABLE,
    SENDGRID_TABLE,
    CodeRow,
    classify,
    find_row,
)
from outbox.errors import ConfigError
from outbox.message import Message
from outbox.outcome import Delivered, Misconfigured, Outcome, Sent

_ENCODE = msgspec.json.Encoder().encode


class _Sender(msgspec.Struct, frozen=True):
    name: str
    address: str
    domain: str

    @property
    def written(self) -> str:
        """The sender as one text, its name quoted."""
        if not self.name:
            return self.address
        escaped = self.name.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}" <{self.address}>'


def _sender_of(config: ProviderConfig) -> _Sender:
    text = config.options.get("from", "")
    if not text:
        raise ConfigError("OUTBOX_MAIL_FROM is missing: mail needs a sender")
    try:
        return _parsed(text)
    except AddressRefused as error:
        raise ConfigError(f"OUTBOX_MAIL_FROM: {error}") from None


@lru_cache(maxsize=1_024)
def _parsed(text: str) -> _Sender:
    name, mailbox = parse_named_mailbox(text)
    return _Sender(name, mailbox.address, mailbox.domain)


def _sender_for(message: Message, default: _Sender) -> _Sender | Misconfigured:
    """Return whom a mail is from: its tenant, or the provider's own sender."""
    if message.sender is None:
        return default
    try:
        return _parsed(message.sender)
    except AddressRefused as error:
        return Misconfigured(code="mail.sender", reason=f"The tenant's sender: {error}")


def _split_headers(headers: Mapping[str, str]) -> tuple[dict[str, str], str | None]:
    """Return the headers without a Reply-To, and that."""
    rest = {name: value for name, value in headers.items() if name.lower() != "reply-to"}
    return rest, next((headers[name] for name in headers if name not in rest), None)


class _PostmarkAnswer(msgspec.Struct, rename={"code": "ErrorCode", "text": "Message"}):
    code: int | None = None
    text: str = ""
    message_id: str | None = msgspec.field(name="MessageID", default=None)


class Postmark:
    """Its secret is the server's token. Options: `from`."""

    def __init__(self, config: ProviderConfig, client: ApiClient) -> None:
        self._client = client
        self._url = f"{config.base_url}/email"
        self._sender = _sender_of(config)
        self._headers = {
            "X-Postmark-Server-Token": config.secret,
            "Content-Type": "application/json",
            "Accept": "application/json",
        }

    async def send(self, message: Message, *, timeout_s: float) -> Outcome:
        """Send one mail."""
        sent = sent_by("postmark", message)
        sender = _sender_for(message, self._sender)
        if isinstance(sender, Misconfigured):
            return sender
        answer = await self._client.post(
            self._url,
            headers=self._headers,
            body=_ENCODE(self._mail(message, sender)),
            timeout_s=timeout_s,
        )
        if isinstance(answer, HttpFailure):
            return no_answer(answer, sent)
        try:
            told = msgspec.json.decode(answer.body, type=_PostmarkAnswer)
        except (msgspec.DecodeError, UnicodeDecodeError):
            told = _PostmarkAnswer()
        if answer.status == 200 and not told.code:
            return Delivered(provider_message_id=told.message_id, sent=sent)
        row = find_row(POSTMARK_TABLE, str(told.code))
        said = told.text or said_by(answer)
        return _refused(answer, row, f"postmark.{told.code}", said, message, sent)

    def _mail(self, message: Message, sender: _Sender) -> dict[str, object]:
        headers, reply_to = _split_headers(message.headers)
        headers |= {
            "Message-ID": f"<{message.key}@{sender.domain}>",
            "X-PM-KeepID": "true",
        }
        mail: dict[str, object] = {
            "From": sender.written,
            "To": message.to,
            "Subject": one_line(message.subject or ""),
            "Headers": [{"Name": name, "Value": value} for name, value in headers.items()],
            "Metadata": {"job_id": str(message.key)},
        }
        if message.parts:
            mail["Attachments"] = [
                {
                    "Name": part.filename,
                    "ContentType": part.content_type,
                    "Content": b64encode(part.content).decode(),
                    **({"ContentID": f"cid:{part.filename}"} if part.inline else {}),
                }
                for part in message.parts
            ]
        optional = {"TextBody": message.text, "HtmlBody": message.html, "ReplyTo": reply_to}
        return mail | {name: value for name, value in optional.items() if value is not None}


class _SendGridError(msgspec.Struct):
    message: str = ""
    field: str | None = None


class _SendGridAnswer(msgspec.Struct):
    errors: list[_SendGridError] = []


class SendGrid:
    """Its secret is an API key. Options: `from`."""

    def __init__(self, config: ProviderConfig, client: ApiClient) -> None:
        self._client = client
        self._url = f"{config.base_url}/v3/mail/send"
        self._sender = _sender_of(config)
        self._headers = {
            "Authorization": f"Bearer {config.secret}",
            "Content-Type": "application/json",
        }

    async def send(self, message: Message, *, timeout_s: float) -> Outcome:
        """Send one mail."""
        sent = sent_by("sendgrid", message)
        sender = _sender_for(message, self._sender)
        if isinstance(sender, Misconfigured):
            return sender
        answer = await self._client.post(
            self._url,
            headers=self._headers,
            body=_ENCODE(self._mail(message, sender)),
            timeout_s=timeout_s,
        )
        if isinstance(answer, HttpFailure):
            return no_answer(answer, sent)
        if 200 <= answer.status <= 299:
            return Delivered(provider_message_id=answer.headers.get("X-Message-Id"), sent=sent)
        try:
            errors = msgspec.json.decode(answer.body, type=_SendGridAnswer).errors
        except (msgspec.DecodeError, UnicodeDecodeError):
            errors = []
        said = "; ".join(f"{e.field or ''} {e.message}".strip() for e in errors)
        row = find_row(SENDGRID_TABLE, str(answer.status), said)
        name = f"sendgrid.{answer.status}"
        return _refused(answer, row, name, said or said_by(answer), message, sent)

    def _mail(self, message: Message, sender: _Sender) -> dict[str, object]:
        headers, reply_to = _split_headers(message.headers)
        headers["Message-ID"] = f"<{message.key}@{sender.domain}>"
        shown = {"email": sender.address, **({"name": sender.name} if sender.name else {})}
        parts = (("text/plain", message.text), ("text/html", message.html))
        mail: dict[str, object] = {
            "personalizations": [{"to": [{"email": message.to}]}],
            "from": shown,
            # SendGrid takes no mail without a subject.
            "subject": one_line(message.subject or "") or "(no subject)",
            "content": [{"type": kind, "value": text} for kind, text in parts if text],
            "headers": headers,
            "custom_args": {"job_id": str(message.key)},
        }
        if message.parts:
            mail["attachments"] = [
                {
                    "filename": part.filename,
                    "type": part.content_type,
                    "content": b64encode(part.content).decode(),
                    "disposition": "inline" if part.inline else "attachment",
                    **({"content_id": part.filename} if part.inline else {}),
                }
                for part in message.parts
            ]
        if reply_to is not None:
            name, mailbox = parse_named_mailbox(reply_to)
            mail["reply_to"] = {"email": mailbox.address, **({"name": name} if name else {})}
        return mail


def _refused(
    answer: HttpAnswer, row: CodeRow | None, code: str, said: str, message: Message, sent: Sent
) -> Outcome:
    if row is None:
        return by_status(answer, said, attempt=message.attempt, sent=sent)
    return classify(
        row,
        code=code,
        reason=reason_of(answer.status, said),
        retry_after_s=retry_after_s(answer.headers.get("Retry-After"), datetime.now(UTC)),
        sent=sent,
    )
