"""429 for a queue that is deeper than its limit (api.md 3)."""

from __future__ import annotations

from collections.abc import Iterable

from outbox.store.queues import QueueRow
from outbox_api.problems import Problem
from outbox_api.runtime import Runtime

ETA_S_MAX = 3_600
RATE_WINDOW_S = 900


def require_room(runtime: Runtime, queues: Iterable[str]) -> None:
    """Raise Problem 429 when one of the queues is full, as of a glance some seconds old."""
    snapshot = runtime.gauges.glance()
    if snapshot is None:
        return
    depth_max = runtime.config.queue_depth_max
    for queue in queues:
        row = snapshot.queues.get(queue)
        if row is not None and row.waiting >= depth_max:
            raise _too_deep(row, depth_max)


def _too_deep(row: QueueRow, depth_max: int) -> Problem:
    rate_per_s = row.completed / RATE_WINDOW_S
    over = row.waiting - depth_max + 1
    eta_s = min(int(over / rate_per_s) + 1, ETA_S_MAX) if rate_per_s else ETA_S_MAX
    about = "about " if "waiting" in row.estimated else ""
    return Problem(
        429,
        f"The queue {row.queue} has {about}{row.waiting} jobs waiting, its limit is {depth_max}; "
        f"there should be room in {eta_s} s.",
        headers={
            "retry-after": str(max(1, min(eta_s, 60))),
            "ratelimit-limit": str(depth_max),
            "ratelimit-remaining": "0",
            "ratelimit-reset": str(eta_s),
        },
    )
