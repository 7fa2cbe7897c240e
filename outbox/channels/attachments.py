"""A mail's attachments, fetched when it goes out: by URL behind the guard, or from the bucket.

They are fetched anew for each attempt and kept by nobody. What goes wrong is the job's own trouble
or its server's, never the mail provider's: it opens no breaker, and no other provider is tried.
Only a bucket that refuses us holds, and then only the jobs that need it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from mimetypes import guess_extension
from time import monotonic
from urllib.parse import unquote, urlsplit

import msgspec

from outbox.channels.api_client import USER_AGENT
from outbox.channels.captured import sent_by
from outbox.channels.file_types import UNKNOWN, file_type
from outbox.channels.guard import Blocked, Guard, Lookup
from outbox.channels.guard_allow import parse_allow
from outbox.channels.http_client import HttpClient, HttpFailure
from outbox.channels.http_errors import classify_http, classify_http_trouble
from outbox.channels.s3 import S3_SCOPE, S3Bucket, S3Failure, parse_s3_url
from outbox.errors import ConfigError
from outbox.message import Attachment, MailPart, Message
from outbox.outcome import Delivered, Misconfigured, Outcome, Rejected, Retryable, Snoozed

BYTES_MAX = 10_485_760
SHARE_OF_TIME = 0.5
"""What of an attempt's time fetching may take: the mail has to go out in the rest."""
NAME_CHARS_MAX = 255

_HEADERS = {"User-Agent": USER_AGENT, "Accept": "*/*", "Accept-Encoding": "identity"}
# What no file's name may have, as the contract says it (docs/contracts.md).
_FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff/\\\\]")


class _Fetched(msgspec.Struct, frozen=True):
    content: bytes
    told: str | None


