"""What all handlers share: one per app, made at composition, opened with the server."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import cast

from outbox import otel
from outbox.config import Config
from outbox.errors import StoreUnavailable
from outbox.opting_out import OptOutLinks
from outbox.render import RenderPool
from outbox.sealing import Keyring
from outbox.store.pool import Database
from outbox_api.alerting import Alerting
from outbox_api.auth import KeyRing
from outbox_api.dashboard.sessions import Sessions
from outbox_api.doorbell import Doorbell
from outbox_api.following import Tail
from outbox_api.gauges import Gauges, read_attempts, read_queues
from outbox_api.intake import Intake
from outbox_api.live import SOCKET_S_MAX, SOCKETS_MAX, Streams
from outbox_api.metrics import HttpMetrics, series
from outbox_api.presence import Presence
from outbox_api.requests import ApiSocket, Incoming
from outbox_api.sockets import Hub
from outbox_api.waiting import Waiting


class Runtime:
    """The services behind the handlers."""

    def __init__(self, config: Config, database_url: str) -> None:
        self.config = config
        self.telemetry = otel.start("api")
        self.tracer = None if self.telemetry is None else self.telemetry.tracer
        self.database = Database(database_url, size_max=config.pool_size)
        if self.tracer is not None:
            from outbox_api.tracing import TracedDatabase

            self.database = TracedDatabase(
                database_url, size_max=config.pool_size, tracer=self.tracer
            )
        self.keys = KeyRing(self.database, config.admin_key)
        self.sessions = Sessions(self.database, config)
        self.sealing = Keyring(config.secret_key)
        self.links = OptOutLinks(config.public_url, self.sealing)
        self.bell = Doorbell(database_url)
        self.intake = Intake(self.database, self.bell.ring)
        if self.tracer is not None:
            from outbox_api.tracing import TracedIntake

            self.intake = TracedIntake(self.database, self.bell.ring, self.tracer)
        self.waiting = Waiting(self.database)
        self.gauges = Gauges(self.database, read_queues)
        self.attempts = Gauges(self.database, read_attempts)
        self.alerting = Alerting(config, self.database, self.gauges)
        self.presence = Presence(self.database)
        self.hub = Hub(self.database, self.presence)
        self.metrics = HttpMetrics()
        self.renderer = Renderer()
        self.openapi_json = b"{}"
        self.leaving = False
        """A SIGTERM has come: requests are answered, and nobody should send more."""
        self.streams = Streams()
        self.sockets = Streams(open_max=SOCKETS_MAX, open_s_max=SOCKET_S_MAX)
        self.tail = Tail(self.database)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Open what needs an event loop, and close it in order: what was accepted is stored."""
        async with self.database, self.bell:
            self.presence.start()
            self.alerting.start()
            sending = None
            if self.telemetry is not None and self.telemetry.wants_metrics:
                sending = asyncio.create_task(
                    self.telemetry.send_metrics_forever(self._series), name="metrics"
                )
            try:
                yield
            finally:
                if sending is not None:
                    sending.cancel()
                    await asyncio.gather(sending, return_exceptions=True)
                await self.tail.close()
                await self.hub.close()
                await self.alerting.close()
                await self.intake.close()
                await self.waiting.close()
                await self.gauges.close()
                await self.attempts.close()
                await self.renderer.close()
                await self.presence.close()
                if self.telemetry is not None:
                    await self.telemetry.close()

    async def _series(self) -> list[otel.Series]:
        """Return what /metrics shows, to be sent."""
        snapshot = attempts = None
        with contextlib.suppress(StoreUnavailable):
            snapshot, attempts = await self.gauges.look(), await self.attempts.look()
        return series(self.metrics, snapshot, attempts)


class Renderer:
    """The render processes, started when the first template is checked or previewed."""

    def __init__(self) -> None:
        self._pool: RenderPool | None = None
        self._starting = asyncio.Lock()

    async def pool(self) -> RenderPool:
        """Return the pool. Raises ConfigError if it can't be started."""
        async with self._starting:
            if self._pool is None:
                pool = RenderPool(workers=1)
                await pool.__aenter__()
                self._pool = pool
            return self._pool

    async def close(self) -> None:
        """End the processes, if there are any."""
        if self._pool is not None:
            await self._pool.__aexit__(None, None, None)


def runtime_of(request: Incoming | ApiSocket) -> Runtime:
    """Return the app's runtime."""
    return cast(Runtime, request.app.state.runtime)
