"""A tenant's own directory of users, asked over HTTP; its answers are kept for a minute.

    POST <directory_url>   {"user_ids": ["u1", "u2"]}
    200                    {"recipients": {"u1": {"email": "ann@example.com", "locale": "ru"}}}

A recipient has what a row of ours has (docs/tenants.md). Whom the answer does not name, it does
not know. A directory in trouble is no job's fault: they wait, and burn no try; one that refuses us
has its tenant's lane held until somebody has mended it.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, time, timedelta
from time import monotonic
from typing import TypeAlias

import msgspec

from outbox.channels.api_client import ApiClient
from outbox.channels.guard_allow import parse_allow
from outbox.channels.http_client import HttpAnswer, HttpFailure
from outbox.channels.http_errors import classify_http, classify_http_trouble
from outbox.channels.providers import ProviderSpec
from outbox.outcome import Misconfigured, Outcome, Rejected, Retryable, Snoozed
from outbox.quiet import Clock

TRIES_OVER = 100
"""Where the table has a few tries first (404), they are over: an address is wrong, or is not."""
BATCH = 25
AT_ONCE = 4
LOOKUP_S = 5.0
KEPT_S = 60.0
KEPT_MAX = 10_000
PAUSE_S, PAUSE_S_MAX = 5.0, 300.0
"""After trouble nobody asks for so long, and twice as long each time."""
_HEADERS = {"Content-Type": "application/json", "Accept": "application/json"}


class Quiet(msgspec.Struct, frozen=True):
    """From when to when."""

    start: Clock = msgspec.field(name="from")
    end: Clock = msgspec.field(name="to")

    @property
    def hours(self) -> tuple[time, time]:
        """Both, as times of day."""
        return time.fromisoformat(self.start), time.fromisoformat(self.end)


class Person(msgspec.Struct, frozen=True):
    """What a directory knows of a user."""

    email: str | None = None
    phone: str | None = None
    telegram_chat_id: str | None = None
    locale: str | None = None
    timezone: str | None = None
    attributes: msgspec.Raw = msgspec.Raw(b"{}")
    opt_outs: list[str] = []
    quiet_hours: Quiet | None = None

    def address(self, channel: str) -> str | None:
        """Return where a channel reaches them."""
        match channel:
            case "email":
                return self.email
            case "sms":
                return self.phone
            case "telegram":
                return self.telegram_chat_id
            case _:
                return None


class _Answer(msgspec.Struct, frozen=True):
    recipients: dict[str, Person | None]


_read = msgspec.json.Decoder(_Answer)
Trouble: TypeAlias = Misconfigured | Snoozed


class Directory:
    """One tenant's. `now` is the database's time, for what has to wait."""

    def __init__(
        self,
        spec: ProviderSpec,
        *,
        allow: str,
        now: Callable[[], datetime],
        version: str,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """`allow`: what OUTBOX_WEBHOOK_ALLOW opens. Raises ConfigError."""
        self.version = version
        self._url = spec.config["directory_url"]
        secret = spec.credentials.get("directory_secret")
        self._headers = _HEADERS | ({"Authorization": f"Bearer {secret}"} if secret else {})
        self._client = ApiClient(parse_allow(allow))
        self._now = now
        self._clock = clock
        self._kept: OrderedDict[str, tuple[float, Person | None]] = OrderedDict()
        self._places = asyncio.Semaphore(AT_ONCE)
        self._pause_s = 0.0
        self._shut_until = 0.0
        self._trouble: Retryable | Misconfigured | None = None
        self._in_use = 0
        self._retired = False

    async def open(self) -> None:
        """Make its connections, in the loop that uses them."""
        await self._client.__aenter__()

    async def retire(self) -> None:
        """Close it, or have the last that asks do so."""
        self._retired = True
        if self._in_use == 0:
            await self._client.__aexit__(None, None, None)

    async def find(self, user_ids: Iterable[str]) -> Mapping[str, Person | Trouble | None]:
        """Return what is known of each: a person, nothing, or why that cannot be told now."""
        self._in_use += 1
        try:
            return await self._find(user_ids)
        finally:
            self._in_use -= 1
            if self._retired:
                await self.retire()

    async def _find(self, user_ids: Iterable[str]) -> Mapping[str, Person | Trouble | None]:
        found: dict[str, Person | Trouble | None] = {}
        wanted: list[str] = []
        for user_id in dict.fromkeys(user_ids):
            kept = self._kept.get(user_id)
            if kept is not None and kept[0] > self._clock():
                found[user_id] = kept[1]
            else:
                wanted.append(user_id)
        parts = [wanted[at : at + BATCH] for at in range(0, len(wanted), BATCH)]
        for part, told in zip(
            parts, await asyncio.gather(*(self._ask(part) for part in parts)), strict=True
        ):
            for user_id in part:
                found[user_id] = told.get(user_id) if isinstance(told, dict) else told
        return found

    async def _ask(self, user_ids: list[str]) -> dict[str, Person | None] | Trouble:
        async with self._places:
            if self._trouble is not None and self._clock() < self._shut_until:
                return self._waits(self._trouble)
            answer = await self._client.post(
                self._url,
                headers=self._headers,
                body=msgspec.json.encode({"user_ids": user_ids}),
                timeout_s=LOOKUP_S,
            )
        told = _judged(answer)
        if isinstance(told, Retryable | Misconfigured):
            return self._shut(told)
        self._trouble, self._pause_s = None, 0.0
        until = self._clock() + KEPT_S
        for user_id in user_ids:
            self._kept[user_id] = (until, told.get(user_id))
            self._kept.move_to_end(user_id)
        while len(self._kept) > KEPT_MAX:
            self._kept.popitem(last=False)
        return told

    def _shut(self, trouble: Retryable | Misconfigured) -> Trouble:
        """Ask nobody for a while. A hold has pauses of its own: its probes find the way free."""
        if isinstance(trouble, Misconfigured):
            self._pause_s = 1.0
        elif self._trouble is None or self._clock() >= self._shut_until:
            self._pause_s = min(max(self._pause_s * 2, PAUSE_S), PAUSE_S_MAX)
            self._pause_s = max(self._pause_s, trouble.retry_after_s or 0.0)
        self._trouble, self._shut_until = trouble, self._clock() + self._pause_s
        return self._waits(trouble)

    def _waits(self, trouble: Retryable | Misconfigured) -> Trouble:
        if isinstance(trouble, Misconfigured):
            return trouble
        left_s = max(self._shut_until - self._clock(), 0.1)
        return Snoozed(until=self._now() + timedelta(seconds=left_s), reason=trouble.reason)


def _judged(
    answer: HttpAnswer | HttpFailure,
) -> dict[str, Person | None] | Retryable | Misconfigured:
    """Return the recipients, or what is wrong: by the tables that hold for any other call."""
    if isinstance(answer, HttpFailure):
        reason = answer.reason.replace("The receiver", "The tenant's directory")
        outcome: Outcome = classify_http_trouble(answer.trouble, "provider", reason=reason)
    elif 200 <= answer.status <= 299:
        try:
            return _read.decode(answer.body).recipients
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            reason = "The tenant's directory answers something else than recipients"
            if isinstance(error, msgspec.ValidationError):
                reason += f": {str(error).rpartition(' - at ')[2]}"
            return Misconfigured(code="directory.answer", reason=reason)
    else:
        reason = f"The tenant's directory answered {answer.status}"
        outcome = classify_http(
            answer.status, answer.headers, "provider", reason=reason, attempt=TRIES_OVER
        )
    # What it does not take now it will not take later: 400, 410, … are its set-up's fault as well.
    if isinstance(outcome, Rejected) or getattr(outcome, "attempts_max", None) is not None:
        outcome = Misconfigured(code=outcome.code, reason=outcome.reason)  # type: ignore[union-attr]
    assert isinstance(outcome, Retryable | Misconfigured)
    code = outcome.code.replace("http.", "directory.")
    return msgspec.structs.replace(outcome, code=code)


class Closed:
    """Stands in for a directory that cannot be used: its tenant's jobs are held."""

    def __init__(self, code: str, reason: str, *, version: str) -> None:
        self.version = version
        self._trouble = Misconfigured(code=code, reason=reason)

    async def find(self, user_ids: Iterable[str]) -> Mapping[str, Person | Trouble | None]:
        """Return why nobody can be found."""
        return dict.fromkeys(user_ids, self._trouble)

    async def retire(self) -> None:
        """There is nothing to close."""
