"""The last fence: no live provider takes a test job, on any channel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from outbox.channels.registry import CHANNELS_GROUP, _entries, load_handlers
from outbox.message import Device
from outbox.outcome import Rejected
from tests.channels.messages import email
from tests.channels.test_browser import VAPID_PEM
from tests.channels.test_push import service_account

ANYWHERE = "127.0.0.1:1"
"""Nobody listens there: who asks all the same gets another answer than the fence's."""


SUBSCRIPTION = Device(
    "https://push.example.com/x",
    "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4",
    "BTBZMqHH6r4Tts7J_aSIgg",
)
LIVE: Mapping[str, tuple[Mapping[str, str], Mapping[str, Any]]] = {
    "email": (
        {"SMTP_URL": f"smtp://{ANYWHERE}?starttls=off", "MAIL_FROM": "a@example.com"},
        {},
    ),
    "webhook": ({"WEBHOOK_ALLOW": "127.0.0.1"}, {"to": f"http://{ANYWHERE}/x"}),
    "inbox": ({}, {"user_id": "ann"}),
    "sms": (
        {"SMS_URL": f"twilio+http://AC1:secret@{ANYWHERE}", "SMS_FROM": "+15005550006"},
        {"to": "+77011234567"},
    ),
    "telegram": ({"TELEGRAM_URL": f"telegram+http://1:secret@{ANYWHERE}"}, {"to": "12345"}),
    "push": ({"PUSH_KEY": service_account(1)}, {"to": None, "devices": (Device("token"),)}),
    "browser": (
        {"BROWSER_KEY": VAPID_PEM, "BROWSER_SUBJECT": "mailto:a@example.com"},
        {"to": None, "devices": (SUBSCRIPTION,)},
    ),
}


def test_every_channel_that_is_installed_is_tried() -> None:
    assert set(LIVE) == set(_entries(CHANNELS_GROUP))


@pytest.mark.parametrize("channel", LIVE)
async def test_a_live_provider_refuses_a_test_job(channel: str) -> None:
    settings, where = LIVE[channel]
    message = email(channel=channel, queue=channel, test=True, **where)
    async with load_handlers(settings)[channel] as handler:
        outcome = await handler.deliver(message, timeout_s=2.0)
        assert isinstance(outcome, Rejected)
        assert outcome.code == "provider.test_job"
