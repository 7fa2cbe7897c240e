"""The built-in alerts: one table of rules, and when each is raised and cleared. No I/O.

    (nothing) ─ holds ─▶ pending ─ holds `raise_after` rounds ─▶ open
        ▲                   │                                     │
        └─ does not hold ───┘          closed ◀─ `clear_after` rounds without it

In `promql` it is `max` over processes: every API process tells the store's figures, all the same.
A round is made every `ROUND_S`, by whichever API or dispatcher comes first. `promql` says the same
to Prometheus, for those who ship rules from here; each rule has its page in docs/runbook.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

ROUND_S = 15.0
SUBJECTS_MAX = 100
"""Of one rule: a fault that is everywhere is one fault."""
NEW_CODE_S = 3_600.0
"""An error code is new for so long."""

State = Literal["pending", "open", "closed"]
Severity = Literal["warning", "critical"]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One built-in alert. It holds where a value is above `above`; values are in `unit`."""

    name: str
    severity: Severity
    summary: str
    above: float
    unit: str
    raise_after: int
    clear_after: int
    promql: str


BACKLOG_AGE = Rule(
    name="backlog_age",
    severity="warning",
    summary="The oldest due job of a queue waits too long.",
    above=300.0,
    unit="s",
    raise_after=3,
    clear_after=4,
    promql="max by (queue) (outbox_oldest_waiting_seconds) > 300",
)
FAILURE_RATE = Rule(
    name="failure_rate",
    severity="warning",
    summary="Many of a queue's jobs end in failure.",
    above=0.1,
    unit="of 20 or more jobs in 15 minutes",
    raise_after=3,
    clear_after=4,
    promql=(
        'max by (queue) (increase(outbox_jobs_total{status="failed"}[15m]))'
        " / sum by (queue) (max by (queue, status)"
        ' (increase(outbox_jobs_total{status=~"sent|failed"}[15m]))) > 0.1'
        " and sum by (queue) (max by (queue, status)"
        ' (increase(outbox_jobs_total{status=~"sent|failed"}[15m]))) >= 20'
    ),
)
DEAD_LETTER_RATE = Rule(
    name="dead_letter_rate",
    severity="critical",
    summary="Dead letters pile up in a queue.",
    above=100.0,
    unit="in 15 minutes",
    raise_after=2,
    clear_after=4,
    promql='max by (queue) (increase(outbox_jobs_total{status="failed"}[15m])) > 100',
)
NEW_ERROR_CODE = Rule(
    name="new_error_code",
    severity="warning",
    summary="Jobs fail or are held for a reason that was never seen before.",
    above=0.0,
    unit="",
    raise_after=1,
    clear_after=1,
    promql='max(outbox_alerts{rule="new_error_code"}) > 0',
)
LANE_HELD = Rule(
    name="lane_held",
    severity="critical",
    summary="A lane is held for a configuration error: its jobs wait until that is mended.",
    above=0.0,
    unit="lanes",
    raise_after=2,
    clear_after=2,
    promql="max by (tenant, queue) (outbox_lane_held) > 0",
)
NO_DISPATCHER = Rule(
    name="no_dispatcher",
    severity="critical",
    summary="Jobs are due, and no dispatcher is alive to deliver them.",
    above=0.0,
    unit="jobs waiting",
    raise_after=3,
    clear_after=1,
    promql=(
        "max(outbox_dispatchers) == 0 and on()"
        ' sum(max by (queue) (outbox_queue_size{state="waiting"})) > 0'
    ),
)
PINNED_SNAPSHOT = Rule(
    name="pinned_snapshot",
    severity="warning",
    summary="A transaction has been open so long that nothing newer can be vacuumed.",
    above=1_800.0,
    unit="s",
    raise_after=2,
    clear_after=2,
    promql="max(outbox_snapshot_age_seconds) > 1800",
)
RULES: Mapping[str, Rule] = {
    rule.name: rule
    for rule in (
        BACKLOG_AGE,
        FAILURE_RATE,
        DEAD_LETTER_RATE,
        NEW_ERROR_CODE,
        LANE_HELD,
        NO_DISPATCHER,
        PINNED_SNAPSHOT,
    )
}
FAILURE_JOBS_MIN = 20

Holding = Mapping[tuple[str, str], float]
"""What holds in one round: the value by (rule, subject)."""


@dataclass(frozen=True, kw_only=True)
class QueueLook:
    """What a round sees of one queue."""

    queue: str
    paused: bool
    waiting: int
    oldest_waiting_s: float
    completed: int
    failed: int


def holding(
    *,
    queues: list[QueueLook],
    dispatchers: int,
    snapshot_age_s: float,
    held: list[tuple[str, str, str]],
    dead_letters: Mapping[str, int],
    new_codes: list[str],
) -> Holding:
    """Return what holds now. `held`: tenant, queue and scope; `dead_letters`: of 15 minutes."""
    found: dict[tuple[str, str], float] = {}
    for queue in queues:
        if not queue.paused and queue.oldest_waiting_s > BACKLOG_AGE.above:
            found[BACKLOG_AGE.name, queue.queue] = queue.oldest_waiting_s
        ended = queue.completed + queue.failed
        if ended >= FAILURE_JOBS_MIN and queue.failed / ended > FAILURE_RATE.above:
            found[FAILURE_RATE.name, queue.queue] = queue.failed / ended
    for name, count in dead_letters.items():
        if count > DEAD_LETTER_RATE.above:
            found[DEAD_LETTER_RATE.name, name] = count
    for code in new_codes[:SUBJECTS_MAX]:
        found[NEW_ERROR_CODE.name, code] = 1.0
    for tenant, of_queue, _ in held:
        key = LANE_HELD.name, f"{tenant}/{of_queue}"
        found[key] = found.get(key, 0.0) + 1
    waiting = sum(queue.waiting for queue in queues if not queue.paused)
    if dispatchers == 0 and waiting > NO_DISPATCHER.above:
        found[NO_DISPATCHER.name, ""] = waiting
    if snapshot_age_s > PINNED_SNAPSHOT.above:
        found[PINNED_SNAPSHOT.name, ""] = snapshot_age_s
    return found


def step(rule: Rule, state: State | None, streak: int, *, holds: bool) -> tuple[State | None, int]:
    """Return the state after a round, and the streak that leads to the next change.

    `state` None: there is no such alert. A pending one that does not hold is none any more.
    """
    if state in (None, "pending"):
        if not holds:
            return None, 0
        return ("open", 0) if streak + 1 >= rule.raise_after else ("pending", streak + 1)
    if holds:
        return "open", 0
    return ("closed", 0) if streak + 1 >= rule.clear_after else ("open", streak + 1)
