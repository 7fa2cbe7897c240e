"""Recipients that the sink treats as a provider would treat its worst ones.

    fail+CODE@sink.test             what the channel's table of errors says of that code
    fail+CODE-WORDS@sink.test       … where the answer's words decide as well; _ is a space
    fail+CODE-WORDS+STAGE@sink.test … of a mail, at another stage than `rcpt`
    slow+SECONDS@sink.test          delivered, after so long
    https://sink.test/fail+CODE     the same for a webhook, and https://sink.test/slow+SECONDS

CODE is what the provider would have said: `421`, `550-5.1.1`, `410`, `30003`, `UNREGISTERED`; or
what happened instead of an answer: `lost`, `timeout`, `connect`, … The tables are those that
deliveries are judged by, so what happens to the job is what would happen to it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import cast, get_args

import msgspec

from outbox.channels.http_errors import (
    HTTP_TROUBLE_TABLE,
    HttpTrouble,
    OwnAddress,
    classify_http,
    classify_http_trouble,
)
from outbox.channels.provider_errors import (
    FCM_TABLE,
    TELEGRAM_TABLE,
    TWILIO_TABLE,
    WEB_PUSH_TABLE,
    WS_TABLE,
    CodeRow,
    classify,
    find_row,
)
from outbox.channels.smtp_errors import Stage, classify_smtp, enhanced_code
from outbox.message import Message
from outbox.outcome import Outcome, Rejected, Retryable

SLOW_S_MAX = 3_600.0
_MAIL_LIKE = re.compile(r"(fail|slow)\+([^@]+)@sink\.test", re.IGNORECASE)
_WEB = re.compile(r"https?://sink\.test/(fail|slow)\+([^/?#]+)", re.IGNORECASE)
_TABLES: Mapping[str, tuple[str, tuple[CodeRow, ...]]] = {
    "sms": ("twilio", TWILIO_TABLE),
    "push": ("fcm", FCM_TABLE),
    "browser": ("webpush", WEB_PUSH_TABLE),
    "telegram": ("telegram", TELEGRAM_TABLE),
    "ws": ("ws", WS_TABLE),
}
_TOLD = "The sink was asked to fail"


async def play(channel: str, message: Message) -> Outcome | None:
    """Return what a magic recipient asks for, once it is time; None: deliver it."""
    found = _asked(channel, message)
    if found is None:
        return None
    if found[1].lower() == "slow":
        await asyncio.sleep(_seconds(found[2]))
        return None
    code, _, rest = found[2].partition("-")
    words, _, stage = rest.partition("+")
    if "+" in code:
        code, _, stage = code.partition("+")
    text = words.replace("_", " ")
    if channel == "email":
        return _mail(code, text, stage.lower())
    outcome = _http(channel, code, text, message)
    if isinstance(outcome, Rejected) and outcome.suppress and message.devices:
        return msgspec.structs.replace(outcome, gone=(message.devices[0].address,))
    return outcome


def is_magic(channel: str, message: Message) -> bool:
    """Tell whether the recipient asks for anything: then it need not be an address."""
    return _asked(channel, message) is not None


def _asked(channel: str, message: Message) -> re.Match[str] | None:
    address = message.to or (message.devices[0].address if message.devices else "")
    if channel == "ws":  # its address is its user
        address = message.user_id or address
    return (_WEB if channel == "webhook" else _MAIL_LIKE).fullmatch(address)


def _seconds(text: str) -> float:
    try:
        return min(max(float(text), 0.0), SLOW_S_MAX)
    except ValueError:
        return 0.0


def _mail(code: str, text: str, stage: str) -> Outcome:
    if code == "lost":
        return Retryable(code="smtp.lost", reason=_TOLD, scope="provider", ambiguous=True)
    at = cast(Stage, stage) if stage in get_args(Stage) else "rcpt"
    if code in get_args(Stage):
        return classify_smtp(-1, None, _TOLD, stage=cast(Stage, code))
    number = int(code) if code.isascii() and code.isdecimal() and len(code) == 3 else None
    if number is None:
        return _unknown(code)
    return classify_smtp(number, enhanced_code(text), text or _TOLD, stage=at)


def _http(channel: str, code: str, text: str, message: Message) -> Outcome:
    own: OwnAddress = "provider"
    if channel == "webhook":
        own = "job" if message.endpoint is None else "endpoint"
    scope_key = message.endpoint or str(message.key)
    name, table = _TABLES.get(channel, (channel, ()))
    row = find_row(table, code, text)
    if row is not None:
        told = f"{name}.{code}"
        return classify(row, code=told, reason=text or _TOLD, scope_key=scope_key)
    if code in HTTP_TROUBLE_TABLE:
        trouble = cast(HttpTrouble, code)
        after = trouble in ("timeout", "lost")
        return classify_http_trouble(
            trouble, own, reason=_TOLD, body_sent=after, scope_key=scope_key
        )
    if code.isascii() and code.isdecimal() and len(code) == 3:
        headers = {"Retry-After": text} if text.isdecimal() else {}
        return classify_http(
            int(code),
            headers,
            own,
            reason=_TOLD,
            attempt=message.attempt,
            scope_key=scope_key,
        )
    return _unknown(code)


def _unknown(code: str) -> Rejected:
    return Rejected(
        code="sink.unknown", reason=f"The sink knows no such failure on this channel: {code[:64]}"
    )
