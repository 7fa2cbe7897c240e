"""What an HTTP receiver's answer means, as a table (docs/delivery.md 2).

Rows are tried from the top, the first that fits decides. Who is held by a configuration error
depends on whose the address is: a registered endpoint, the job's own `to`, or a provider of ours
(then the lane is held).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Literal, TypeAlias

import msgspec

from outbox.outcome import (
    Delivered,
    Misconfigured,
    Outcome,
    Rejected,
    Retryable,
    RetryScope,
    Sent,
)

TABLE_VERSION = 1
"""Counts the changes of the tables below."""

RETRY_AFTER_S_MAX = 86_400.0
"""The longest pause that a receiver may ask for: a day."""

OwnAddress: TypeAlias = Literal["endpoint", "job", "provider"]
HttpTrouble: TypeAlias = Literal[
    "blocked", "nxdomain", "dns", "connect", "certificate", "tls", "timeout", "lost", "protocol"
]
"""Why there is no answer. `blocked`: the guard refused the address; `lost`: cut off; `protocol`:
what came back is no HTTP."""


class StatusRow(msgspec.Struct, frozen=True, kw_only=True):
    """One rule about answers with a status from `first` to `last`.

    `verdict`: D done, T temporary, P permanent, C configuration. `tries` (for T): after so many
    it is C. `attempts_max` (for T): after so many it is permanent. `asks`: only where the answer
    has a Retry-After; it is honoured for everybody who talks to that host.
    """

    first: int
    last: int
    verdict: Literal["D", "T", "P", "C"]
    asks: bool = False
    scope: RetryScope = "job"
    retry_after_s: float | None = None
    attempts_max: int | None = None
    tries: int | None = None
    suppress: bool = False


def _status(
    first: int, verdict: Literal["D", "T", "P", "C"], last: int | None = None
) -> StatusRow:
    return StatusRow(first=first, last=last or first, verdict=verdict)


def _malformed(first: int, last: int | None = None) -> StatusRow:
    return StatusRow(
        first=first, last=last or first, verdict="T", attempts_max=3, retry_after_s=5.0
    )


HTTP_TABLE: tuple[StatusRow, ...] = (
    _status(200, "D", 299),
    _status(300, "C", 399),
    _status(401, "C"),
    _status(403, "C"),
    StatusRow(first=404, last=404, verdict="T", tries=3),
    _status(408, "T"),
    StatusRow(first=410, last=410, verdict="P", suppress=True),
    _status(425, "T"),
    StatusRow(first=429, last=429, verdict="T", scope="destination"),
    StatusRow(first=503, last=503, verdict="T", asks=True, scope="destination"),
    _status(500, "T", 599),
    # 400, 405, 413, 415, 422, and the rest of that hundred, which says the same in other words.
    _malformed(400, 499),
    # No final status at all.
    _status(0, "T", 999),
)


class TroubleRow(msgspec.Struct, frozen=True, kw_only=True):
    """One rule about a request without an answer. `for_job`: the verdict for a job's own `to`."""

    verdict: Literal["T", "P", "C"]
    for_job: Literal["T", "P", "C"] | None = None


HTTP_TROUBLE_TABLE: Mapping[HttpTrouble, TroubleRow] = {
    "blocked": TroubleRow(verdict="C", for_job="P"),
    "nxdomain": TroubleRow(verdict="C", for_job="P"),
    "dns": TroubleRow(verdict="T"),
    "connect": TroubleRow(verdict="T"),
    "certificate": TroubleRow(verdict="C"),
    "tls": TroubleRow(verdict="T"),
    "timeout": TroubleRow(verdict="T"),
    "lost": TroubleRow(verdict="T"),
    "protocol": TroubleRow(verdict="T"),
}


def retry_after_s(value: str | None, now: datetime) -> float | None:
    """Return the pause that a Retry-After asks for, in seconds, at most a day.

    Takes seconds and HTTP dates. None where there is none, it makes no sense, or lies in the
    past: then the backoff decides.
    """
    if value is None:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit():
        # Longer numbers mean "far away" all the same, and int() has a limit of its own.
        asked = float(value[:12])
    else:
        try:
            until = parsedate_to_datetime(value)
        except (ValueError, TypeError, OverflowError):
            return None
        asked = ((until if until.tzinfo else until.replace(tzinfo=UTC)) - now).total_seconds()
    return min(asked, RETRY_AFTER_S_MAX) if asked > 0 else None


def http_row(status: int, asked_s: float | None) -> StatusRow:
    """Return the row that decides about this status."""
    for row in HTTP_TABLE:
        if row.first <= status <= row.last and (asked_s is not None or not row.asks):
            return row
    return HTTP_TABLE[-1]


def classify_http(
    status: int,
    headers: Mapping[str, str],
    own_address: OwnAddress,
    *,
    reason: str = "",
    attempt: int = 1,
    scope_key: str = "",
    now: datetime | None = None,
    sent: Sent | None = None,
) -> Outcome:
    """Return what an answer means.

    `headers` are looked up by `Retry-After` (any case where the mapping ignores case).
    `attempt` counts from 1. `scope_key` names the endpoint that a configuration error holds.
    `reason` is what to tell the reader of the history.
    """
    asked_s = retry_after_s(headers.get("Retry-After"), now or datetime.now(UTC))
    row = http_row(status, asked_s)
    code = f"http.{status}"
    reason = reason or f"The receiver answered {status}"
    verdict = row.verdict
    if verdict == "T" and row.tries is not None and attempt > row.tries:
        verdict = "C"
    match verdict:
        case "D":
            return Delivered(sent=sent)
        case "T":
            return Retryable(
                code=code,
                reason=reason,
                scope=row.scope,
                retry_after_s=asked_s if row.scope == "destination" else row.retry_after_s,
                attempts_max=row.attempts_max,
                sent=sent,
            )
        case "P":
            suppress = row.suppress and own_address != "provider"
            return Rejected(code=code, reason=reason, suppress=suppress, sent=sent)
        case "C":
            return _held(code, reason, own_address, scope_key, sent)


def classify_http_trouble(
    trouble: HttpTrouble,
    own_address: OwnAddress,
    *,
    reason: str,
    body_sent: bool = False,
    scope_key: str = "",
    sent: Sent | None = None,
) -> Retryable | Rejected | Misconfigured:
    """Return what it means that there was no answer.

    `body_sent`: the request may have been read whole, so that its effect is unknown.
    """
    row = HTTP_TROUBLE_TABLE[trouble]
    verdict = row.for_job if own_address == "job" and row.for_job is not None else row.verdict
    code = f"http.{trouble}"
    match verdict:
        case "T":
            return Retryable(code=code, reason=reason, ambiguous=body_sent, sent=sent)
        case "P":
            return Rejected(code=code, reason=reason, sent=sent)
        case "C":
            return _held(code, reason, own_address, scope_key, sent)


def _held(
    code: str, reason: str, own_address: OwnAddress, scope_key: str, sent: Sent | None
) -> Misconfigured:
    if own_address == "provider":
        return Misconfigured(code=code, reason=reason, scope="lane", sent=sent)
    return Misconfigured(
        code=code, reason=reason, scope=own_address, scope_key=scope_key, sent=sent
    )
