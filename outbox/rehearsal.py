"""Templates rendered with the newest real payloads, before a version of them goes live.

What renders well with made-up data may fail with what producers send: a variable that some of
them leave out, a list that is empty, a schema that is too strict. Told are the job and the rule
that was broken, never a value.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import msgspec

from outbox.render import RenderFailure, RenderPool, RenderRequest, TemplateSource, join_context
from outbox.store.catalog import Payload, TemplateKey

PAYLOADS_MAX = 25
MISHAPS_SHOWN_MAX = 10


class Mishap(msgspec.Struct, frozen=True, kw_only=True):
    """One payload that a template cannot be rendered with."""

    locale: str
    job_id: UUID
    code: str
    message: str

    def __str__(self) -> str:
        return f"in {self.locale}, with the payload of job {self.job_id}: {self.message}"


async def rehearse(
    pool: RenderPool,
    key: TemplateKey,
    source: TemplateSource,
    payloads: Sequence[Payload],
    *,
    schema_json: bytes | None,
) -> list[Mishap]:
    """Return what would not have been rendered. Raises RuntimeError on a closed pool."""
    requests = [
        RenderRequest(
            source=source,
            context_json=_context(key, payload),
            locale=key.locale,
            schema_json=schema_json,
        )
        for payload in payloads
    ]
    answers = await pool.render_many(requests)
    return [
        Mishap(locale=key.locale, job_id=payload.job_id, code=answer.code, message=answer.message)
        for payload, answer in zip(payloads, answers, strict=True)
        if isinstance(answer, RenderFailure) and answer.kind != "temporary"
    ]


def _context(key: TemplateKey, payload: Payload) -> bytes:
    """Return what the template gets to know, as when it is delivered."""
    members = msgspec.json.decode(payload.job, type=dict[str, msgspec.Raw])
    job = {
        "job_id": str(payload.job_id),
        "channel": key.channel,
        "template_code": key.code,
        "created_at": members.get("created_at"),
        "attempt": 1,
        "unsubscribe_url": "",
    }
    return join_context(
        bytes(members.get("data", b"{}")),
        user=payload.user_json.encode(),
        meta=bytes(members.get("meta", b"{}")),
        job=msgspec.json.encode(job),
    )
