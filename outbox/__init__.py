"""Outbox: hand a job over in your own transaction; it is delivered or accounted for."""

from outbox.enqueue import EnqueueResult, JobInput, enqueue, enqueue_many
from outbox.errors import (
    ConfigError,
    Fault,
    InvalidJob,
    JobConflict,
    NotPermitted,
    OutboxError,
    StoreUnavailable,
)
from outbox.message import Job, uuid7

__all__ = [
    "ConfigError",
    "EnqueueResult",
    "Fault",
    "InvalidJob",
    "Job",
    "JobConflict",
    "JobInput",
    "NotPermitted",
    "OutboxError",
    "StoreUnavailable",
    "enqueue",
    "enqueue_many",
    "uuid7",
]
