"""One table of jobs and what the contract says of them, run through every door.

`pointers` is what a refused job is told, no more and no less; None: it is accepted. A case is run
through the HTTP API, the Python library and the SQL functions, and must get the same answer from
each; `at_http` is for the one difference, created_at's default, and `at_sql=False` for texts that
PostgreSQL itself does not take for jsonb, before any function of ours is called.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

import psycopg
from psycopg.rows import TupleRow

JOB_ID = "0194d7c0-3c7b-7d2d-8b58-9193f6ac0242"
UUID_UPPER = "F4D7C0C3-7BD2-4D5B-9891-93F6AC0242EF"
HANDLED_CHANNELS = ("email", "webhook", "inbox", "sms", "telegram", "ws", "browser")
UNHANDLED_CHANNEL = "push"
HANDLED_QUEUES = ("media-sync", "thumbnails")

Job = dict[str, object]


def prepare(admin: psycopg.Connection[TupleRow]) -> None:
    """Give a migrated database the handlers and the template that the table counts on."""
    admin.execute("delete from outbox.handler")
    for kind, names in (("channel", HANDLED_CHANNELS), ("queue", HANDLED_QUEUES)):
        for name in names:
            admin.execute("insert into outbox.handler (kind, name) values (%s, %s)", (kind, name))
    admin.execute(
        "insert into outbox.template (tenant_id, code, channel, locale, version, body_text)"
        " values ('default', 'welcome_email', 'email', 'ru', 1, 'text')"
    )
    admin.commit()


class _Unset:
    """Any value that a job can have would be one too many."""


@dataclass(frozen=True)
class Case:
    """One job; `job` is a value, or JSON text where it matters how it is written."""

    name: str
    job: object
    pointers: frozenset[str] | None = None
    at_http: frozenset[str] | type[_Unset] | None = _Unset
    at_sql: bool = True
    kept: dict[str, object] = field(default_factory=dict)
    """Columns of outbox.job that the accepted job must have."""

    @property
    def text(self) -> str:
        """The job as JSON text."""
        return self.job if isinstance(self.job, str) else json.dumps(self.job, ensure_ascii=False)

    @property
    def http_pointers(self) -> frozenset[str] | None:
        """What HTTP tells; None: accepted."""
        return self.pointers if isinstance(self.at_http, type) else self.at_http


def _time(**ahead: float) -> str:
    return (datetime.now(UTC) + timedelta(**ahead)).isoformat()


def job(**changes: object) -> Job:
    """Return a good email job without an id, changed."""
    base: Job = {
        "user_id": "f3aa4a0e-97d4-4e21-a2b4-9fb7c8d9f001",
        "channel": "email",
        "template_code": "welcome_email",
        "locale": "ru",
        "data": {"first_name": "Нуржан", "login_url": "https://cinema.kz/login"},
        "meta": {
            "event_type": "user_registered",
            "event_id": "6a9f7f26-4c0c-4a91-9f3d-b159c2dcb001",
            "campaign_id": None,
            "priority": "normal",
        },
        "created_at": "2025-11-14T12:35:10Z",
        "send_after": None,
        "expires_at": None,
    }
    return {**base, **changes}


def without(*names: str, **changes: object) -> Job:
    """Return the good job without some of its fields."""
    return {name: value for name, value in job(**changes).items() if name not in names}


def addressed(**changes: object) -> Job:
    """Return a job that carries its address and its text, and looks up nothing."""
    base = without("user_id", "template_code", to="ann@example.com", content="Hello {{ name }}")
    return {**base, **changes}


def webhook(**changes: object) -> Job:
    """Return the least that makes a webhook."""
    return {"channel": "webhook", "to": "https://example.com/hook", "data": {"a": 1}, **changes}


def queued(queue: str = "thumbnails", **changes: object) -> Job:
    """Return the least that makes a job of another kind."""
    return {"queue": queue, "payload": {"mediaId": 7}, **changes}


def meta(**changes: object) -> Job:
    """Return a job whose `meta` is changed."""
    base = job()["meta"]
    assert isinstance(base, dict)
    return job(meta={**base, **changes})


def deep(levels: int) -> Job:
    """Return an object of exactly so many levels."""
    value: object = 1
    for _ in range(levels):
        value = {"in": value}
    assert isinstance(value, dict)
    return value


def sized(bytes_wanted: int) -> Job:
    """Return a job whose text, as PostgreSQL writes it, is exactly so long."""
    empty = without("send_after", "expires_at", job_id=JOB_ID, data={"filling": ""})
    # json.dumps writes `": "` and `", "` as PostgreSQL does.
    missing = bytes_wanted - len(json.dumps(empty, ensure_ascii=False).encode())
    return {**empty, "data": {"filling": "x" * missing}}


def written(template: str, **raw: str) -> str:
    """Return the good job's text with members whose JSON is given as text."""
    members = {name: json.dumps(value) for name, value in job().items()} | raw
    return template % ", ".join(f'"{name}": {value}' for name, value in members.items())


