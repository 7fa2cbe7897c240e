"""What providers tell later: their callbacks' signatures, and their words for what became of it.

`verify` says whether a callback is the provider's; `read_receipts` what it tells. Both are pure.
A status only moves forward: missing, delivered, opened, bounced, complained, opted_out.

    standard   Standard Webhooks' signature; {"events": [{"job_id" or "message_id", "status", …}]}
    twilio     X-Twilio-Signature (HMAC-SHA1 over URL and form); MessageSid, MessageStatus; and,
               of an SMS that came in, From and its STOP or START
    sendgrid   the signed Event Webhook (ECDSA); a list of events
    postmark   HTTP Basic, as the URL that Postmark is given has it; one record a call
"""

from __future__ import annotations

import hmac
import re
from base64 import b64decode, b64encode
from binascii import Error as NotBase64
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Literal, TypeAlias
from urllib.parse import parse_qsl
from uuid import UUID

import msgspec

from outbox.channels.webhook_signature import SecretRefused, key_of
from outbox.outcome import clean_text

ReceiptFormat: TypeAlias = Literal["standard", "twilio", "sendgrid", "postmark"]
ReceiptStatus: TypeAlias = Literal["delivered", "opened", "bounced", "complained", "opted_out"]

FRESH_S = 300.0
"""A signed callback is believed for so long."""
EVENTS_MAX = 10_000
DETAIL_CHARS_MAX = 500
_NUMBER = re.compile(r"\+[0-9]{5,15}\Z")
# https://www.twilio.com/docs/messaging/tutorials/advanced-opt-out
_STOP = frozenset({"STOP", "STOPALL", "UNSUBSCRIBE", "CANCEL", "END", "QUIT", "OPTOUT", "REVOKE"})
_START = frozenset({"START", "YES", "UNSTOP"})
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """One thing told of one message, named by its job or by the provider's own id.

    `hard`: nothing more should go to that address.
    """

    status: ReceiptStatus
    at: datetime
    job_id: UUID | None = None
    message_id: str | None = None
    detail: str | None = None
    hard: bool = False


