"""Telegram: markup and its fallback, a group that moved, and each row of the Bot API's errors."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from html.parser import HTMLParser
from typing import Any

import pytest

from outbox.channels.telegram import TelegramChannel
from outbox.errors import ConfigError
from outbox.message import Message
from outbox.outcome import (
    AddressMoved,
    Delivered,
    Misconfigured,
    Outcome,
    Rejected,
    Retryable,
    SinkRow,
)
from tests.channels.api_server import DROP, HANG, ApiServer, Call, Reply, api_server
from tests.channels.messages import CREATED_AT, KEY
from tests.channels.outcomes import told

TOKEN = "123456:ABC-def_secret"
CHATS = {42, -100500}


def chat_message(**changes: Any) -> Message:
    given: dict[str, Any] = {
        "key": KEY,
        "tenant_id": "default",
        "queue": "telegram",
        "channel": "telegram",
        "to": "42",
        "text": "Ваш заказ готов. Итого: 5.000 ₸!",
        "created_at": CREATED_AT,
    }
    return Message(**{**given, **changes})


def no(status: int, description: str, **parameters: int) -> Reply:
    body: dict[str, object] = {"ok": False, "error_code": status, "description": description}
    return Reply(status, body | ({"parameters": parameters} if parameters else {}))


class Strict(HTMLParser):
    """Telegram's HTML: a handful of tags, each of them closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.broken = False

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.broken |= tag not in ("b", "i", "u", "s", "a", "code", "pre")
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        self.broken |= not self.open or self.open.pop() != tag


def speak_telegram(call: Call) -> Reply:
    """The Bot API's sendMessage, as far as a sender meets it."""
    if call.path != f"/bot{TOKEN}/sendMessage":
        return no(404, "Not Found") if "/bot123456:" not in call.path else no(401, "Unauthorized")
    sent = call.json
    if sent["chat_id"] not in CHATS and sent["chat_id"] != "@cinema_news":
        return no(400, "Bad Request: chat not found")
    mode, text = sent.get("parse_mode"), sent["text"]
    if mode == "MarkdownV2" and re.search(r"(?<!\\)[.!\-=|{}#+()>]", text):
        return no(400, "Bad Request: can't parse entities: Character '.' is reserved and must be")
    if mode == "HTML":
        parser = Strict()
        parser.feed(text)
        if parser.broken or parser.open:
            return no(400, "Bad Request: can't parse entities: Unsupported start tag")
    elif len(text.encode("utf-16-le")) // 2 > 4_096:
        return no(400, "Bad Request: message is too long")
    return Reply(200, {"ok": True, "result": {"message_id": 7, "chat": {"id": sent["chat_id"]}}})


@asynccontextmanager
async def bot(**settings: str) -> AsyncIterator[tuple[ApiServer, TelegramChannel]]:
    async with api_server(speak_telegram) as server:
        given = {"TELEGRAM_URL": f"telegram+http://{TOKEN}@{server.place}", **settings}
        async with TelegramChannel(given) as channel:
            yield server, channel


async def deliver(
    *replies: Reply | str, markdown: str = "off", **changes: Any
) -> tuple[Outcome, list[Any]]:
    async with bot(TELEGRAM_MARKDOWN=markdown) as (server, channel):
        server.replies.extend(replies)
        timeout_s = 0.5 if HANG in replies else 5
        outcome = await channel.deliver(chat_message(**changes), timeout_s=timeout_s)
        return outcome, [call.json for call in server.calls]


async def test_a_text_is_sent_as_it_is() -> None:
    outcome, (sent,) = await deliver()
    assert isinstance(outcome, Delivered)
    assert outcome.provider_message_id == "42/7"
    assert sent == {"chat_id": 42, "text": "Ваш заказ готов. Итого: 5.000 ₸!"}


async def test_html_is_sent_as_html() -> None:
    outcome, (sent,) = await deliver(html="<b>Готов</b>", text="Готов")
    assert told(outcome) == "done"
    assert sent == {"chat_id": 42, "text": "<b>Готов</b>", "parse_mode": "HTML"}


async def test_markdown_is_sent_as_markdown_where_the_settings_say_so() -> None:
    outcome, (sent,) = await deliver(markdown="on", text=r"*Готов*\. 5\.000 ₸\!")
    assert told(outcome) == "done"
    assert sent["parse_mode"] == "MarkdownV2"


@pytest.mark.parametrize(
    ("changes", "markdown", "plain"),
    [
        ({"html": "<p>Готов</p>", "text": "Готов."}, "off", "Готов."),
        ({"html": "<p>Гот&amp;ов <b>x</b>", "text": None}, "off", "Гот&ов x"),
        ({"text": r"*Готов* 5\.000."}, "on", "*Готов* 5.000."),
    ],
)
async def test_what_cannot_be_parsed_goes_out_once_more_without_markup(
    changes: dict[str, Any], markdown: str, plain: str
) -> None:
    outcome, calls = await deliver(markdown=markdown, **changes)
    assert told(outcome) == "done"
    assert len(calls) == 2
    assert calls[1] == {"chat_id": 42, "text": plain}