def _ok(name: str, value: object, **kept: object) -> Case:
    return Case(name, value, kept=kept)


def _bad(name: str, value: object, *pointers: str) -> Case:
    return Case(name, value, frozenset(pointers))


def _cases() -> Iterable[Case]:
    yield from _identity()
    yield from _recipients()
    yield from _kinds()
    yield from _texts()
    yield from _meta()
    yield from _times()
    yield from _extras()
    yield from _attachments()
    yield from _other_kinds()
    yield from _shapes()
    yield from _unstorable()


def _identity() -> Iterable[Case]:
    yield _ok("the example of the contract", job(job_id=JOB_ID), tenant_id="default")
    yield _ok("no job_id", without("job_id"))
    yield _ok("a null job_id", job(job_id=None))
    yield _ok("a job_id in capitals", job(job_id=UUID_UPPER))
    yield _bad("a job_id that is no UUID", job(job_id="not-a-uuid"), "/job_id")
    yield _bad("a job_id without hyphens", job(job_id=JOB_ID.replace("-", "")), "/job_id")
    yield _bad("a job_id in braces", job(job_id=f"{{{JOB_ID}}}"), "/job_id")
    yield _bad("a job_id with misplaced hyphens", job(job_id="-" * 36), "/job_id")
    yield _bad("a job_id with one hyphen too many", job(job_id=JOB_ID[:-1] + "-"), "/job_id")
    yield _bad("a job_id with a line end", job(job_id=JOB_ID[:-1] + "\n"), "/job_id")
    yield _bad("an empty job_id", job(job_id=""), "/job_id")
    yield _bad("a job_id that is a number", job(job_id=7), "/job_id")
    yield _bad("a job_id that is an object", job(job_id={}), "/job_id")
    yield _ok("an idempotency key", job(idempotency_key="order-42"))
    yield _ok("an idempotency key of 255 characters", job(idempotency_key="ж" * 255))
    yield _bad("an idempotency key of 256", job(idempotency_key="ж" * 256), "/idempotency_key")
    yield _bad("an empty idempotency key", job(idempotency_key=""), "/idempotency_key")
    yield _bad("an idempotency key that is a number", job(idempotency_key=1), "/idempotency_key")
    yield _ok("the tenant it was handed in for", job(tenant_id="default"), tenant_id="default")
    yield _bad("another tenant", job(tenant_id="other"), "/tenant_id")
    yield _bad("a tenant that is a number", job(tenant_id=1), "/tenant_id")
    yield _bad("all tenants", job(tenant_id="*"), "/tenant_id")
    yield _bad("an empty tenant", job(tenant_id=""), "/tenant_id")


