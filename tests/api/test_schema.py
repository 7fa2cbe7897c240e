"""The OpenAPI document, and schemathesis against what it says."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from litestar.handlers import HTTPRouteHandler
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from outbox.config import Config
from outbox_api.app import ROUTES
from outbox_api.operations import operation_of
from outbox_api.server import serve_async
from tests.api.conftest import Api, free_port
from tests.postgres import Databases

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    negative_data_rejection,
    unsupported_method,
]


async def test_every_route_is_described_with_examples(open_api: Api) -> None:
    document = (await open_api.client.get("/schema")).json()
    assert document["openapi"] == "3.1.0"
    assert (await open_api.client.get("/schema/openapi.json")).json() == document
    # OpenAPI has no words for WebSockets: docs/channels.md and docs/stream.md tell of ours.
    described = [operation_of(route) for route in ROUTES if isinstance(route, HTTPRouteHandler)]
    for operation in described:
        if operation is None or operation.is_page:
            continue
        found = document["paths"][operation.path][operation.method.lower()]
        assert found["summary"]
        for parameter in found["parameters"]:
            if parameter["in"] == "path":
                assert parameter["example"]
        for media_type, body in found.get("requestBody", {}).get("content", {}).items():
            assert body.get("examples") or body.get("example"), (operation.path, media_type)
        for status, response in found["responses"].items():
            for media_type, body in response.get("content", {}).items():
                if media_type == "application/problem+json":
                    assert body["example"]["status"] == int(status)
        good = [answer for answer in operation.answers.values() if answer.kind is not None]
        assert not good or any(answer.example is not None for answer in good), operation.path


@pytest.fixture(scope="module")
def service(databases: Databases) -> Iterator[str]:
    """A service in a thread of its own, for clients that block; its URL."""
    with databases.clone() as database:
        config = Config(auth=False, port=free_port())
        ready = threading.Event()
        loop = asyncio.new_event_loop()
        stop = asyncio.Event()

        def run() -> None:
            loop.run_until_complete(
                serve_async(config, database.url, on_ready=lambda _: ready.set(), stop=stop)
            )
            loop.close()

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        assert ready.wait(20)
        yield f"http://127.0.0.1:{config.port}"
        loop.call_soon_threadsafe(stop.set)
        thread.join(20)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("mode", GenerationMode)
def test_no_request_gets_an_answer_that_the_document_does_not_foresee(
    service: str, mode: GenerationMode
) -> None:
    document = schemathesis.openapi.from_url(f"{service}/schema")
    failures: list[str] = []
    for found in document.get_all_operations():
        operation = found.ok()  # type: ignore[union-attr]
        if operation.path.endswith("/stream"):
            continue  # its answer has no end: see test_stream.py

        @seed(2026)
        @settings(
            max_examples=12,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def check(case: schemathesis.Case) -> None:  # type: ignore[type-arg]
            case.call_and_validate(checks=CHECKS, timeout=60)

        try:
            check()
        except Unsatisfiable:
            pass  # there is nothing to get wrong
        except Exception as error:
            told = "; ".join(map(str, (error, *getattr(error, "exceptions", ()))))
            failures.append(f"{operation.label}: {told}"[:1500])
    assert not failures, "\n\n".join(failures)
