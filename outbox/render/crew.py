"""One worker as the pool sees it: its process, what it holds, and what it is at."""

from __future__ import annotations

import asyncio
from collections import deque

from outbox.render.line import Slot
from outbox.render.process import WorkerProcess
from outbox.render.shelf import Shelf
from outbox.render.wire import (
    Frame,
    RenderCode,
    RenderFailure,
    RenderKind,
    TemplateSource,
    Work,
)

SOURCE_BYTES_MAX = 1024 * 1024
SCHEMA_BYTES_MAX = 256 * 1024
CONTEXT_BYTES_MAX = 2 * 1024 * 1024
CACHE_BYTES_MAX = 8 * 1024 * 1024
CACHE_SOURCES_MAX = 1_000


class Unsendable(Exception):
    """A request that can't go to a worker; the answer says why."""

    def __init__(self, answer: RenderFailure) -> None:
        self.answer = answer
        super().__init__(answer.message)


class Worker:
    """A process, what it holds, and what it is at."""

    def __init__(self, process: WorkerProcess) -> None:
        self.process = process
        self.sources: Shelf[TemplateSource] = Shelf(
            bytes_max=CACHE_BYTES_MAX, keys_max=CACHE_SOURCES_MAX
        )
        self.schemas: Shelf[bytes] = Shelf(bytes_max=CACHE_BYTES_MAX, keys_max=CACHE_SOURCES_MAX)
        self.at: deque[Slot] = deque()
        self.answered = 0
        self.watch: asyncio.TimerHandle | None = None
        self.seen = -1

    def place(self, slot: Slot, frame: Frame) -> int:
        """Add a slot to a frame, with what the worker lacks for it; return the bytes added."""
        request = slot.request
        if len(request.context_json) > CONTEXT_BYTES_MAX:
            raise _too_large("the data", CONTEXT_BYTES_MAX, "template.data", "permanent")
        size_bytes = len(request.context_json)
        schema = -1
        if request.schema_json is not None:
            known = self.schemas.find(request.schema_json)
            if known is None:
                if len(request.schema_json) > SCHEMA_BYTES_MAX:
                    raise _too_large(
                        "the schema", SCHEMA_BYTES_MAX, "template.broken", "configuration"
                    )
                known = self.schemas.put(request.schema_json, len(request.schema_json))
                frame.schemas[known] = request.schema_json
                size_bytes += len(request.schema_json)
            schema = known
        source = self.sources.find(request.source)
        if source is None:
            source_bytes = _size_bytes(request.source)
            source = self.sources.put(request.source, source_bytes)
            parts = (request.source.subject, request.source.text, request.source.html)
            frame.sources[source] = parts
            size_bytes += source_bytes
        locale = request.locale
        if locale is not None and not locale.isascii():
            locale = None
        frame.works.append(Work(slot.mode, source, schema, request.context_json, locale))
        return size_bytes

    def culprit(self) -> Slot | None:
        """Return the slot that a worker, which has ended, was working on."""
        begun, ended = self.process.progress()
        position = begun - 1 - self.answered
        if begun != ended + 1 or not 0 <= position < len(self.at):
            return None
        return self.at[position]


def _size_bytes(source: TemplateSource) -> int:
    parts = (source.subject, source.text, source.html)
    try:
        size_bytes = sum(len(part.encode()) for part in parts if part is not None)
    except UnicodeEncodeError:
        text = "the template holds a surrogate without its partner, which is no character"
        raise Unsendable(RenderFailure("template.broken", text, "configuration")) from None
    if size_bytes > SOURCE_BYTES_MAX:
        raise _too_large("the template", SOURCE_BYTES_MAX, "template.broken", "configuration")
    return size_bytes


def _too_large(what: str, bytes_max: int, code: RenderCode, kind: RenderKind) -> Unsendable:
    return Unsendable(RenderFailure(code, f"{what} is longer than {bytes_max} bytes", kind))
