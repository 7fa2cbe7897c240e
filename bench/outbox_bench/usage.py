"""What processes use, as Linux counts it; None elsewhere, and for a server that is not here."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

PROC = Path("/proc")


def cpu_s(pid: int | None) -> float | None:
    """Return the CPU time of a process, its children, and those that it has waited for."""
    if pid is None or not (PROC / "self" / "stat").exists():
        return None
    ticks = 0
    for member in _tree(pid):
        fields = _stat(member)
        if fields is not None:
            ticks += sum(map(int, fields[11:15]))  # utime, stime, cutime, cstime
    return ticks / os.sysconf("SC_CLK_TCK")


def rss_mb_peak(pid: int) -> float | None:
    """Return the most memory that a process (without its children) has had at once."""
    return _status_mb(pid, "VmHWM:")


def rss_mb(pid: int) -> float | None:
    """Return the memory that a process (without its children) has now."""
    return _status_mb(pid, "VmRSS:")


def _status_mb(pid: int, field: str) -> float | None:
    try:
        status = (PROC / str(pid) / "status").read_text()
    except OSError:
        return None
    for line in status.splitlines():
        if line.startswith(field):
            return round(int(line.split()[1]) / 1024, 1)
    return None


def children_of(pid: int) -> list[int]:
    """Return a process's children, and theirs."""
    return _tree(pid)[1:]


def total(values: Iterable[float | None]) -> float | None:
    """Return the sum; None where one is unknown."""
    known = list(values)
    return None if None in known else sum(v for v in known if v is not None)


def us_per(spent_s: float | None, count: int) -> float | None:
    """Return microseconds per one of `count`."""
    return None if spent_s is None else round(spent_s / count * 1e6, 1)


def _tree(root: int) -> list[int]:
    parents: dict[int, int] = {}
    for entry in os.listdir(PROC):
        if entry.isdecimal():
            fields = _stat(int(entry))
            if fields is not None:
                parents[int(entry)] = int(fields[1])
    found = [root]
    for member in found:
        found += [pid for pid, parent in parents.items() if parent == member]
    return found


def _stat(pid: int) -> list[str] | None:
    """Return the fields of /proc/PID/stat from the state on: what is before may hold anything."""
    try:
        return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
