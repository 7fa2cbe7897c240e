"""What the pages load: a style sheet and scripts, all from this host."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from litestar.params import FromPath
from litestar.response.base import ASGIResponse

from outbox_api.dashboard.rendering import page_route
from outbox_api.problems import not_found
from outbox_api.requests import ApiRequest

TYPES = {"css": "text/css", "js": "text/javascript", "txt": "text/plain", "svg": "image/svg+xml"}
CACHE_S = 300


@page_route("GET", "/assets/{name:str}", summary="Show what pages load", needs="open")
async def asset(request: ApiRequest, name: FromPath[str]) -> ASGIResponse:
    """Show one file."""
    found = _assets().get(name)
    if found is None:
        raise not_found("file")
    headers = {"x-content-type-options": "nosniff", "cache-control": f"max-age={CACHE_S}"}
    media_type = TYPES[name.rpartition(".")[2]]
    return ASGIResponse(body=found, media_type=media_type, headers=headers)


@cache
def _assets() -> dict[str, bytes]:
    folder = files("outbox_api").joinpath("dashboard", "assets")
    return {each.name: each.read_bytes() for each in folder.iterdir() if each.is_file()}


ROUTES = [asset]
