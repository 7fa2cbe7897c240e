"""The next provider on trouble of the first, and none on anything else."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from time import monotonic
from types import TracebackType
from typing import Self
from uuid import uuid4

import pytest

from outbox.channels.providers import ProviderSpec
from outbox.message import Message
from outbox.outcome import Delivered, Misconfigured, Outcome, Rejected, Retryable, Sent
from outbox_dispatcher.failover import FailOver, Member

MESSAGE = Message(
    key=uuid4(), tenant_id="acme", queue="email", channel="email", created_at=datetime.now(UTC)
)
AWAY = Retryable(code="smtp.connect", reason="cannot be reached", scope="provider")
LOGIN = Misconfigured(code="smtp.5.7.8", reason="bad login hunter2!", scope="lane")
TAKEN = Delivered(sent=Sent(provider="smtp"))


class Scripted:
    """A handler that answers as told, and then takes everything."""

    def __init__(self, *answers: Outcome) -> None:
        self.answers = list(answers)
        self.asked: list[float] = []
        self.closed = False
        self.hold: asyncio.Event | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.closed = True

    async def deliver(self, message: Message, *, timeout_s: float) -> Outcome:
        self.asked.append(timeout_s)
        if self.hold is not None:
            await self.hold.wait()
        return self.answers.pop(0) if self.answers else TAKEN


def member(handler: Scripted, name: str = "main") -> Member:
    spec = ProviderSpec(
        provider_id=uuid4(),
        tenant_id="acme",
        channel="email",
        kind="smtp",
        name=name,
        credentials={"smtp_password": "hunter2!"},
    )
    return Member(spec, handler, version="1")


async def test_trouble_of_the_first_is_the_second_s_message_in_the_same_attempt() -> None:
    first, second = Scripted(AWAY), Scripted()
    outcome = await FailOver([member(first), member(second, "backup")]).deliver(
        MESSAGE, timeout_s=30
    )
    assert isinstance(outcome, Delivered)
    assert outcome.sent is not None
    assert outcome.sent.provider == "smtp:backup"
    assert first.asked[0] == pytest.approx(15, abs=0.1)
    assert second.asked[0] == pytest.approx(30, abs=0.1)


@pytest.mark.parametrize(
    "outcome",
    [
        Retryable(code="smtp.lost", reason="lost", scope="provider", ambiguous=True),
        Retryable(code="smtp.4.2.2", reason="mailbox full"),
        Rejected(code="smtp.5.1.1", reason="no such user"),
        Misconfigured(code="template.missing", reason="x", scope="template", scope_key="t"),
    ],
)
async def test_what_is_about_the_message_or_may_have_arrived_goes_to_nobody_else(
    outcome: Outcome,
) -> None:
    first, second = Scripted(outcome), Scripted()
    assert (
        await FailOver([member(first), member(second)]).deliver(MESSAGE, timeout_s=30) == outcome
    )
    assert second.asked == []


async def test_a_provider_in_trouble_rests_and_is_then_tried_by_one_message() -> None:
    now = monotonic()
    first, second = Scripted(AWAY), Scripted()
    desk = FailOver([member(first), member(second)], clock=lambda: now)
    await desk.deliver(MESSAGE, timeout_s=30)
    for _ in range(3):
        await desk.deliver(MESSAGE, timeout_s=30)
    assert (len(first.asked), len(second.asked)) == (1, 4)
    desk.members[0]._rests_until = 1.0  # its rest is over
    first.hold = asyncio.Event()
    trying = asyncio.create_task(desk.deliver(MESSAGE, timeout_s=30))
    await asyncio.sleep(0)
    await desk.deliver(MESSAGE, timeout_s=30)
    assert (len(first.asked), len(second.asked)) == (2, 5)
    first.hold.set()
    await trying
    await desk.deliver(MESSAGE, timeout_s=30)
    assert (len(first.asked), len(second.asked)) == (3, 5)


async def test_a_refused_login_fails_over_and_holds_only_when_every_provider_refuses() -> None:
    both = FailOver([member(Scripted(LOGIN)), member(Scripted())])
    assert isinstance(await both.deliver(MESSAGE, timeout_s=30), Delivered)
    neither = FailOver([member(Scripted(LOGIN)), member(Scripted(LOGIN))])
    outcome = await neither.deliver(MESSAGE, timeout_s=30)
    assert isinstance(outcome, Misconfigured)
    mixed = FailOver([member(Scripted(LOGIN)), member(Scripted(AWAY))])
    assert isinstance(await mixed.deliver(MESSAGE, timeout_s=30), Retryable)


async def test_no_secret_of_the_provider_is_in_what_is_told() -> None:
    outcome = await FailOver([member(Scripted(LOGIN))]).deliver(MESSAGE, timeout_s=30)
    assert isinstance(outcome, Misconfigured)
    assert outcome.reason == "bad login ***"


async def test_a_provider_that_was_taken_away_is_closed_after_its_last_delivery() -> None:
    handler = Scripted()
    handler.hold = asyncio.Event()
    one = member(handler)
    running = asyncio.create_task(one.deliver(MESSAGE, timeout_s=30))
    await asyncio.sleep(0)
    await one.retire()
    assert not handler.closed
    handler.hold.set()
    await running
    assert handler.closed
