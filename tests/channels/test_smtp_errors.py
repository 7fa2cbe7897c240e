from __future__ import annotations

from typing import Literal

import pytest

from outbox.channels.smtp_errors import Stage, classify_smtp, enhanced_code
from outbox.outcome import Misconfigured, Outcome, Rejected, Retryable

Told = Literal["T", "T provider", "T 300", "T once", "P", "P S", "C"]


def told(
    code: int, text: str, stage: Stage = "rcpt"
) -> tuple[Retryable | Rejected | Misconfigured, Told]:
    outcome = classify_smtp(code, enhanced_code(text), text, stage=stage)
    return outcome, told_of(outcome)


def told_of(outcome: Outcome) -> Told:
    match outcome:
        case Misconfigured():
            assert outcome.scope == "lane"
            return "C"
        case Rejected():
            return "P S" if outcome.suppress else "P"
        case Retryable():
            assert not outcome.ambiguous
            if outcome.retry_after_s is not None:
                assert outcome.retry_after_s >= 300
                return "T 300"
            if outcome.attempts_max is not None:
                assert outcome.attempts_max == 2
                return "T once"
            return "T provider" if outcome.scope == "provider" else "T"
        case _:
            raise AssertionError(outcome)


REPLIES: tuple[tuple[int, str, Told], ...] = (
    (421, "4.3.2 shutting down", "T provider"),
    (421, "too many connections", "T provider"),
    (421, "4.7.28 unusual rate of mail", "T provider"),
    (451, "4.3.0 local error", "T provider"),
    (452, "4.3.1 insufficient storage", "T provider"),
    (450, "4.4.1 no answer from host", "T provider"),
    (450, "4.7.1 greylisted", "T 300"),
    (451, "4.7.0 try again later", "T 300"),
    (450, "greylisted, see you later", "T 300"),
    (451, "Greylisting in action", "T 300"),
    (450, "4.2.0 mailbox busy", "T"),
    (452, "4.2.2 mailbox full for now", "T"),
    (452, "too many recipients", "T"),
    (450, "4.1.1 unverified address", "T"),
    (450, "mailbox unavailable", "T"),
    (451, "local error in processing", "T"),
    (550, "5.1.1 no such user", "P S"),
    (550, "5.1.2 bad destination system", "P S"),
    (501, "5.1.3 bad syntax", "P S"),
    (551, "5.1.6 moved away", "P S"),
    (556, "5.1.10 null MX", "P S"),
    (550, "5.2.1 mailbox disabled", "P S"),
    (552, "5.2.2 mailbox full", "P"),
    (554, "5.2.2 over quota", "P"),
    (552, "5.2.3 message too long for the mailbox", "P"),
    (552, "5.3.4 message too big for the system", "P"),
    (552, "too much data", "P"),
    (554, "5.6.0 bad content", "P"),
    (554, "5.6.7 SMTPUTF8 needed", "P"),
    (550, "5.7.1 blocked", "P"),
    (550, "5.7.25 no reverse DNS", "P"),
    (550, "5.7.26 unauthenticated", "P"),
    (554, "5.7.0 policy of some other kind", "P"),
    (530, "5.7.0 must issue a STARTTLS first", "C"),
    (530, "5.7.1 authentication required", "C"),
    (530, "login first", "C"),
    (534, "5.7.9 mechanism too weak", "C"),
    (535, "5.7.8 bad credentials", "C"),
    (535, "no", "C"),
    (538, "5.7.11 encryption required", "C"),
    (554, "5.7.8 bad credentials", "C"),
    (553, "5.1.7 bad sender's mailbox", "C"),
    (553, "5.1.8 bad sender's system", "C"),
    (503, "5.5.1 bad sequence of commands", "T once"),
    (503, "need MAIL first", "T once"),
    (550, "no such user here", "P S"),
    (550, "User unknown in virtual mailbox table", "P S"),
    (550, "Recipient address does not exist", "P S"),
    (554, "rejected as spam", "P"),
    (550, "listed at a blocklist", "P"),
    (552, "mailbox full", "P"),
    (550, "requested action not taken", "P"),
    (554, "transaction failed", "P"),
    (500, "what?", "P"),
    # An enhanced code that contradicts the basic one: the milder one stands.
    (450, "5.1.1 no such user", "T"),
    (299, "odd", "T provider"),
    (354, "odd", "T provider"),
    (-1, "garbage", "T provider"),
)
"""What a server may answer to RCPT, and what the table says of it."""


@pytest.mark.parametrize(("code", "text", "expected"), REPLIES)
def test_each_row_of_the_table(code: int, text: str, expected: Told) -> None:
    assert told(code, text)[1] == expected


@pytest.mark.parametrize(
    ("stage", "code", "text", "expected"),
    [
        ("connect", 554, "5.7.1 go away", "T provider"),
        ("connect", 421, "busy", "T provider"),
        ("tls", 454, "4.7.0 TLS not available", "T provider"),
        ("tls", 554, "no TLS for you", "C"),
        ("auth", 454, "4.7.0 temporary", "T provider"),
        ("auth", 535, "5.7.8 bad", "C"),
        ("auth", 504, "5.5.4 unknown mechanism", "C"),
        ("mail", 550, "sender rejected", "C"),
        ("mail", 553, "5.7.1 not owned by user", "C"),
        ("mail", 552, "5.3.4 too big", "P"),
        ("mail", 550, "5.6.7 SMTPUTF8 needed", "P"),
        ("mail", 451, "4.3.0 queue file", "T provider"),
        ("body", 554, "5.7.1 spam", "P"),
        ("body", 550, "user unknown", "P"),
    ],
)
def test_the_stage_decides_what_a_bare_refusal_is_about(
    stage: Stage, code: int, text: str, expected: Told
) -> None:
    assert told(code, text, stage)[1] == expected


def test_the_code_of_an_outcome_is_the_most_telling_number() -> None:
    assert told(550, "5.1.1 x")[0].code == "smtp.5.1.1"
    assert told(550, "x")[0].code == "smtp.550"
    assert told(-1, "x")[0].code == "smtp.protocol"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("5.1.1 no", "5.1.1"),
        ("4.7.0\nmore", "4.7.0"),
        ("5.1.10", "5.1.10"),
        ("1.2.3.4 is listed", None),
        ("5.1 no", None),
        ("no 5.1.1", None),
        ("", None),
    ],
)
def test_an_enhanced_code_stands_at_the_start(text: str, code: str | None) -> None:
    assert enhanced_code(text) == code
