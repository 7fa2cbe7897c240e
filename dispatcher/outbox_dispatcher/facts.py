"""A job's own words as a dispatcher reads them: typed, but raw where numbers must not change."""

from __future__ import annotations

import msgspec

from outbox.message import Attachment

EMPTY_OBJECT = msgspec.Raw(b"{}")
ABSENT = msgspec.Raw(b"")


class Facts(msgspec.Struct, gc=False):
    """The fields of a stored job that delivery needs. The store has checked them all."""

    to: str | None = None
    endpoint: str | None = None
    user_id: str | None = None
    template_code: str | None = None
    content: str | None = None
    subject: str | None = None
    locale: str | None = None
    category: str | None = None
    timeout_s: float | None = None
    headers: dict[str, str] | None = None
    attachments: tuple[Attachment, ...] | None = None
    data: msgspec.Raw = EMPTY_OBJECT
    meta: msgspec.Raw = EMPTY_OBJECT
    payload: msgspec.Raw = ABSENT


class Meta(msgspec.Struct, gc=False):
    """What of `meta` a message carries."""

    event_type: str | None = None


_facts = msgspec.json.Decoder(Facts)
_meta = msgspec.json.Decoder(Meta)


def read_facts(job_json: str) -> Facts:
    """Return the facts of a job as it was stored."""
    return _facts.decode(job_json)


def event_type_of(facts: Facts) -> str | None:
    """Return `meta.event_type`."""
    return _meta.decode(facts.meta).event_type
