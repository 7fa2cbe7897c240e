"""The OpenAPI 3.1 document, made of the operations themselves, with an example for each route."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from importlib.metadata import version
from typing import Any

import msgspec

from outbox.errors import Fault
from outbox_api import samples, schemas
from outbox_api.answers import PROBLEM_JSON
from outbox_api.operations import Answer, Body, Operation
from outbox_api.problems import TITLES, Problem, ProblemDocument, document

REF = "#/components/schemas/{name}"

_PATH_SCHEMAS: Mapping[str, Mapping[str, object]] = {
    "uuid": {"type": "string", "format": "uuid"},
    "int": {"type": "integer", "minimum": 0},
    "str": {"type": "string", "minLength": 1},
}
_HEADERS: Mapping[str, tuple[str, Mapping[str, object], str]] = {
    "Idempotency-Key": (
        "Makes the id where the body has none: the same key is the same job.",
        {"minLength": 1, "maxLength": 255},
        "order-42",
    ),
    "Prefer": (
        "`wait=10` answers when the job ended, or after that many seconds.",
        {},
        "wait=0",
    ),
    "traceparent": (
        "W3C trace context; it goes on to the receiver.",
        {},
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    ),
    "Last-Event-ID": (
        "The id of the last event that was read: what came after it follows.",
        {"maxLength": 60_000},
        "k5PNAyzPAAABmoJcyDCQwMA",
    ),
}
_FAULTS = {
    400: [Fault("", "is not JSON at character 7")],
    409: [Fault("/job_id", "was accepted before with other content")],
    413: [Fault("", "must not be longer than 262144 bytes")],
    422: [Fault("/user_id", "is required unless to is given")],
}
_DESCRIPTION = """\
Hand over notifications and other outbound work; each job is delivered, or accounted for.

Errors are problem documents (RFC 9457) that list every fault with a JSON pointer. Lists answer
`{"items": […], "next_cursor": null}`. Times are RFC 3339; answers are in UTC."""


def openapi(operations: Iterable[Operation], *, with_keys: bool) -> bytes:
    """Return the document as JSON."""
    routes = list(operations)
    kinds = _kinds(routes)
    found, components = msgspec.json.schema_components(kinds, ref_template=REF)
    of_kind = dict(zip(map(repr, kinds), found, strict=True))
    for body in (route.body for route in routes if route.body is not None):
        if not isinstance(body.kind, str):
            components[body.kind.__name__]["additionalProperties"] = False
    of_queries = {route.query.__name__ for route in routes if route.query is not None}
    paths: dict[str, dict[str, object]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(
            route, of_kind, components, with_keys=with_keys
        )
    whole: dict[str, object] = {
        "openapi": "3.1.0",
        "info": {
            "title": "Outbox",
            "version": version("outbox"),
            "description": _DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": {
                **{name: found for name, found in components.items() if name not in of_queries},
                **schemas.NAMED,
            },
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer", "bearerFormat": "obx_…"}
            },
        },
    }
    return msgspec.json.encode(whole)


def _kinds(routes: list[Operation]) -> list[Any]:
    """Return each type that has a schema to be made, once."""
    kinds: dict[str, Any] = {repr(ProblemDocument): ProblemDocument}
    for route in routes:
        bodies = [route.body.kind] if route.body is not None else []
        for kind in [route.query, *bodies, *(answer.kind for answer in route.answers.values())]:
            if kind is not None and not isinstance(kind, str):
                kinds[repr(kind)] = kind
    return list(kinds.values())


def _operation(
    route: Operation,
    of_kind: Mapping[str, Any],
    components: Mapping[str, Any],
    *,
    with_keys: bool,
) -> dict[str, object]:
    described: dict[str, object] = {
        "operationId": route.name,
        "summary": route.summary,
        "description": route.description,
        "tags": [route.tag],
        "parameters": [*_path(route), *_query(route, of_kind, components), *_header(route)],
        "responses": _responses(route, of_kind, with_keys=with_keys),
    }
    if route.needs != "open" and with_keys:
        described["security"] = [{"key": []}]
        described["x-scope"] = route.needs
    if route.body is not None:
        described["requestBody"] = _body(route.body, of_kind)
    return described


def _path(route: Operation) -> list[dict[str, object]]:
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": _PATH_SCHEMAS[kind],
            "example": route.path_examples.get(name, "1"),
        }
        for name, kind in route.path_types.items()
    ]


def _query(
    route: Operation, of_kind: Mapping[str, Any], components: Mapping[str, Any]
) -> list[dict[str, object]]:
    if route.query is None:
        return []
    name = of_kind[repr(route.query)]["$ref"].rpartition("/")[2]
    schema: dict[str, Any] = components[name]
    return [
        {
            "name": key,
            "in": "query",
            "required": key in schema.get("required", ()),
            "schema": _without_null(value),
        }
        for key, value in schema["properties"].items()
    ]


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a parameter, which is left out rather than null."""
    choices = [choice for choice in schema.get("anyOf", ()) if choice.get("type") != "null"]
    if len(choices) == 1:
        return choices[0]  # type: ignore[no-any-return]  # a schema is JSON
    return {
        key: value for key, value in schema.items() if not (key == "default" and value is None)
    }


