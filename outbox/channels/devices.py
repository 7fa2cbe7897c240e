"""One message to all of a user's devices, and one outcome of it.

A person is reached where one device took the message: then the job is sent. What a device could
not take for now goes on as a job of its own for that device alone (`AlsoTo`), with its own
retries and its own end, so that a retry never repeats what the others have. Where no device took
it, the job is retried as a whole. Devices that are gone are forgotten in either case.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import msgspec

from outbox.message import Device, Message
from outbox.outcome import AlsoTo, Delivered, Misconfigured, Outcome, Rejected, Retryable

DEVICES_MAX = 20
"""Of one user on one channel; the store keeps no more either."""

T = TypeVar("T", bound=Outcome)


async def to_each(message: Message, send: Callable[[Device], Awaitable[Outcome]]) -> Outcome:
    """Send to each device at once; `message` has at least one."""
    devices = message.devices[:DEVICES_MAX]
    if len(devices) == 1:
        return joined(devices, [await send(devices[0])])
    return joined(devices, await asyncio.gather(*map(send, devices)))


def joined(devices: Sequence[Device], outcomes: Sequence[Outcome]) -> Outcome:
    """Return what the outcomes of all devices mean for the job."""
    gone = tuple(
        device.address
        for device, outcome in zip(devices, outcomes, strict=True)
        if isinstance(outcome, Rejected) and outcome.suppress
    )
    if delivered := _of(Delivered, outcomes):
        later = tuple(
            AlsoTo(address=device.address)
            for device, outcome in zip(devices, outcomes, strict=True)
            if isinstance(outcome, Retryable | Misconfigured)
        )
        ids = " ".join(filter(None, (each.provider_message_id for each in delivered)))
        return msgspec.structs.replace(
            delivered[0], provider_message_id=ids or None, effects=later, gone=gone
        )
    if retryable := _of(Retryable, outcomes):
        longest = max(retryable, key=lambda each: each.retry_after_s or 0.0)
        return msgspec.structs.replace(
            longest, ambiguous=any(each.ambiguous for each in retryable), gone=gone
        )
    if held := _of(Misconfigured, outcomes):
        return msgspec.structs.replace(held[0], gone=gone)
    (rejected, *_) = _of(Rejected, outcomes)
    return msgspec.structs.replace(rejected, suppress=False, gone=gone)


def _of(kind: type[T], outcomes: Sequence[Outcome]) -> list[T]:
    return [outcome for outcome in outcomes if isinstance(outcome, kind)]
