"""What an SMTP server's refusal means, as a table (docs/delivery.md 2).

Rows are tried from the top, the first that fits decides. A row may look at the basic code, at
the enhanced code (RFC 3463), at the stage, and at the text: at the text only where the server
gave no enhanced code. An enhanced code that contradicts the basic one (450 5.1.1) is ignored:
what the server calls temporary never becomes permanent.
"""

from __future__ import annotations

import re
from typing import Literal, TypeAlias

import msgspec

from outbox.outcome import Misconfigured, Rejected, Retryable, RetryScope

TABLE_VERSION = 1
"""Counts the changes of the table below."""

Stage: TypeAlias = Literal["connect", "tls", "auth", "mail", "rcpt", "data", "body"]
"""How far a transaction had come. `body`: everything, the final dot included, is out."""

GREYLIST_S = 300.0


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One rule. Patterns match whole codes; an empty pattern fits anything.

    `verdict`: T temporary, P permanent, C configuration (holds the lane). `suppress`: nor will
    anything else reach this address. `policy`: it counts towards the provider's reputation.
    """

    name: str
    verdict: Literal["T", "P", "C"]
    code: str = ""
    enhanced: str = ""
    text: str = ""
    stages: tuple[Stage, ...] = ()
    suppress: bool = False
    policy: bool = False
    scope: RetryScope = "job"
    retry_after_s: float | None = None
    attempts_max: int | None = None


SMTP_TABLE: tuple[Row, ...] = (
    # Our side: the login, the sender.
    Row(name="login", verdict="C", code="530|534|535|538"),
    Row(name="login", verdict="C", enhanced=r"5\.7\.8"),
    Row(name="sender", verdict="C", enhanced=r"5\.1\.[78]"),
    Row(name="login", verdict="C", code=r"5\d\d", stages=("auth",)),
    Row(name="tls", verdict="C", code=r"5\d\d", stages=("tls",)),
    # This message, whatever was said so far.
    Row(name="message", verdict="P", enhanced=r"5\.2\.3|5\.3\.4|5\.6\.\d+"),
    # Refused before there is a recipient: about the sender, or about where we come from.
    Row(name="sender", verdict="C", code="55[0134]", stages=("mail",)),
    # The server as a whole: nobody's mail goes through now.
    Row(name="connect", verdict="T", stages=("connect", "tls", "auth"), scope="provider"),
    Row(
        name="greylist",
        verdict="T",
        code="45[01]",
        enhanced=r"4\.7\.\d+",
        retry_after_s=GREYLIST_S,
    ),
    Row(name="unavailable", verdict="T", code="421", scope="provider"),
    Row(name="unavailable", verdict="T", enhanced=r"4\.[34]\.\d+", scope="provider"),
    Row(name="sequence", verdict="T", code="503", attempts_max=2),
    # This mailbox, for now.
    Row(name="mailbox_busy", verdict="T", enhanced=r"4\.2\.\d+"),
    Row(name="storage", verdict="T", code="452"),
    # This mailbox, for good.
    Row(name="no_mailbox", verdict="P", enhanced=r"5\.1\.(1|2|3|6|10)", suppress=True),
    Row(name="no_mailbox", verdict="P", enhanced=r"5\.2\.1", suppress=True),
    Row(name="mailbox_full", verdict="P", enhanced=r"5\.2\.2"),
    # What we think, and where we come from.
    Row(name="policy", verdict="P", enhanced=r"5\.7\.(1|25|26)", policy=True),
    Row(name="message", verdict="P", code="552"),
    # No enhanced code: the words decide, as far as they can.
    Row(
        name="greylist",
        verdict="T",
        code="45[01]",
        text=r"gr[ae]y-?list|try again (in|after) \d+",
        retry_after_s=GREYLIST_S,
    ),
    Row(
        name="policy",
        verdict="P",
        code="55[034]",
        text=r"spam|black-?list|block-?list|\bblocked\b|reputation|\bpolicy\b|\bspf\b|dkim|dmarc",
        policy=True,
    ),
    Row(name="mailbox_full", verdict="P", code="55[0-4]", text=r"quota|mailbox (is )?full"),
    Row(name="message", verdict="P", code="55[0-4]", text=r"too (large|big)|size limit"),
    Row(
        name="no_mailbox",
        verdict="P",
        code="55[0134]",
        text=r"(user|mailbox|recipient|address|account)[^.]{0,40}"
        r"(unknown|not found|does(n.t| not) exist|disabled)"
        r"|(no such|unknown|invalid) (user|mailbox|recipient|address|account)",
        stages=("rcpt",),
        suppress=True,
    ),
    Row(name="temporary", verdict="T", code=r"4\d\d"),
    Row(name="refused", verdict="P", code=r"5\d\d"),
    # A number that is no refusal, or no number: the server doesn't speak SMTP now.
    Row(name="protocol", verdict="T", scope="provider"),
)

_ENHANCED = re.compile(r"\s*([245]\.\d{1,3}\.\d{1,3})(?:\s|\Z)")


class _Compiled(msgspec.Struct, frozen=True):
    row: Row
    code: re.Pattern[str] | None
    enhanced: re.Pattern[str] | None
    text: re.Pattern[str] | None


def _compile(row: Row) -> _Compiled:
    return _Compiled(
        row,
        re.compile(row.code) if row.code else None,
        re.compile(row.enhanced) if row.enhanced else None,
        re.compile(row.text, re.IGNORECASE) if row.text else None,
    )


_COMPILED = tuple(_compile(row) for row in SMTP_TABLE)


def enhanced_code(text: str) -> str | None:
    """Return the enhanced status code that a reply's text begins with, such as `5.1.1`."""
    match = _ENHANCED.match(text)
    return match[1] if match else None


def smtp_row(code: int, enhanced: str | None, text: str, *, stage: Stage = "rcpt") -> Row:
    """Return the row that decides about this reply."""
    digits = f"{code:03d}" if 0 <= code <= 999 else "000"
    if enhanced is not None and enhanced[:1] != digits[0]:
        enhanced = None
    for compiled in _COMPILED:
        row = compiled.row
        if row.stages and stage not in row.stages:
            continue
        if compiled.code is not None and not compiled.code.fullmatch(digits):
            continue
        if compiled.enhanced is not None and not (
            enhanced is not None and compiled.enhanced.fullmatch(enhanced)
        ):
            continue
        if compiled.text is not None and (enhanced is not None or not compiled.text.search(text)):
            continue
        return row
    raise AssertionError("the last row fits everything")


def classify_smtp(
    code: int, enhanced: str | None, text: str, *, stage: Stage = "rcpt"
) -> Retryable | Rejected | Misconfigured:
    """Return what a refusal means.

    `code` is the basic code (-1 for none), `enhanced` the enhanced one or None, `text` the rest
    of the reply, already free of what must not be kept. The outcome's code is `smtp.` and the
    most telling number there is.
    """
    row = smtp_row(code, enhanced, text, stage=stage)
    number = enhanced or (f"{code:03d}" if code >= 0 else row.name)
    name = f"smtp.{number}"
    reason = " ".join(part for part in (str(code) if code >= 0 else "", text.strip()) if part)
    match row.verdict:
        case "C":
            return Misconfigured(code=name, reason=reason, scope="lane")
        case "P":
            return Rejected(code=name, reason=reason, suppress=row.suppress)
        case "T":
            return Retryable(
                code=name,
                reason=reason,
                scope=row.scope,
                retry_after_s=row.retry_after_s,
                attempts_max=row.attempts_max,
            )
