"""Where log lines go and how they look: stderr, JSON for machines or one line for people.

Called once by each process that we start; a producer who embeds the library keeps its own. Lines
never hold payloads, addresses or secrets: that is on whoever writes them. An exception is shown by
where it was raised and what it is; its message only where that cannot repeat a value.
"""

from __future__ import annotations

import logging
import sys
import traceback
from types import TracebackType
from typing import TextIO, TypeAlias

import structlog

from outbox.errors import OutboxError
from outbox.settings import LogFormat, LogLevel

_LEVELS: dict[LogLevel, int] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}

_SPEAKS_OF_CODE = (AttributeError, ImportError, NameError, OutboxError, RuntimeError, TypeError)
"""Exceptions whose messages are about code or settings. Others may repeat what a job holds: a
ValueError its argument, a KeyError the key, Postgres the row."""
_ExcInfo: TypeAlias = tuple[type[BaseException] | None, BaseException | None, TracebackType | None]


def configure_logging(
    *, level: LogLevel, log_format: LogFormat, process: str = "", stream: TextIO | None = None
) -> None:
    """Send all lines from `level` up to `stream` (stderr), those of other libraries from warning.

    `process` names this one of several in each line.
    """
    stream = stream or sys.stderr
    bound = {"process": process} if process else {}
    structlog.contextvars.clear_contextvars()
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _bind(bound),
    ]
    renderer: structlog.typing.Processor
    if log_format == "json":
        shared += [structlog.processors.ExceptionRenderer(_without_values), _head_first]
        renderer = structlog.processors.JSONRenderer()
    else:
        # The fancy one prints local variables: keys, addresses, payloads.
        renderer = structlog.dev.ConsoleRenderer(
            colors=stream.isatty(), exception_formatter=_print_without_values
        )
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        # One write a line: several processes share this stderr.
        logger_factory=structlog.WriteLoggerFactory(file=stream),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(_LEVELS[level], logging.WARNING))
    # The pool says each failed attempt to connect; whoever needed the connection says it, too.
    logging.getLogger("psycopg.pool").setLevel(logging.ERROR)
    logging.captureWarnings(True)


def _without_values(exc_info: _ExcInfo) -> str:
    """Return an exception and what it came of, the first cause first, without values."""
    error = exc_info[1]
    told: list[str] = []
    while error is not None:
        raised = "".join(traceback.format_tb(error.__traceback__))
        message = f": {error}" if isinstance(error, _SPEAKS_OF_CODE) else ""
        parts = [f"{type(error).__module__}.{type(error).__qualname__}{message}"]
        if isinstance(error, BaseExceptionGroup):
            parts += (_without_values((None, each, None)) for each in error.exceptions)
        told.append(raised + "\n".join(parts))
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return "\n\n".join(reversed(told))


def _print_without_values(stream: TextIO, exc_info: _ExcInfo) -> None:
    stream.write("\n" + _without_values(exc_info))


def _head_first(
    _logger: structlog.typing.WrappedLogger, _name: str, line: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Put what each line has in the same place, for the eye that skims them."""
    head = {
        key: line.pop(key) for key in ("timestamp", "level", "process", "event") if key in line
    }
    return {**head, **line}


def _bind(values: dict[str, str]) -> structlog.typing.Processor:
    def add(
        _logger: structlog.typing.WrappedLogger, _name: str, line: structlog.typing.EventDict
    ) -> structlog.typing.EventDict:
        for key, value in values.items():
            line.setdefault(key, value)
        return line

    return add
