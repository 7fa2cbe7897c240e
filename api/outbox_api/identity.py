"""A job's id, where its producer left it to us (contracts.md 1, api.md 3).

`Idempotency-Key` makes a UUIDv5 of tenant and key, the same that `idempotency_key` in a job makes
in the database, so both find the same job. With neither, a UUIDv7 is made here, before the
database is asked: so a statement whose answer was lost can be sent again.
"""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID, uuid5

from outbox.message import uuid7
from outbox_api.tenancy import DEFAULT_TENANT

NAMESPACE = UUID("6b2f9a52-8f3d-5c1e-9d0a-2f1f6d1c7a10")
"""The same as in outbox.idempotent_job_id."""


def idempotent_id(tenant: str, key: str) -> UUID:
    """Return the id that an idempotency key stands for."""
    return uuid5(NAMESPACE, f"{tenant}:{key}")


def needs_id(job: Mapping[str, object]) -> bool:
    """Tell whether a job names itself neither by id nor by key. A null counts as left out."""
    return job.get("job_id") is None and job.get("idempotency_key") is None


def with_id(text: str, job: Mapping[str, object], job_id: UUID) -> str:
    """Return a JSON object's text with a `job_id` added; the rest stays as it was written.

    It goes last, so it wins over a `"job_id": null` before it. It is no part of the content.
    """
    comma = "," if job else ""
    return f'{text.rstrip()[:-1]}{comma}"job_id":"{job_id}"}}'


def tenant_of(job: Mapping[str, object], key_tenant: str | None) -> str:
    """Return whose job it is; a job that names its tenant wrongly is refused later on."""
    if key_tenant is not None:
        return key_tenant
    named = job.get("tenant_id")
    return named if isinstance(named, str) else DEFAULT_TENANT


def new_id(tenant: str, key: str | None) -> UUID:
    """Return the id of a key, or a new one."""
    return uuid7() if key is None else idempotent_id(tenant, key)
