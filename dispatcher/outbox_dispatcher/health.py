"""A dispatcher's own health and figures over HTTP, on `OUTBOX_METRICS_PORT`.

- `/health/live`: 200 while its loop of heartbeats turns, answered or not. It says nothing of the
  database: a restart would not bring that back, and the dispatcher waits for it by itself.
- `/health/ready`: 200 while its last heartbeat is fresh, so that it may start deliveries.
- `/metrics`: this process's figures (Prometheus text); the store's are the API's.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from time import monotonic
from typing import Literal

from aiohttp import web

from outbox.errors import ConfigError
from outbox.otel import Point, Series
from outbox_dispatcher.service import Dispatcher

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SHUTDOWN_S = 0.5
STUCK_S = 90.0
"""A loop that has not come round for so long never will: all that it waits for has shorter limits.
A new session takes up to 55 s to be refused: five connections of 5 s each, and a begin of 30 s.
"""


class Health:
    """What one dispatcher says of itself."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher

    async def live(self, _: web.Request) -> web.Response:
        """Tell whether the loop of heartbeats turns."""
        still_s = monotonic() - self._dispatcher.life.turned_at
        if still_s < STUCK_S:
            return web.json_response({"status": "ok"})
        reason = f"the loop of heartbeats has stood still for {still_s:.0f} s"
        return web.json_response({"status": "stuck", "reason": reason}, status=503)

    async def ready(self, _: web.Request) -> web.Response:
        """Tell whether deliveries may start."""
        if self._dispatcher.life.may_start():
            return web.json_response({"status": "ok"})
        body = {"status": "unavailable", "reason": "no fresh heartbeat in the database"}
        return web.json_response(body, status=503)

    async def metrics(self, _: web.Request) -> web.Response:
        """Return the figures."""
        return web.Response(body=self.text().encode(), headers={"Content-Type": CONTENT_TYPE})

    def text(self) -> str:
        """Return the figures as Prometheus text: fixed names, no labels."""
        lines = []
        for one in figures(self._dispatcher):
            lines += [
                f"# HELP {one.name} {one.about}",
                f"# TYPE {one.name} {one.kind}",
                f"{one.name} {one.points[0].value + 0:g}",
            ]
        return "\n".join(lines) + "\n"


def figures(dispatcher: Dispatcher) -> list[Series]:
    """Return what one process knows of itself."""
    rescued = dispatcher.liveness.rescued_total
    epoch_age_s = monotonic() - dispatcher.life.began_at if dispatcher.life.epoch else 0.0
    known: tuple[tuple[str, Literal["gauge", "counter"], str, float], ...] = (
        ("running", "gauge", "Deliveries that run.", len(dispatcher.executor.running)),
        ("outstanding", "gauge", "Jobs from claim to record.", dispatcher.outstanding()),
        ("rescued_total", "counter", "Taken from the dead.", rescued),
        ("destinations_shut", "gauge", "Paused, or broken.", dispatcher.gates.shut),
        ("held_back_total", "counter", "By destinations.", dispatcher.gates.held_back_total),
        ("ready", "gauge", "1: may start deliveries.", dispatcher.life.may_start()),
        ("epoch_age_seconds", "gauge", "Time since it last (re)connected.", epoch_age_s),
    )
    return [
        Series(
            name=f"outbox_dispatcher_{name}",
            kind=kind,
            about=about,
            points=(Point(labels={}, value=float(value)),),
        )
        for name, kind, about, value in known
    ]


@contextlib.asynccontextmanager
async def serve_health(dispatcher: Dispatcher, host: str, port: int) -> AsyncIterator[None]:
    """Answer on `host`:`port` meanwhile. Raises ConfigError if it is taken."""
    health = Health(dispatcher)
    app = web.Application()
    app.router.add_get("/health/live", health.live)
    app.router.add_get("/health/ready", health.ready)
    app.router.add_get("/metrics", health.metrics)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_S)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise ConfigError(
                f"OUTBOX_METRICS_PORT: {host}:{port} cannot be used: {error.strerror}."
            ) from error
        yield
    finally:
        await runner.cleanup()
