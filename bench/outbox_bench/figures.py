"""Medians of interleaved rounds, and where and when they were measured."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from statistics import median
from typing import Protocol, TypeAlias

Figures: TypeAlias = dict[str, object]
Round: TypeAlias = Mapping[str, float | None]


class Said(Protocol):
    """Is told how far a measurement is: a line, and how many of all its parts are done."""

    def __call__(self, line: str, /, *, done: int = 0, total: int = 0) -> None:
        """Show it to whoever watches."""
        ...


def interleaved(
    kinds: Mapping[str, Callable[[], Round]], *, rounds: int, said: Said
) -> dict[str, dict[str, float | None]]:
    """Run each kind in turn, `rounds` times over; return the median of each of its figures.

    A machine that is slow for a while is slow for all kinds. `said` gets a line of progress.
    """
    seen: dict[str, list[Round]] = {name: [] for name in kinds}
    total = rounds * len(kinds)
    for number in range(1, rounds + 1):
        for name, measure in kinds.items():
            seen[name].append(measure())
            done = sum(map(len, seen.values()))
            line = f"round {number} of {rounds}, {name}: {_shown(seen[name][-1])}"
            said(line, done=done, total=total)
    return {name: medians(found) for name, found in seen.items()}


def medians(rounds: Sequence[Round]) -> dict[str, float | None]:
    """Return the median of each figure; None where a round has none."""
    names = {name: None for found in rounds for name in found}
    result: dict[str, float | None] = {}
    for name in names:
        values = [found.get(name) for found in rounds]
        known = [value for value in values if value is not None]
        result[name] = tidy(median(known)) if len(known) == len(values) else None
    return result


def tidy(value: float) -> float:
    """Return three or four digits of a figure."""
    if abs(value) >= 100:
        return round(value)
    return round(value, 1 if abs(value) >= 10 else 2)


def ratio(ours: float | None, floor: float | None) -> float | None:
    """Return ours over the floor's."""
    return round(ours / floor, 3) if ours is not None and floor else None


def quantile(values: Sequence[float], q: float) -> float:
    """Return the value that a share `q` of them do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


def machine(postgres: str) -> Figures:
    """Return what the figures depend on."""
    return {
        "at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%MZ"),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "machine": platform.machine(),
        "python": platform.python_version(),
        "postgres": postgres,
        # Of all that runs here; our own processes are most of it on a quiet machine.
        "load_1m": round(os.getloadavg()[0], 1),
    }


def _shown(found: Round) -> str:
    return ", ".join(f"{n} {tidy(v)}" for n, v in found.items() if v is not None)
