"""What a log line looks like, and what is never in one."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from io import StringIO

import pytest
import structlog

from outbox.logging_setup import configure_logging
from outbox.settings import LogFormat


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)


def said_of_an_error(log_format: LogFormat) -> str:
    stream = StringIO()
    configure_logging(level="info", log_format=log_format, process="api-1", stream=stream)
    authorization = "Bearer " + "obx_secret"
    try:
        raise RuntimeError(f"gone, {len(authorization)}")
    except RuntimeError:
        structlog.get_logger().exception("request failed", route="send")
    return stream.getvalue()


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_an_error_is_logged_with_its_place_and_without_the_values_it_worked_on(
    log_format: LogFormat,
) -> None:
    said = said_of_an_error(log_format)
    assert "request failed" in said
    assert "in said_of_an_error" in said
    assert "obx_secret" not in said


def test_a_line_of_json_begins_with_when_how_bad_who_and_what() -> None:
    line = json.loads(said_of_an_error("json"))
    assert list(line)[:4] == ["timestamp", "level", "process", "event"]
    assert (line["level"], line["process"], line["route"]) == ("error", "api-1", "send")
