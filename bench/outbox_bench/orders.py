"""What a child process is to do, and what it tells: JSON lines, read by `outbox_bench.child`."""

from __future__ import annotations

from typing import Literal

import msgspec


class Order(msgspec.Struct, frozen=True, kw_only=True, tag_field="order"):
    """The base of all orders."""


class DispatchNoop(Order, frozen=True, kw_only=True, tag="dispatch-noop"):
    """A dispatcher of the queue `noop`. Tells Ready; with `stamps`, a Stamp for each job too.

    `work_ms`: how long a delivery takes, without using the CPU. `may_fail`: jobs whose payload
    says `fails` do, and are tried again after half a second.
    """

    url: str
    stamps: bool = False
    work_ms: float = 0.0
    may_fail: bool = False


class Dispatch(Order, frozen=True, kw_only=True, tag="dispatch"):
    """A dispatcher as `outbox dispatcher` runs it. Tells Ready."""

    url: str
    number: int = 1
    smtp_port: int | None = None
    concurrency: int | None = None


class Floor(Order, frozen=True, kw_only=True, tag="floor"):
    """The plain-SQL loop. Tells Ready; ends when nothing is left."""

    url: str


class Sinks(Order, frozen=True, kw_only=True, tag="sinks"):
    """An SMTP server and an HTTP server that say yes. Tells Ports."""


class Serve(Order, frozen=True, kw_only=True, tag="serve"):
    """The API, or (`empty`) a handler that reads the body and answers, on the same server."""

    url: str
    port: int
    admin_key: str
    empty: bool = False


class Load(Order, frozen=True, kw_only=True, tag="load"):
    """POST for `seconds` over `connections`. Tells Ready, waits for go, tells Loaded."""

    port: int
    path: str
    key: str
    connections: int
    seconds: float
    body: Literal["job", "array", "ndjson"] = "job"
    batch: int = 1


class BareMail(Order, frozen=True, kw_only=True, tag="bare-mail"):
    """Send one ready-made mail `count` times by an SMTP client. Tells Ready, then Took."""

    port: int
    count: int
    connections: int


class BareHooks(Order, frozen=True, kw_only=True, tag="bare-hooks"):
    """POST one ready-made body `count` times by an HTTP client. Tells Ready, then Took."""

    port: int
    count: int
    connections: int


class Insert(Order, frozen=True, kw_only=True, tag="insert"):
    """Hand jobs in for `seconds`, `batch` in a transaction. Tells Ready, waits, tells Done.

    `by`: the Python library, the SQL function, or bare inserts (in one statement, or in three).
    Each of `connections` is a thread.
    """

    url: str
    seconds: float
    connections: int = 1
    by: Literal["python", "sql", "bare", "bare-three"]
    batch: int = 1


AnyOrder = DispatchNoop | Dispatch | Floor | Sinks | Serve | Load | BareMail | BareHooks | Insert


class Ready(msgspec.Struct, frozen=True):
    """It waits for work, or for go."""

    ready: bool = True


class Stamp(msgspec.Struct, frozen=True):
    """A job was started, at `at_ns` of this machine's clock."""

    job_id: str
    at_ns: int


class Ports(msgspec.Struct, frozen=True):
    """Where the sinks listen, on 127.0.0.1."""

    smtp: int
    http: int


class Took(msgspec.Struct, frozen=True):
    """How long it took from go, and the CPU time of this process in it."""

    took_s: float
    cpu_s: float


class Done(msgspec.Struct, frozen=True):
    """How many were done, in how long."""

    count: int
    took_s: float


class Loaded(msgspec.Struct, frozen=True, kw_only=True):
    """What a load generator saw. Latencies in milliseconds."""

    client: str
    requests: int
    took_s: float
    errors: int
    p50_ms: float
    p99_ms: float
