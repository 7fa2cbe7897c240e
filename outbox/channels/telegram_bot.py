"""The provider `telegram`: sendMessage of the Bot API.

A template's HTML is sent as HTML, its text as it is, or as MarkdownV2 where the settings say so.
Where Telegram cannot read the markup, the message goes out once more without it: better plain
than not at all. A group that became a supergroup is followed to its new chat id.
"""

from __future__ import annotations

import re
from html.parser import HTMLParser
from time import monotonic

import msgspec

from outbox.channels.api_client import ApiClient, by_status, no_answer, reason_of, said_by
from outbox.channels.captured import sent_by
from outbox.channels.http_client import HttpFailure
from outbox.channels.http_errors import RETRY_AFTER_S_MAX
from outbox.channels.provider_config import ProviderConfig
from outbox.channels.provider_errors import TELEGRAM_TABLE, classify, find_row
from outbox.message import Message
from outbox.outcome import AddressMoved, Delivered, Outcome, Rejected

TEXT_UNITS_MAX = 4_096
"""What Telegram takes, in UTF-16 units, without the markup."""
CALLS_MAX = 3
"""As it is; to the new chat; without markup."""

_ESCAPED = re.compile(r"\\([_*\[\]()~`>#+\-=|{}.!\\])")


class _Parameters(msgspec.Struct):
    migrate_to_chat_id: int | None = None
    retry_after: float | None = None


class _Result(msgspec.Struct):
    message_id: int | None = None


class _Answer(msgspec.Struct):
    ok: bool = False
    description: str | None = None
    result: _Result | None = None
    parameters: _Parameters | None = None


class TelegramBot:
    """Options: `markdown`: `on` where texts are MarkdownV2."""

    def __init__(self, config: ProviderConfig, client: ApiClient) -> None:
        self._client = client
        self._url = f"{config.base_url}/bot{config.username}:{config.secret}/sendMessage"
        self._markdown = config.options.get("markdown") == "on"

    async def send(self, message: Message, *, timeout_s: float) -> Outcome:
        """Send one message, in at most `CALLS_MAX` calls."""
        sent = sent_by("telegram", message)
        text, mode = self._marked_up(message)
        if mode is None and _units(text) > TEXT_UNITS_MAX:
            reason = f"The text is over {TEXT_UNITS_MAX} characters long"
            return Rejected(code="telegram.too_long", reason=reason, sent=sent)
        deadline = monotonic() + timeout_s
        chat = message.to or ""
        for calls in range(1, CALLS_MAX + 1):
            result = await self._client.post(
                self._url,
                headers={"Content-Type": "application/json"},
                body=_body(chat, text, mode),
                timeout_s=max(0.0, deadline - monotonic()),
            )
            if isinstance(result, HttpFailure):
                return no_answer(result, sent)
            answer = result
            told = _read(answer.body)
            if 200 <= answer.status <= 299 and told.ok:
                return _delivered(message, chat, told)
            said = told.description or said_by(answer)
            moved_to = told.parameters.migrate_to_chat_id if told.parameters else None
            if calls < CALLS_MAX and moved_to is not None and str(moved_to) != chat:
                chat = str(moved_to)
            elif calls < CALLS_MAX and mode is not None and "can't parse" in said.lower():
                text, mode = _plain(message, self._markdown), None
            else:
                break
        row = find_row(TELEGRAM_TABLE, str(answer.status), said)
        if row is None:
            return by_status(answer, said, attempt=message.attempt, sent=sent)
        asked_s = told.parameters.retry_after if told.parameters else None
        return classify(
            row,
            code=f"telegram.{answer.status}",
            reason=reason_of(answer.status, said),
            retry_after_s=min(asked_s, RETRY_AFTER_S_MAX) if asked_s and asked_s > 0 else None,
            sent=sent,
        )

    def _marked_up(self, message: Message) -> tuple[str, str | None]:
        if message.html is not None:
            return message.html, "HTML"
        return message.text or "", "MarkdownV2" if self._markdown else None


def _body(chat: str, text: str, mode: str | None) -> bytes:
    fields: dict[str, object] = {
        "chat_id": chat if chat.startswith("@") else int(chat),
        "text": text,
    }
    if mode is not None:
        fields["parse_mode"] = mode
    return msgspec.json.encode(fields)


def _read(body: bytes) -> _Answer:
    try:
        return msgspec.json.decode(body, type=_Answer)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _Answer()


def _delivered(message: Message, chat: str, told: _Answer) -> Delivered:
    number = told.result.message_id if told.result else None
    moved = (
        (AddressMoved(channel="telegram", old=message.to, new=chat),)
        if message.to is not None and chat != message.to
        else ()
    )
    return Delivered(
        provider_message_id=None if number is None else f"{chat}/{number}",
        effects=moved,
        sent=sent_by("telegram", message),
    )


def _plain(message: Message, markdown: bool) -> str:
    """Return the message without markup, at most as long as Telegram takes it."""
    if message.html is None:
        text = message.text or ""
        return _ESCAPED.sub(r"\1", text) if markdown else text
    if message.text is not None:
        return message.text
    stripper = _Stripper()
    stripper.feed(message.html)
    stripper.close()
    return "".join(stripper.parts)


class _Stripper(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []

    def handle_data(self, data: str) -> None:
        self.parts.append(data)


def _units(text: str) -> int:
    return len(text) + sum(ord(c) > 0xFFFF for c in text)
