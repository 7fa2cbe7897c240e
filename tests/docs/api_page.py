"""docs/api.md, written from the OpenAPI document: `make docs`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from litestar.handlers import HTTPRouteHandler
from msgspec.structs import fields

from outbox_api.app import ROUTES
from outbox_api.openapi import openapi
from outbox_api.operations import Operation, operation_of

PAGE = Path(__file__).parent.parent.parent / "docs" / "api.md"
HEAD = """# HTTP API

Written from the OpenAPI document, which a running service has at `/schema`, with every field,
limit and answer.

- **Keys**: `Authorization: Bearer obx_…`. What a call needs is in the table: `jobs:write`,
  `jobs:read` or `admin`; `open` needs none. A key of one tenant sees that tenant's jobs, and
  another's are a 404.
- **Errors** are `application/problem+json` with every fault and a JSON pointer to it. `429` and
  `503` have a `Retry-After`.
- **Lists** answer `{"items": […], "next_cursor": null}`; hand the cursor back as `?cursor=` until
  there is none. A page of jobs may be short, even empty, before that: without `user_id`,
  `event_id`, `campaign_id` or `recipient`, some days are looked through at a time.
- **Once**: `Idempotency-Key` on every POST without an id of its own. **Why**: `Outbox-Reason`
  goes into the operator log.
- **Traces**: a `traceparent` is kept with the job, and goes on to its receiver.
"""


def api_page() -> str:
    """Return the page."""
    operations = [
        found
        for route in ROUTES
        if isinstance(route, HTTPRouteHandler)
        and (found := operation_of(route)) is not None
        and not found.is_page
    ]
    document = json.loads(openapi(operations, with_keys=True))
    return "\n".join([HEAD, *_sections(operations, document), *_sockets()])


def _sockets() -> Iterator[str]:
    yield "## WebSockets\n"
    yield "| call | does | needs | answers |\n|---|---|---|---|"
    for route in ROUTES:
        each = None if isinstance(route, HTTPRouteHandler) else operation_of(route)
        if each is not None and each.query is not None:
            asked = ", ".join(f"`{field.encode_name}`" for field in fields(each.query))
            answers = ", ".join(str(status) for status in (101, *each.problems))
            does = f"{each.summary}; by {asked}"
            yield f"| `{each.method} {each.path}` | {does} | `{each.needs}` | {answers} |"
    yield ""


def _sections(operations: list[Operation], document: dict[str, Any]) -> Iterator[str]:
    tags = list(dict.fromkeys(each.tag for each in operations))
    for tag in tags:
        yield f"## {tag.capitalize()}\n"
        yield "| call | does | needs | answers |\n|---|---|---|---|"
        for each in operations:
            if each.tag == tag:
                yield _row(each, document["paths"][each.path][each.method.lower()])
        yield ""


def _row(each: Operation, described: dict[str, Any]) -> str:
    asked = [f"`{p['name']}`" for p in described["parameters"] if p["in"] == "query"]
    does = described["summary"] + (f"; by {', '.join(asked)}" if asked else "")
    answers = ", ".join(sorted(described["responses"]))
    return f"| `{each.method} {each.path}` | {does} | `{each.needs}` | {answers} |"


if __name__ == "__main__":
    PAGE.write_text(api_page(), encoding="utf-8")
