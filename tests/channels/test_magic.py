"""Each row of the error tables, caused on demand by a recipient that the sink knows."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from outbox.channels.http_errors import HTTP_TABLE, HTTP_TROUBLE_TABLE
from outbox.channels.magic import _TABLES, play
from outbox.channels.registry import load_handlers
from outbox.channels.sink import SinkChannel
from outbox.channels.smtp_errors import SMTP_TABLE, smtp_row
from outbox.message import Device
from outbox.outcome import Delivered, Misconfigured, Outcome, Rejected, Retryable
from tests.channels.messages import email

VERDICTS = {"T": Retryable, "P": Rejected, "C": Misconfigured, "D": Delivered}
MAIL = {  # what brings each row about, in the table's order
    "530": (530, None, ""),
    "550-5.7.8": (550, "5.7.8", ""),
    "550-5.1.7": (550, "5.1.7", ""),
    "500+auth": (500, "auth", ""),
    "500+tls": (500, "tls", ""),
    "550-5.2.3": (550, "5.2.3", ""),
    "550+mail": (550, "mail", ""),
    "connect": (-1, "connect", ""),
    "450-4.7.1": (450, "4.7.1", ""),
    "421": (421, None, ""),
    "451-4.3.2": (451, "4.3.2", ""),
    "503": (503, None, ""),
    "450-4.2.1": (450, "4.2.1", ""),
    "452": (452, None, ""),
    "550-5.1.1": (550, "5.1.1", ""),
    "550-5.2.1": (550, "5.2.1", ""),
    "550-5.2.2": (550, "5.2.2", ""),
    "550-5.7.1": (550, "5.7.1", ""),
    "552": (552, None, ""),
    "450-greylisted": (450, None, "greylisted"),
    "550-spam": (550, None, "spam"),
    "550-mailbox_full": (550, None, "mailbox full"),
    "550-too_large": (550, None, "too large"),
    "550-user_unknown": (550, None, "user unknown"),
    "499": (499, None, ""),
    "599": (599, None, ""),
    "299": (299, None, ""),
}


@pytest.mark.parametrize("asked", MAIL)
async def test_each_row_of_the_mail_table_comes_about_on_demand(asked: str) -> None:
    place = list(MAIL).index(asked)
    row = SMTP_TABLE[place]
    outcome = await SinkChannel("email").deliver(
        email(to=f"fail+{asked}@sink.test"), timeout_s=1.0
    )
    assert isinstance(outcome, VERDICTS[row.verdict])
    assert outcome.sent is not None
    if isinstance(outcome, Rejected):
        assert outcome.suppress == row.suppress
    if isinstance(outcome, Retryable):
        assert (outcome.scope, outcome.retry_after_s, outcome.attempts_max) == (
            row.scope,
            row.retry_after_s,
            row.attempts_max,
        )


def test_the_mail_table_has_no_row_that_is_not_tried() -> None:
    assert len(MAIL) == len(SMTP_TABLE)
    for (number, second, text), row in zip(MAIL.values(), SMTP_TABLE, strict=True):
        if second is None or second[0].isdigit():
            assert smtp_row(number, second, text) is row
        else:
            assert smtp_row(number, None, text, stage=second) is row  # type: ignore[arg-type]


def provider_rows() -> Iterator[tuple[str, str, str]]:
    for channel, (_, table) in _TABLES.items():
        for row in table:
            words = "-chat_not_found" if row.text else ""
            for code in sorted(row.codes):
                yield channel, f"{code}{words}", row.verdict


@pytest.mark.parametrize(("channel", "asked", "verdict"), list(provider_rows()))
async def test_each_row_of_the_providers_tables_comes_about_on_demand(
    channel: str, asked: str, verdict: str
) -> None:
    address = f"fail+{asked}@sink.test"
    where: dict[str, Any] = {"to": address}
    if channel in ("push", "browser"):
        where = {"to": None, "devices": (Device(address),)}
    outcome = await play(channel, email(channel=channel, **where))
    assert isinstance(outcome, VERDICTS[verdict])


@pytest.mark.parametrize("row", HTTP_TABLE, ids=lambda row: f"{row.first}-{row.last}")
async def test_each_row_of_the_webhooks_table_comes_about_on_demand(row: Any) -> None:
    asked = f"{row.first:03d}" + ("-7" if row.asks else "")
    outcome = await play("webhook", email(to=f"https://sink.test/fail+{asked}"))
    assert isinstance(outcome, VERDICTS[row.verdict])
    if row.asks:
        assert isinstance(outcome, Retryable)
        assert outcome.retry_after_s == 7.0


@pytest.mark.parametrize("trouble", HTTP_TROUBLE_TABLE)
async def test_each_way_to_get_no_answer_comes_about_on_demand(trouble: str) -> None:
    outcome = await play("webhook", email(to=f"https://sink.test/fail+{trouble}"))
    row = HTTP_TROUBLE_TABLE[trouble]  # type: ignore[index]
    assert isinstance(outcome, VERDICTS[row.for_job or row.verdict])
    if isinstance(outcome, Retryable):
        assert outcome.ambiguous == (trouble in ("timeout", "lost"))


@pytest.mark.parametrize(
    ("channel", "code", "told"),
    [
        ("email", "421", "smtp.421"),
        ("sms", "30004", "twilio.30004"),
        ("telegram", "403", "telegram.403"),
        ("push", "UNREGISTERED", "fcm.UNREGISTERED"),
        ("browser", "410", "webpush.410"),
        ("ws", "no_socket", "ws.no_socket"),
        ("ws", "421", "http.421"),
        ("webhook", "500", "http.500"),
    ],
)
async def test_every_channel_of_the_sandbox_knows_them_and_none_does_without_it(
    channel: str, code: str, told: str
) -> None:
    address = f"fail+{code}@sink.test"
    where: dict[str, Any] = {"to": address}
    if channel in ("push", "browser"):
        where = {"to": None, "devices": (Device(address),)}
    elif channel == "webhook":
        where = {"to": f"https://sink.test/fail+{code}"}
    message = email(channel=channel, queue=channel, **where)
    sandbox = load_handlers({"MODE": "sandbox"})[channel]
    outcome = await sandbox.deliver(message, timeout_s=5.0)
    assert getattr(outcome, "code", None) == told
    if isinstance(outcome, Rejected) and channel in ("push", "browser"):
        assert outcome.gone == (address,)
    logged = load_handlers({f"{channel.upper()}_PROVIDER": "log"})[channel]
    outcome = await logged.deliver(message, timeout_s=5.0)
    assert getattr(outcome, "code", None) != told


@pytest.mark.parametrize("named", ["to", "user_id"])
async def test_a_user_s_sockets_fail_by_the_name_of_the_user(named: str) -> None:
    where: dict[str, Any] = {"to": None, named: "fail+unacknowledged@sink.test"}
    outcome = await SinkChannel("ws").deliver(email(channel="ws", **where), timeout_s=1.0)
    assert isinstance(outcome, Retryable)
    assert (outcome.code, outcome.ambiguous) == ("ws.unacknowledged", True)


async def test_a_mail_that_was_lost_may_have_arrived() -> None:
    outcome = await play("email", email(to="fail+lost@sink.test"))
    assert isinstance(outcome, Retryable)
    assert outcome.ambiguous


async def test_what_no_table_knows_is_told() -> None:
    outcome = await play("email", email(to="fail+nonsense@sink.test"))
    assert isinstance(outcome, Rejected)
    assert outcome.code == "sink.unknown"


async def test_an_ordinary_recipient_is_kept_by_the_sink() -> None:
    outcome = await SinkChannel("email").deliver(email(to="ann@sink.test"), timeout_s=1.0)
    assert isinstance(outcome, Delivered)


async def test_a_slow_recipient_takes_its_time_and_then_is_delivered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waited: list[float] = []

    async def note(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", note)
    outcome: Outcome = await SinkChannel("email").deliver(
        email(to="slow+5@sink.test"), timeout_s=30.0
    )
    assert isinstance(outcome, Delivered)
    assert waited == [5.0]