class Keyword(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody wrote back to the sender of an SMS: no more (STOP), or again (START)."""

    address: str
    wants: bool


class NoReceipts(ValueError):
    """A callback that is not what its format says."""


def verify(
    how: ReceiptFormat,
    secret: str,
    *,
    headers: Mapping[str, str],
    body: bytes,
    urls: Sequence[str],
    now: datetime,
) -> bool:
    """Tell whether the provider sent this. `headers` by names in lower case.

    `urls`: as which the caller may have known this address (behind a proxy we cannot tell).
    """
    match how:
        case "standard":
            return _verify_standard(secret, headers, body, now)
        case "twilio":
            return _verify_twilio(secret, headers, body, urls)
        case "sendgrid":
            return _verify_sendgrid(secret, headers, body, now)
        case "postmark":
            given = headers.get("authorization", "").encode()
            expected = b"Basic " + b64encode(secret.encode())
            return hmac.compare_digest(given, expected)


def read_receipts(how: ReceiptFormat, body: bytes, *, now: datetime) -> list[Receipt]:
    """Return what a callback tells, of what there is a word for. Raises NoReceipts."""
    try:
        match how:
            case "standard":
                return [_standard(event, now) for event in _events(body)]
            case "twilio":
                return _twilio(body, now)
            case "sendgrid":
                return [r for event in _events(body) if (r := _sendgrid(event, now)) is not None]
            case "postmark":
                return [r for event in _events(body) if (r := _postmark(event, now)) is not None]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise NoReceipts("is not what this provider's callbacks look like") from error


def read_keyword(how: ReceiptFormat, body: bytes) -> Keyword | None:
    """Return the STOP or START of an SMS that came in (Twilio's `OptOutType`, else its words)."""
    if how != "twilio":
        return None
    form = dict(parse_qsl(body.decode("utf-8", "replace")))
    sender = form.get("From", "")
    if form.get("SmsStatus") != "received" or not _NUMBER.match(sender):
        return None
    word = (form.get("OptOutType") or form.get("Body") or "").strip().upper()
    if word in _STOP or word in _START:
        return Keyword(address=sender, wants=word in _START)
    return None


def _verify_standard(secret: str, headers: Mapping[str, str], body: bytes, now: datetime) -> bool:
    message_id, at = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not _is_fresh(at, now):
        return False
    try:
        key = key_of(secret)
    except SecretRefused:
        return False
    signed = b"%b.%b.%b" % (message_id.encode(), at.encode(), body)
    expected = b64encode(hmac.digest(key, signed, "sha256"))
    return any(
        hmac.compare_digest(given.removeprefix("v1,").encode(), expected)
        for given in headers.get("webhook-signature", "").split()
        if given.startswith("v1,")
    )


def _verify_twilio(
    secret: str, headers: Mapping[str, str], body: bytes, urls: Sequence[str]
) -> bool:
    given = headers.get("x-twilio-signature", "").encode()
    form = sorted(set(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True)))
    tail = "".join(name + value for name, value in form)
    return any(
        hmac.compare_digest(
            given, b64encode(hmac.digest(secret.encode(), (url + tail).encode(), "sha1"))
        )
        for url in urls
    )


def _verify_sendgrid(secret: str, headers: Mapping[str, str], body: bytes, now: datetime) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import load_der_public_key

    at = headers.get("x-twilio-email-event-webhook-timestamp", "")
    if not _is_fresh(at, now):
        return False
    try:
        key = load_der_public_key(b64decode(secret))
        given = b64decode(headers.get("x-twilio-email-event-webhook-signature", ""))
        if not isinstance(key, ec.EllipticCurvePublicKey):
            return False
        key.verify(given, at.encode() + body, ec.ECDSA(SHA256()))
    except (InvalidSignature, NotBase64, ValueError):
        return False
    return True


def _is_fresh(at: str, now: datetime) -> bool:
    if not (at.isascii() and at.isdecimal() and len(at) <= 12):
        return False
    return abs(now.timestamp() - int(at)) <= FRESH_S


class _Event(msgspec.Struct, rename={"type_": "Type"}):
    """All that any of the JSON formats may say."""

    job_id: str | None = None
    message_id: str | None = None
    status: str | None = None
    at: datetime | None = None
    detail: str | None = None
    hard: bool | None = None
    # SendGrid
    event: str | None = None
    type: str | None = None
    sg_message_id: str | None = None
    smtp_id: str | None = msgspec.field(name="smtp-id", default=None)
    timestamp: int | None = None
    reason: str | None = None
    # Postmark
    record_type: str | None = msgspec.field(name="RecordType", default=None)
    type_: str | None = None
    postmark_id: str | None = msgspec.field(name="MessageID", default=None)
    metadata: dict[str, str] = msgspec.field(name="Metadata", default_factory=dict)
    description: str | None = msgspec.field(name="Description", default=None)
    suppress: bool = msgspec.field(name="SuppressSending", default=False)
    inactive: bool = msgspec.field(name="Inactive", default=False)


class _Whole(msgspec.Struct):
    events: list[_Event]


def _events(body: bytes) -> list[_Event]:
    text = body.lstrip()
    if text.startswith(b"["):
        events = msgspec.json.decode(text, type=list[_Event])
    elif b'"events"' in text[:4096]:
        events = msgspec.json.decode(text, type=_Whole).events
    else:
        events = [msgspec.json.decode(text, type=_Event)]
    if len(events) > EVENTS_MAX:
        raise NoReceipts(f"has over {EVENTS_MAX} events")
    return events


def _standard(event: _Event, now: datetime) -> Receipt:
    job_id = _job_id(event.job_id)
    if job_id is None and event.message_id is None:
        raise NoReceipts("has an event without a job_id or a message_id")
    match event.status:
        case "delivered" | "opened" | "bounced" | "complained" | "opted_out" as status:
            pass
        case _:
            raise NoReceipts(
                "has an event whose status is none of delivered, opened, bounced, complained, "
                "opted_out"
            )
    at = event.at or now
    if at.tzinfo is None:
        raise NoReceipts("has an event whose time has no offset")
    return Receipt(
        status=status,
        at=at,
        job_id=job_id,
        message_id=_cut(event.message_id),
        detail=_cut(event.detail),
        hard=status != "delivered" if event.hard is None else event.hard,
    )


_TWILIO_HARD = frozenset({"21211", "21612", "21614", "30005", "30006"})


def _twilio(body: bytes, now: datetime) -> list[Receipt]:
    form = dict(parse_qsl(body.decode()))
    sid = form.get("MessageSid") or form.get("SmsSid")
    if not sid:
        raise NoReceipts("has no MessageSid")
    code = form.get("ErrorCode")
    status: ReceiptStatus
    match form.get("MessageStatus") or form.get("SmsStatus"):
        case "delivered":
            status = "delivered"
        case "read":
            status = "opened"
        case "undelivered" | "failed":
            status = "opted_out" if code == "21610" else "bounced"
        case _:
            return []  # on its way
    hard = status == "opted_out" or code in _TWILIO_HARD
    detail = f"Twilio {code}" if code else None
    return [Receipt(status=status, at=now, message_id=_cut(sid), detail=_cut(detail), hard=hard)]


_SENDGRID: Mapping[str, ReceiptStatus] = {
    "delivered": "delivered",
    "open": "opened",
    "bounce": "bounced",
    "dropped": "bounced",
    "spamreport": "complained",
    "unsubscribe": "opted_out",
    "group_unsubscribe": "opted_out",
}


def _sendgrid(event: _Event, now: datetime) -> Receipt | None:
    status = _SENDGRID.get(event.event or "")
    if status is None:
        return None
    # A block is somebody's policy, and a drop the echo of an older fault.
    soft = status == "bounced" and (event.event == "dropped" or event.type == "blocked")
    at = now if event.timestamp is None else datetime.fromtimestamp(event.timestamp, UTC)
    return Receipt(
        status=status,
        at=at,
        job_id=_job_id(event.job_id) or _job_id(event.smtp_id),
        message_id=_cut((event.sg_message_id or "").partition(".")[0] or None),
        detail=_cut(event.reason),
        hard=status in ("bounced", "complained", "opted_out") and not soft,
    )


_POSTMARK_HARD = frozenset({"HardBounce", "BadEmailAddress", "ManuallyDeactivated"})


def _postmark(event: _Event, now: datetime) -> Receipt | None:
    status: ReceiptStatus
    match event.record_type:
        case "Delivery":
            status, hard = "delivered", False
        case "Open":
            status, hard = "opened", False
        case "Bounce":
            status, hard = "bounced", event.type_ in _POSTMARK_HARD
        case "SpamComplaint":
            status, hard = "complained", True
        case "SubscriptionChange" if event.suppress:
            status, hard = "opted_out", True
        case _:
            return None
    return Receipt(
        status=status,
        at=now,
        job_id=_job_id(event.metadata.get("job_id")),
        message_id=_cut(event.postmark_id),
        detail=_cut(event.description),
        hard=hard,
    )


def _job_id(text: str | None) -> UUID | None:
    """Return the job's id, which is also in the Message-ID of every mail of ours."""
    found = _UUID.search(text or "")
    return UUID(found[0]) if found else None


def _cut(text: str | None) -> str | None:
    return None if text is None else clean_text(text, DETAIL_CHARS_MAX)


def is_secret(how: ReceiptFormat, secret: str) -> bool:
    """Tell whether callbacks of this format can be checked with it."""
    from cryptography.hazmat.primitives.serialization import load_der_public_key

    try:
        if how == "standard":
            key_of(secret)
        elif how == "sendgrid":
            load_der_public_key(b64decode(secret, validate=True))
    except (SecretRefused, NotBase64, ValueError):
        return False
    return how != "postmark" or ":" in secret
