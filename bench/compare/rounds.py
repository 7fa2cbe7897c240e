"""One round of one contestant: a backlog drained, or jobs handed in one by one while it idles."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import random
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from functools import partial
from uuid import uuid4

from peers import Peer, redis

from outbox_bench.arena import Arena, Place
from outbox_bench.children import Child, first_told
from outbox_bench.figures import quantile
from outbox_bench.noop import QUEUE
from outbox_bench.orders import DispatchNoop, Floor, Ready, Stamp
from outbox_bench.store import fill_noop, handle, resume, settle, until_empty

READY_S_MAX = 30.0
FILL_S_MAX = 120.0
DRAIN_S_MAX = 120.0
STARTED_S_MAX = 30.0
STORED_POLL_S = 0.005
PAUSE_S = (0.05, 0.25)
WARM = 5
"""The first jobs meet cold connections and plans."""
ENQUEUE = "select from outbox.enqueue(%s::jsonb, notify => true)"


class Worker:
    """A peer's process and what it tells (workers/line.py)."""

    def __init__(self, command: Sequence[str], mode: str, url: str) -> None:
        self._process = subprocess.Popen(
            [*command, mode, url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        self._told: queue.SimpleQueue[dict[str, object] | None] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._told.put(json.loads(line))
        self._told.put(None)

    def tell(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def told(self, within_s: float) -> dict[str, object]:
        """Return the next thing that it tells. Raises queue.Empty, RuntimeError."""
        told = self._told.get(timeout=within_s)
        if told is None:
            raise RuntimeError(f"a worker ended with code {self._process.wait()}")
        return told

    def value(self, name: str, within_s: float) -> object:
        """Return the next value of this name that it tells."""
        deadline = time.monotonic() + within_s
        while name not in (told := self.told(max(0.0, deadline - time.monotonic()))):
            pass
        return told[name] if name != "at_ns" else int(str(told[name]))

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        # With the processes that it may have started.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


class Contest:
    """All contestants on one server; templates are filled before the first round."""

    def __init__(self, server: Arena, stack: contextlib.ExitStack, *, jobs: int) -> None:
        self._server = server
        self._stack = stack
        self._jobs = jobs
        self._ours = ""
        self._idle: dict[str, str] = {}
        self._filled: dict[str, str] = {}

    def fill_ours(self) -> None:
        fill = partial(fill_noop, jobs=self._jobs)
        self._ours = self._stack.enter_context(self._server.filled(fill))

    def fill_peer(self, peer: Peer, command: Sequence[str], *, drain: bool) -> None:
        """Make the databases of its rounds: one with jobs, one without."""
        if peer.on_redis:
            return
        for templates, jobs in ((self._idle, 0), (self._filled, self._share(peer))):
            if drain is (templates is self._filled):
                fill = partial(_fill, command=command, jobs=jobs)
                templates[peer.name] = self._stack.enter_context(
                    self._server.filled(fill, migrated=False)
                )

    def _share(self, peer: Peer) -> int:
        return max(1, int(self._jobs * peer.share))

    def drain_ours(self, kind: type[Floor | DispatchNoop], processes: int) -> dict[str, float]:
        """Return jobs a second of dispatchers, or of the plain SQL loop."""
        with self._server.clone(self._ours) as place, contextlib.ExitStack() as stack:
            url = place.admin_url if kind is Floor else place.url
            workers = [stack.enter_context(Child(kind(url=url))) for _ in range(processes)]
            for worker in workers:
                worker.ready(Ready)
            connection = stack.enter_context(place.connect())
            began = resume(connection, QUEUE)
            if kind is Floor:
                for worker in workers:
                    worker.go()
            return {"jobs_per_s": self._jobs / (until_empty(connection) - began)}

    def drain_peer(self, peer: Peer, command: Sequence[str], processes: int) -> dict[str, float]:
        """Return jobs a second, from go until all are stored as done."""
        jobs = self._share(peer)
        with self._place(peer, command, self._filled, jobs) as (url, place):
            with contextlib.ExitStack() as stack:
                workers = [
                    stack.enter_context(Worker(command, "work", url)) for _ in range(processes)
                ]
                for worker in workers:
                    worker.value("ready", READY_S_MAX)
                began = time.monotonic()
                for worker in workers:
                    worker.tell("go")
                _until_handled(workers, jobs, began + DRAIN_S_MAX)
                if peer.left is not None:
                    assert place is not None
                    with place.connect() as connection:
                        while connection.execute(peer.left.encode()).fetchone() is not None:
                            time.sleep(STORED_POLL_S)
                return {"jobs_per_s": jobs / (time.monotonic() - began)}

    def idle_ours(self, samples: int) -> dict[str, float]:
        """Return how soon an idle dispatcher starts what was committed with a bell."""
        waits_ms = []
        with (
            self._server.fresh(_handled) as place,
            Child(DispatchNoop(url=place.url, stamps=True)) as dispatcher,
            place.connect() as connection,
        ):
            dispatcher.ready(Ready)
            for _ in range(samples + WARM):
                time.sleep(random.uniform(*PAUSE_S))
                job = {"job_id": str(uuid4()), "queue": QUEUE, "payload": {"text": "x" * 400}}
                with connection.transaction():
                    connection.execute(ENQUEUE, (json.dumps(job),))
                    at_ns = time.time_ns()
                stamp = first_told([dispatcher], Stamp, within_s=STARTED_S_MAX)
                waits_ms.append((stamp.at_ns - at_ns) / 1e6)
        return _quantiles(waits_ms)

    def idle_peer(self, peer: Peer, command: Sequence[str], samples: int) -> dict[str, float]:
        """Return how soon an idle worker starts what was handed in."""
        waits_ms = []
        with (
            self._place(peer, command, self._idle, 0) as (url, _),
            Worker(command, "work", url) as worker,
            Worker(command, "submit", url) as producer,
        ):
            worker.value("ready", READY_S_MAX)
            producer.value("ready", READY_S_MAX)
            worker.tell("go")
            for _ in range(samples + WARM):
                time.sleep(random.uniform(*PAUSE_S))
                producer.tell(str(uuid4()))
                at_ns = producer.value("at_ns", STARTED_S_MAX)
                started_ns = worker.value("at_ns", STARTED_S_MAX)
                waits_ms.append((float(str(started_ns)) - float(str(at_ns))) / 1e6)
        return _quantiles(waits_ms)

    @contextlib.contextmanager
    def _place(
        self, peer: Peer, command: Sequence[str], templates: dict[str, str], jobs: int
    ) -> Iterator[tuple[str, Place | None]]:
        if peer.on_redis:
            with redis() as url:
                _fill_by(command, url, jobs)
                yield url, None
        else:
            with self._server.clone(templates[peer.name]) as place:
                yield place.admin_url, place


def _fill(place: Place, *, command: Sequence[str], jobs: int) -> None:
    _fill_by(command, place.admin_url, jobs)
    with place.connect() as connection:
        settle(connection)


def _fill_by(command: Sequence[str], url: str, jobs: int) -> None:
    done = subprocess.run(
        [*command, "fill", url, str(jobs)], capture_output=True, text=True, timeout=FILL_S_MAX
    )
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["it failed without a word"])[-1])


def _handled(place: Place) -> None:
    with place.connect() as connection:
        handle(connection, QUEUE)
        settle(connection)


def _until_handled(workers: Sequence[Worker], jobs: int, deadline: float) -> None:
    handled = [0] * len(workers)
    while sum(handled) < jobs:
        if time.monotonic() > deadline:
            raise RuntimeError(f"{sum(handled)} of {jobs} jobs after {DRAIN_S_MAX:g} s")
        for number, worker in enumerate(workers):
            with contextlib.suppress(queue.Empty):
                while True:
                    told = worker.told(0.002)
                    handled[number] = int(str(told.get("handled", handled[number])))


def _quantiles(waits_ms: Sequence[float]) -> dict[str, float]:
    counted = waits_ms[WARM:]
    return {"p50_ms": quantile(counted, 0.5), "p99_ms": quantile(counted, 0.99)}
