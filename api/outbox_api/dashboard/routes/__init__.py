"""The dashboard's pages, one module for each group."""

from outbox_api.dashboard.routes import (
    assets,
    dead_letters,
    directory,
    jobs,
    overview,
    queues,
    replays,
    schedules,
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
    *schedules.ROUTES,
    *directory.ROUTES,
    *sink.ROUTES,
]
