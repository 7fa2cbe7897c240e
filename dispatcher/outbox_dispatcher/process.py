"""A dispatcher as a process of its own: from the settings to an exit.

Handlers are found and checked before anything is claimed, so a broken plugin or setting refuses
the start with a sentence (ConfigError). SIGTERM and SIGINT stop claiming and drain.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

import structlog
import uvloop

from outbox import otel
from outbox.backoff import Backoff
from outbox.channels.registry import load_handlers, load_queue_handlers
from outbox.config import Config
from outbox.errors import StoreUnavailable
from outbox.settings import queue_name, specs
from outbox_dispatcher.health import figures, serve_health
from outbox_dispatcher.service import Dispatcher
from outbox_dispatcher.settings import DispatcherSettings
from outbox_dispatcher.sockets import SocketChannel

SECRET_CHARS_MIN = 4
"""A shorter password is not masked: it would blot out half of every error text."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Orders:
    """What the command line asks of one process. `number` counts from 1 beside its siblings."""

    queues: frozenset[str] | None = None
    drain: bool = False
    start_paused: bool = False
    number: int = 1


class ConcurrencyByQueue(Mapping[str, int]):
    """The settings' figures by a queue's own name: variables spell it in capitals."""

    def __init__(self, figures: Mapping[str, int]) -> None:
        self._figures = figures

    def __getitem__(self, queue: str) -> int:
        return self._figures[queue_name(queue)]

    def __iter__(self) -> Iterator[str]:
        return iter(self._figures)

    def __len__(self) -> int:
        return len(self._figures)


def run(
    config: Config,
    database_url: str,
    orders: Orders,
    *,
    on_ready: Callable[[], None] | None = None,
) -> None:
    """Dispatch until a signal comes, or with `drain` until nothing is due. Raises ConfigError.

    Raises StoreUnavailable when the database has been migrated past this version.
    """
    uvloop.run(dispatch(config, database_url, orders, on_ready=on_ready))


async def dispatch(
    config: Config,
    database_url: str,
    orders: Orders,
    *,
    on_ready: Callable[[], None] | None = None,
) -> None:
    """Do the same in a loop that already runs. `on_ready` is called when it first claims."""
    texts = config.handler_settings()
    telemetry = otel.start(f"dispatcher-{orders.number}")
    dispatcher = Dispatcher(
        dispatcher_settings(config, database_url, orders),
        channels={"ws": SocketChannel(database_url, texts)} | load_handlers(texts),
        queues=load_queue_handlers(texts),
        tracer=None if telemetry is None else telemetry.tracer,
    )
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, dispatcher.stop)
    async with contextlib.AsyncExitStack() as stack:
        if config.metrics_port is not None:
            port = config.metrics_port + orders.number - 1
            await stack.enter_async_context(serve_health(dispatcher, config.host, port))
        if telemetry is not None:
            await stack.enter_async_context(sending(telemetry, dispatcher))
        telling = asyncio.create_task(_tell(dispatcher, on_ready))
        try:
            await dispatcher.run(drain=orders.drain)
        finally:
            telling.cancel()
            await asyncio.gather(telling, return_exceptions=True)
    log.info("dispatcher stopped")
    if dispatcher.outdated is not None:
        raise StoreUnavailable(dispatcher.outdated)


@contextlib.asynccontextmanager
async def sending(telemetry: otel.Telemetry, dispatcher: Dispatcher) -> AsyncIterator[None]:
    """Send this process's figures meanwhile, and what spans are left at the end."""

    async def read() -> list[otel.Series]:
        return figures(dispatcher)

    metrics = None
    if telemetry.wants_metrics:
        metrics = asyncio.create_task(telemetry.send_metrics_forever(read), name="metrics")
    try:
        yield
    finally:
        if metrics is not None:
            metrics.cancel()
            await asyncio.gather(metrics, return_exceptions=True)
        await telemetry.close()


async def _tell(dispatcher: Dispatcher, on_ready: Callable[[], None] | None) -> None:
    await dispatcher.ready.wait()
    log.info("dispatcher ready")
    if on_ready is not None:
        on_ready()


def dispatcher_settings(config: Config, database_url: str, orders: Orders) -> DispatcherSettings:
    """Return what a dispatcher needs to know of the settings."""
    backoff = None if config.backoff_s is None else Backoff(delays_s=config.backoff_s)
    return DispatcherSettings(
        database_url=database_url,
        direct_database_url=config.direct_database_url,
        queues=orders.queues,
        name=f"{socket.gethostname()}/{orders.number}",
        concurrency=ConcurrencyByQueue(config.queue_concurrency),
        attempts_max=config.max_attempts,
        backoff=backoff,
        lease_s=config.lease_s,
        heartbeat_s=config.heartbeat_s,
        drain_s=config.drain_s,
        timeout_s=config.timeout_s,
        hold_max_s=config.hold_max_s,
        probe_s=config.hold_probe_s,
        receipt_overdue_s=config.receipt_overdue_s,
        prefetch_max=config.prefetch_max,
        render_workers=config.render_workers,
        default_locale=config.default_locale,
        start_paused=orders.start_paused,
        alert_webhook=config.alert_webhook,
        secrets=_secrets(config, database_url),
        provider_settings=config.handler_settings(),
        secret_key=config.secret_key,
        public_url=config.public_url,
    )


def _secrets(config: Config, database_url: str) -> tuple[str, ...]:
    """Return what must not get into any error text, longest first."""
    urls = {database_url}
    found: set[str] = set()
    for name, spec in specs().items():
        value = getattr(config, name.lower())
        if value is not None and spec.secret:
            found.update(value.split())
        elif value is not None and spec.url:
            urls.add(value)
    for url in urls:
        password = urlsplit(url).password
        if password:
            found.update((password, unquote(password)))
    found.update(config.plugins.values())
    return tuple(sorted((s for s in found if len(s) >= SECRET_CHARS_MIN), key=len, reverse=True))