def _recipients() -> Iterable[Case]:
    yield _ok("a user_id that is no UUID", job(user_id="user:42"), user_id="user:42")
    yield _ok("a user_id of 128 characters", job(user_id="ж" * 128))
    yield _bad("a user_id of 129", job(user_id="u" * 129), "/user_id")
    yield _bad("an empty user_id", job(user_id=""), "/user_id")
    yield _bad("a user_id that is a number", job(user_id=42), "/user_id")
    yield _bad("no user_id and no address", without("user_id"), "/user_id")
    yield _bad("a null user_id", job(user_id=None), "/user_id")
    yield _ok("an address instead of a user", addressed(), user_id=None)
    yield _ok("an address beside a user", addressed(user_id="42"), user_id="42")
    yield _ok("an address in Cyrillic", addressed(to="почта@пример.рф"))
    yield _bad("a mail address without @", addressed(to="ann.example.com"), "/to")
    yield _bad("two addresses in one", addressed(to="a@b.com, c@d.com"), "/to")
    yield _bad("an address with a line end", addressed(to="a@b.com\r\nBcc: x@y.z"), "/to")
    yield _bad("an empty address", addressed(to=""), "/to")
    yield _bad("an address of 2,049 characters", addressed(to="a@" + "b" * 2047), "/to")
    yield _bad("an address that is an object", addressed(to={"email": "a@b.com"}), "/to")
    yield _ok("a list of addresses", addressed(to=["a@example.com", "b@example.com"]))
    yield _ok("a list that repeats an address", addressed(to=["a@example.com"] * 3))
    yield _ok("50 addresses", addressed(to=[f"u{n}@example.com" for n in range(50)]))
    yield _bad("51 addresses", addressed(to=[f"u{n}@example.com" for n in range(51)]), "/to")
    yield _bad("an empty list of addresses", addressed(to=[]), "/to")
    yield _bad("a list with bad ones", addressed(to=["a@b.com", 7, "nobody"]), "/to/1", "/to/2")
    yield _ok("a phone number", addressed(channel="sms", to="+77011234567"))
    yield _bad("an address of an inbox", addressed(channel="inbox", user_id="42"), "/to")


def _kinds() -> Iterable[Case]:
    yield _ok("the alias database", job(channel="database"), channel="inbox", queue="inbox")
    yield _bad("no channel", without("channel"), "/channel")
    yield _bad("a null channel", job(channel=None), "/channel")
    yield _bad("an unknown channel", job(channel="pigeon"), "/channel")
    yield _bad("a channel in capitals", job(channel="Email"), "/channel")
    yield _bad("a channel that is a number", job(channel=1), "/channel")
    yield _bad("a channel without a handler", job(channel=UNHANDLED_CHANNEL), "/channel")
    yield _ok("a queue of its own", job(queue="bulk-mail"), queue="bulk-mail", channel="email")
    yield _ok("a queue of 63 characters", job(queue="q" * 63))
    yield _bad("a queue of 64", job(queue="q" * 64), "/queue")
    yield _bad("a queue in capitals", job(queue="Bulk"), "/queue")
    yield _bad("a queue that is a number", job(queue=5), "/queue")
    yield _bad("a queue with a slash", job(queue="a/b"), "/queue")
    yield _bad("an inbox without a user", without("user_id", channel="inbox"), "/user_id")


def _texts() -> Iterable[Case]:
    yield _bad("a template that there is not", job(template_code="wellcome"), "/template_code")
    yield _bad("no template and no content", without("template_code"), "/template_code")
    yield _bad("an empty template_code", job(template_code=""), "/template_code")
    yield _bad("a template_code of 129", job(template_code="t" * 129), "/template_code")
    yield _bad("a template_code that is a list", job(template_code=["a"]), "/template_code")
    yield _bad("content beside a template", job(content="x"), "/content")
    yield _bad("empty content", addressed(content=""), "/content")
    yield _bad("content that is an object", addressed(content={}), "/content")
    yield _ok("a subject", addressed(subject="Добро пожаловать"))
    yield _bad("an empty subject", addressed(subject=""), "/subject")
    yield _bad("a subject of 999 characters", addressed(subject="s" * 999), "/subject")
    for tag in ("en", "kz", "pt-BR", "zh_Hant_TW"):
        yield _ok(f"the locale {tag}", job(locale=tag), locale=tag)
    yield _ok("no locale", without("locale"), locale=None)
    yield _bad("an empty locale", job(locale=""), "/locale")
    yield _bad("a locale with a blank", job(locale="ru ru"), "/locale")
    yield _bad("a locale of 36 characters", job(locale="r" * 36), "/locale")
    yield _bad("a locale that is a number", job(locale=1), "/locale")
    yield _bad("no data", without("data"), "/data")
    yield _bad("null data", job(data=None), "/data")
    yield _bad("data that is a list", job(data=[]), "/data")
    yield _bad("data that is a text", job(data="{}"), "/data")
    yield _ok("empty data", job(data={}))
    yield _ok("data of 32 levels", job(data=deep(32)))
    yield _bad("data of 33 levels", job(data=deep(33)), "/data")
    yield _bad("lists of 33 levels", job(data={"a": json.loads("[" * 32 + "]" * 32)}), "/data")


