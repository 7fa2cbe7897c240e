"""429 for a queue that is deeper than its limit (api.md 3)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from outbox.store.queues import QueueRow
from outbox_api.auth import Principal
from outbox_api.problems import Problem
from outbox_api.runtime import Runtime

ETA_S_MAX = 3_600
"""What lies farther ahead is no estimate."""
RATE_WINDOW_S = 900
RETRY_AFTER_S = 30
"""Where it cannot be told when there will be room."""


def require_room(runtime: Runtime, principal: Principal, queues: Iterable[str]) -> None:
    """Raise Problem 429 when one of the queues is full, as of a glance some seconds old.

    A queue is all tenants': only who acts for all of them learns how many jobs are in it.
    """
    snapshot = runtime.gauges.glance()
    if snapshot is None:
        return
    depth_max = runtime.config.queue_depth_max
    for queue in queues:
        row = snapshot.queues.get(queue)
        if row is not None and row.waiting >= depth_max:
            if principal.tenant is not None:
                raise _full(f"The queue {queue} takes no more jobs now.")
            raise _too_deep(row, depth_max)


def _too_deep(row: QueueRow, depth_max: int) -> Problem:
    about = "about " if "waiting" in row.estimated else ""
    told = f"The queue {row.queue} has {about}{row.waiting} jobs waiting, its limit is {depth_max}"
    headers = {"ratelimit-limit": str(depth_max), "ratelimit-remaining": "0"}
    eta_s = _eta_s(row, row.waiting - depth_max + 1)
    if eta_s is None:
        return _full(f"{told}.", headers=headers)
    headers["ratelimit-reset"] = str(eta_s)
    return _full(
        f"{told}; there should be room in {eta_s} s.", headers=headers, retry_s=min(eta_s, 60)
    )


def _eta_s(row: QueueRow, over: int) -> int | None:
    """Return when so many jobs will be gone, at the pace of late; None: nobody knows."""
    if row.paused or not row.completed:
        return None
    eta_s = int(over * RATE_WINDOW_S / row.completed) + 1
    return eta_s if eta_s <= ETA_S_MAX else None


def _full(
    detail: str, *, headers: Mapping[str, str] | None = None, retry_s: int = RETRY_AFTER_S
) -> Problem:
    return Problem(429, detail, headers={**(headers or {}), "retry-after": str(retry_s)})
