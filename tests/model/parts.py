"""What the model's states are made of: the store, the processes, the history."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

FRESH = 1
"""A process starts attempts while its last good heartbeat is younger than this (2 s)."""
DEAD = 1
"""Without a lock, a heartbeat this old is a dead process's (2.5 s)."""
LEASE = 2
"""With a lock, this old; and so long a claim lasts (60 s)."""

Mode: TypeAlias = Literal["up", "away", "dead"]
Phase: TypeAlias = Literal["ready", "running", "sent", "again", "failed"]


@dataclass(frozen=True, kw_only=True)
class Rules:
    """The precautions. All of them hold in the product."""

    fence_lease_no: bool = True
    fence_epoch: bool = True
    self_fence: bool = True
    age_from_sending: bool = True
    lease_margin: bool = True
    lease_no_outlives_series: bool = True
    rescue: bool = True
    adopt_by_lease: bool = True


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """How far the exploration goes."""

    processes: int = 2
    claims: int = 3
    faults: int = 0
    tries: int = 1
    crashes: int = 3
    series: int = 1
    pooled: bool = False


class Entry(NamedTuple):
    """The job's place in line. `owner` 0: nobody. `token` tells claims apart; no code sees it."""

    owner: int
    lease_no: int
    series: int
    attempt: int
    crashes: int
    ttl: int
    token: int


class Row(NamedTuple):
    """A process as the database knows it."""

    epoch: int
    age: int
    locked: bool
    fenced: bool


class Work(NamedTuple):
    """What a process holds: a claim, and what became of it. `age`: since the claim was sent."""

    token: int
    lease_no: int
    series: int
    attempt: int
    epoch: int
    age: int
    phase: Phase


class Process(NamedTuple):
    """`heard`: age of its last answered heartbeat. `asked`: its claim's epoch, and age."""

    mode: Mode
    epoch: int
    heard: int
    asked: tuple[int, int] | tuple[()]
    works: tuple[Work, ...]


class Kept(NamedTuple):
    """A row of history."""

    lease_no: int
    late: bool
    terminal: bool
    series: int
    epoch: int
    lost: bool
    said: Phase


class State(NamedTuple):
    """Everything there is. `unaudited`: claims whose attempt has started and has no row yet."""

    entry: Entry | None
    rows: tuple[Row, ...]
    processes: tuple[Process, ...]
    flying: tuple[Work, ...]
    history: tuple[Kept, ...]
    unaudited: frozenset[int]
    claims: int
    faults: int

    def with_process(self, number: int, process: Process) -> State:
        """Return this with one process replaced."""
        processes = self.processes
        return self._replace(processes=(*processes[:number], process, *processes[number + 1 :]))


class Broken(Exception):
    """An invariant does not hold after this step."""


Step: TypeAlias = tuple[str, State]


def first(bounds: Bounds) -> State:
    """Return where all begins: a committed job, and processes that have just registered."""
    epochs = range(1, bounds.processes + 1)
    return State(
        entry=Entry(0, 0, 1, 0, 0, 0, 0),
        rows=tuple(Row(epoch, 0, True, False) for epoch in epochs),
        processes=tuple(Process("up", epoch, 0, (), ()) for epoch in epochs),
        flying=(),
        history=(),
        unaudited=frozenset(),
        claims=0,
        faults=0,
    )