def _meta() -> Iterable[Case]:
    yield _bad("no meta", without("meta"), "/meta")
    yield _bad("meta that is a list", job(meta=[]), "/meta")
    yield _ok("empty meta", job(meta={}), priority=1)
    yield _ok("further keys in meta", meta(source="app", nested={"a": [1]}))
    yield _bad("meta of 33 levels", job(meta={"a": deep(32)}), "/meta")
    for word, number in (("low", 0), ("normal", 1), ("medium", 1), ("high", 5), ("urgent", 10)):
        yield _ok(f"priority {word}", meta(priority=word), priority=number)
    yield _ok("a null priority", meta(priority=None), priority=1)
    yield _bad("an unknown priority", meta(priority="HIGH"), "/meta/priority")
    yield _bad("a priority that is a number", meta(priority=5), "/meta/priority")
    yield _bad("a priority that is true", meta(priority=True), "/meta/priority")
    yield _ok("a campaign", meta(campaign_id="bf_loyal"), campaign_id="bf_loyal")
    yield _bad("a campaign that is a number", meta(campaign_id=1), "/meta/campaign_id")
    yield _bad("a campaign of 129", meta(campaign_id="c" * 129), "/meta/campaign_id")
    yield _bad("an event_id that is a list", meta(event_id=[]), "/meta/event_id")
    yield _bad("an event_id of 129", meta(event_id="e" * 129), "/meta/event_id")
    yield _bad("an event_type that is a number", meta(event_type=0), "/meta/event_type")


def _times() -> Iterable[Case]:
    yield Case("no created_at", without("created_at"), frozenset({"/created_at"}), at_http=None)
    yield Case("a null created_at", job(created_at=None), frozenset({"/created_at"}), at_http=None)
    for text in (
        "2025-11-14T12:35:10+06:00",
        "2025-11-14t12:35:10.123456z",
        "2025-11-14 12:35:10.1-03:30",
        "2024-02-29T00:00:00Z",
        "2016-12-31T23:59:60Z",
    ):
        yield _ok(f"created_at {text}", job(created_at=text))
    for text in (
        "2025-11-14T12:35:10",
        "2025-11-14",
        "2025-02-30T00:00:00Z",
        "2025-02-29T00:00:00Z",
        "2025-13-01T00:00:00Z",
        "2025-11-14T24:00:00Z",
        "2025-11-14T12:35:60.5Z",
        "2025-11-14T12:35:10+24:00",
        "2025-11-14T12:35:10 Europe/Berlin",
        "0000-01-01T00:00:00Z",
        "99999-01-01T00:00:00Z",
        "9999-12-31T23:59:59-12:00",
        "now",
        "infinity",
        "",
    ):
        yield _bad(f"created_at {text!r}", job(created_at=text), "/created_at")
    yield _bad("a created_at in seconds", job(created_at=1763123710), "/created_at")
    yield _ok("a send_after ahead", job(send_after=_time(hours=2)))
    yield _ok("a send_after in the past", job(send_after=_time(days=-400)))
    yield _ok("a send_after of 89 days", job(send_after=_time(days=89)))
    yield _bad("a send_after of 91 days", job(send_after=_time(days=91)), "/send_after")
    yield _bad(
        "a send_after without an offset", job(send_after="2025-11-14T12:35:10"), "/send_after"
    )
    yield _bad("a send_after that is false", job(send_after=False), "/send_after")
    yield _ok("an expires_at ahead", job(expires_at=_time(hours=2)))
    yield _ok("an expires_at at the end of time", job(expires_at="9999-12-31T23:59:59Z"))
    yield _ok("an expires_at that has passed", job(expires_at="2025-11-26T00:00:00Z"))
    yield _bad("an expires_at that is a word", job(expires_at="tomorrow"), "/expires_at")
    yield _ok("sent before it expires", job(send_after=_time(hours=1), expires_at=_time(hours=2)))
    later = _time(hours=1)
    yield _bad("sent as it expires", job(send_after=later, expires_at=later), "/send_after")
    yield _bad(
        "the same moment in two zones",
        job(send_after="2026-01-01T06:00:00+06:00", expires_at="2026-01-01T00:00:00Z"),
        "/send_after",
    )


