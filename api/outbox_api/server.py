"""Serving the API: granian inside our own event loop (uvloop where there is one)."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import Callable, Iterator

import structlog
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.server.embed import Server
from litestar import Litestar

from outbox.config import Config
from outbox_api.app import build_app
from outbox_api.hotpath import OutboxApp

HEADER_READ_MS_MAX = 10_000
HEADER_BYTES_MAX = 65_536
BACKLOG = 1_024
BACKPRESSURE = 512
"""Requests in work at once; more wait in their sockets."""
READY_POLL_S = 0.01

_log = structlog.get_logger("outbox.api")


async def serve_async(
    config: Config,
    database_url: str,
    *,
    on_ready: Callable[[str], None] | None = None,
    stop: asyncio.Event | None = None,
    app: Litestar | None = None,
) -> None:
    """Serve until `stop` is set (or a SIGTERM or SIGINT comes, when it is None).

    `on_ready` is called with `http://host:port` once requests are taken; by default one line
    `ready http://host:port` goes to stdout. Raises OSError when the port is taken. `app` stands in
    for ours where something else is to be served just like it.
    """
    if config.api_workers == 1:  # else the processes share the port on purpose
        require_free_port(config.host, config.port)
    served = app or build_app(config, database_url=database_url)
    server = Server(
        served,
        address=config.host,
        port=config.port,
        interface=Interfaces.ASGI,
        http=HTTPModes.http1,
        websockets=False,
        backlog=BACKLOG,
        backpressure=BACKPRESSURE,
        http1_settings=HTTP1Settings(
            header_read_timeout=HEADER_READ_MS_MAX, max_buffer_size=HEADER_BYTES_MAX
        ),
        log_enabled=False,
    )
    stopping = stop or asyncio.Event()
    async with contextlib.AsyncExitStack() as stack:
        if stop is None:
            stack.enter_context(_signals(stopping))
        serving = asyncio.create_task(server.serve(), name="granian")
        watching = asyncio.create_task(stopping.wait(), name="stop")
        try:
            await _until_open(config, serving)
            (on_ready or _print_ready)(url_of(config))
            await asyncio.wait({serving, watching}, return_when=asyncio.FIRST_COMPLETED)
            if not serving.done():
                await _leave(served, serving, config.leave_s)
        finally:
            watching.cancel()
            if isinstance(served, OutboxApp):
                served.runtime.ending.set()
            server.stop()  # type: ignore[no-untyped-call]  # granian's own gap
            await serving


def serve(
    config: Config,
    database_url: str,
    *,
    on_ready: Callable[[str], None] | None = None,
    app: Litestar | None = None,
) -> None:
    """Serve until a signal comes, in an event loop of its own. See `serve_async`."""
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(serve_async(config, database_url, on_ready=on_ready, app=app))


def url_of(config: Config) -> str:
    """Return where the API answers."""
    host = f"[{config.host}]" if ":" in config.host else config.host
    return f"http://{host}:{config.port}"


def require_free_port(host: str, port: int) -> None:
    """Raise OSError when somebody listens there: granian would share the port in silence."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))


def _print_ready(url: str) -> None:
    print(f"ready {url}", flush=True)


async def _until_open(config: Config, serving: asyncio.Task[None]) -> None:
    """Wait until the port takes a connection, or the server has given up."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(config.host, config.host)
    while not serving.done():
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection(host, config.port)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
            return
        await asyncio.sleep(READY_POLL_S)


async def _leave(app: Litestar, serving: asyncio.Task[None], leave_s: float) -> None:
    """Answer on, but say that we are not ready: who sends requests here is to stop first."""
    if isinstance(app, OutboxApp):
        app.runtime.leaving = True
    await asyncio.wait({serving}, timeout=leave_s)


@contextlib.contextmanager
def _signals(stopping: asyncio.Event) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    try:
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    if sys.platform == "win32":
        return None
    import uvloop

    return uvloop.new_event_loop
