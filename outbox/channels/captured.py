"""What the providers `log` and `sink` say of a message, whatever its channel."""

from __future__ import annotations

import msgspec

from outbox.message import Message
from outbox.outcome import Rejected, Sent


def refused_test(message: Message) -> Rejected | None:
    """Return why a live provider takes no test job: the last fence, right before it is asked."""
    if not message.test:
        return None
    reason = "A test job goes to the sink alone, and this is a live provider"
    return Rejected(code="provider.test_job", reason=reason, sent=sent_by(None, message))


def said(message: Message) -> str:
    """Return what the receiver would have read: text, else HTML, else the job's data as JSON."""
    if message.text is not None:
        return message.text
    if message.html is not None:
        return message.html
    return message.data_json.decode("utf-8", "replace")


def content_of(message: Message) -> bytes:
    """Return the bytes that the content hash is over: the text, a line feed, the HTML.

    Where there is only one part, it is that part alone. No date and no id is in it, so the same
    content hashes to the same value over all attempts.
    """
    parts = [part for part in (message.text, message.html) if part is not None]
    return "\n".join(parts).encode("utf-8", "replace") if parts else message.data_json


def recipient_of(message: Message) -> str:
    """Return the address, or the user where the channel needs no address."""
    return message.to or message.user_id or ""


def sent_by(provider: str | None, message: Message) -> Sent:
    """Return the history's line for `message`."""
    return Sent(
        provider=provider,
        recipient=recipient_of(message) or None,
        subject=message.subject,
        content=content_of(message),
        template_version=message.template_version,
    )


def headers_json(message: Message) -> str:
    """Return the headers as JSON, a `content-type` among them.

    An HTML part beside a text is kept under `html`: a row of the sink has one body. Attachments
    are named, and not fetched.
    """
    kept: dict[str, object] = dict(message.headers)
    if not any(name.lower() == "content-type" for name in kept):
        kept["content-type"] = _content_type(message)
    if message.text is not None and message.html is not None:
        kept["html"] = message.html
    if message.attachments:
        kept["attachments"] = message.attachments
    return msgspec.json.encode(kept).decode()


def _content_type(message: Message) -> str:
    if message.text is not None:
        return "text/plain"
    return "text/html" if message.html is not None else "application/json"
