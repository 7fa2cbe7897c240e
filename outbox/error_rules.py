"""A tenant's own rows of the tables of errors: what an error means to it, whatever we think.

    {"code": "smtp.5.7.*", "becomes": "temporary", "retry_after_s": 3600}

Pure. The tables themselves are in `outbox.channels`; what destinations learn from an error (their
breaker, their pause) is shared by all tenants, so no tenant's row changes it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from outbox.outcome import Delivered, Misconfigured, Outcome, Rejected, Retryable, Snoozed

RULES_MAX = 100

Becomes = Literal["temporary", "permanent", "configuration"]


class ErrorRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One row. `code` is an error's, as the history has it, or its beginning and a `*`.

    `retry_after_s` is for `temporary`, `suppress` for `permanent`; `hold` says what
    `configuration` holds.
    """

    code: Annotated[str, Meta(min_length=1, max_length=100, pattern=r"^[^*\x00-\x20]+\*?$")]
    becomes: Becomes
    channel: Annotated[str, Meta(min_length=1, max_length=64)] | None = None
    suppress: bool = False
    retry_after_s: Annotated[float, Meta(ge=0, le=86_400)] | None = None
    hold: Literal["lane", "job"] = "lane"

    def fits(self, channel: str | None, code: str) -> bool:
        """Tell whether it is about this error."""
        if self.channel not in (None, channel):
            return False
        return code.startswith(self.code[:-1]) if self.code.endswith("*") else code == self.code


def overridden(outcome: Outcome, rules: Iterable[ErrorRule], channel: str | None) -> Outcome:
    """Return what an outcome is to a tenant: the first rule that fits decides."""
    if isinstance(outcome, Delivered | Snoozed):
        return outcome
    rule = next((rule for rule in rules if rule.fits(channel, outcome.code)), None)
    if rule is None:
        return outcome
    match rule.becomes:
        case "temporary":
            return Retryable(
                code=outcome.code,
                reason=outcome.reason,
                retry_after_s=rule.retry_after_s,
                ambiguous=isinstance(outcome, Retryable) and outcome.ambiguous,
                sent=outcome.sent,
                gone=outcome.gone,
            )
        case "permanent":
            return Rejected(
                code=outcome.code,
                reason=outcome.reason,
                suppress=rule.suppress,
                sent=outcome.sent,
                gone=outcome.gone,
            )
        case "configuration":
            return Misconfigured(
                code=outcome.code,
                reason=outcome.reason,
                scope=rule.hold,
                sent=outcome.sent,
                gone=outcome.gone,
            )
