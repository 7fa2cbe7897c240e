"""The provider `twilio`: SMS by Twilio's Messages API, or by a server that speaks it.

Twilio takes no key of ours, so an answer that is lost is ambiguous: sent again, it may arrive
twice.
"""

from __future__ import annotations

from base64 import b64encode
from datetime import UTC, datetime
from urllib.parse import quote, urlencode

import msgspec

from outbox.channels.api_client import ApiClient, by_status, no_answer, reason_of, said_by
from outbox.channels.captured import sent_by
from outbox.channels.http_client import HttpFailure
from outbox.channels.http_errors import retry_after_s
from outbox.channels.provider_config import ProviderConfig
from outbox.channels.provider_errors import TWILIO_TABLE, classify, find_row
from outbox.errors import ConfigError
from outbox.message import Message
from outbox.outcome import Delivered, Outcome, Rejected


class _Answer(msgspec.Struct):
    """`code` in a refusal, `error_code` in a message that Twilio took and then dropped."""

    sid: str | None = None
    code: int | None = None
    message: str | None = None
    error_code: int | None = None
    error_message: str | None = None


class Twilio:
    """Options: `from`, a number, a name, or a messaging service (`MG…`)."""

    def __init__(self, config: ProviderConfig, client: ApiClient) -> None:
        sender = config.options.get("from", "")
        if not sender:
            raise ConfigError("OUTBOX_SMS_FROM is not set: Twilio needs a sender")
        self._client = client
        account = quote(config.username, safe="")
        self._url = f"{config.base_url}/2010-04-01/Accounts/{account}/Messages.json"
        login = b64encode(f"{config.username}:{config.secret}".encode()).decode()
        self._headers = {
            "Authorization": f"Basic {login}",
            "Content-Type": "application/x-www-form-urlencoded",
        }
        service = sender.startswith("MG") and len(sender) == 34
        self._sender = {"MessagingServiceSid" if service else "From": sender}

    async def send(self, message: Message, *, timeout_s: float) -> Outcome:
        """Send one SMS."""
        sent = sent_by("twilio", message)
        form = {"To": message.to or "", "Body": message.text or "", **self._sender}
        answer = await self._client.post(
            self._url,
            headers=self._headers,
            body=urlencode(form).encode(),
            timeout_s=timeout_s,
        )
        if isinstance(answer, HttpFailure):
            return no_answer(answer, sent)
        told = _read(answer.body)
        number = told.code or told.error_code
        if number is None and 200 <= answer.status <= 299:
            return Delivered(provider_message_id=told.sid, sent=sent)
        said = told.message or told.error_message or said_by(answer)
        row = find_row(TWILIO_TABLE, str(number))
        if row is None and 200 <= answer.status <= 299:
            return Rejected(code=f"twilio.{number}", reason=said, sent=sent)
        if row is None:
            return by_status(answer, said, attempt=message.attempt, sent=sent)
        return classify(
            row,
            code=f"twilio.{number}",
            reason=reason_of(answer.status, said),
            retry_after_s=retry_after_s(answer.headers.get("Retry-After"), datetime.now(UTC)),
            sent=sent,
        )


def _read(body: bytes) -> _Answer:
    try:
        return msgspec.json.decode(body, type=_Answer)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _Answer()