async def test_it_goes_out_plain_once_and_then_never_again() -> None:
    refusal = no(400, "Bad Request: can't parse entities: x")
    outcome, calls = await deliver(refusal, refusal, html="<p>x</p>")
    assert told(outcome) == "P"
    assert len(calls) == 2


async def test_a_group_that_moved_is_followed_and_remembered() -> None:
    moved = no(400, "Bad Request: group chat was upgraded", migrate_to_chat_id=-100500)
    outcome, calls = await deliver(moved, to="-99")
    assert isinstance(outcome, Delivered)
    assert [call["chat_id"] for call in calls] == [-99, -100500]
    assert outcome.effects == (AddressMoved(channel="telegram", old="-99", new="-100500"),)


async def test_groups_that_move_in_a_circle_are_not_followed_for_ever() -> None:
    replies = [no(400, "moved", migrate_to_chat_id=-n) for n in range(1, 9)]
    outcome, calls = await deliver(*replies, to="-99")
    assert told(outcome) == "P"
    assert len(calls) == 3


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (no(429, "Too Many Requests: retry after 9", retry_after=9), "T provider"),
        (no(400, "Bad Request: chat not found"), "P S"),
        (no(400, "Bad Request: user not found"), "P S"),
        (no(403, "Forbidden: bot was blocked by the user"), "P S"),
        (no(403, "Forbidden: user is deactivated"), "P S"),
        (no(400, "Bad Request: message text is empty"), "P"),
        (no(401, "Unauthorized"), "C lane"),
        (no(404, "Not Found"), "C lane"),
        (no(500, "Internal Server Error"), "T"),
        (Reply(502, b"<html>Bad Gateway</html>"), "T"),
        (Reply(302, b""), "C lane"),
        (HANG, "ambiguous"),
        (DROP, "ambiguous"),
    ],
)
async def test_each_row_of_the_table(reply: Reply | str, expected: str) -> None:
    outcome, calls = await deliver(reply)
    assert told(outcome) == expected
    assert len(calls) == 1


async def test_a_pause_is_for_the_whole_bot() -> None:
    outcome, _ = await deliver(no(429, "Too Many Requests", retry_after=9))
    assert isinstance(outcome, Retryable)
    assert (outcome.scope, outcome.retry_after_s) == ("provider", 9.0)


@pytest.mark.parametrize("login", ["123456:wrong-secret", "999999:wrong-secret"])
async def test_a_wrong_token_holds_the_lane_and_is_not_told(login: str) -> None:
    async with bot() as (server, _):
        url = f"telegram+http://{login}@{server.place}"
        async with TelegramChannel({"TELEGRAM_URL": url}) as channel:
            outcome = await channel.deliver(chat_message(), timeout_s=5)
    assert isinstance(outcome, Misconfigured)
    assert outcome.scope == "lane"
    assert "wrong-secret" not in outcome.reason


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"to": None}, "recipient.no_address"),
        ({"to": "somebody"}, "recipient.address"),
        ({"to": "42/../x"}, "recipient.address"),
        ({"text": None}, "telegram.empty"),
        ({"text": "", "html": " "}, "telegram.empty"),
        ({"text": "ы" * 4_097}, "telegram.too_long"),
        ({"text": "😀" * 2_049}, "telegram.too_long"),
    ],
)
async def test_what_no_chat_can_carry_is_permanent(changes: dict[str, Any], code: str) -> None:
    outcome, calls = await deliver(**changes)
    assert isinstance(outcome, Rejected)
    assert outcome.code == code
    assert not calls


async def test_a_channel_is_reached_by_its_name() -> None:
    outcome, (sent,) = await deliver(to="@cinema_news", text="😀" * 2_048)
    assert told(outcome) == "done"
    assert sent["chat_id"] == "@cinema_news"


async def test_the_sandbox_keeps_it_and_without_a_bot_it_is_held() -> None:
    async with TelegramChannel({"MODE": "sandbox"}) as channel:
        kept = await channel.deliver(chat_message(), timeout_s=5)
    assert isinstance(kept, Delivered)
    assert isinstance(kept.effects[0], SinkRow)
    async with TelegramChannel({}) as channel:
        held = await channel.deliver(chat_message(), timeout_s=5)
    assert isinstance(held, Misconfigured)
    assert held.code == "provider.missing"


def test_half_a_token_is_refused_at_the_start() -> None:
    with pytest.raises(ConfigError, match="OUTBOX_TELEGRAM_URL must be"):
        TelegramChannel({"TELEGRAM_URL": "telegram://123456@api.telegram.org"})
