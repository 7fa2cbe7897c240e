"""The OpenAPI document, where people and machines look for it."""

from __future__ import annotations

from typing import Any

from litestar.response.base import ASGIResponse

from outbox_api.answers import raw_answer
from outbox_api.operations import Answer, operation
from outbox_api.requests import ApiRequest
from outbox_api.runtime import runtime_of


@operation(
    "GET",
    "/schema",
    summary="Show this document",
    tag="schema",
    needs="open",
    answers={200: Answer(dict[str, Any], "OpenAPI 3.1.", {"openapi": "3.1.0"})},
    prefix="",
)
async def schema(request: ApiRequest) -> ASGIResponse:
    """Show the OpenAPI document."""
    return raw_answer(runtime_of(request).openapi_json)


@operation(
    "GET",
    "/schema/openapi.json",
    summary="Show this document",
    tag="schema",
    needs="open",
    answers={200: Answer(dict[str, Any], "OpenAPI 3.1.", {"openapi": "3.1.0"})},
    prefix="",
)
async def schema_file(request: ApiRequest) -> ASGIResponse:
    """Show the OpenAPI document, under the name that tools expect."""
    return raw_answer(runtime_of(request).openapi_json)


ROUTES = [schema, schema_file]