class Attachments:
    """Fetches. Settings: `ATTACHMENTS_BYTES_MAX`, `WEBHOOK_ALLOW`, `S3_URL`. Raises ConfigError.

    Nothing is opened before there is something to fetch.
    """

    def __init__(self, settings: Mapping[str, str], *, lookup: Lookup | None = None) -> None:
        self._bytes_max = int(settings.get("ATTACHMENTS_BYTES_MAX", BYTES_MAX))
        self._guard = Guard(parse_allow(settings.get("WEBHOOK_ALLOW", "")), lookup=lookup)
        self._http: HttpClient | None = None
        self._bucket: S3Bucket | None = None
        if settings.get("S3_URL"):
            try:
                self._bucket = S3Bucket(parse_s3_url(settings["S3_URL"]))
            except ConfigError as error:
                said = str(error)
                told = said if said.startswith("OUTBOX_") else f"OUTBOX_S3_URL {said}"
                raise ConfigError(told) from None

    async def close(self) -> None:
        """Close the connections that there are."""
        if self._http is not None:
            await self._http.__aexit__(None, None, None)
            self._http = None

    async def fetch(self, message: Message, *, timeout_s: float) -> Message | Outcome:
        """Return the message with its parts, or what it means that one cannot be had."""
        ends = monotonic() + timeout_s * SHARE_OF_TIME
        room = self._bytes_max
        parts: list[MailPart] = []
        for number, wanted in enumerate(message.attachments, start=1):
            left_s = max(0.0, ends - monotonic())
            if wanted.s3 is not None:
                got = await self._from_bucket(message, wanted.s3, room, left_s)
            else:
                got = await self._from_url(message, wanted.url or "", room, left_s)
            if not isinstance(got, _Fetched):
                return _told(got, number, message)
            kind = file_type(got.content, wanted=wanted.content_type, told=got.told)
            if kind is None:
                no = Rejected(code="type", reason=f"is not {wanted.content_type}")
                return _told(no, number, message)
            room -= len(got.content)
            parts.append(
                MailPart(
                    filename=wanted.filename or _name_of(wanted, number, kind),
                    content_type=kind,
                    content=got.content,
                    inline=bool(wanted.inline),
                )
            )
        return msgspec.structs.replace(message, parts=tuple(parts))

    async def _from_url(
        self, message: Message, url: str, bytes_max: int, timeout_s: float
    ) -> _Fetched | Outcome:
        try:
            checked = self._guard.check_url(url)
        except Blocked as error:
            return Rejected(code="blocked", reason=f"cannot be fetched: {error}")
        if self._http is None:
            self._http = await HttpClient(self._guard).__aenter__()
        got = await self._http.get(
            checked, headers=_HEADERS, bytes_max=bytes_max, timeout_s=timeout_s
        )
        if isinstance(got, HttpFailure):
            reason = "cannot be fetched: " + got.reason.replace("The receiver", "its server")
            outcome = classify_http_trouble(got.trouble, "job", reason=reason)
            return msgspec.structs.replace(outcome, code=got.trouble)
        if got.body is None:
            return self._too_large()
        if not 200 <= got.status <= 299:
            return _by_status(got.status, got.headers, message.attempt)
        if got.headers.get("Content-Encoding", "identity").lower() != "identity":
            return Rejected(code="encoding", reason="came compressed, which was not asked for")
        return _Fetched(got.body, got.headers.get("Content-Type"))

    async def _from_bucket(
        self, message: Message, key: str, bytes_max: int, timeout_s: float
    ) -> _Fetched | Outcome:
        if self._bucket is None:
            reason = "lies in S3, and OUTBOX_S3_URL is not set"
            return Misconfigured(
                code="s3.unset", reason=reason, scope="endpoint", scope_key=S3_SCOPE
            )
        got = await self._bucket.get(
            message.tenant_id, key, bytes_max=bytes_max, timeout_s=timeout_s
        )
        if isinstance(got, S3Failure):
            code, reason = f"s3.{got.trouble}", f"cannot be fetched: {got.reason}"
            match got.trouble:
                case "missing":
                    return Rejected(code=code, reason=reason)
                case "away" | "timeout":
                    return Retryable(code=code, reason=reason)
                case "refused" | "bucket" | "tenant":
                    return Misconfigured(
                        code=code, reason=reason, scope="endpoint", scope_key=S3_SCOPE
                    )
        return (
            self._too_large() if got.content is None else _Fetched(got.content, got.content_type)
        )

    def _too_large(self) -> Rejected:
        reason = f"makes the attachments larger than {self._bytes_max} bytes together"
        return Rejected(code="too_large", reason=reason)


def _by_status(status: int, headers: Mapping[str, str], attempt: int) -> Outcome:
    """Return what a server's answer means to the one job that names the file."""
    reason = f"cannot be fetched: its server answered {status}"
    if status in (404, 410):
        return Rejected(code=str(status), reason=reason)
    outcome = classify_http(status, headers, "job", reason=reason, attempt=attempt)
    if isinstance(outcome, Delivered | Snoozed):
        return outcome
    changed: dict[str, object] = {"code": str(status)}
    if isinstance(outcome, Retryable):
        changed["scope"] = "job"  # whoever asks for a pause is not who takes the mail
    return msgspec.structs.replace(outcome, **changed)


def _told(outcome: Outcome, number: int, message: Message) -> Outcome:
    """Return an outcome in the words of the history: which attachment, and never its place."""
    if isinstance(outcome, Delivered | Snoozed):
        return outcome
    return msgspec.structs.replace(
        outcome,
        code=f"attachment.{outcome.code}",
        reason=f"Attachment {number} {outcome.reason}",
        sent=sent_by(None, message),
    )


def _name_of(attachment: Attachment, number: int, kind: str) -> str:
    """Return a name for a file that its job does not name."""
    path = attachment.s3 or unquote(urlsplit(attachment.url or "").path)
    name = _FORBIDDEN.sub("_", path.rpartition("/")[2]).strip()[:NAME_CHARS_MAX]
    if name.strip(". ") and name not in (".", ".."):
        return name
    extension = None if kind == UNKNOWN else guess_extension(kind)
    return f"attachment-{number}{extension or ''}"
