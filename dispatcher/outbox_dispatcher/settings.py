"""What a dispatcher needs to know, apart from where its settings came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version

from outbox.backoff import BY_CHANNEL, PATIENT, Backoff
from outbox.store.revisions import known_revision

CONCURRENCY = {"email": 10, "sms": 3, "media-processing": 5, "media-sync": 5, "watermark": 3}
CONCURRENCY_OTHERS = 10


@dataclass(frozen=True, kw_only=True)
class DispatcherSettings:
    """All times in seconds. `queues` None: every queue that has a handler here."""

    database_url: str
    direct_database_url: str | None = None
    queues: frozenset[str] | None = None
    name: str = "dispatcher"
    concurrency: Mapping[str, int] = field(default_factory=dict)
    attempts_max: int | None = None
    backoff: Backoff | None = None
    lease_s: float = 60.0
    heartbeat_s: float = 1.0
    drain_s: float = 30.0
    timeout_s: float = 30.0
    hold_max_s: float = 604_800.0
    probe_s: float = 30.0
    receipt_overdue_s: float = 86_400.0
    prefetch_max: int = 1000
    poll_s_min: float = 0.02
    poll_s_max: float = 1.0
    render_workers: int = 1
    default_locale: str = "en"
    start_paused: bool = False
    alert_webhook: str | None = field(default=None, repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)
    provider_settings: Mapping[str, str] = field(default_factory=dict, repr=False)
    secret_key: str | None = field(default=None, repr=False)
    public_url: str | None = None
    code_version: str = field(default_factory=lambda: version("outbox"))
    schema_revision: int = field(default_factory=known_revision)

    def concurrency_of(self, queue: str, channel: str | None) -> int:
        """Return how many attempts of a queue this process runs at once."""
        default = CONCURRENCY.get(channel or queue, CONCURRENCY_OTHERS)
        return self.concurrency.get(queue, CONCURRENCY.get(queue, default))

    def backoff_of(self, channel: str | None) -> Backoff:
        """Return the retry policy of a channel, or of queues that carry a payload."""
        chosen = self.backoff or BY_CHANNEL.get(channel or "", PATIENT)
        if self.attempts_max is None:
            return chosen
        return Backoff(
            delays_s=chosen.delays_s, jitter=chosen.jitter, attempts_max=self.attempts_max
        )
