"""What a log line looks like, and what is never in one."""

from __future__ import annotations

import json
import logging
import os
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
    authorization, name, address = "Bearer obx_secret", "Ann", "ann@example.com"
    try:
        try:
            os.environ[name]
        except KeyError as error:
            raise ValueError(address, len(authorization)) from error
    except ValueError:
        structlog.get_logger().exception("request failed", route="send")
    return stream.getvalue()


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_an_error_is_logged_with_its_place_and_without_the_values_it_worked_on(
    log_format: LogFormat,
) -> None:
    said = said_of_an_error(log_format)
    assert "request failed" in said
    assert "in said_of_an_error" in said
    assert said.index("KeyError") < said.index("ValueError")
    assert not any(value in said for value in ("obx_secret", "Ann", "example.com"))


def test_what_is_about_code_says_so_and_what_is_in_a_group_is_named() -> None:
    stream = StringIO()
    configure_logging(level="info", log_format="json", stream=stream)
    address = "ann@example.com"
    try:
        raise ExceptionGroup(address, [TypeError("no such thing"), KeyError(address)])
    except ExceptionGroup:
        structlog.get_logger().exception("failed")
    assert (
        "builtins.TypeError: no such thing\nbuiltins.KeyError"
        in json.loads(stream.getvalue())["exception"]
    )
    assert "ann@example.com" not in stream.getvalue()


def test_a_line_of_json_begins_with_when_how_bad_who_and_what() -> None:
    line = json.loads(said_of_an_error("json"))
    assert list(line)[:4] == ["timestamp", "level", "process", "event"]
    assert (line["level"], line["process"], line["route"]) == ("error", "api-1", "send")
