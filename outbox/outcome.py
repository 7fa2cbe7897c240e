"""What a delivery can end in: a closed union that the lifecycle matches totally.

Texts are cleaned when an outcome is made (no NUL, no lone surrogate, a bounded length), so
that one provider's odd answer can never keep its neighbours from being recorded.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal, TypeAlias

import msgspec

REASON_CHARS_MAX = 2_000
CODE_CHARS_MAX = 100

HoldScope: TypeAlias = Literal["lane", "endpoint", "template", "job"]
RetryScope: TypeAlias = Literal["job", "destination", "provider"]


def clean_text(text: str, chars_max: int = REASON_CHARS_MAX) -> str:
    """Return `text` as Postgres can store it: no NUL, no lone surrogate, at most `chars_max`."""
    if len(text) > chars_max:
        text = text[: chars_max - 1] + "…"
    if text.isascii() and "\x00" not in text:
        return text
    return text.replace("\x00", "�").encode("utf-8", "replace").decode("utf-8")


class InboxRow(msgspec.Struct, frozen=True, kw_only=True, tag="inbox"):
    """An effect: one row of `inbox_message`, written in the recording transaction."""

    user_id: str
    subject: str | None
    body: str
    data_json: str = "{}"


class SinkRow(msgspec.Struct, frozen=True, kw_only=True, tag="sink"):
    """An effect: what the `sink` provider kept instead of sending it."""

    channel: str
    recipient: str
    subject: str | None
    body: str
    headers_json: str = "{}"


class ChainedJob(msgspec.Struct, frozen=True, kw_only=True, tag="job"):
    """An effect: another job (a NotificationJob or queue/payload object, as JSON)."""

    job_json: str


class AddressMoved(msgspec.Struct, frozen=True, kw_only=True, tag="moved"):
    """An effect: the recipient who had the address `old` on this channel has `new` instead."""

    channel: str
    old: str
    new: str


class AlsoTo(msgspec.Struct, frozen=True, kw_only=True, tag="also"):
    """An effect: the same job once more, as a job of its own, for this address alone.

    Its id is the UUIDv5 of the job's id and the address, as for a list of addresses.
    """

    address: str


class ReceiptExpected(msgspec.Struct, frozen=True, kw_only=True, tag="receipt"):
    """An effect: the provider will tell later what became of the message."""

    provider_id: str
    provider_message_id: str | None


Effect: TypeAlias = InboxRow | SinkRow | ChainedJob | AddressMoved | AlsoTo | ReceiptExpected


class Sent(msgspec.Struct, frozen=True, kw_only=True):
    """What was said and to whom, for the attempt's row of history. All of it is optional."""

    provider: str | None = None
    recipient: str | None = None
    subject: str | None = None
    content: bytes | None = None
    template_version: int | None = None


class Delivered(msgspec.Struct, frozen=True, kw_only=True):
    """The provider took it. `effects` run in the recording transaction, if the lease holds.

    `gone`: addresses of the recipient's, among several, that do not exist any more.
    """

    provider_message_id: str | None = None
    effects: tuple[Effect, ...] = ()
    sent: Sent | None = None
    gone: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.provider_message_id is not None:
            cleaned = clean_text(self.provider_message_id, 500)
            if cleaned != self.provider_message_id:
                msgspec.structs.force_setattr(self, "provider_message_id", cleaned)


class _Failure(msgspec.Struct, frozen=True, kw_only=True):
    code: str
    reason: str
    sent: Sent | None = None
    gone: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "code", clean_text(self.code, CODE_CHARS_MAX))
        msgspec.structs.force_setattr(self, "reason", clean_text(self.reason))


class Retryable(_Failure, frozen=True, kw_only=True):
    """Temporary trouble. `retry_after_s`: what the receiver asked for, else the backoff.

    `ambiguous`: the request went out and the answer never came. `attempts_max` bounds the tries
    where the error table allows fewer than the job does (HTTP 400: three, 5 s apart).
    """

    retry_after_s: float | None = None
    scope: RetryScope = "job"
    ambiguous: bool = False
    attempts_max: int | None = None


class Rejected(_Failure, frozen=True, kw_only=True):
    """It will never be delivered. `suppress`: nor will anything else to this address."""

    suppress: bool = False


class Misconfigured(_Failure, frozen=True, kw_only=True):
    """Our own side must be mended first: hold at `scope`, burn no try.

    `scope_key` names what is held within the lane (an endpoint's id, a template's code); it is
    not used for the scope `lane`.
    """

    scope: HoldScope = "lane"
    scope_key: str = ""


class Snoozed(msgspec.Struct, frozen=True, kw_only=True):
    """Not now: again at `until` (an aware datetime). The try is given back."""

    until: datetime
    code: str = "job.snoozed"
    reason: str = ""


Outcome: TypeAlias = Delivered | Retryable | Rejected | Misconfigured | Snoozed
