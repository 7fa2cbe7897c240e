"""Serving the API in an event loop of ours (uvloop where there is one)."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import Callable, Iterator

from litestar import Litestar

from outbox.config import Config
from outbox_api.app import build_app
from outbox_api.hotpath import OutboxApp
from outbox_api.wire import Server

BACKLOG = 1_024


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
    served = app or build_app(config, database_url=database_url)
    stopping = stop or asyncio.Event()
    async with contextlib.AsyncExitStack() as stack:
        listening = stack.enter_context(_listening(config))
        if stop is None:
            stack.enter_context(_signals(stopping))
        await stack.enter_async_context(served.lifespan())
        server = Server(served, lambda: (on_ready or _print_ready)(url_of(config)))
        serving = asyncio.create_task(server.serve([listening]), name="server")
        watching = asyncio.create_task(stopping.wait(), name="stop")
        try:
            await asyncio.wait({serving, watching}, return_when=asyncio.FIRST_COMPLETED)
            if not serving.done():
                await _leave(served, serving, config.leave_s)
        finally:
            watching.cancel()
            if isinstance(served, OutboxApp):
                runtime = served.runtime
                await asyncio.gather(runtime.streams.end(), runtime.sockets.end())
            server.should_exit = True
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


def _listening(config: Config) -> socket.socket:
    """Return the socket. Several processes share the port on purpose, one never does."""
    return socket.create_server(
        (config.host, config.port),
        family=socket.AF_INET6 if ":" in config.host else socket.AF_INET,
        backlog=BACKLOG,
        reuse_port=config.api_workers > 1,
    )


def _print_ready(url: str) -> None:
    print(f"ready {url}", flush=True)


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
