"""What must hold after any run, by what can be seen from outside.

It reads two views, what the producers and the receiver wrote down, and when there were faults. It
imports nothing of the product: a mistake there cannot excuse itself here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Literal
from uuid import UUID

Said = Literal["committed", "rolled back", "unknown"]

ENDS = {"sent": "SENT", "failed": "FAILED", "expired": "EXPIRED", "cancelled": "CANCELLED"}
CRASHES_MAX = 3
ESTIMATE_S = 1.5
"""A process estimates the database's time: at most one round trip ahead, which a fault delays."""

JOBS_SQL = "select job_id, status, series from outbox.notification"
ATTEMPTS_SQL = (
    "select job_id, series, attempt, lease_no, late, status, error_code, started_at, finished_at"
    " from outbox.notification_delivery order by job_id, lease_no, late"
)


@dataclass(frozen=True)
class Handed:
    """A producer's word for one job, and how its receiver will end it."""

    job_id: UUID
    said: Said
    ends: str = "sent"


@dataclass(frozen=True)
class Received:
    """One request at the receiver. `order`: the job in its body. `ok`: it was taken (a 2xx)."""

    key: str
    order: str
    ok: bool
    at: datetime | None = None


@dataclass(frozen=True)
class Attempt:
    """A row of `outbox.notification_delivery`."""

    job_id: UUID
    series: int
    attempt: int
    lease_no: int
    late: bool
    status: str
    error_code: str | None
    started_at: datetime | None
    finished_at: datetime

    @property
    def ends(self) -> bool:
        return self.status in ENDS.values() and not self.late

    @property
    def lost(self) -> bool:
        return self.error_code == "lease.lost"


@dataclass(frozen=True)
class Struck:
    """A fault, and for how long it can be felt."""

    name: str
    began: datetime
    ended: datetime


@dataclass(frozen=True)
class Run:
    """All that was seen. `jobs`: (status, series) by id. `in_flight_max`: attempts at one time."""

    handed: Sequence[Handed]
    received: Sequence[Received]
    jobs: Mapping[UUID, tuple[str, int]]
    attempts: Sequence[Attempt]
    faults: Sequence[Struck] = ()
    in_flight_max: int = 0
    by_job: Mapping[UUID, list[Attempt]] = field(init=False)
    requests: Mapping[str, list[Received]] = field(init=False)

    def __post_init__(self) -> None:
        by_job: dict[UUID, list[Attempt]] = defaultdict(list)
        for attempt in self.attempts:
            by_job[attempt.job_id].append(attempt)
        requests: dict[str, list[Received]] = defaultdict(list)
        for request in self.received:
            requests[request.key].append(request)
        object.__setattr__(self, "by_job", by_job)
        object.__setattr__(self, "requests", requests)


def violations(run: Run) -> list[str]:
    """Return a sentence for everything that breaks the promise."""
    found = list(_acceptance(run))
    for job_id, (status, series) in run.jobs.items():
        rows = sorted(run.by_job.get(job_id, []), key=lambda a: (a.lease_no, a.late))
        found += (f"{job_id}: {what}" for what in _ending(status, series, rows))
        found += (f"{job_id}: {what}" for what in _path(rows))
        requests = run.requests.get(str(job_id), [])
        found += (f"{job_id}: {what}" for what in _deliveries(rows, requests))
        found += (f"{job_id}: {what}" for what in _explained(rows, run.faults))
    found += _outcomes(run)
    found += _duplicates(run)
    return found


def _acceptance(run: Run) -> Iterator[str]:
    """What was committed is there, what was rolled back is not, and nothing else was sent."""
    said = {handed.job_id: handed.said for handed in run.handed}
    for job_id, word in said.items():
        if word == "committed" and job_id not in run.jobs:
            yield f"{job_id}: committed, and lost"
        if word == "rolled back" and job_id in run.jobs:
            yield f"{job_id}: rolled back, and there"
        if word == "rolled back" and str(job_id) in run.requests:
            yield f"{job_id}: rolled back, and delivered"
    for job_id in run.jobs.keys() - said.keys():
        yield f"{job_id}: nobody handed it in"
    known = {str(job_id) for job_id in run.jobs}
    for request in run.received:
        if request.key not in known:
            yield f"{request.key}: delivered, and there is no such job"
        if request.key != request.order:
            yield f"{request.order}: delivered under another idempotency key, {request.key}"


