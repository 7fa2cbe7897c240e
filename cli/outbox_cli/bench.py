"""`outbox bench`: this machine's figures, each beside the plainest thing that does the same work.

Each starts an embedded Postgres of its own, on disk and durable, and removes it afterwards; with
`--url` (a superuser's) it makes databases of its own on that server instead, and drops them.
What the figures mean is told in bench/README.md.
"""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from outbox_cli.groups import Json, group
from outbox_cli.shown import print_fields, print_json

if TYPE_CHECKING:
    from outbox_bench.figures import Figures, Said

app = group()
Given = TypeVar("Given")


@app.callback()
def bench() -> None:
    """Leave no server behind when somebody ends us: a SIGTERM unwinds like a Ctrl-C."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))


Rounds = Annotated[int, typer.Option(min=1, help="Rounds; the medians are shown.")]
Url = Annotated[
    str | None,
    typer.Option(help="A superuser's URL of a server to measure, instead of an embedded one."),
]
Seconds = Annotated[float, typer.Option(min=0.1, help="Seconds of each round and kind.")]


@app.command("drain")
def drain(
    jobs: Annotated[int, typer.Option(min=1, help="No-op jobs in the backlog.")] = 100_000,
    rounds: Rounds = 3,
    processes: Annotated[str, typer.Option(help="Dispatcher processes, one figure each.")] = "1,2",
    waiting: Annotated[
        int,
        typer.Option(min=0, help="Look at a dispatcher's memory with so many jobs waiting, too."),
    ] = 0,
    url: Url = None,
    json: Json = False,
) -> None:
    """Drain a backlog of no-op jobs, beside a plain-SQL loop."""
    from outbox_bench.drain import Options, measure

    counts = _counts(processes, "--processes")
    options = Options(jobs=jobs, rounds=rounds, processes=counts, waiting=waiting, url=url)
    _run(measure, options, json=json)


@app.command("enqueue")
def enqueue(
    seconds: Seconds = 3.0,
    rounds: Rounds = 3,
    batch: Annotated[int, typer.Option(min=2, max=10_000, help="Jobs in a batch.")] = 1_000,
    singles: Annotated[int, typer.Option(min=1, max=64, help="Connections, one by one.")] = 8,
    batches: Annotated[int, typer.Option(min=1, max=64, help="Connections, by batch.")] = 2,
    url: Url = None,
    json: Json = False,
) -> None:
    """Hand jobs in, one by one and in batches, beside bare inserts."""
    from outbox_bench.enqueue import Options, measure

    options = Options(
        seconds=seconds, rounds=rounds, batch=batch, singles=singles, batches=batches, url=url
    )
    _run(measure, options, json=json)


@app.command("http")
def http(
    seconds: Seconds = 5.0,
    rounds: Rounds = 3,
    connections: Annotated[int, typer.Option(min=1, max=1_000, help="Of single POSTs.")] = 32,
    batch: Annotated[int, typer.Option(min=1, max=10_000, help="Jobs in a batch POST.")] = 1_000,
    batch_connections: Annotated[int, typer.Option(min=1, max=64, help="Of batch POSTs.")] = 2,
    url: Url = None,
    json: Json = False,
) -> None:
    """POST jobs over HTTP, beside an empty handler on the same kind of server."""
    from outbox_bench.http import Options, measure

    options = Options(
        seconds=seconds,
        rounds=rounds,
        connections=connections,
        batch=batch,
        batch_connections=batch_connections,
        url=url,
    )
    _run(measure, options, json=json)


@app.command("latency")
def latency(
    samples: Annotated[int, typer.Option(min=1, help="Jobs by each way.")] = 150,
    idle_s: Annotated[
        float, typer.Option("--idle-s", min=1.0, help="Seconds to count an idle fleet for.")
    ] = 20.0,
    processes: Annotated[int, typer.Option(min=1, max=64, help="Dispatcher processes.")] = 2,
    url: Url = None,
    json: Json = False,
) -> None:
    """How soon an idle fleet starts a job, and what it asks of the database meanwhile."""
    from outbox_bench.latency import Options, measure

    options = Options(samples=samples, idle_s=idle_s, processes=processes, url=url)
    _run(measure, options, json=json)


@app.command("fairness")
def fairness(
    tenants: Annotated[int, typer.Option(min=2, help="Tenants in all.")] = 1_000,
    noisy: Annotated[int, typer.Option(min=1, help="Of them with a backlog.")] = 10,
    backlog: Annotated[int, typer.Option(min=1, help="Jobs of each noisy tenant.")] = 5_000,
    seconds: Seconds = 8.0,
    rounds: Rounds = 3,
    url: Url = None,
    json: Json = False,
) -> None:
    """How long quiet tenants wait beside ten that have a backlog, and without them."""
    from outbox_bench.fairness import Options, measure

    if noisy >= tenants:
        raise typer.BadParameter("must be fewer than --tenants", param_hint="--noisy")
    options = Options(
        tenants=tenants, noisy=noisy, backlog=backlog, seconds=seconds, rounds=rounds, url=url
    )
    _run(measure, options, json=json)


Jobs = Annotated[int, typer.Option(min=1, help="Jobs in the backlog.")]
Processes = Annotated[int, typer.Option(min=1, max=64, help="Dispatcher processes.")]
Concurrency = Annotated[int, typer.Option(min=1, max=200, help="Deliveries at once, each.")]


@app.command("mail")
def mail(
    jobs: Jobs = 5_000,
    rounds: Rounds = 3,
    processes: Processes = 1,
    concurrency: Concurrency = 10,
    tenants: Annotated[
        int, typer.Option(min=0, max=100, help="With mail servers of their own; 0: leave out.")
    ] = 3,
    url: Url = None,
    json: Json = False,
) -> None:
    """Send rendered mail to an SMTP sink, beside a bare client's loop."""
    from outbox_bench.mail import Options, measure

    options = Options(
        jobs=jobs,
        rounds=rounds,
        processes=processes,
        concurrency=concurrency,
        tenants=tenants,
        url=url,
    )
    _run(measure, options, json=json)


