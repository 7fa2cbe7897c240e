"""The dashboard's pages, one module for each group."""

from outbox_api.dashboard.routes import (
    assets,
    dead_letters,
    directory,
    jobs,
    overview,
    queues,
    replays,
    signin,
    sink,
    templates,
)

ROUTES = [
    *assets.ROUTES,
    *signin.ROUTES,
    *overview.ROUTES,
    *queues.ROUTES,
    *jobs.ROUTES,
    *dead_letters.ROUTES,
    *replays.ROUTES,
    *templates.ROUTES,
    *directory.ROUTES,
    *sink.ROUTES,
]
