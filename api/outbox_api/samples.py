"""The values that the OpenAPI document's examples are made of."""

from __future__ import annotations

JOB_ID = "f4d7c0c3-7bd2-4d5b-9891-93f6ac0242ef"
USER_ID = "f3aa4a0e-97d4-4e21-a2b4-9fb7c8d9f001"
EVENT_ID = "6a9f7f26-4c0c-4a91-9f3d-b159c2dcb001"
RULE_ID = "0b1f64a4-6f0a-4a39-8f51-6f2f0f3b5d10"
AT = "2025-11-14T12:35:10Z"

JOB: dict[str, object] = {
    "job_id": JOB_ID,
    "user_id": USER_ID,
    "channel": "email",
    "template_code": "welcome_email",
    "locale": "ru",
    "data": {"first_name": "Нуржан", "login_url": "https://cinema.kz/login"},
    "meta": {
        "event_type": "user_registered",
        "event_id": EVENT_ID,
        "campaign_id": None,
        "priority": "normal",
    },
    "created_at": AT,
    "send_after": None,
    "expires_at": None,
}

TWO_JOBS: list[object] = [
    JOB,
    {
        "job_id": "7c1e5d52-6f0e-4f0b-9a53-0d7f1b8f2a10",
        "channel": "email",
        "to": "user@example.com",
        "content": "Hello {{ name }}!",
        "data": {"name": "Ann"},
        "meta": {},
    },
]

JOB_VIEW: dict[str, object] = {
    "job_id": JOB_ID,
    "tenant_id": "default",
    "status": "sent",
    "waiting_for": None,
    "channel": "email",
    "queue": "email",
    "user_id": USER_ID,
    "template_code": "welcome_email",
    "locale": "ru",
    "event_id": EVENT_ID,
    "campaign_id": None,
    "category": None,
    "priority": "normal",
    "created_at": AT,
    "accepted_at": "2025-11-14T12:35:10.214Z",
    "send_after": None,
    "expires_at": None,
    "due_at": None,
    "next_attempt_at": None,
    "finished_at": "2025-11-14T12:35:10.731Z",
    "series": 1,
    "attempts": 1,
    "max_attempts": None,
    "last_error_class": None,
    "last_error_code": None,
    "last_error": None,
    "receipt_status": None,
    "receipt_at": None,
    "mode": "live",
    "resend_of": None,
    "list_job_id": None,
}

FULL_JOB_VIEW: dict[str, object] = JOB_VIEW | {"progress": None, "job": JOB}

DELIVERY: dict[str, object] = {
    "series": 1,
    "attempt": 1,
    "lease_no": 1,
    "late": False,
    "status": "SENT",
    "provider": "smtp",
    "provider_message_id": "<f4d7c0c3@outbox>",
    "recipient": "user@example.com",
    "subject": "Добро пожаловать",
    "content_sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "template_code": "welcome_email",
    "template_version": 1,
    "locale": "ru",
    "error_class": None,
    "error_code": None,
    "error_message": None,
    "started_at": "2025-11-14T12:35:10.630Z",
    "finished_at": "2025-11-14T12:35:10.731Z",
    "duration_ms": 101,
    "next_attempt_at": None,
}

HISTORY: list[object] = [
    {"status": status, "at": at, "attempt": attempt, "error": None, "series": 1}
    for status, at, attempt in (
        ("pending", "2025-11-14T12:35:10.214Z", 0),
        ("processing", "2025-11-14T12:35:10.630Z", 1),
        ("sent", "2025-11-14T12:35:10.731Z", 1),
    )
]

DEAD_LETTER: dict[str, object] = {
    "id": 17,
    "job": JOB | {"job_id": "12f8a4dc-88ad-4679-9cd4-3138171a3451"},
    "error_message": "User has no email",
    "failed_at": "2025-11-21T12:40:00Z",
    "error_class": "permanent",
    "error_code": "recipient.no_address",
    "attempts": 1,
    "reason": "permanent",
}
