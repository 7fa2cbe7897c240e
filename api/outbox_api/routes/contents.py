"""What a message said: as it was kept, or rendered again from the version it was sent with."""

from __future__ import annotations

import hashlib
from datetime import datetime
from uuid import UUID

import msgspec
from litestar.params import FromPath
from litestar.response.base import ASGIResponse

from outbox.errors import ConfigError
from outbox.render import (
    RenderFailure,
    RenderRequest,
    TemplateSource,
    inline_source,
    join_context,
)
from outbox.store import catalog, jobs, recipients
from outbox.store.catalog import TemplateKey, TemplateRow
from outbox.store.jobs import ContentRow
from outbox.store.recipients import RecipientRow
from outbox_api import samples
from outbox_api.answers import answer
from outbox_api.operations import Answer, operation
from outbox_api.problems import not_found, unavailable
from outbox_api.requests import ApiRequest, read_query
from outbox_api.routes.job_views import locate_job
from outbox_api.runtime import Runtime, runtime_of
from outbox_api.tenancy import TenantQuery

LEASE_NO_MAX = 2_147_483_647


class Rendered(msgspec.Struct, frozen=True, kw_only=True):
    """The parts as they render now. `same`: whether they hash to what was sent."""

    subject: str | None
    text: str | None
    html: str | None
    same: bool | None


class ContentView(msgspec.Struct, frozen=True, kw_only=True):
    """What one attempt said, and to whom.

    `content` is what was sent, where the template keeps it (`keep_content: full`). Else
    `rendered` is the same version of the template with the job's data.
    """

    lease_no: int
    attempt: int
    started_at: datetime | None
    recipient: str | None
    subject: str | None
    template_code: str | None
    template_version: int | None
    locale: str | None
    content_sha256: str | None
    content: str | None
    rendered: Rendered | None
    note: str | None


@operation(
    "GET",
    "/jobs/{job_id:uuid}/deliveries/{lease_no:int}/content",
    summary="Show what an attempt said",
    tag="jobs",
    needs="jobs:read",
    query=TenantQuery,
    answers={
        200: Answer(
            ContentView,
            "As it was sent, or rendered again from the same version of its template.",
            {
                "lease_no": 1,
                "attempt": 1,
                "started_at": samples.AT,
                "recipient": "user@example.com",
                "subject": "Добро пожаловать, Нуржан!",
                "template_code": "welcome_email",
                "template_version": 1,
                "locale": "ru",
                "content_sha256": "9f86d081884c7d65" * 4,
                "content": None,
                "rendered": {
                    "subject": "Добро пожаловать, Нуржан!",
                    "text": "Здравствуйте, Нуржан.",
                    "html": None,
                    "same": True,
                },
                "note": None,
            },
        )
    },
    problems=(404, 409),
    path_examples={"job_id": samples.JOB_ID, "lease_no": "1"},
)
async def show_content(
    request: ApiRequest, job_id: FromPath[UUID], lease_no: FromPath[int]
) -> ASGIResponse:
    """Show what was said, however often the template has changed since."""
    tenant_id = read_query(request, TenantQuery).tenant_id
    return answer(await content_of(request, job_id, lease_no, tenant_id))


async def content_of(
    request: ApiRequest, job_id: UUID, lease_no: int, tenant_id: str | None
) -> ContentView:
    """Return what an attempt said. Raises Problem 404, 409."""
    runtime = runtime_of(request)
    if not 0 <= lease_no <= LEASE_NO_MAX:
        raise not_found("delivery")
    template = person = None
    async with runtime.database.transaction(request.auth.sees, read_only=True) as connection:
        found = await locate_job(connection, request, job_id, tenant_id)
        row = await jobs.content(connection, found.id, lease_no)
        if row is None:
            raise not_found("delivery")
        if row.content is None and row.template_code and row.locale and row.template_version:
            key = TemplateKey(row.tenant_id, row.template_code, row.channel or "", row.locale)
            template = await catalog.get_template(connection, key, version=row.template_version)
        if row.user_id is not None:
            person = await recipients.get_recipient(connection, row.tenant_id, row.user_id)
    rendered, note = None, None
    if row.content is None:
        rendered, note = await _again(runtime, row, template, person)
    return ContentView(
        lease_no=row.lease_no,
        attempt=row.attempt,
        started_at=row.started_at,
        recipient=row.recipient,
        subject=row.subject,
        template_code=row.template_code,
        template_version=row.template_version,
        locale=row.locale,
        content_sha256=row.content_sha256,
        content=None if row.content is None else row.content.decode("utf-8", "replace"),
        rendered=rendered,
        note=note,
    )


async def _again(
    runtime: Runtime,
    row: ContentRow,
    template: TemplateRow | None,
    person: RecipientRow | None,
) -> tuple[Rendered | None, str | None]:
    """Return what the same version makes of the same data; or why it can't be had."""
    job = msgspec.json.decode(row.job, type=dict[str, msgspec.Raw])
    if template is not None:
        source = TemplateSource(
            subject=template.subject,
            text=template.body_text,
            html=template.body_html,
            version=template.version,
        )
    elif row.template_code is None and "content" in job:
        content = msgspec.json.decode(job["content"], type=str)
        subject = msgspec.json.decode(job["subject"], type=str) if "subject" in job else None
        source = inline_source(content, subject)
    else:
        return None, "It was not kept, and there is no template to render it from."
    request = RenderRequest(
        source=source, context_json=_context(row, job, person), locale=row.locale or "en"
    )
    try:
        preview = await (await runtime.renderer.pool()).preview(request)
    except ConfigError as error:
        raise unavailable("Templates cannot be rendered here.") from error
    result = preview.result
    if isinstance(result, RenderFailure):
        return None, f"It was not kept, and does not render any more: {result.message}"
    parts = [part for part in (result.text, result.html) if part is not None]
    same = None
    if row.content_sha256 is not None:
        digest = hashlib.sha256("\n".join(parts).encode("utf-8", "replace")).hexdigest()
        same = digest == row.content_sha256
    note = (
        "What the directory knows of the recipient has changed since." if same is False else None
    )
    shown = Rendered(subject=result.subject, text=result.text, html=result.html, same=same)
    return shown, note


def _context(row: ContentRow, job: dict[str, msgspec.Raw], person: RecipientRow | None) -> bytes:
    """Return what the template got to know then, as far as that has not changed."""
    user = {
        "user_id": row.user_id,
        "email": person.email if person else None,
        "phone": person.phone if person else None,
        "locale": person.locale if person else None,
        "timezone": person.timezone if person else None,
        "attributes": msgspec.Raw(person.attributes.encode()) if person else {},
    }
    facts = {
        "job_id": str(row.job_id),
        "channel": row.channel,
        "template_code": row.template_code,
        "created_at": row.created_at,
        "attempt": row.attempt,
    }
    return join_context(
        bytes(job.get("data", b"{}")),
        user=msgspec.json.encode(user),
        meta=bytes(job.get("meta", b"{}")),
        job=msgspec.json.encode(facts),
    )


ROUTES = [show_content]
