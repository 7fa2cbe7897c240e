"""Previews: a template rendered for its author's eyes (api.md 2)."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

import msgspec
from litestar.params import FromPath
from litestar.response.base import ASGIResponse
from msgspec import Meta

from outbox.errors import ConfigError, Fault
from outbox.render import RenderFailure, RenderRequest, TemplateSource, join_context
from outbox.store import catalog, jobs
from outbox.store.catalog import TemplateKey
from outbox_api import samples
from outbox_api.answers import JsonObject, answer, left_out
from outbox_api.operations import Answer, Body, operation
from outbox_api.problems import invalid, not_found, unavailable
from outbox_api.requests import ApiRequest, read_query, read_struct
from outbox_api.routes.job_views import locate_job
from outbox_api.routes.templates import (
    PART_CHARS_MAX,
    PATH,
    TEMPLATE_EXAMPLE,
    VersionQuery,
    template_key,
)
from outbox_api.runtime import runtime_of


class PreviewBody(msgspec.Struct, frozen=True, kw_only=True):
    """What to render with: given data, or those of a recorded job; parts to try unsaved."""

    data: JsonObject = msgspec.field(default_factory=left_out)
    user: JsonObject = msgspec.field(default_factory=left_out)
    meta: JsonObject = msgspec.field(default_factory=left_out)
    job_id: UUID | None = None
    subject: Annotated[str, Meta(max_length=4_096)] | None = None
    text: Annotated[str, Meta(max_length=PART_CHARS_MAX)] | None = None
    html: Annotated[str, Meta(max_length=PART_CHARS_MAX)] | None = None


class PreviewFault(msgspec.Struct, frozen=True, kw_only=True):
    """Why it cannot be rendered."""

    code: str
    message: str


class PreviewView(msgspec.Struct, frozen=True, kw_only=True):
    """A rendering, or why there is none; and the variables that the data lack."""

    subject: str | None
    text: str | None
    html: str | None
    missing: tuple[str, ...]
    error: PreviewFault | None


@operation(
    "POST",
    PATH + "/preview",
    summary="Render a template",
    tag="templates",
    needs="jobs:read",
    query=VersionQuery,
    body=Body(
        kind=PreviewBody,
        examples={
            "given": {"data": {"first_name": "Нуржан"}},
            "recorded": {"job_id": samples.JOB_ID},
        },
    ),
    answers={
        200: Answer(
            PreviewView,
            "The rendering, and what the data lack.",
            {
                "subject": "Добро пожаловать, Нуржан!",
                "text": None,
                "html": None,
                "missing": ["login_url"],
                "error": {"code": "template.variable", "message": "login_url is not in the data"},
            },
        )
    },
    problems=(400, 404, 409, 413, 415, 422),
    path_examples=TEMPLATE_EXAMPLE,
)
async def preview_template(
    request: ApiRequest, code: FromPath[str], channel: FromPath[str], locale: FromPath[str]
) -> ASGIResponse:
    """Render the stored parts, or parts to try, with given or recorded data."""
    query = read_query(request, VersionQuery)
    key = template_key(request, code, channel, locale, query.tenant_id)
    body = await read_struct(request, PreviewBody)
    return answer(await preview(request, key, query, body))


async def preview(
    request: ApiRequest, key: TemplateKey, query: VersionQuery, body: PreviewBody
) -> PreviewView:
    """Render a template. Raises Problem 404, 409, 422."""
    runtime = runtime_of(request)
    async with runtime.database.transaction(request.auth.sees, read_only=True) as connection:
        row = await catalog.get_template(connection, key, version=query.version)
        recorded = None
        if body.job_id is not None:
            found = await locate_job(connection, request, body.job_id, query.tenant_id)
            recorded = await jobs.show(connection, found.id)
    tried = TemplateSource(subject=body.subject, text=body.text, html=body.html)
    if tried == TemplateSource():
        if row is None or (query.version is None and row.deleted_at is not None):
            raise not_found("template")
        tried = TemplateSource(
            subject=row.subject, text=row.body_text, html=row.body_html, version=row.version
        )
    context = _context(body, recorded.job if recorded is not None else None)
    rendering = RenderRequest(
        source=tried,
        context_json=context,
        locale=key.locale,
        schema_json=row.schema.encode() if row is not None and row.schema is not None else None,
    )
    try:
        rendered = await (await runtime.renderer.pool()).preview(rendering)
    except ConfigError as error:
        raise unavailable("Templates cannot be rendered here.") from error
    if isinstance(rendered.result, RenderFailure):
        fault = PreviewFault(code=rendered.result.code, message=rendered.result.message)
        view = PreviewView(
            subject=None, text=None, html=None, missing=rendered.missing, error=fault
        )
    else:
        view = PreviewView(
            subject=rendered.result.subject,
            text=rendered.result.text,
            html=rendered.result.html,
            missing=rendered.missing,
            error=None,
        )
    return view


def _context(body: PreviewBody, recorded: str | None) -> bytes:
    """Return what the template gets to know. Raises Problem 422 for members that are no object."""
    given = {
        name: bytes(value)
        for name, value in (("data", body.data), ("user", body.user), ("meta", body.meta))
    }
    faults = [
        Fault(f"/{name}", "must be an object")
        for name, text in given.items()
        if text and not text.lstrip().startswith(b"{")
    ]
    if faults:
        raise invalid(faults)
    job = b"{}"
    if recorded is not None:
        members = msgspec.json.decode(recorded, type=dict[str, msgspec.Raw])
        job = recorded.encode()
        for name in ("data", "meta"):
            given[name] = given[name] or bytes(members.get(name, b""))
    texts = {name: text or b"{}" for name, text in given.items()}
    return join_context(texts["data"], user=texts["user"], meta=texts["meta"], job=job)


ROUTES = [preview_template]