def _header(route: Operation) -> list[dict[str, object]]:
    return [
        {
            "name": name,
            "in": "header",
            "required": False,
            "description": _HEADERS[name][0],
            "schema": {"type": "string", **_HEADERS[name][1]},
            "example": _HEADERS[name][2],
        }
        for name in route.headers
    ]


def _body(body: Body, of_kind: Mapping[str, Any]) -> dict[str, object]:
    examples = {name: {"value": value} for name, value in body.examples.items()}
    content: dict[str, object] = {}
    for media_type in body.media_types:
        if media_type == "application/x-ndjson":
            schema: object = {"type": "string", "description": "A JSON value a line."}
            content[media_type] = {
                "schema": schema,
                "example": msgspec.json.encode(samples.JOB).decode() + "\n",
            }
        else:
            content[media_type] = {"schema": _schema(body.kind, of_kind), "examples": examples}
    return {"required": body.required, "content": content}


def _responses(
    route: Operation, of_kind: Mapping[str, Any], *, with_keys: bool
) -> dict[str, object]:
    responses: dict[str, object] = {
        str(status): _answer(answer, of_kind) for status, answer in route.answers.items()
    }
    usual = {500, 503}
    if route.needs != "open" and with_keys:
        usual |= {401, 403}
    if not route.lenient:
        usual.add(400)
        if route.body is None and route.method != "GET":
            usual |= {413, 415, 422}  # of a body, where none is taken
    if route.path_types:
        usual.add(404)
    usual.add(403)
    for status in sorted(usual | set(route.problems)):
        responses.setdefault(str(status), _problem(status, route.path))
    return responses


def _answer(answer: Answer, of_kind: Mapping[str, Any]) -> dict[str, object]:
    described: dict[str, object] = {"description": answer.description}
    if answer.kind is not None:
        content: dict[str, object] = {"schema": _schema(answer.kind, of_kind)}
        if answer.example is not None:
            content["example"] = answer.example
        described["content"] = {answer.media_type: content}
    elif answer.media_type != "application/json":
        described["content"] = {answer.media_type: {"schema": {"type": "string"}}}
    return described


def _problem(status: int, path: str) -> dict[str, object]:
    title = TITLES.get(status, ("", HTTPStatus(status).phrase))[1]
    faults = _FAULTS.get(status, [])
    detail = f"{faults[0].pointer} {faults[0].message}.".lstrip() if faults else f"{title}."
    example = document(Problem(status, detail, errors=faults), path)
    return {
        "description": title,
        "content": {
            PROBLEM_JSON: {
                "schema": {"$ref": REF.format(name="ProblemDocument")},
                "example": msgspec.to_builtins(example),
            }
        },
    }


def _schema(kind: type[Any] | str, of_kind: Mapping[str, Any]) -> object:
    if isinstance(kind, str):
        return {"$ref": REF.format(name=kind)}
    return of_kind[repr(kind)]
