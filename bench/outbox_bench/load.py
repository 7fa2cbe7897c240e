"""A load generator in a process of its own: wrk where it is installed, else bare sockets.

Each job has an id of its own, as our libraries make them.
"""

from __future__ import annotations

import json
import select
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from outbox.message import uuid7
from outbox_bench.child import Line
from outbox_bench.figures import quantile
from outbox_bench.orders import Load, Loaded, Ready

JOB = {
    "job_id": "{id}",
    "user_id": "f3aa4a0e-97d4-4e21-a2b4-9fb7c8d9f001",
    "channel": "email",
    "template_code": "welcome",
    "locale": "ru",
    "data": {"first_name": "Нуржан", "login_url": "https://cinema.example/login"},
    "meta": {
        "event_type": "user_registered",
        "event_id": "6a9f7f26-4c0c-4a91-9f3d-b159c2dcb001",
        "campaign_id": None,
        "priority": "normal",
    },
    "created_at": "2026-11-14T12:35:10Z",
    "send_after": None,
    "expires_at": None,
}
HEAD, TAIL = (
    part.encode()
    for part in json.dumps(JOB, ensure_ascii=False, separators=(",", ":")).split("{id}")
)
RECEIVE_BYTES = 256 * 1024
JOBS_PER_S, BATCHED_PER_S = 15_000, 50_000
"""So many ids are made ahead; should they not suffice, the rest as it is needed."""
ANSWER_S_MAX = 60.0

# A UUIDv7 for each request; wrk's own random numbers are the same in every run.
WRK_SCRIPT = r"""
local head, tail = [==[%s]==], [==[%s]==]
math.randomseed(%d)
local base, n = %d, 0
local headers = {["content-type"] = "application/json", ["authorization"] = "Bearer %s"}
request = function()
  n = n + 1
  local ms = base + math.floor(n / 4)
  local id = string.format("%%08x-%%04x-7%%03x-%%04x-%%06x%%06x", math.floor(ms / 65536),
    ms %% 65536, math.random(0, 4095), math.random(32768, 49151),
    math.random(0, 16777215), math.random(0, 16777215))
  return wrk.format("POST", "%s", headers, head .. id .. tail)
end
done = function(summary, latency, requests)
  io.write(string.format('\nJSON {"requests":%%d,"took_s":%%f,"errors":%%d,"p50_ms":%%f,' ..
    '"p99_ms":%%f}\n', summary.requests, summary.duration / 1e6, summary.errors.status +
    summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
"""


def post(order: Load, line: Line) -> None:
    """Tell what was seen."""
    wrk = shutil.which("wrk")
    run: Callable[[], Loaded]
    if wrk is not None and order.body == "job":
        run = partial(_run_wrk, wrk, order)
    else:
        run = partial(_run_own, order, Requests(order))
    line.tell(Ready())
    line.wait_for_go()
    line.tell(run())


