"""What providers' own codes mean, as tables (docs/channels.md). Rows are tried from the top.

HTTP statuses without a code that is named here are judged by `http_errors`, as of an address of
our own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

import msgspec

from outbox.outcome import (
    HoldScope,
    Misconfigured,
    Rejected,
    Retryable,
    RetryScope,
    Sent,
)

TABLE_VERSION = 1
"""Counts the changes of the tables below."""


class CodeRow(msgspec.Struct, frozen=True, kw_only=True):
    """One rule about some of a provider's codes; `text` is looked for where it is not empty.

    `verdict`: T temporary, P permanent, C configuration. `scope` (for T): whom the pause is for.
    `hold` (for C): what is held. `attempts_max` (for T): after so many tries it is permanent.
    """

    codes: frozenset[str]
    verdict: Literal["T", "P", "C"]
    text: str = ""
    scope: RetryScope = "job"
    hold: HoldScope = "lane"
    suppress: bool = False
    ambiguous: bool = False
    attempts_max: int | None = None


def _codes(*codes: int | str) -> frozenset[str]:
    return frozenset(map(str, codes))


# Numbers of Twilio's: https://www.twilio.com/docs/api/errors
TWILIO_TABLE: tuple[CodeRow, ...] = (
    CodeRow(codes=_codes(20429, 20503, 21730, 30001), verdict="T", scope="provider"),
    CodeRow(codes=_codes(20500), verdict="T", ambiguous=True),
    # The login, the sender, the account.
    CodeRow(codes=_codes(20003, 21601, 21606, 30002, 30034), verdict="C"),
    # What the account may not send to this one number, or for this price, or in these words.
    CodeRow(codes=_codes(21408, 21608, 30007, 30010), verdict="C", hold="job"),
    # No number, not in service, a landline; and who has said STOP.
    CodeRow(codes=_codes(21211, 21612, 21614, 30005, 30006), verdict="P", suppress=True),
    CodeRow(codes=_codes(21610), verdict="P", suppress=True),
    CodeRow(codes=_codes(30004, 21617), verdict="P"),
    CodeRow(codes=_codes(30003, 30008), verdict="T", attempts_max=3),
)

# `codes` are the answers' statuses, `text` is looked for in their description.
TELEGRAM_TABLE: tuple[CodeRow, ...] = (
    CodeRow(codes=_codes(429), verdict="T", scope="provider"),
    CodeRow(
        codes=_codes(400),
        verdict="P",
        suppress=True,
        text=r"(chat|user) not found|peer_id_invalid|user is deactivated",
    ),
    CodeRow(codes=_codes(400), verdict="P"),
    CodeRow(codes=_codes(401, 404), verdict="C"),
    CodeRow(codes=_codes(403), verdict="P", suppress=True),
)

# https://firebase.google.com/docs/reference/fcm/rest/v1/ErrorCode; `token` stands for an
# INVALID_ARGUMENT about message.token.
FCM_TABLE: tuple[CodeRow, ...] = (
    CodeRow(codes=_codes("UNREGISTERED", "token"), verdict="P", suppress=True),
    CodeRow(codes=_codes("INVALID_ARGUMENT", "SENDER_ID_MISMATCH"), verdict="P"),
    CodeRow(codes=_codes("QUOTA_EXCEEDED", "UNAVAILABLE"), verdict="T", scope="provider"),
    CodeRow(codes=_codes("INTERNAL", 502), verdict="T"),
    CodeRow(codes=_codes("THIRD_PARTY_AUTH_ERROR", 401, 403), verdict="C"),
)

# RFC 8030; `codes` are statuses. Whose server refuses us is told by the subscription's origin: a
# hold is that origin's, so nobody's odd subscription keeps anybody else from being told.
WEB_PUSH_TABLE: tuple[CodeRow, ...] = (
    CodeRow(codes=_codes(404, 410), verdict="P", suppress=True),
    CodeRow(codes=_codes(401, 403), verdict="C", hold="endpoint"),
    CodeRow(codes=_codes(400, 413), verdict="P"),
    CodeRow(codes=_codes(429), verdict="T", scope="destination"),
)

# Our own: what the API's processes tell of a user's sockets.
WS_TABLE: tuple[CodeRow, ...] = (
    CodeRow(codes=_codes("no_socket"), verdict="T"),
    CodeRow(codes=_codes("unacknowledged"), verdict="T", ambiguous=True),
)

# https://postmarkapp.com/developer/api/overview#error-codes
POSTMARK_TABLE: tuple[CodeRow, ...] = (
    CodeRow(codes=_codes(10, 400, 401, 405, 412, 413), verdict="C"),
    CodeRow(codes=_codes(406), verdict="P", suppress=True),
    CodeRow(codes=_codes(300, 402, 403), verdict="P"),
    CodeRow(codes=_codes(100), verdict="T", scope="provider"),
)

# SendGrid names the field that it does not like; `codes` are statuses.
SENDGRID_TABLE: tuple[CodeRow, ...] = (
    CodeRow(codes=_codes(401, 403), verdict="C"),
    CodeRow(codes=_codes(400), verdict="C", text=r"^from\b|verified sender"),
    CodeRow(codes=_codes(400, 413), verdict="P"),
    CodeRow(codes=_codes(429), verdict="T", scope="provider"),
)


def find_row(table: Iterable[CodeRow], code: str, text: str = "") -> CodeRow | None:
    """Return the row that decides about `code`, or None where the table doesn't know it."""
    for row in table:
        if code in row.codes and (not row.text or re.search(row.text, text, re.IGNORECASE)):
            return row
    return None


def classify(
    row: CodeRow,
    *,
    code: str,
    reason: str,
    retry_after_s: float | None = None,
    scope_key: str = "",
    sent: Sent | None = None,
) -> Retryable | Rejected | Misconfigured:
    """Return what a row says of an answer. `code` is the outcome's whole code."""
    match row.verdict:
        case "T":
            return Retryable(
                code=code,
                reason=reason,
                scope=row.scope,
                retry_after_s=retry_after_s,
                ambiguous=row.ambiguous,
                attempts_max=row.attempts_max,
                sent=sent,
            )
        case "P":
            return Rejected(code=code, reason=reason, suppress=row.suppress, sent=sent)
        case "C":
            key = scope_key if row.hold == "endpoint" else ""
            return Misconfigured(
                code=code, reason=reason, scope=row.hold, scope_key=key, sent=sent
            )
