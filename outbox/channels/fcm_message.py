"""A message as FCM takes it: title and text, strings as data, and how long it is worth showing."""

from __future__ import annotations

import re
from datetime import datetime

import msgspec

from outbox.channels.captured import sent_by
from outbox.channels.push_content import CONTENT_BYTES_MAX, ContentRefused, push_data
from outbox.message import Device, Message
from outbox.outcome import Rejected

TTL_S_MAX = 2_419_200
"""Four weeks: what FCM keeps a message for, and does by default."""

_RESERVED = re.compile(r"(from|message_type|collapse_key)\Z|(google|gcm)(\.|\Z)", re.IGNORECASE)


def prepared_push(message: Message) -> Message | Rejected:
    """Return the message with its devices, or why FCM could not take it."""
    devices = message.devices or ((Device(message.to),) if message.to else ())
    if not devices:
        return Rejected(code="recipient.no_address", reason="User has no device for push")
    sent = sent_by(None, message)
    if message.text is None and message.html is not None:
        return Rejected(code="push.html", reason="A push message has no HTML", sent=sent)
    try:
        content = fcm_content(message)
    except ContentRefused as error:
        return Rejected(code="push.data", reason=str(error), sent=sent)
    size = sum(len(msgspec.json.encode(part)) for part in content.values())
    if size > CONTENT_BYTES_MAX:
        reason = f"The message takes {size} bytes, where FCM allows {CONTENT_BYTES_MAX}"
        return Rejected(code="push.too_large", reason=reason, sent=sent)
    return msgspec.structs.replace(message, devices=devices, html=None, headers={})


def fcm_content(message: Message) -> dict[str, dict[str, str]]:
    """Return `notification` (where there is a text) and `data`. Raises ContentRefused."""
    data: dict[str, str] = {}
    for name, raw in push_data(message).items():
        if _RESERVED.match(name):
            raise ContentRefused(f"the name {name[:40]!r} in the data is FCM's own")
        value = msgspec.json.decode(raw) if bytes(raw)[:1] == b'"' else bytes(raw).decode()
        data[name] = value
    content = {"data": data | {"job_id": str(message.key)}}
    notification = {"title": message.subject, "body": message.text}
    told = {name: text for name, text in notification.items() if text is not None}
    return {"notification": told, **content} if told else content


def fcm_request(message: Message, token: str, now: datetime) -> dict[str, object]:
    """Return the body of messages:send.

    The tag and the collapse id are the job's: a repetition replaces what is on the screen.
    """
    key = str(message.key)
    android: dict[str, object] = {"notification": {"tag": key}}
    apns: dict[str, str] = {"apns-collapse-id": key}
    webpush: dict[str, object] = {}
    if message.expires_at is not None:
        left_s = max(0, min(TTL_S_MAX, int((message.expires_at - now).total_seconds())))
        android["ttl"] = f"{left_s}s"
        apns["apns-expiration"] = str(int(message.expires_at.timestamp()))
        webpush["webpush"] = {"headers": {"TTL": str(left_s)}}
    return {
        "message": {
            "token": token,
            **fcm_content(message),
            "android": android if message.text or message.subject else _without_tag(android),
            "apns": {"headers": apns},
            **webpush,
        }
    }


def _without_tag(android: dict[str, object]) -> dict[str, object]:
    """Return the part for data alone: a notification of a tag only would be shown, empty."""
    return {name: value for name, value in android.items() if name != "notification"}
