"""What goes in and out of rendering, and what goes over the socket to a worker process.

A frame is its length (4 bytes, big-endian) and one MessagePack value: `Frame` towards the
worker, a list of `Answer` back, in the order of the works. An empty list says "ready".
"""

from __future__ import annotations

import re
import struct
from typing import Literal, TypeAlias

import msgspec

FRAME_HEADER = struct.Struct(">I")
FRAME_BYTES_MAX = 64 * 1024 * 1024
PROGRESS = struct.Struct("=QQ")
"""The page that a worker shares with its parent: how many works it began, how many it ended."""

EXIT_MEMORY = 101
"""The worker's exit code after it ran out of the memory that it may have."""

RenderCode: TypeAlias = Literal[
    "template.variable", "template.broken", "template.limit", "template.data", "render.unavailable"
]
RenderKind: TypeAlias = Literal["permanent", "configuration", "temporary"]


class TemplateSource(msgspec.Struct, frozen=True, kw_only=True, cache_hash=True):
    """The Jinja2 bodies of one template in one locale; a channel has those that it needs.

    Keep one object per template and version: the pool knows a source again by its value, and
    that is cheapest where it is the same object.
    """

    subject: str | None = None
    text: str | None = None
    html: str | None = None
    version: int | None = None
    code: str | None = None


class RenderRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One message to render.

    `context_json` is an object: the keys of the job's `data`, with `user`, `meta` and `job` over
    them (`join_context`). `schema_json`, where there is one, is a JSON Schema for `data`, that is
    for the context without those three keys.
    """

    source: TemplateSource
    context_json: bytes = b"{}"
    locale: str | None = None
    schema_json: bytes | None = None


class Rendered(msgspec.Struct, frozen=True, array_like=True, tag=0, gc=False):
    """The parts that the template has. A subject is one line."""

    subject: str | None
    text: str | None
    html: str | None


class RenderFailure(msgspec.Struct, frozen=True, array_like=True, tag=1, gc=False):
    """Why a message could not be rendered. `message` holds no value of the data.

    `template.variable` the context lacks a variable, which `message` names: permanent.
    `template.data`     the data breaks the schema, or the template can't use it: permanent.
    `template.broken`   syntax, unknown filter, a breach of the sandbox: configuration.
    `template.limit`    time, memory, depth or size. Permanent, as it may be this message's data;
                        configuration, once one source has broken its limits several times running.
    `render.unavailable` no worker process could do it now: temporary.
    """

    code: RenderCode
    message: str
    kind: RenderKind


class Problem(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What is wrong with a template: in which part (`schema` is one), and on which line from 1."""

    part: str
    line: int | None
    message: str


class Preview(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """A rendering for an author's eyes, and each variable that the context lacks, sorted.

    A variable is listed too where the template would do without it (`default`, `is defined`).
    """

    result: Rendered | RenderFailure
    missing: tuple[str, ...]


class Validation(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """All that is wrong with a source and its schema; empty when both can be used."""

    problems: tuple[Problem, ...]


Answer: TypeAlias = Rendered | RenderFailure | Preview | Validation

RENDER, PREVIEW, VALIDATE = 0, 1, 2


class Work(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One request, as the worker gets it: source and schema by number (-1: no schema)."""

    mode: int
    source: int
    schema: int
    context_json: bytes
    locale: str | None


class Frame(msgspec.Struct, frozen=True, array_like=True):
    """Sources and schemas that the worker has not seen, those it may forget, and the works."""

    sources: dict[int, tuple[str | None, str | None, str | None]]
    schemas: dict[int, bytes]
    forget_sources: list[int]
    forget_schemas: list[int]
    works: list[Work]


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What one message may cost. Time is the worker's CPU time; memory is all of its data."""

    time_s_max: float = 2.0
    memory_bytes_max: int = 256 * 1024 * 1024
    output_bytes_max: int = 1024 * 1024


def join_context(data_json: bytes, **objects: bytes) -> bytes:
    """Return `data_json` (an object) with further keys, whose values are JSON too, over its own.

    Nothing is parsed, so no number changes. What is no object is returned as it is, and comes
    back from rendering as `template.data`.
    """
    data = data_json.strip()
    if not objects or not (data.startswith(b"{") and data.endswith(b"}")):
        return data
    body = data[1:-1].strip()
    # The later of two equal keys wins in every JSON reader that we use.
    added = b",".join(b'"%s":%s' % (key.encode(), value) for key, value in objects.items())
    return b"{%s%s%s}" % (body, b"," if body else b"", added)


_ELEMENT = re.compile(
    r"<!doctype html|</?(?:html|head|body|div|span|p|br|hr|a|b|i|u|s|em|strong|small|h[1-6]|ul|ol"
    r"|li|dl|dt|dd|table|thead|tbody|tfoot|tr|td|th|img|style|font|center|blockquote|pre|code"
    r"|section|article|header|footer|main)(?:\s[^<>]*)?/?>",
    re.IGNORECASE,
)


def inline_source(content: str, subject: str | None = None) -> TemplateSource:
    """Return the source of a job's inline `content`: HTML where it has an HTML element in it."""
    if _ELEMENT.search(content) is not None:
        return TemplateSource(subject=subject, html=content)
    return TemplateSource(subject=subject, text=content)