@app.command("webhook")
def webhook(
    jobs: Jobs = 5_000,
    rounds: Rounds = 3,
    processes: Processes = 1,
    concurrency: Concurrency = 10,
    url: Url = None,
    json: Json = False,
) -> None:
    """Send signed webhooks to an HTTP sink, beside a bare client's loop."""
    from outbox_bench.webhook import Options, measure

    options = Options(
        jobs=jobs, rounds=rounds, processes=processes, concurrency=concurrency, url=url
    )
    _run(measure, options, json=json)


@app.command("soak")
def soak(
    deliveries: Annotated[int, typer.Option(min=10, help="Mails and webhooks, by turns.")] = (
        100_000
    ),
    parts: Annotated[int, typer.Option(min=3, help="Memory is read after each.")] = 10,
    concurrency: Concurrency = 10,
    url: Url = None,
    json: Json = False,
) -> None:
    """Whether a dispatcher's memory stays flat over very many deliveries."""
    from outbox_bench.soak import Options, measure

    options = Options(deliveries=deliveries, parts=parts, concurrency=concurrency, url=url)
    _run(measure, options, json=json)


@app.command("ordering")
def ordering(
    jobs: Annotated[int, typer.Option(min=1, help="Jobs to be drained.")] = 50_000,
    followers: Annotated[
        int, typer.Option(min=1, help="Jobs behind one head that fails.")
    ] = 100_000,
    rounds: Rounds = 3,
    url: Url = None,
    json: Json = False,
) -> None:
    """Drain while many jobs follow a failing head, beside draining without them."""
    from outbox_bench.ordering import Options, measure

    options = Options(jobs=jobs, followers=followers, rounds=rounds, url=url)
    _run(measure, options, json=json)


