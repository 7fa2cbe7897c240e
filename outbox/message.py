"""The values that cross the edges: what a producer hands in, and what a channel delivers.

The contract (docs/contracts.md) is enforced by the database, for all doors alike; `Job` is a
typed way to write it down in Python, not a second validation.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, NewType, TypeAlias
from uuid import UUID

import msgspec

LeaseNo = NewType("LeaseNo", int)
"""How often a job has been leased: the fence. It only ever grows."""
Epoch = NewType("Epoch", int)
"""A dispatcher process between two (re)connections: a random 63-bit number."""
EntryId = NewType("EntryId", int)
"""The internal, time-ordered id of a job: ms since `ID_EPOCH_MS`, then 22 bits."""
ID_EPOCH_MS = 1_577_836_800_000
"""2020-01-01 in Unix time."""
LaneId = NewType("LaneId", int)
Lease: TypeAlias = tuple[EntryId, LeaseNo]
"""One claim of an entry."""

Priority: TypeAlias = Literal["low", "normal", "medium", "high", "urgent"]
JobStatus: TypeAlias = Literal[
    "scheduled", "pending", "processing", "retrying", "sent", "failed", "expired", "cancelled"
]
Mode: TypeAlias = Literal["live", "test"]
"""A test job, of a test key, is delivered to the sink alone."""
DeliveryStatus: TypeAlias = Literal["SENT", "FAILED", "RETRYING", "EXPIRED", "CANCELLED"]


def accepted_ms(entry: int) -> int:
    """Return when a job was accepted, in ms of Unix time, by its id (rounded, not cut)."""
    return (entry >> 22) + ID_EPOCH_MS


def uuid7() -> UUID:
    """Return a new UUIDv7 (RFC 9562): ordered by time, so kinder to indexes than a random one."""
    milliseconds = time.time_ns() // 1_000_000
    tail = int.from_bytes(os.urandom(10), "big")
    high = (milliseconds << 16) | 0x7000 | (tail >> 68)
    low = (0b10 << 62) | (tail & ((1 << 62) - 1))
    return UUID(int=((high & ((1 << 64) - 1)) << 64) | low)


class Attachment(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What goes along with a mail, as its producer names it: a `url`, or a key in `s3`.

    `filename` is the URL's or the key's own last part where it is left out. An `inline` one is
    shown in the HTML, by `cid:` and its `filename`.
    """

    url: str | None = None
    s3: str | None = None
    filename: str | None = None
    content_type: str | None = None
    inline: bool | None = None


class MailPart(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An attachment as it goes out: fetched, with a name and a type that a mail can have."""

    filename: str
    content_type: str
    content: bytes
    inline: bool = False


class Job(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A NotificationJob, or any other kind of job, as a producer writes it (contracts.md 1, 6).

    Only what is set is sent. `job_id` is made here unless there is an `idempotency_key`, from
    which the id then follows: keep the object (or the id) when you retry, so that the store sees
    the same job again. A `created_at` that is left out is filled in by the store, and is then no
    part of the content by which a repeated job is compared.
    """

    job_id: UUID | None = None
    created_at: datetime | None = None
    channel: str | None = None
    user_id: UUID | str | None = None
    to: str | Sequence[str] | None = None
    template_code: str | None = None
    content: str | None = None
    subject: str | None = None
    locale: str | None = None
    data: Mapping[str, Any] | None = None
    meta: Mapping[str, Any] | None = None
    send_after: datetime | None = None
    expires_at: datetime | None = None
    queue: str | None = None
    payload: Mapping[str, Any] | None = None
    endpoint: UUID | str | None = None
    category: str | None = None
    idempotency_key: str | None = None
    ordering_key: str | None = None
    dedup_key: str | None = None
    dedup_window_s: int | None = None
    dedup_policy: Literal["keep", "replace"] | None = None
    max_attempts: int | None = None
    timeout_s: float | None = None
    headers: Mapping[str, str] | None = None
    attachments: Sequence[Attachment | Mapping[str, Any]] | None = None

    def __post_init__(self) -> None:
        if self.job_id is None and self.idempotency_key is None:
            self.job_id = uuid7()


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """Where one message goes: the address, and what the directory knows of its owner."""

    address: str
    user_id: str | None = None
    locale: str | None = None
    timezone: str | None = None


class Device(msgspec.Struct, frozen=True):
    """Where push goes: an FCM token, or a Web Push endpoint with its keys (base64url)."""

    address: str
    p256dh: str | None = None
    auth: str | None = None


class Message(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One attempt's message: all that a channel or a queue handler gets to know.

    `key` is the idempotency key towards the receiver: the job's id, the same over all retries.
    `data_json`, `payload_json` are raw JSON, so that no number passes through a float.
    `subject`, `text`, `html` are rendered; a channel without a template has `text=None`.
    `devices`: the recipient's, for push, the one that was seen last first; `to` is None then,
    unless the job itself names one of them.
    `endpoint` names the registered webhook endpoint whose URL `to` is; None is a job's own `to`.
    `test`: no provider but the sink may take it.
    `sender` and `phone_region` are the tenant's own, where it has set them: the From of its mail,
    and the country of a number that is written without one.
    `parts` are the `attachments` once the channel has fetched them.
    """

    key: UUID
    tenant_id: str
    queue: str
    channel: str | None = None
    attempt: int = 1
    to: str | None = None
    endpoint: str | None = None
    user_id: str | None = None
    subject: str | None = None
    text: str | None = None
    html: str | None = None
    template_code: str | None = None
    template_version: int | None = None
    locale: str | None = None
    category: str | None = None
    event_type: str | None = None
    created_at: datetime
    expires_at: datetime | None = None
    headers: Mapping[str, str] = {}
    data_json: bytes = b"{}"
    payload_json: bytes | None = None
    meta_json: bytes = b"{}"
    traceparent: str | None = None
    secrets: tuple[str, ...] = ()
    sender: str | None = None
    phone_region: str | None = None
    devices: tuple[Device, ...] = ()
    attachments: tuple[Attachment, ...] = ()
    parts: tuple[MailPart, ...] = ()
    test: bool = False
