"""Rendering: Jinja2 templates in worker processes, bounded in time, memory and output.

    async with RenderPool(workers=1) as pool:
        answers = await pool.render_many(requests)   # Rendered | RenderFailure, in order

A template is a tenant's program. It runs in a sandbox, in a process of its own that has limits
and no secrets, and that can be killed; the caller's process never imports a template library.
`wire` has the values, `pool` the caller's side, `worker` and `engine` the other one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from outbox.render.locale import locale_chain, normalise_locale
from outbox.render.wire import (
    Limits,
    Preview,
    Problem,
    Rendered,
    RenderFailure,
    RenderRequest,
    TemplateSource,
    inline_source,
    join_context,
)

if TYPE_CHECKING:
    from outbox.render.pool import RenderPool

__all__ = [
    "Limits",
    "Preview",
    "Problem",
    "RenderFailure",
    "RenderPool",
    "RenderRequest",
    "Rendered",
    "TemplateSource",
    "inline_source",
    "join_context",
    "locale_chain",
    "normalise_locale",
]


def __getattr__(name: str) -> object:
    """Import the pool when it is asked for: a worker, which needs no event loop, starts sooner."""
    if name == "RenderPool":
        from outbox.render.pool import RenderPool

        return RenderPool
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
