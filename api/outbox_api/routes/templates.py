"""Templates: every PUT that changes something is a new version (api.md 2)."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from urllib.parse import quote

import msgspec
from litestar.params import FromPath
from litestar.response.base import ASGIResponse
from msgspec import Meta

from outbox.errors import ConfigError, Fault
from outbox.rehearsal import MISHAPS_SHOWN_MAX, PAYLOADS_MAX, rehearse
from outbox.render import RenderPool, TemplateSource, normalise_locale
from outbox.store import catalog
from outbox.store.catalog import (
    KeepContent,
    OnAmbiguous,
    TemplateKey,
    TemplateParts,
    TemplateRow,
    TemplateSummary,
)
from outbox_api import samples
from outbox_api.answers import (
    Page,
    answer,
    left_out,
    no_content,
    raw,
    write_cursor,
    written,
)
from outbox_api.operations import PREFIX, Answer, Body, operation
from outbox_api.paging import Limit
from outbox_api.problems import NO_SEGMENT, UNREACHABLE, invalid, not_found, unavailable
from outbox_api.requests import ApiRequest, read_query, read_struct
from outbox_api.routes.job_views import cursor_number
from outbox_api.runtime import Runtime, runtime_of
from outbox_api.schemas import CHANNELS
from outbox_api.tenancy import TenantId, TenantQuery, one_tenant
from outbox_api.text_cursors import read_text_cursor, write_text_cursor

PART_CHARS_MAX = 524_288
PATH = "/templates/{code:str}/{channel:str}/{locale:str}"

JsonSchema = Annotated[msgspec.Raw, Meta(extra_json_schema={"type": ["object", "boolean"]})]
Part = Annotated[str, Meta(min_length=1, max_length=PART_CHARS_MAX)]


class TemplateBody(msgspec.Struct, frozen=True, kw_only=True):
    """The parts that the channel has: Jinja2. `schema` is a JSON Schema for a job's `data`.

    `on_ambiguous`: what becomes of a delivery that went out and was never answered.
    """

    subject: Annotated[str, Meta(min_length=1, max_length=4_096)] | None = None
    text: Part | None = None
    html: Part | None = None
    schema: JsonSchema = msgspec.field(default_factory=left_out)
    keep_content: KeepContent = "hash"
    on_ambiguous: OnAmbiguous = "resend"


class TemplateView(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a template."""

    tenant_id: str
    code: str
    channel: str
    locale: str
    version: int
    subject: str | None
    text: str | None
    html: str | None
    schema: msgspec.Raw | None
    keep_content: KeepContent
    on_ambiguous: OnAmbiguous
    created_at: datetime
    created_by: str | None
    deleted_at: datetime | None


class PutQuery(TenantQuery, frozen=True, kw_only=True):
    """`force`: store it though payloads of late cannot be rendered with it."""

    force: bool = False


class VersionQuery(TenantQuery, frozen=True, kw_only=True):
    """Which version; left out, the newest."""

    version: Annotated[int, Meta(ge=1, le=2_147_483_647)] | None = None


class VersionsQuery(TenantQuery, frozen=True, kw_only=True):
    """A page of versions."""

    limit: Limit = 50
    cursor: Annotated[str, Meta(max_length=64)] | None = None


class TemplatesQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which templates."""

    tenant_id: TenantId | None = None
    code: Annotated[str, Meta(max_length=128)] | None = None
    channel: Annotated[str, Meta(max_length=32)] | None = None
    limit: Limit = 100
    cursor: Annotated[str, Meta(max_length=1_024)] | None = None


_BODY = {
    "subject": "Добро пожаловать, {{ first_name }}!",
    "text": "Здравствуйте, {{ first_name }}. Вход: {{ login_url }}",
    "html": '<p>Здравствуйте, {{ first_name }}. <a href="{{ login_url }}">Вход</a></p>',
    "schema": {"type": "object", "required": ["first_name", "login_url"]},
    "keep_content": "hash",
    "on_ambiguous": "resend",
}
_VIEW = _BODY | {
    "tenant_id": "default",
    "code": "welcome_email",
    "channel": "email",
    "locale": "ru",
    "version": 1,
    "created_at": samples.AT,
    "created_by": "admin key",
    "deleted_at": None,
}
_SUMMARY = {k: v for k, v in _VIEW.items() if k not in ("text", "html", "schema", "deleted_at")}
TEMPLATE_EXAMPLE = {"code": "welcome_email", "channel": "email", "locale": "ru"}


def template_key(
    request: ApiRequest, code: str, channel: str, locale: str, tenant_id: str | None
) -> TemplateKey:
    """Return which template the path names. Raises Problem 422."""
    faults = []
    if not 1 <= len(code) <= 128:
        faults.append(Fault("/path/code", "must have 1 to 128 characters"))
    elif code in UNREACHABLE:
        faults.append(Fault("/path/code", NO_SEGMENT))
    if channel not in CHANNELS:
        faults.append(Fault("/path/channel", f"must be one of {', '.join(CHANNELS)}"))
    tag = normalise_locale(locale)
    if tag is None or len(tag) > 35:
        faults.append(Fault("/path/locale", "must be a language tag"))
    if faults or tag is None:
        raise invalid(faults)
    return TemplateKey(
        tenant=one_tenant(request.auth, tenant_id),
        code=code,
        channel="inbox" if channel == "database" else channel,
        locale=tag,
    )


@operation(
    "PUT",
    PATH,
    summary="Store a template",
    tag="templates",
    needs="admin",
    query=PutQuery,
    body=Body(kind=TemplateBody, examples={"welcome": _BODY}),
    answers={
        201: Answer(TemplateView, "The first version.", _VIEW),
        200: Answer(TemplateView, "A new version; or the same one, for the same content.", _VIEW),
    },
    problems=(400, 413, 415, 422),
    path_examples=TEMPLATE_EXAMPLE,
)
async def put_template(
    request: ApiRequest, code: FromPath[str], channel: FromPath[str], locale: FromPath[str]
) -> ASGIResponse:
    """Check a template's syntax and its schema, and make a version of it.

    Without `force`, only if the newest real payloads can be rendered with it.
    """
    query = read_query(request, PutQuery)
    key = template_key(request, code, channel, locale, query.tenant_id)
    body = await read_struct(request, TemplateBody)
    stored, changed = await save_template(request, key, body, force=query.force)
    location = f"{PREFIX}/templates/{quote(key.code, safe='')}/{key.channel}/{key.locale}"
    return answer(
        _view(stored),
        status=201 if changed and stored.version == 1 else 200,
        headers={"location": location},
    )


async def save_template(
    request: ApiRequest, key: TemplateKey, body: TemplateBody, *, force: bool
) -> tuple[TemplateRow, bool]:
    """Check a template and make a version of it; tell whether it is new. Raises Problem 422.

    Without `force` it must be able to render the newest payloads.
    """
    if body.text is None and body.html is None:
        raise invalid([Fault("", "must have a text or an html")])
    runtime = runtime_of(request)
    pool = await _renderer(runtime)
    await _check(pool, body)
    parts = TemplateParts(
        subject=body.subject,
        text=body.text,
        html=body.html,
        schema=written(body.schema),
        keep_content=body.keep_content,
        on_ambiguous=body.on_ambiguous,
    )
    if not force:
        await _rehearse(request, pool, key, parts)
    async with runtime.database.transaction(request.auth.sees) as connection:
        return await catalog.put_template(connection, key, parts, actor=request.auth.name)


async def _renderer(runtime: Runtime) -> RenderPool:
    try:
        return await runtime.renderer.pool()
    except ConfigError as error:
        raise unavailable("Templates cannot be checked here.") from error


async def _rehearse(
    request: ApiRequest, pool: RenderPool, key: TemplateKey, parts: TemplateParts
) -> None:
    async with runtime_of(request).database.transaction(
        request.auth.sees, read_only=True
    ) as connection:
        if catalog.is_stored(await catalog.get_template(connection, key), parts):
            return
        payloads = await catalog.recent_payloads(connection, key, limit=PAYLOADS_MAX)
    source = TemplateSource(subject=parts.subject, text=parts.text, html=parts.html)
    schema = None if parts.schema is None else parts.schema.encode()
    mishaps = await rehearse(pool, key, source, payloads, schema_json=schema)
    if mishaps:
        raise invalid(
            [Fault("", str(mishap)) for mishap in mishaps[:MISHAPS_SHOWN_MAX]],
            detail=f"Nothing was stored: of the newest {len(payloads)} payloads "
            f"{len(mishaps)} cannot be rendered with it in {key.locale}. With ?force=true it is "
            "stored all the same.",
        )


async def _check(pool: RenderPool, body: TemplateBody) -> None:
    source = TemplateSource(subject=body.subject, text=body.text, html=body.html)
    schema = bytes(body.schema) or None
    problems = await pool.validate(source, schema_json=schema)
    if problems:
        raise invalid(
            [
                Fault(
                    f"/{problem.part}" if problem.part != "template" else "",
                    f"line {problem.line}: {problem.message}" if problem.line else problem.message,
                )
                for problem in problems
            ]
        )


@operation(
    "GET",
    PATH,
    summary="Show a template",
    tag="templates",
    needs="jobs:read",
    query=VersionQuery,
    answers={200: Answer(TemplateView, "The newest version, or the one asked for.", _VIEW)},
    problems=(400, 404, 422),
    path_examples=TEMPLATE_EXAMPLE,
)
async def show_template(
    request: ApiRequest, code: FromPath[str], channel: FromPath[str], locale: FromPath[str]
) -> ASGIResponse:
    """Show a template. A deleted one is shown only by its version."""
    query = read_query(request, VersionQuery)
    key = template_key(request, code, channel, locale, query.tenant_id)
    async with runtime_of(request).database.transaction(
        request.auth.sees, read_only=True
    ) as connection:
        row = await catalog.get_template(connection, key, version=query.version)
    if row is None or (query.version is None and row.deleted_at is not None):
        raise not_found("template")
    return answer(_view(row))


@operation(
    "DELETE",
    PATH,
    summary="Take a template out of use",
    tag="templates",
    needs="admin",
    query=TenantQuery,
    answers={204: Answer(None, "Out of use; its versions are kept, as jobs were made with them.")},
    problems=(404, 422),
    path_examples=TEMPLATE_EXAMPLE,
)
async def delete_template(
    request: ApiRequest, code: FromPath[str], channel: FromPath[str], locale: FromPath[str]
) -> ASGIResponse:
    """Delete a template. A later PUT goes on with the next version."""
    key = template_key(request, code, channel, locale, read_query(request, TenantQuery).tenant_id)
    async with runtime_of(request).database.transaction(request.auth.sees) as connection:
        if not await catalog.delete_template(connection, key):
            raise not_found("template")
    return no_content()


@operation(
    "GET",
    PATH + "/versions",
    summary="List a template's versions, newest first",
    tag="templates",
    needs="jobs:read",
    query=VersionsQuery,
    answers={
        200: Answer(
            Page[TemplateView], "A page of versions.", {"items": [_VIEW], "next_cursor": None}
        )
    },
    problems=(400, 404, 422),
    path_examples=TEMPLATE_EXAMPLE,
)
async def list_versions(
    request: ApiRequest, code: FromPath[str], channel: FromPath[str], locale: FromPath[str]
) -> ASGIResponse:
    """List every version, deleted ones too."""
    query = read_query(request, VersionsQuery)
    key = template_key(request, code, channel, locale, query.tenant_id)
    before = cursor_number(query.cursor)
    if before is not None:
        before = min(before, 2_147_483_647)
    async with runtime_of(request).database.transaction(
        request.auth.sees, read_only=True
    ) as connection:
        rows = await catalog.template_versions(
            connection, key, before=before, limit=query.limit + 1
        )
    if not rows and before is None:
        raise not_found("template")
    shown = rows[: query.limit]
    more = write_cursor(shown[-1].version) if len(rows) > query.limit else None
    return answer(Page(items=[_view(row) for row in shown], next_cursor=more))


@operation(
    "GET",
    "/templates",
    summary="List templates",
    tag="templates",
    needs="jobs:read",
    query=TemplatesQuery,
    answers={
        200: Answer(
            Page[TemplateSummary],
            "A page of templates.",
            {"items": [_SUMMARY], "next_cursor": None},
        )
    },
    problems=(400,),
)
async def list_templates(request: ApiRequest) -> ASGIResponse:
    """List the templates in use, by code, channel and locale."""
    query = read_query(request, TemplatesQuery)
    after = read_text_cursor(query.cursor)
    async with runtime_of(request).database.transaction(
        request.auth.sees, read_only=True
    ) as connection:
        rows = await catalog.list_templates(
            connection,
            tenant=one_tenant(request.auth, query.tenant_id),
            code=query.code,
            channel="inbox" if query.channel == "database" else query.channel,
            after=after,
            limit=query.limit + 1,
        )
    shown = rows[: query.limit]
    more = None
    if len(rows) > query.limit:
        more = write_text_cursor(shown[-1].code, shown[-1].channel, shown[-1].locale)
    return answer(Page(items=shown, next_cursor=more))


def _view(row: TemplateRow) -> TemplateView:
    return TemplateView(
        tenant_id=row.tenant_id,
        code=row.code,
        channel=row.channel,
        locale=row.locale,
        version=row.version,
        subject=row.subject,
        text=row.body_text,
        html=row.body_html,
        schema=raw(row.schema),
        keep_content=row.keep_content,
        on_ambiguous=row.on_ambiguous,
        created_at=row.created_at,
        created_by=row.created_by,
        deleted_at=row.deleted_at,
    )


ROUTES = [
    put_template,
    show_template,
    delete_template,
    list_versions,
    list_templates,
]