def _extras() -> Iterable[Case]:
    yield _bad("an unknown field", job(send_aftr=None), "/send_aftr")
    yield _bad("odd unknown fields", job(**{"a/b": 1, "c~d": 2, "": 3}), "/a~1b", "/c~0d", "/")
    yield _ok("a category", job(category="marketing"), category="marketing")
    yield _bad("a category of two words", job(category="two words"), "/category")
    yield _bad("a category that is null-like", job(category=""), "/category")
    yield _ok("max_attempts 1", job(max_attempts=1))
    yield _ok("max_attempts 100", job(max_attempts=100))
    for number in (0, 101, -1, 2.5, 1.0, True, "3"):
        yield _bad(f"max_attempts {number!r}", job(max_attempts=number), "/max_attempts")
    yield _ok("a timeout", job(timeout_s=0.5))
    for seconds in (0, -1, 51, "10"):
        yield _bad(f"a timeout of {seconds!r}", job(timeout_s=seconds), "/timeout_s")
    yield from _keys()
    yield _ok("headers", webhook(headers={"X-Trace": "ä b\tc"}))
    yield _bad("headers that are a list", webhook(headers=[]), "/headers")
    yield _bad("51 headers", webhook(headers={f"X-{n}": "1" for n in range(51)}), "/headers")
    yield _bad("a header's name with a blank", webhook(headers={"X Y": "1"}), "/headers/X Y")
    yield _bad("a header that is a number", webhook(headers={"X": 1}), "/headers/X")
    yield _bad("a header of two lines", webhook(headers={"X": "a\r\nB: c"}), "/headers/X")
    yield _bad("a header with a slash", webhook(headers={"a/b~": "1"}), "/headers/a~1b~0")
    yield _bad("a header of 4,097", webhook(headers={"X": "x" * 4097}), "/headers/X")


def _attachments() -> Iterable[Case]:
    url = "https://files.example.com/a/invoice.pdf?token=x@y"

    def attached(*items: object, **changes: object) -> Job:
        return job(attachments=list(items), **changes)

    yield _ok("an attachment by URL", attached({"url": url}))
    whole = {"s3": "2026/11/счёт 7.pdf", "filename": "Счёт №7.pdf", "content_type": "image/PNG"}
    yield _ok("an attachment by key", attached(whole | {"inline": False}))
    yield _ok("an inline picture", attached({"url": url, "filename": "a-1.png", "inline": True}))
    yield _ok("nulls in an attachment", attached({"url": url, "s3": None, "inline": None}))
    yield _ok("no attachment", job(attachments=[]))
    yield _ok("20 attachments", attached(*[{"url": url}] * 20))
    yield _bad("21 attachments", attached(*[{"url": url}] * 21), "/attachments")
    yield _bad("attachments that are an object", job(attachments={"url": url}), "/attachments")
    yield _bad("attachments of a webhook", webhook(attachments=[{"url": url}]), "/attachments")
    yield _bad("attachments of a payload", queued(attachments=[{"url": url}]), "/attachments")
    texts = attached({"url": url}, channel="sms", template_code=None, content="x")
    yield _bad("attachments of an SMS", texts, "/attachments")
    yield _bad("an attachment that is a text", attached({"url": url}, url), "/attachments/1")
    yield _bad("an attachment from nowhere", attached({"filename": "a"}), "/attachments/0")
    yield _bad("an attachment from both", attached({"url": url, "s3": "a"}), "/attachments/0")
    for wrong in (
        *(7, "", "ftp://a.b/c", "https://", "https://u:p@a.b/", "https://a.b/ c", "file:///etc/x"),
        *("https://a.b/\r\nX: y", "https://a.b/" + "x" * 2_048, "//a.b/c", "https://a.b\n/c"),
    ):
        yield _bad(f"the URL {wrong!r:.30}", attached({"url": wrong}), "/attachments/0/url")
    for wrong in (7, "", "/a", "a/", "a//b", ".", "a/../b", "./a", "a\nb", "a\\b", "x" * 1_025):
        yield _bad(f"the key {wrong!r:.30}", attached({"s3": wrong}), "/attachments/0/s3")
    for wrong in (
        *(7, "", ".", "..", "../a", "a/b", "a\\b", "a\r\nBcc: x@y.z", "a\tb", "x" * 256),
        *("gnp\u202eexe.png", "a\u2028b", "a\x85b"),
    ):
        named = attached({"url": url, "filename": wrong})
        yield _bad(f"the file name {wrong!r:.30}", named, "/attachments/0/filename")
    for name in (None, "Счёт.png", "a b.png", "a>b.png"):
        shown = attached({"url": url, "filename": name, "inline": True})
        yield _bad(f"inline and named {name!r}", shown, "/attachments/0/filename")
    for wrong in (
        7,
        "",
        "pdf",
        "a/b; charset=x",
        "a/b\r\nX: y",
        "multipart/mixed",
        "message/rfc822",
    ):
        typed = attached({"url": url, "content_type": wrong})
        yield _bad(f"the type {wrong!r:.30}", typed, "/attachments/0/content_type")
    yield _bad(
        "inline by a word", attached({"url": url, "inline": "yes"}), "/attachments/0/inline"
    )
    yield _bad(
        "an attachment wrong in all ways",
        attached({"url": 1, "content_type": 1, "inline": 1, "filename": 1, "a/b": 1}),
        *(f"/attachments/0/{name}" for name in ("url", "content_type", "inline", "filename")),
        "/attachments/0/a~1b",
    )


