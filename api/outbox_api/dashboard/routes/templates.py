"""Templates: edited beside their preview, with versions, what changed, and a test send."""

from __future__ import annotations

import difflib
from typing import Annotated, Literal
from urllib.parse import quote

import msgspec
from litestar.params import FromPath
from litestar.response.base import ASGIResponse
from msgspec import Meta

from outbox.errors import Fault
from outbox.store import catalog, sink
from outbox.store.catalog import KeepContent, OnAmbiguous, TemplateKey, TemplateRow
from outbox_api.answers import left_out
from outbox_api.dashboard.rendering import (
    as_struct,
    framed,
    page,
    page_route,
    query_of,
    read_form,
    told,
)
from outbox_api.problems import Problem, invalid, not_found
from outbox_api.requests import ApiRequest
from outbox_api.routes.previews import PreviewBody, PreviewView, preview
from outbox_api.routes.templates import (
    TemplateBody,
    VersionQuery,
    save_template,
    template_key,
)
from outbox_api.runtime import runtime_of
from outbox_api.tenancy import one_tenant

PATH = "/templates/{code:str}/{channel:str}/{locale:str}"
LISTED = 500
VERSIONS_SHOWN = 50

Text = Annotated[str, Meta(max_length=128)]


class ListQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whose templates."""

    tenant_id: Text | None = None


class EditQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which version, whose."""

    version: Annotated[int, Meta(ge=1, le=2_147_483_647)] | None = None
    tenant_id: Text | None = None


class TemplateForm(msgspec.Struct, frozen=True, kw_only=True):
    """What the editor holds. `data` and `schema` are JSON text."""

    subject: str | None = None
    text: str | None = None
    html: str | None = None
    schema: str | None = None
    data: str | None = None
    part: Literal["html", "text"] = "html"
    keep_content: KeepContent = "hash"
    on_ambiguous: OnAmbiguous = "resend"
    force: Literal["on"] | None = None


@page_route("GET", "/templates", summary="Show templates", needs="jobs:read")
async def list_templates(request: ApiRequest) -> ASGIResponse:
    """Show the templates in use."""
    tenant = one_tenant(request.auth, query_of(request, ListQuery).tenant_id)
    async with runtime_of(request).database.transaction(
        request.auth.sees, read_only=True
    ) as connection:
        rows = await catalog.list_templates(
            connection, tenant=tenant, code=None, channel=None, after=("", "", ""), limit=LISTED
        )
    return await page(request, "templates", here="templates", rows=rows, whose=tenant)


@page_route("GET", PATH, summary="Show a template", needs="jobs:read")
async def edit(
    request: ApiRequest, code: FromPath[str], channel: FromPath[str], locale: FromPath[str]
) -> ASGIResponse:
    """Show a template beside its preview, with its versions."""
    query = query_of(request, EditQuery)
    key = template_key(request, code, channel, locale, query.tenant_id)
    async with runtime_of(request).database.transaction(
        request.auth.sees, read_only=True
    ) as connection:
        row = await catalog.get_template(connection, key, version=query.version)
        versions = await catalog.template_versions(
            connection, key, before=None, limit=VERSIONS_SHOWN
        )
        siblings = await catalog.list_templates(
            connection,
            tenant=key.tenant,
            code=key.code,
            channel=key.channel,
            after=("", "", ""),
            limit=LISTED,
        )
    if row is None:
        raise not_found("template")
    older = next((each for each in versions if each.version < row.version), None)
    return await page(
        request,
        "template",
        here="templates",
        t=row,
        versions=versions,
        siblings=siblings,
        changes=_changes(older, row) if older is not None else [],
        older=older,
        sample=_sample(row),
    )


def _changes(before: TemplateRow, after: TemplateRow) -> list[tuple[str, list[str]]]:
    """Return what a version changed, part by part, as lines of a unified diff."""
    parts = [
        ("subject", before.subject, after.subject),
        ("text", before.body_text, after.body_text),
        ("html", before.body_html, after.body_html),
        ("schema", before.schema, after.schema),
    ]
    found = []
    for name, old, new in parts:
        lines = difflib.unified_diff(
            (old or "").splitlines(), (new or "").splitlines(), lineterm="", n=2
        )
        changed = list(lines)[2:]
        if changed:
            found.append((name, changed))
    return found


class _Schema(msgspec.Struct, frozen=True):
    required: list[str] = []
    examples: list[dict[str, object]] = []


