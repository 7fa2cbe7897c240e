"""Composition: one Litestar app out of settings and a database."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator

from litestar import Litestar
from litestar.datastructures import State
from litestar.handlers import HTTPRouteHandler
from litestar.middleware import DefineMiddleware

from outbox.config import Config
from outbox_api.dashboard import routes as dashboard
from outbox_api.dashboard.errors import page_or_problem
from outbox_api.gate import Gate
from outbox_api.hotpath import OutboxApp
from outbox_api.openapi import openapi
from outbox_api.operations import operation_of
from outbox_api.routes import (
    alerts,
    callbacks,
    contents,
    dead_letters,
    destinations,
    devices,
    endpoints,
    events,
    job_actions,
    job_views,
    jobs,
    keys,
    lanes,
    monitoring,
    notifications,
    operator_log,
    previews,
    providers,
    queues,
    recipients,
    replays,
    rules,
    schedules,
    schema,
    sink,
    sockets,
    stream,
    suppressions,
    templates,
    tenants,
    unsubscribe,
)
from outbox_api.runtime import Runtime

ROUTES = [
    *jobs.ROUTES,
    *job_views.ROUTES,
    *contents.ROUTES,
    *job_actions.ROUTES,
    *dead_letters.ROUTES,
    *replays.ROUTES,
    *templates.ROUTES,
    *previews.ROUTES,
    *recipients.ROUTES,
    *devices.ROUTES,
    *notifications.ROUTES,
    *events.ROUTES,
    *rules.ROUTES,
    *schedules.ROUTES,
    *queues.ROUTES,
    *lanes.ROUTES,
    *destinations.ROUTES,
    *sink.ROUTES,
    *stream.ROUTES,
    *sockets.ROUTES,
    *operator_log.ROUTES,
    *suppressions.ROUTES,
    *keys.ROUTES,
    *tenants.ROUTES,
    *providers.ROUTES,
    *endpoints.ROUTES,
    *callbacks.ROUTES,
    *unsubscribe.ROUTES,
    *monitoring.ROUTES,
    *alerts.ROUTES,
    *schema.ROUTES,
    *dashboard.ROUTES,
]


def build_app(config: Config, *, database_url: str) -> Litestar:
    """Return the app. `database_url` is a login that is no superuser; it may be down."""
    runtime = Runtime(config, database_url)
    over_http = [route for route in ROUTES if isinstance(route, HTTPRouteHandler)]
    operations = [found for found in map(operation_of, over_http) if found is not None]
    runtime.openapi_json = openapi(
        [found for found in operations if not found.is_page], with_keys=config.auth
    )
    methods: dict[str, set[str]] = defaultdict(set)
    for found in operations:
        methods[found.path].add(found.method)

    @contextlib.asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncIterator[None]:
        async with runtime.running():
            yield

    kind = OutboxApp
    if runtime.tracer is not None:
        from outbox_api.tracing import TracedApp

        TracedApp.tracer = runtime.tracer
        kind = TracedApp
    app = kind(
        route_handlers=ROUTES,
        middleware=[DefineMiddleware(Gate, runtime=runtime, methods=methods)],
        exception_handlers={Exception: page_or_problem},
        lifespan=[lifespan],
        state=State({"runtime": runtime}),
        openapi_config=None,
        logging_config=None,
        request_max_body_size=None,
        debug=False,
    )
    app.runtime = runtime
    return app