def _keys() -> Iterable[Case]:
    yield _ok("an ordering_key", job(ordering_key="ә" * 255))
    for key in ("", "x" * 256, 7, ["a"]):
        yield _bad(f"an ordering_key like {key!r:.9}", job(ordering_key=key), "/ordering_key")
    yield _ok("an ordering_key for a list", webhook(to=["https://a.b/"], ordering_key="a"))
    yield _ok("a dedup_key", job(dedup_key="ә" * 255, dedup_window_s=1))
    yield _ok("the longest window", job(dedup_key="longest", dedup_window_s=7_776_000))
    for other in ("", "x" * 256, 7, ["a"]):
        wrong = job(dedup_key=other, dedup_window_s=60)
        yield _bad(f"a dedup_key like {other!r:.9}", wrong, "/dedup_key")
    for window in (0, -1, 7_776_001, 10**12, 1.5, 1.0, "60", True):
        wrong = job(dedup_key="w", dedup_window_s=window)
        yield _bad(f"a window of {window!r}", wrong, "/dedup_window_s")
    yield _bad("a dedup_key without a window", job(dedup_key="a"), "/dedup_window_s")
    yield _bad("a window without a dedup_key", job(dedup_window_s=60), "/dedup_key")
    yield _bad("a policy by itself", job(dedup_policy="keep"), "/dedup_key")
    for policy in ("keep", "replace"):
        told = job(dedup_key=policy, dedup_window_s=60, dedup_policy=policy)
        yield _ok(f"the policy {policy}", told)
    for unknown in ("drop", 1, ["keep"]):
        wrong = job(dedup_key="p", dedup_window_s=60, dedup_policy=unknown)
        yield _bad(f"the policy {unknown!r}", wrong, "/dedup_policy")
    listed = webhook(to=["https://a.b/"], dedup_key="a", dedup_window_s=60)
    yield _bad("a dedup_key for a list", listed, "/dedup_key")


