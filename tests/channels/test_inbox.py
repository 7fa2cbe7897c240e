from __future__ import annotations

import json

import pytest

from outbox.channels.inbox import InboxChannel
from outbox.channels.log import LogChannel
from outbox.outcome import Delivered, InboxRow, Rejected, SinkRow
from tests.channels.messages import KEY, email


async def test_a_message_becomes_a_row_of_the_recording_transaction() -> None:
    message = email(channel="inbox", to=None, user_id="u1", data_json=b'{"n": 1.10}')
    async with InboxChannel({}) as channel:
        outcome = await channel.deliver(message, timeout_s=5)
    assert isinstance(outcome, Delivered)
    assert outcome.effects == (
        InboxRow(
            user_id="u1",
            subject="Добро пожаловать, Нуржан!",
            body=message.text or "",
            data_json='{"n": 1.10}',
        ),
    )
    assert outcome.sent is not None
    assert (outcome.sent.provider, outcome.sent.recipient) == ("inbox", "u1")


async def test_a_message_without_a_template_has_only_its_data() -> None:
    message = email(channel="inbox", user_id="u1", text=None, html=None)
    async with InboxChannel({}) as channel:
        outcome = await channel.deliver(message, timeout_s=5)
    assert isinstance(outcome, Delivered)
    (row,) = outcome.effects
    assert isinstance(row, InboxRow)
    assert row.body == ""


@pytest.mark.parametrize("given", [{}, {"INBOX_PROVIDER": "sink"}])
async def test_a_message_for_nobody_is_rejected(given: dict[str, str]) -> None:
    async with InboxChannel(given) as channel:
        outcome = await channel.deliver(email(to=None), timeout_s=5)
    assert isinstance(outcome, Rejected)
    assert outcome.code == "recipient.no_address"


async def test_the_sink_keeps_it_instead() -> None:
    async with InboxChannel({"INBOX_PROVIDER": "sink"}) as channel:
        outcome = await channel.deliver(email(user_id="u1"), timeout_s=5)
    assert isinstance(outcome, Delivered)
    assert isinstance(outcome.effects[0], SinkRow)


async def test_the_log_prints_one_line_a_message(capsys: pytest.CaptureFixture[str]) -> None:
    async with LogChannel("sms") as channel:
        outcome = await channel.deliver(email(text="a\nb" + "x" * 10_000), timeout_s=5)
    (line,) = capsys.readouterr().out.splitlines()
    printed = json.loads(line)
    assert printed["channel"] == "sms"
    assert printed["job_id"] == str(KEY)
    assert printed["body"].startswith("a\nb")
    assert len(printed["body"]) == 4_000
    assert isinstance(outcome, Delivered)
    assert outcome.effects == ()