def _run_wrk(wrk: str, order: Load) -> Loaded:
    now_ns = time.time_ns()
    script = WRK_SCRIPT % (
        HEAD.decode(),
        TAIL.decode(),
        now_ns % 2**31,
        now_ns // 1_000_000,
        order.key,
        order.path,
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "load.lua"
        path.write_text(script)
        said = subprocess.run(
            [
                *(wrk, "--threads", "1", "--connections", str(order.connections)),
                *("--duration", f"{max(1, round(order.seconds))}s", "--script", str(path)),
                f"http://127.0.0.1:{order.port}{order.path}",
            ],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
    found = json.loads(said.rpartition("JSON ")[2])
    return Loaded(client="wrk", **found)


class Requests:
    """Makes requests. Ids are made ahead: that is no part of what is measured."""

    def __init__(self, order: Load) -> None:
        ahead = int(order.seconds * (JOBS_PER_S if order.body == "job" else BATCHED_PER_S))
        self._ids = [str(uuid7()).encode() for _ in range(ahead)]
        self._ids.reverse()
        self._order = order
        kind = "application/x-ndjson" if order.body == "ndjson" else "application/json"
        body_bytes = len(self._body())
        self._head = (
            f"POST {order.path} HTTP/1.1\r\nHost: 127.0.0.1:{order.port}\r\n"
            f"Authorization: Bearer {order.key}\r\nContent-Type: {kind}\r\n"
            f"Content-Length: {body_bytes}\r\n\r\n"
        ).encode()
        self._head_of_job = self._head + HEAD

    def next(self) -> bytes:
        """Return a new one, head and body."""
        if self._order.body == "job":
            return self._head_of_job + self._id() + TAIL
        return self._head + self._body()

    def _id(self) -> bytes:
        return self._ids.pop() if self._ids else str(uuid7()).encode()

    def _body(self) -> bytes:
        jobs = [HEAD + self._id() + TAIL for _ in range(self._order.batch)]
        match self._order.body:
            case "job":
                return jobs[0]
            case "array":
                return b"[%b]" % b",".join(jobs)
            case "ndjson":
                return b"\n".join(jobs)


class Poster:
    """One connection: a request, its answer, the next request."""

    __slots__ = ("_left", "_received", "_requests", "_sent_at", "errors", "latencies_s", "socket")

    def __init__(self, port: int, requests: Requests) -> None:
        self._requests = requests
        self._received = b""
        self._sent_at = 0.0
        self._left = b""
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.latencies_s: list[float] = []
        self.errors = 0

    def post(self, now: float) -> bool:
        """Send a new request; return whether all of it has gone."""
        self._left = self._requests.next()
        self._sent_at = now
        return self.send_rest()

    def send_rest(self) -> bool:
        """Send what the socket has room for; return whether that was all."""
        try:
            while self._left:
                self._left = self._left[self.socket.send(self._left) :]
        except BlockingIOError:
            return False
        return True

    def take(self, now: float) -> bool:
        """Take what has come; return whether the answer is whole. Raises ConnectionError."""
        data = self.socket.recv(RECEIVE_BYTES)
        if not data:
            raise ConnectionError("the server has closed a connection")
        received = self._received + data if self._received else data
        head_bytes = received.find(b"\r\n\r\n")
        if head_bytes < 0 or len(received) < head_bytes + 4 + _content_length(received):
            self._received = received
            return False
        self.latencies_s.append(now - self._sent_at)
        self._received = b""
        if received[9:10] != b"2":
            self.errors += 1
        return True


def _content_length(received: bytes) -> int:
    at = received.find(b"content-length: ") + 16  # as our server writes it
    return int(received[at : received.index(b"\r", at)])


def _run_own(order: Load, requests: Requests) -> Loaded:
    """Post over all connections until the time is over.

    By bare sockets: a client that costs as much as the server takes half of two cores from it.
    """
    poll = select.epoll()
    posters: dict[int, Poster] = {}
    for _ in range(order.connections):
        poster = Poster(order.port, requests)
        posters[poster.socket.fileno()] = poster
        poll.register(poster.socket, select.EPOLLIN)
    began = time.perf_counter()
    until = began + order.seconds
    busy = len(posters)

    def post(poster: Poster) -> None:
        if not poster.post(time.perf_counter()):
            poll.modify(poster.socket, select.EPOLLIN | select.EPOLLOUT)

    for poster in posters.values():
        post(poster)
    while busy:
        for number, events in poll.poll(ANSWER_S_MAX):
            poster = posters[number]
            if events & select.EPOLLOUT and poster.send_rest():
                poll.modify(number, select.EPOLLIN)
            if events & ~select.EPOLLOUT and poster.take(now := time.perf_counter()):
                if now < until:
                    post(poster)
                else:
                    poll.unregister(number)
                    busy -= 1
    took_s = time.perf_counter() - began
    latencies = [latency for poster in posters.values() for latency in poster.latencies_s]
    for poster in posters.values():
        poster.socket.close()
    return Loaded(
        client="sockets",
        requests=len(latencies),
        took_s=took_s,
        errors=sum(poster.errors for poster in posters.values()),
        p50_ms=quantile(latencies, 0.5) * 1000,
        p99_ms=quantile(latencies, 0.99) * 1000,
    )