def _other_kinds() -> Iterable[Case]:
    yield _ok("a webhook", webhook(), channel="webhook", queue="webhook")
    yield _ok("a webhook over http", webhook(to="http://10.0.0.1:8080/x?y#z"))
    yield _bad("a webhook to nowhere", {"channel": "webhook", "data": {}}, "/to")
    yield _bad("a webhook by ftp", webhook(to="ftp://example.com/"), "/to")
    yield _bad("a webhook without a host", webhook(to="https://"), "/to")
    yield _bad("a webhook without data", {"channel": "webhook", "to": "https://a.b/"}, "/data")
    yield _bad("an endpoint that there is not", webhook(endpoint=JOB_ID), "/endpoint")
    yield _ok("a payload", queued(), queue="thumbnails", channel=None)
    yield _ok("an empty payload", queued(payload={}))
    yield _ok("a payload with all else", queued(meta={"priority": "high"}, data={}), priority=5)
    yield _bad("a payload without a queue", {"payload": {}}, "/queue")
    yield _bad("a queue without a payload", {"queue": "thumbnails"}, "/payload")
    yield _bad("a payload that is a list", queued(payload=[]), "/payload")
    yield _bad("a payload of 33 levels", queued(payload=deep(33)), "/payload")
    yield _bad("a payload beside a channel", job(payload={}), "/payload")
    yield _bad("a queue without a handler", queued(queue="laundry"), "/queue")
    for number, priority in ((1, 0), (2, 0), (3, 1), (5, 1), (6, 5), (8, 5), (9, 10), (10, 10)):
        sync = queued("media-sync", payload={"mediaId": 1, "priority": number})
        yield _ok(f"media-sync at {number}", sync, priority=priority)
    for wrong in (0, 11, 2.5, "high", None):
        sync = queued("media-sync", payload={"priority": wrong})
        yield _bad(f"media-sync at {wrong!r}", sync, "/payload/priority")
    yield _ok("another queue's priority", queued(payload={"priority": "whatever"}), priority=1)


def _shapes() -> Iterable[Case]:
    for text in ("[]", "7", '"job"', "null", "true"):
        yield _bad(f"the job {text}", text, "")
    yield _bad("an empty object", "{}", "/channel", "/data")
    yield _bad(
        "everything wrong at once",
        {"channel": "email", "user_id": 1, "data": 1, "meta": 1, "created_at": 1, "x": 1},
        *("/user_id", "/template_code", "/data", "/meta", "/created_at", "/x"),
    )
    yield _ok("the longest job", sized(262_144))
    yield _bad("a job one byte longer", sized(262_145), "")
    yield _bad("a job of 1 MiB", sized(1_048_576), "")
    yield _ok("blanks around", written("\n { %s } \t"))
    yield _bad(
        "a key twice, the last one wrong",
        '{"channel": "email", "channel": "x"}',
        "/channel",
        "/data",
    )


def _unstorable() -> Iterable[Case]:
    yield _ok("an emoji, a combining mark, a right-to-left mark", job(data={"a": "👩‍🚀é\u200f"}))
    yield _ok("a surrogate pair", written("{%s}", data=r'{"a": "\ud83d\ude00"}'))
    yield _ok("control characters", job(data={"a": "\x01\x1f\x7f\u2028"}))
    yield _ok("an escaped backslash before u0000", written("{%s}", data=r'{"a": "\\u0000"}'))
    yield _ok("an integer of 300 digits", written("{%s}", data=f'{{"n": {"9" * 300}}}'))
    yield _ok("a decimal of 60 digits", written("{%s}", data='{"n": 0.1' + "0" * 58 + "1}"))
    yield _ok("an exponent", written("{%s}", data='{"n": 1.5e300}'))
    nul, lone = r'"a\u0000b"', r'"a\ud800b"'
    for name, said in (("NUL", nul), ("a lone surrogate", lone)):
        for pointer, members in (
            ("/data/a", {"data": f'{{"a": {said}}}'}),
            ("/user_id", {"user_id": said}),
            ("/meta/x/1", {"meta": f'{{"x": [1, {said}]}}'}),
            ("/data", {"data": f"{{{said}: 1}}"}),
        ):
            faulty = written("{%s}", **members)
            yield Case(f"{name} in {pointer}", faulty, frozenset({pointer}), at_sql=False)
    for number in ("1e999", "-1e-999", "1" * 5000):
        faulty = written("{%s}", data=f'{{"n": {number}}}')
        yield Case(f"the number {number[:8]}", faulty, frozenset({"/data/n"}), at_sql=False)


CASES: Final = tuple(_cases())
