"""A tenant's providers of one channel, in order: the next one on trouble of the first.

Trouble is what says nothing about the message and left nothing behind: the provider cannot be
reached, asks to come back later, or refuses our login. Then the next one is asked within the same
attempt. What may have been delivered already is never handed to a second provider.

A provider in trouble rests, at first for `REST_S`, and is asked last while it does; after that
one message at a time tries it again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from time import monotonic
from types import TracebackType
from typing import Protocol, Self

import msgspec
import structlog

from outbox.channels import Handler
from outbox.channels.providers import ProviderSpec
from outbox.message import Message
from outbox.outcome import (
    Delivered,
    Misconfigured,
    Outcome,
    ReceiptExpected,
    Rejected,
    Retryable,
    Snoozed,
)

REST_S = 30.0
REST_S_MAX = 600.0
SHARE_OF_TIME = 0.5
"""What of an attempt's time a provider may take while there is another one."""
SECRET_CHARS_MIN = 4

log = structlog.get_logger(__name__)


class Member:
    """One provider: its handler, and how it has been lately. Closed once nobody uses it."""

    def __init__(self, spec: ProviderSpec, handler: Handler, *, version: str) -> None:
        self.spec = spec
        self.version = version
        self.shown = f"{spec.kind}:{spec.name}"
        self.destination = f"provider:{spec.provider_id}"
        self._handler = handler
        self._secrets = sorted(
            (v for v in spec.credentials.values() if len(v) >= SECRET_CHARS_MIN),
            key=len,
            reverse=True,
        )
        self._rests_until = 0.0
        self._rest_s = REST_S
        self._trying = False
        self._in_use = 0
        self._retired = False

    def rests(self, now: float) -> bool:
        """Whether it is asked after the others: it rests, or one message is trying it."""
        return self._rests_until > 0 and (self._trying or now < self._rests_until)

    async def deliver(self, message: Message, *, timeout_s: float) -> Outcome:
        """Deliver by this provider, and remember how that went."""
        self._in_use += 1
        trying = self._rests_until > 0
        self._trying = self._trying or trying
        try:
            outcome = await self._handler.deliver(message, timeout_s=timeout_s)
        finally:
            self._in_use -= 1
            if trying:
                self._trying = False
            if self._retired and self._in_use == 0:
                await self._handler.__aexit__(None, None, None)
        if is_trouble(outcome):
            self._rest()
        else:
            self._rests_until, self._rest_s = 0.0, REST_S
        return self._named(outcome)

    async def retire(self) -> None:
        """Close it, or have the last delivery that runs do so."""
        self._retired = True
        if self._in_use == 0:
            await self._handler.__aexit__(None, None, None)

    def _rest(self) -> None:
        now = monotonic()
        if self._rests_until <= now:
            if self._rests_until > 0:
                self._rest_s = min(self._rest_s * 2, REST_S_MAX)
            self._rests_until = now + self._rest_s

    def _named(self, outcome: Outcome) -> Outcome:
        """Return the outcome with this provider's name in it, and none of its secrets."""
        if isinstance(outcome, Snoozed):
            return outcome
        changed: dict[str, object] = {}
        if isinstance(outcome, Delivered) and self.spec.wants_receipts:
            expected = ReceiptExpected(
                provider_id=str(self.spec.provider_id),
                provider_message_id=outcome.provider_message_id,
            )
            changed["effects"] = (*outcome.effects, expected)
        if outcome.sent is not None and outcome.sent.provider == self.spec.kind:
            changed["sent"] = msgspec.structs.replace(outcome.sent, provider=self.shown)
        if isinstance(outcome, Retryable | Rejected | Misconfigured):
            reason = outcome.reason
            for secret in self._secrets:
                reason = reason.replace(secret, "***")
            if reason is not outcome.reason:
                changed["reason"] = reason
        return msgspec.structs.replace(outcome, **changed) if changed else outcome


class Gate(Protocol):
    """Says which provider may be asked now, and learns how that went (`gates.py`)."""

    def take(self, name: str) -> bool:
        """Let one delivery pass."""
        ...

    def opens_at(self, names: Iterable[str]) -> datetime:
        """Return when the first of them may be asked again, by the database's clock."""
        ...

    def saw_of(self, name: str, outcome: Outcome) -> None:
        """Learn from an attempt."""
        ...


class FailOver:
    """The handler that the executor sees: all of a tenant's providers of a channel."""

    def __init__(
        self,
        members: Sequence[Member],
        *,
        gate: Gate | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.members = tuple(members)
        self._gate = gate
        self._clock = clock

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return None

    async def deliver(self, message: Message, *, timeout_s: float) -> Outcome:
        """Deliver by the first provider that takes it, in one attempt's time."""
        members = self.members
        if len(members) == 1:
            return await members[0].deliver(message, timeout_s=timeout_s)
        now = self._clock()
        ends = now + timeout_s
        in_turn = sorted(members, key=lambda member: member.rests(now))
        worst: Outcome | None = None
        for n, member in enumerate(in_turn, start=1):
            left_s = ends - self._clock()
            if n < len(in_turn):
                left_s *= SHARE_OF_TIME
            if self._gate is not None and not self._gate.take(member.destination):
                continue
            outcome = await member.deliver(message, timeout_s=left_s)
            if self._gate is not None:
                self._gate.saw_of(member.destination, outcome)
            if not is_trouble(outcome):
                return outcome
            # One that may work by itself later on counts for more than one that has to be mended.
            if worst is None or (
                isinstance(worst, Misconfigured) and isinstance(outcome, Retryable)
            ):
                worst = outcome
            if n < len(in_turn):
                log.warning(
                    "provider in trouble, asking the next",
                    tenant=member.spec.tenant_id,
                    provider=member.shown,
                    code=getattr(outcome, "code", None),
                )
        return worst or self._closed()

    def _closed(self) -> Snoozed:
        """Wait for the first of them that may be talked to again."""
        assert self._gate is not None
        until = self._gate.opens_at(member.destination for member in self.members)
        return Snoozed(until=until, reason="no provider may be asked now: paused, or at its rate")


def is_trouble(outcome: Outcome) -> bool:
    """Tell whether an outcome is the provider's trouble, and surely delivered nothing."""
    match outcome:
        case Retryable():
            return not outcome.ambiguous and outcome.scope in ("provider", "destination")
        case Misconfigured():
            return outcome.scope == "lane"
        case _:
            return False