def _sample(row: TemplateRow) -> str:
    """Return data to begin with: the schema's first example, or a value for all it requires."""
    schema = _Schema()
    try:
        schema = msgspec.json.decode(row.schema or "{}", type=_Schema)
    except msgspec.MsgspecError:
        pass
    data = schema.examples[0] if schema.examples else {name: name for name in schema.required}
    return msgspec.json.format(msgspec.json.encode(data), indent=2).decode()


@page_route("POST", PATH, summary="Store a template", needs="admin")
async def save(
    request: ApiRequest, code: FromPath[str], channel: FromPath[str], locale: FromPath[str]
) -> ASGIResponse:
    """Make a new version."""
    form = as_struct(await read_form(request), TemplateForm)
    query = query_of(request, EditQuery)
    key = template_key(request, code, channel, locale, query.tenant_id)
    schema = msgspec.Raw(_object("schema", form.schema)) if form.schema else left_out()
    body = TemplateBody(
        subject=form.subject,
        text=form.text,
        html=form.html,
        schema=schema,
        keep_content=form.keep_content,
        on_ambiguous=form.on_ambiguous,
    )
    stored, changed = await save_template(request, key, body, force=form.force is not None)
    if not changed:
        return told(f"Nothing has changed: it is version {stored.version}.")
    return told(f"Stored as version {stored.version}.", go=_path(key))


def _path(key: TemplateKey) -> str:
    whose = f"?tenant_id={quote(key.tenant, safe='')}" if key.tenant != "default" else ""
    return f"/templates/{quote(key.code, safe='')}/{key.channel}/{key.locale}{whose}"


def _object(name: str, text: str) -> bytes:
    try:
        msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    except msgspec.MsgspecError:
        raise invalid([Fault(f"/{name}", "must be a JSON object")]) from None
    return text.encode()


async def _tried(
    request: ApiRequest, key: TemplateKey, query: EditQuery
) -> tuple[TemplateForm, PreviewView]:
    form = as_struct(await read_form(request), TemplateForm)
    body = PreviewBody(
        data=msgspec.Raw(_object("data", form.data)) if form.data else left_out(),
        subject=form.subject,
        text=form.text,
        html=form.html,
    )
    wanted = VersionQuery(tenant_id=key.tenant, version=query.version)
    return form, await preview(request, key, wanted, body)


@page_route("POST", PATH + "/frame", summary="Preview a template's HTML", needs="jobs:read")
async def frame(
    request: ApiRequest, code: FromPath[str], channel: FromPath[str], locale: FromPath[str]
) -> ASGIResponse:
    """Render what the editor holds, for the sandboxed frame."""
    query = query_of(request, EditQuery)
    key = template_key(request, code, channel, locale, query.tenant_id)
    _, made = await _tried(request, key, query)
    return framed(made.html or "")


@page_route("POST", PATH + "/preview", summary="Preview a template", needs="jobs:read")
async def show_preview(
    request: ApiRequest, code: FromPath[str], channel: FromPath[str], locale: FromPath[str]
) -> ASGIResponse:
    """Render what the editor holds: the subject, the text, and what is missing."""
    query = query_of(request, EditQuery)
    key = template_key(request, code, channel, locale, query.tenant_id)
    form, made = await _tried(request, key, query)
    return await page(request, "part_preview", p=made, form=form)


@page_route("POST", PATH + "/test", summary="Send a test to the sink", needs="jobs:write")
async def test_send(
    request: ApiRequest, code: FromPath[str], channel: FromPath[str], locale: FromPath[str]
) -> ASGIResponse:
    """Render what the editor holds and put it into the sink: nothing leaves the house."""
    query = query_of(request, EditQuery)
    key = template_key(request, code, channel, locale, query.tenant_id)
    _, made = await _tried(request, key, query)
    if made.error is not None:
        raise Problem(422, f"It cannot be rendered: {made.error.message}.")
    headers = {"x-outbox-test": f"{key.code}/{key.channel}/{key.locale}"}
    if made.html is not None:
        headers["html"] = made.html
    async with runtime_of(request).database.transaction(request.auth.sees) as connection:
        await sink.put(
            connection,
            tenant=key.tenant,
            channel=key.channel,
            recipient="test@sink.test",
            subject=made.subject,
            body=made.text or made.html or "",
            headers=headers,
        )
        await catalog.note_action(
            connection,
            actor=request.auth.name,
            action="template.test",
            tenant=key.tenant,
            detail={
                "code": key.code,
                "channel": key.channel,
                "locale": key.locale,
                "before": None,
                "after": {"sink_messages": 1},
            },
        )
    return told("A test is in the sink.")


ROUTES = [list_templates, edit, save, frame, show_preview, test_send]