def _ending(status: str, series: int, rows: Sequence[Attempt]) -> Iterator[str]:
    """A job ends once a series, and says so."""
    if status not in ENDS:
        yield f"left behind as {status}"
        return
    for number in range(1, series + 1):
        ends = [row for row in rows if row.series == number and row.ends]
        if len(ends) != 1:
            yield f"series {number} has {len(ends)} ends"
        elif number == series and ends[0].status != ENDS[status]:
            yield f"is {status}, and its history ends as {ends[0].status}"


def _path(rows: Sequence[Attempt]) -> Iterator[str]:
    """One lease at a time, nothing after the end, tries counted one by one."""
    seen: set[tuple[int, bool]] = set()
    for row in rows:
        if (row.lease_no, row.late) in seen:
            yield f"lease {row.lease_no} is recorded twice"
        seen.add((row.lease_no, row.late))
    crashes = 0
    for before, row in pairwise(row for row in rows if not row.late):
        if before.ends and before.series == row.series:
            yield f"stale write: lease {row.lease_no} is recorded after the end"
        if row.series < before.series:
            yield f"stale write: series {row.series} goes on after series {before.series}"
        overlap_s = timedelta(seconds=ESTIMATE_S)
        if row.started_at is not None and row.started_at < before.finished_at - overlap_s:
            yield f"stale write: lease {row.lease_no} began before {before.lease_no} was over"
        crashes = crashes + 1 if before.lost else 0
        used = before.attempt - 1 if before.lost else before.attempt
        if row.series == before.series and row.started_at and row.attempt != used + 1:
            yield f"lease {row.lease_no} is attempt {row.attempt} after {used} used"


def _deliveries(rows: Sequence[Attempt], requests: Sequence[Received]) -> Iterator[str]:
    """Each request is an attempt of the history, each success was one at the receiver."""
    leases = {row.lease_no for row in rows if row.started_at is not None}
    if len(requests) > len(leases):
        times = ", ".join(f"{r.at:%H:%M:%S.%f}" for r in requests if r.at is not None)
        yield (
            f"received {len(requests)} times, and {len(leases)} attempts are in the history:"
            f" {times}"
        )
    sent = sum(1 for row in rows if row.status == "SENT")
    taken = sum(1 for request in requests if request.ok)
    if sent > taken:
        yield f"sent {sent} times by its history, and the receiver took it {taken} times"


def _explained(rows: Sequence[Attempt], faults: Sequence[Struck]) -> Iterator[str]:
    """A lease is lost, or an outcome late, only where a fault was."""
    for row in rows:
        if not (row.late or row.lost):
            continue
        began = row.started_at or row.finished_at
        if not any(f.began <= row.finished_at and began <= f.ended for f in faults):
            yield f"lease {row.lease_no} was lost or late, and there was no fault"


def _outcomes(run: Run) -> Iterator[str]:
    """A job ends as its receiver would have it, unless three processes died with it."""
    for handed in run.handed:
        status = run.jobs.get(handed.job_id, (handed.ends, 1))[0]
        if status == handed.ends or status not in ENDS:
            continue
        lost = sum(1 for row in run.by_job.get(handed.job_id, []) if row.lost)
        if not (status == "failed" and lost >= CRASHES_MAX):
            yield f"{handed.job_id}: {status}, and should have been {handed.ends}"


def _duplicates(run: Run) -> Iterator[str]:
    """Taken twice: only with a fault in the history, and no more than was in flight."""
    twice = 0
    for key, requests in run.requests.items():
        extra = sum(1 for request in requests if request.ok) - 1
        if extra <= 0:
            continue
        twice += extra
        rows = next((r for j, r in run.by_job.items() if str(j) == key), [])
        told = sum(1 for row in rows if row.late or row.lost or row.status == "RETRYING")
        if told < extra:
            yield f"{key}: taken {extra + 1} times, and the history tells of no fault"
    if twice > len(run.faults) * run.in_flight_max:
        yield f"{twice} duplicates after {len(run.faults)} faults"
