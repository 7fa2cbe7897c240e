"""JSON Schemas that no struct can say: the job, as the contract has it (contracts.md 1)."""

from __future__ import annotations

from collections.abc import Mapping

CHANNELS = (
    "email", "push", "ws", "sms", "telegram", "inbox", "database", "browser", "webhook",
)  # fmt: skip


def _text(chars_max: int, description: str) -> dict[str, object]:
    return {
        "type": ["string", "null"],
        "minLength": 1,
        "maxLength": chars_max,
        "description": description,
    }


def _time(description: str) -> dict[str, object]:
    return {"type": ["string", "null"], "format": "date-time", "description": description}


JOB_SCHEMA: Mapping[str, object] = {
    "title": "NotificationJob",
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "job_id": {
            "type": ["string", "null"],
            "format": "uuid",
            "description": "Identity and idempotency key; left out: a new one.",
        },
        "user_id": _text(128, "The recipient; the directory has the address."),
        "channel": {
            "enum": [*CHANNELS, None],
            "description": "`database` is an alias of `inbox`.",
        },
        "template_code": _text(128, "Required unless `content` or `payload` is given."),
        "locale": {
            "type": ["string", "null"],
            "pattern": "^[A-Za-z0-9_-]{1,35}$",
            "description": "`pt-BR` falls back to `pt`, then to the tenant's default.",
        },
        "data": {"type": ["object", "null"], "description": "Variables, at most 32 levels deep."},
        "meta": {
            "type": ["object", "null"],
            "description": "Further keys are kept.",
            "properties": {
                "event_type": {"type": ["string", "null"], "maxLength": 128},
                "event_id": {"type": ["string", "null"], "maxLength": 128},
                "campaign_id": {"type": ["string", "null"], "maxLength": 128},
                "priority": {"enum": ["low", "normal", "medium", "high", "urgent", None]},
            },
        },
        "created_at": _time("When the producer made it. Left out: now."),
        "send_after": _time("Not delivered before this."),
        "expires_at": _time("No attempt starts at or after this."),
        "to": {
            "type": ["string", "array", "null"],
            "items": {"type": "string"},
            "minItems": 1,
            "maxItems": 50,
            "description": "An address instead of the directory; a list makes a job for each.",
        },
        "endpoint": {
            "type": ["string", "null"],
            "format": "uuid",
            "description": "A registered webhook endpoint, instead of `to`.",
        },
        "subject": _text(998, "For an inline `content`."),
        "content": {
            "type": ["string", "null"],
            "minLength": 1,
            "description": "An inline template.",
        },
        "queue": {
            "type": ["string", "null"],
            "pattern": "^[a-z0-9][a-z0-9._-]{0,62}$",
            "description": "Left out: the channel's.",
        },
        "payload": {
            "type": ["object", "null"],
            "description": "For a queue's own handler, instead of a channel.",
        },
        "tenant_id": _text(128, "Only for keys that act for several tenants."),
        "idempotency_key": _text(255, "Makes the `job_id` where that is left out."),
        "category": {
            "type": ["string", "null"],
            "pattern": "^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$",
            "description": "For preferences and metrics.",
        },
        "ordering_key": _text(255, "Jobs of a queue with the same go one by one, in order."),
        "dedup_key": _text(255, "For `dedup_window_s` a second one is a duplicate."),
        "dedup_window_s": {
            "type": ["integer", "null"],
            "minimum": 1,
            "description": "Required beside `dedup_key`; at most the retention age.",
        },
        "dedup_policy": {
            "type": ["string", "null"],
            "enum": ["keep", "replace", None],
            "description": "`replace` withdraws the older job if it waits. Left out: `keep`.",
        },
        "max_attempts": {"type": ["integer", "null"], "minimum": 1, "maximum": 100},
        "timeout_s": {"type": ["number", "null"], "exclusiveMinimum": 0},
        "headers": {
            "type": ["object", "null"],
            "maxProperties": 50,
            "additionalProperties": {"type": "string", "maxLength": 4096},
            "description": "For webhooks and mail.",
        },
        "attachments": {
            "type": ["array", "null"],
            "maxItems": 20,
            "items": {"$ref": "#/components/schemas/Attachment"},
            "description": "For mail: fetched when it goes out.",
        },
    },
}

ATTACHMENT_SCHEMA: Mapping[str, object] = {
    "title": "Attachment",
    "description": "A file by `url`, or by its key in the operator's bucket (`s3`): one of them.",
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "url": _text(2_048, "http or https, without a login."),
        "s3": _text(1_024, "A key, below the tenant's folder."),
        "filename": _text(255, "Left out: the last part of the URL or the key."),
        "content_type": _text(129, "Left out: what the content shows, or its server says."),
        "inline": {
            "type": ["boolean", "null"],
            "description": "Shown in the HTML by `cid:` and the file name.",
        },
    },
}

BATCH_SCHEMA: Mapping[str, object] = {
    "title": "Batch",
    "type": "array",
    "maxItems": 10_000,
    "items": {"$ref": "#/components/schemas/NotificationJob"},
}

CONDITION_SCHEMA: Mapping[str, object] = {
    "title": "Condition",
    "description": (
        "A test of an event's `data`: {path, op, value}, or {all: […]}, {any: […]}, {not: …}. "
        "`path` names members by dots; `op` is eq, ne, gt, gte, lt, lte, in, contains or exists."
    ),
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "path": {"type": "string", "minLength": 1, "maxLength": 256},
        "op": {"enum": ["eq", "ne", "gt", "gte", "lt", "lte", "in", "contains", "exists"]},
        "value": {},
        "all": {"type": "array", "items": {"$ref": "#/components/schemas/Condition"}},
        "any": {"type": "array", "items": {"$ref": "#/components/schemas/Condition"}},
        "not": {"$ref": "#/components/schemas/Condition"},
    },
}

NAMED: Mapping[str, Mapping[str, object]] = {
    "NotificationJob": JOB_SCHEMA,
    "Attachment": ATTACHMENT_SCHEMA,
    "Batch": BATCH_SCHEMA,
    "Condition": CONDITION_SCHEMA,
}
