"""Us beside other queues, on one Postgres, in rounds that take turns.

    .venv/bin/python bench/compare [--jobs N] [--rounds N] [--processes 1,2] [--samples N]
                                   [--only NAME,…] [--json FILE]

Prints medians, and our figure over each peer's (of waits: the peer's over ours), so that more
than 1 is a win everywhere. Who cannot be run here is named at the end.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from home import Home, Missing
from peers import PEERS, Peer
from rounds import Contest

from outbox_bench.arena import arena
from outbox_bench.figures import Round, interleaved, machine, ratio
from outbox_bench.orders import DispatchNoop, Floor

OURS, FLOOR = "outbox", "floor"
TITLES = {OURS: "Outbox", FLOOR: "plain SQL, batches of 500 (the floor)"}


def main() -> None:
    # Leave no server behind when somebody ends us.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    asked = _arguments()
    home = Home()
    home.install()
    commands, missing = _available(home, asked.only)
    kinds: dict[str, Callable[[], Round]] = {}
    with arena(None) as server, contextlib.ExitStack() as stack:
        contest = Contest(server, stack, jobs=asked.jobs)
        if asked.processes:
            contest.fill_ours()
        for peer in list(commands):
            try:
                for drain in (True, False):
                    if (asked.processes and peer.drains) if drain else asked.samples:
                        contest.fill_peer(peer, commands[peer], drain=drain)
            except Exception as error:
                missing[peer.title] = f"does not take jobs here: {error}"
                del commands[peer]
        for n in asked.processes:
            kinds[f"{FLOOR} {n}"] = partial(contest.drain_ours, Floor, n)
            kinds[f"{OURS} {n}"] = partial(contest.drain_ours, DispatchNoop, n)
            for peer, command in commands.items():
                if peer.drains:
                    drain_peer = partial(contest.drain_peer, peer, command, n)
                    kinds[f"{peer.name} {n}"] = partial(_told, drain_peer, peer, missing)
        if asked.samples:
            kinds[f"{OURS} idle"] = partial(contest.idle_ours, asked.samples)
            for peer, command in commands.items():
                idle_peer = partial(contest.idle_peer, peer, command, asked.samples)
                kinds[f"{peer.name} idle"] = partial(_told, idle_peer, peer, missing)
        found = interleaved(kinds, rounds=asked.rounds, said=_said)
        figures = {
            "benchmark": "compare",
            "found": found,
            "missing": missing,
            "jobs": asked.jobs,
            "rounds": asked.rounds,
            "samples": asked.samples,
            **machine(server.version()),
        }
    print(_table(found, asked.processes, bool(asked.samples)))
    for title, why in missing.items():
        print(f"not run: {title}: {why}")
    if asked.json:
        asked.json.parent.mkdir(parents=True, exist_ok=True)
        asked.json.write_text(json.dumps(figures, indent=1) + "\n")


def _told(measure: Callable[[], Round], peer: Peer, missing: dict[str, str]) -> Round:
    """Measure a peer; one that fails is named, and does not end the others' rounds."""
    try:
        return measure()
    except Exception as error:
        missing[peer.title] = f"{type(error).__name__}: {error}"
        return {}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench/compare", description=__doc__)
    parser.add_argument("--jobs", type=int, default=20_000, help="in the backlog of each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--processes", type=_counts, default=(1, 2), help="e.g. 1,2; none: 0")
    parser.add_argument("--samples", type=int, default=100, help="jobs while idle; none: 0")
    parser.add_argument("--only", type=lambda text: set(text.split(",")), help="peers' names")
    parser.add_argument("--json", type=Path, help="where to write the figures, too")
    asked = parser.parse_args()
    names = {peer.name for peer in PEERS}
    if asked.only and (unknown := asked.only - names):
        parser.error(
            f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(sorted(names))}"
        )
    if asked.jobs < 100 or asked.rounds < 1:
        parser.error("at least 100 jobs and one round")
    return asked


def _counts(text: str) -> tuple[int, ...]:
    return tuple(n for n in map(int, text.split(",")) if n > 0)


def _available(home: Home, only: set[str] | None) -> tuple[dict[Peer, list[str]], dict[str, str]]:
    commands: dict[Peer, list[str]] = {}
    missing: dict[str, str] = {}
    for peer in PEERS:
        if only and peer.name not in only:
            continue
        try:
            commands[peer] = home.worker(peer.file, peer.package)
        except Missing as why:
            missing[peer.title] = str(why)
    return commands, missing


def _table(
    found: dict[str, dict[str, float | None]], processes: tuple[int, ...], idle: bool
) -> str:
    heads = [f"{n} process{'es' if n > 1 else ''}, jobs/s (Outbox ×)" for n in processes]
    if idle:
        heads += ["idle p50, ms (Outbox ×)", "idle p99, ms (Outbox ×)"]
    lines = [" | ".join(["", *heads]), "|".join(["---"] * (len(heads) + 1))]
    titles = TITLES | {peer.name: peer.title for peer in PEERS}
    for name, title in titles.items():
        cells = []
        for n in processes:
            ours, theirs = (_of(found, f"{who} {n}", "jobs_per_s") for who in (OURS, name))
            cells.append(_cell(theirs, ratio(ours, theirs), name))
        for which in ("p50_ms", "p99_ms") if idle else ():
            ours, theirs = (_of(found, f"{who} idle", which) for who in (OURS, name))
            cells.append(_cell(theirs, ratio(theirs, ours), name))
        if any(cell != "–" for cell in cells):
            lines.append(" | ".join([title, *cells]))
    return "\n".join(f"| {line} |" for line in lines)


def _of(found: dict[str, dict[str, float | None]], kind: str, figure: str) -> float | None:
    return found.get(kind, {}).get(figure)


def _cell(value: float | None, times: float | None, name: str) -> str:
    if value is None:
        return "–"
    shown = f"{value:,.0f}" if value >= 100 else f"{value:.1f}"
    return shown if name == OURS or times is None else f"{shown} ({times:.2f})"


def _said(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


main()
