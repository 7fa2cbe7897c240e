"""`outbox send`: jobs from a file or stdin, into the database or over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, BinaryIO, Protocol

import typer

from outbox.config import Config
from outbox.errors import Fault, InvalidJob
from outbox.store import jobs
from outbox.store.pool import Database
from outbox_cli.database import in_database, ring, settings
from outbox_cli.exits import FAILED, FAULTS_SHOWN_MAX, Failure, say
from outbox_cli.groups import Json
from outbox_cli.jsonfile import faults_of, opened, values_in
from outbox_cli.shown import print_json

CHUNK_BYTES_MAX = 16 * 1024 * 1024
IDS_SHOWN_MAX = 10_000


class Door(Protocol):
    """Takes one batch: a result for each job, in order, or InvalidJob, JobConflict, Failure."""

    async def send(self, texts: list[bytes], *, skip_bad: bool) -> list[jobs.Enqueued]:
        """Hand the jobs over."""
        ...


class DatabaseDoor:
    """The enqueue function of the database, as the HTTP door calls it."""

    def __init__(self, database: Database, tenant: str) -> None:
        self._database = database
        self._tenant = tenant

    async def send(self, texts: list[bytes], *, skip_bad: bool) -> list[jobs.Enqueued]:
        """Store them in one transaction, and wake the dispatchers after its commit."""
        found = {index: faults for index, text in enumerate(texts) if (faults := faults_of(text))}
        if found and not skip_bad:
            raise InvalidJob(
                [Fault(f"/{i}{f.pointer}", f.message) for i, fs in found.items() for f in fs]
            )
        # A null keeps the others' places; the database refuses it.
        written = [b"null" if index in found else text for index, text in enumerate(texts)]
        async with self._database.transaction(self._tenant) as connection:
            try:
                results = await jobs.enqueue(
                    connection,
                    f"[{b','.join(written).decode()}]",
                    tenant=self._tenant,
                    skip_bad=skip_bad,
                )
            except jobs.InvalidBatch as error:
                raise InvalidJob(
                    [Fault(f"/{f.index}{f.pointer}", f.message) for f in error.faults]
                    or [Fault("", error.message)]
                ) from error
        await ring(self._database)
        return [
            jobs.Enqueued(None, None, "invalid", None, tuple(found[index]))
            if index in found
            else result
            for index, result in enumerate(results)
        ]


class Tally:
    """What became of the jobs so far."""

    def __init__(self) -> None:
        self.counts = {"new": 0, "duplicate": 0, "conflict": 0, "invalid": 0}
        self.refused: list[tuple[int, str, str]] = []
        self.job_ids: list[str | None] = []
        self.expired = 0

    @property
    def total(self) -> int:
        """How many jobs were answered."""
        return sum(self.counts.values())

    def add(self, results: list[jobs.Enqueued]) -> None:
        """Count a batch."""
        for result in results:
            if result.result == "conflict":
                sentence = f"{result.job_id} was accepted before with other content"
                self._refuse("/job_id", sentence)
            for fault in result.faults:
                self._refuse(fault.pointer, fault.message)
            self.counts[result.result] += 1
            self.expired += result.status == "expired" and result.result == "new"
            if len(self.job_ids) <= IDS_SHOWN_MAX:
                self.job_ids += result.job_ids or [result.job_id]

    def _refuse(self, pointer: str, message: str) -> None:
        if len(self.refused) < IDS_SHOWN_MAX:
            self.refused.append((self.total, pointer, message))


def send(
    file: Annotated[str, typer.Argument(help="One job, an array, or NDJSON; `-` is stdin.")],
    tenant: Annotated[str | None, typer.Option(help="Whose jobs they are: `default`.")] = None,
    url: Annotated[
        str | None, typer.Option(help="Send over HTTP to this service instead.")
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(help="The API key for --url; others can see it: better --key-file."),
    ] = None,
    key_file: Annotated[
        Path | None, typer.Option(help="A file with the key (default: OUTBOX_ADMIN_KEY).")
    ] = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Store the good ones, list the others, exit 1.")
    ] = False,
    json: Json = False,
) -> None:
    """Hand jobs over.

    A batch (10,000 jobs or 16 MiB) is stored whole or not at all. Sending a file again is safe:
    what was accepted under its job_id is not accepted twice.
    """
    config = settings()
    with opened(file) as stream:
        if url is not None:
            if tenant is not None:
                raise typer.BadParameter("with --url the key says whose jobs they are")
            tally = asyncio.run(
                _send_by_http(config, stream, url, _key(config, key, key_file), skip_bad)
            )
        else:
            if key is not None or key_file is not None:
                raise typer.BadParameter("--key needs --url: the database asks for no API key")
            tally = in_database(
                lambda database: _send(
                    DatabaseDoor(database, tenant or "default"), config, stream, skip_bad=skip_bad
                ),
                config=config,
                make=True,
            )
    _report(tally, json)


async def _send_by_http(
    config: Config, stream: BinaryIO, url: str, key: str | None, skip_bad: bool
) -> Tally:
    from outbox_cli.http_door import HttpDoor  # with httpx, which most commands can do without

    async with HttpDoor(url, key) as door:
        return await _send(door, config, stream, skip_bad=skip_bad)


async def _send(door: Door, config: Config, stream: BinaryIO, *, skip_bad: bool) -> Tally:
    tally = Tally()
    with _progress(stream) as advance:
        bytes_max = min(CHUNK_BYTES_MAX, config.batch_bytes_max // 2)
        for texts, seen in _batches(stream, config.batch_jobs_max, bytes_max):
            try:
                tally.add(await door.send(texts, skip_bad=skip_bad))
            except InvalidJob as error:
                raise _refused(error, tally.total) from error
            advance(seen)
    return tally


def _batches(stream: BinaryIO, jobs_max: int, bytes_max: int) -> Iterator[tuple[list[bytes], int]]:
    """Yield batches, each with the bytes of the file that were read by then."""
    seen = 0

    def progress(count: int) -> None:
        nonlocal seen
        seen = count

    batch: list[bytes] = []
    size = 0
    for text in values_in(stream, progress):
        if batch and (len(batch) == jobs_max or size + len(text) > bytes_max):
            yield batch, seen
            batch, size = [], 0
        batch.append(text)
        size += len(text)
    if batch:
        yield batch, seen


class _Advance(Protocol):
    def __call__(self, seen: int, /) -> None: ...


@contextlib.contextmanager
def _progress(stream: BinaryIO) -> Iterator[_Advance]:
    """Show how much of the file is through, where somebody sits at a terminal."""
    if not sys.stderr.isatty():
        yield lambda seen: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

    total: int | None = None
    with contextlib.suppress(OSError):
        total = os.fstat(stream.fileno()).st_size or None
    columns = (TextColumn("sending"), BarColumn(), DownloadColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("sending", total=total)
        yield lambda seen: bar.update(task, completed=seen)


def _key(config: Config, key: str | None, key_file: Path | None) -> str | None:
    if key is not None and key_file is not None:
        raise typer.BadParameter("--key and --key-file exclude each other")
    if key_file is not None:
        try:
            return key_file.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise Failure(f"{key_file} cannot be read.") from error
    return key or config.admin_key


def _refused(error: InvalidJob, before: int) -> Failure:
    """Say which jobs of the file are wrong; pointers of a batch count from its start."""
    lines = []
    for fault in error.faults[:FAULTS_SHOWN_MAX]:
        index, _, rest = fault.pointer.removeprefix("/").partition("/")
        if index.isdecimal():
            place = f"job {before + int(index) + 1}"
            lines.append(f"{place}: {f'/{rest}: ' if rest else ''}{fault.message}")
        else:
            lines.append(f"{fault.pointer or 'the batch'}: {fault.message}")
    more = len(error.faults) - len(lines)
    lines += [f"and {more} more"] if more > 0 else []
    head = (
        f"{before} jobs were stored; then a batch was refused, whole"
        if before
        else ("Nothing was stored")
    )
    return Failure(f"{head}:\n  " + "\n  ".join(lines))


def _report(tally: Tally, json: bool) -> None:
    refused = tally.counts["conflict"] + tally.counts["invalid"]
    if json:
        shown: dict[str, object] = {**tally.counts, "expired": tally.expired}
        shown["faults"] = [
            {"index": index, "pointer": pointer, "message": message}
            for index, pointer, message in tally.refused
        ]
        if len(tally.job_ids) <= IDS_SHOWN_MAX:
            shown["job_ids"] = tally.job_ids
        print_json(shown)
    else:
        if tally.total == 1 and not refused:
            print(tally.job_ids[0])
        said = [f"{tally.counts['new']} accepted"]
        said += [f"{tally.expired} of them expired already"] if tally.expired else []
        for name, words in (("duplicate", "known already"), ("conflict", "in conflict")):
            said += [f"{tally.counts[name]} {words}"] if tally.counts[name] else []
        said += [f"{tally.counts['invalid']} refused"] if tally.counts["invalid"] else []
        say(", ".join(said) + ".")
        for index, pointer, message in tally.refused[:FAULTS_SHOWN_MAX]:
            say(f"job {index + 1}: {pointer or '(whole)'}: {message}")
    if refused:
        raise typer.Exit(FAILED)