@app.command("upkeep")
def upkeep(
    jobs: Annotated[int, typer.Option(min=1, help="No-op jobs in the backlog.")] = 100_000,
    rounds: Rounds = 3,
    over_age: Annotated[
        int, typer.Option("--over-age", min=1, help="Days that are to be retired.")
    ] = 4,
    past_jobs: Annotated[
        int, typer.Option("--past-jobs", min=1, help="Ended jobs on each of them.")
    ] = 10_000,
    url: Url = None,
    json: Json = False,
) -> None:
    """Drain while days are retired, beside draining while there is nothing to retire."""
    from outbox_bench.upkeep import Options, measure

    options = Options(jobs=jobs, rounds=rounds, over_age=over_age, past_jobs=past_jobs, url=url)
    _run(measure, options, json=json)


@app.command("audit")
def audit(
    deliveries: Annotated[
        int, typer.Option(min=1_000, help="Rows of history, over so many --days.")
    ] = 5_000_000,
    days: Annotated[int, typer.Option(min=2, max=365)] = 91,
    rounds: Rounds = 5,
    url: Url = None,
    json: Json = False,
) -> None:
    """Ask the audit queries, and open the dashboard's pages, on weeks of history."""
    from outbox_bench.audit import Options, measure

    options = Options(deliveries=deliveries, days=days, rounds=rounds, url=url)
    _run(measure, options, json=json)


@app.command("flat")
def flat(
    backlogs: Annotated[str, typer.Option(help="Due jobs that wait.")] = "10000,1000000",
    ahead: Annotated[int, typer.Option(min=0, help="Scheduled far ahead.")] = 5_000_000,
    pinned: Annotated[
        int, typer.Option(min=0, help="Drained to the end under an open snapshot.")
    ] = 2_000_000,
    sample: Annotated[int, typer.Option(min=1, help="Drained of each backlog.")] = 50_000,
    processes: Annotated[
        int, typer.Option(min=1, max=16, help="Dispatchers under the open snapshot.")
    ] = 1,
    url: Url = None,
    json: Json = False,
) -> None:
    """Whether a job costs the same beside millions of others, and under an open snapshot."""
    from outbox_bench.flat import Options, measure

    counts = _counts(backlogs, "--backlogs")
    options = Options(
        backlogs=counts,
        ahead=ahead,
        pinned=pinned,
        sample=sample,
        processes=processes,
        url=url,
    )
    _run(measure, options, json=json)


def _counts(text: str, option: str) -> tuple[int, ...]:
    """Read numbers from 1, separated by commas."""
    try:
        counts = tuple(int(part) for part in text.split(","))
    except ValueError:
        counts = ()
    if not counts or min(counts) < 1:
        raise typer.BadParameter("numbers from 1, separated by commas", param_hint=option)
    return counts


@contextlib.contextmanager
def _watching() -> Iterator[Said]:
    """Show how far it is where somebody may be watching: on stderr, if that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda line, *, done=0, total=0: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
    )

    columns = (TextColumn("measuring"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("measuring", total=None)

        def said(line: str, /, *, done: int = 0, total: int = 0) -> None:
            bar.console.print(f"outbox: {line}", markup=False, highlight=False)
            if total:
                bar.update(task, completed=done, total=total)

        yield said


def _run(measure: Callable[[Given, Said], Figures], options: Given, *, json: bool) -> None:
    with _watching() as said:
        figures = measure(options, said)
    if json:
        print_json(figures)
    else:
        print_fields(_flat(figures))


def _flat(figures: Mapping[str, object], under: str = "") -> list[tuple[str, object]]:
    fields: list[tuple[str, object]] = []
    for name, value in figures.items():
        if isinstance(value, Mapping):
            fields += _flat(value, f"{under}{name}.")
        else:
            fields.append((f"{under}{name}", value))
    return fields
