"""The errors that this package raises.

    OutboxError
    ├── InvalidJob         a job breaks a rule of the contract; nothing was stored
    ├── JobConflict        the same job_id was accepted before with other content
    ├── LimitRefused       a limit can't be what it was set to
    │   └── NoSuchQueue    … because there is no such queue
    ├── QueuePaused        a lane cannot go on: its whole queue is paused
    ├── NotPermitted       the connection's role may not act for that tenant
    ├── ConfigError        a setting is unknown, malformed or impossible beside another
    ├── SealBroken         a secret cannot be sealed, or opened again (outbox.sealing)
    └── StoreUnavailable   Postgres cannot be reached, or is not migrated

Failures that a delivery expects are values (`outbox.outcome`), not exceptions.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import msgspec


class Fault(msgspec.Struct, frozen=True):
    """One broken rule: where (an RFC 6901 JSON pointer into the input) and what."""

    pointer: str
    message: str


class OutboxError(Exception):
    """Base of every error that Outbox raises on purpose."""


class InvalidJob(OutboxError):
    """A job breaks the contract. `faults` lists all of its breaches; nothing was stored."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__("; ".join(f"{fault.pointer}: {fault.message}" for fault in self.faults))


class JobConflict(OutboxError):
    """These job ids stand for other content, stored or in the same batch; nothing was stored.

    `faults` has one for each of `job_ids`, with its place in the batch.
    """

    def __init__(self, job_ids: Sequence[UUID], faults: Sequence[Fault]) -> None:
        self.job_ids = tuple(job_ids)
        self.faults = tuple(faults)
        told = zip(self.job_ids, self.faults, strict=True)
        super().__init__("; ".join(f"job {job_id} {fault.message}" for job_id, fault in told))


class LimitRefused(OutboxError):
    """A lane's limits can't be. `faults` lists why; nothing was changed."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = tuple(faults)
        told = (f"{fault.pointer.strip('/')} {fault.message}" for fault in self.faults)
        super().__init__("; ".join(told))


class QueuePaused(OutboxError):
    """A lane cannot go on: its whole queue is paused. The text says by whom."""


class NoSuchQueue(LimitRefused):
    """A limit was to be set on a queue that has no handler here, and never had a job."""

    def __init__(self, queue: str) -> None:
        super().__init__([Fault("/queue", f"{queue} has no handler here, and never had a job")])


class NotPermitted(OutboxError):
    """The connection's role may not act for the tenant it named."""


class ConfigError(OutboxError):
    """A setting cannot be used. The text is a sentence for the person who set it."""


class SealBroken(OutboxError):
    """A secret cannot be sealed or opened. The text says why, and nothing of the secret."""


class StoreUnavailable(OutboxError):
    """Postgres cannot be reached, or its schema is not the one that this code needs."""
