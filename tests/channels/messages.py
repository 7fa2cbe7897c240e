"""Messages as the dispatcher would hand them to a channel."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from outbox.message import Message

KEY = UUID("f4d7c0c3-7bd2-4d5b-9891-93f6ac0242ef")
CREATED_AT = datetime(2025, 11, 14, 12, 35, 10, tzinfo=UTC)


def email(**changes: Any) -> Message:
    """Return a Russian welcome mail, but for `changes`."""
    given: dict[str, Any] = {
        "key": KEY,
        "tenant_id": "default",
        "queue": "email",
        "channel": "email",
        "to": "nurzhan@example.com",
        "subject": "Добро пожаловать, Нуржан!",
        "text": "Здравствуйте, Нуржан!\nВход: https://cinema.kz/login\n",
        "html": "<p>Здравствуйте, <b>Нуржан</b>!</p>",
        "template_version": 3,
        "created_at": CREATED_AT,
    }
    return Message(**{**given, **changes})


def webhook(url: str | None, **changes: Any) -> Message:
    """Return a webhook to `url`, but for `changes`."""
    given: dict[str, Any] = {
        "key": KEY,
        "tenant_id": "default",
        "queue": "webhook",
        "channel": "webhook",
        "to": url,
        "event_type": "user_registered",
        "data_json": b'{"n": 1.10, "big": 12345678901234567890123}',
        "created_at": CREATED_AT,
    }
    return Message(**{**given, **changes})
