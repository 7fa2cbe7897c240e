from __future__ import annotations

from datetime import UTC, datetime

import pytest

from outbox.channels.http_errors import (
    HttpTrouble,
    OwnAddress,
    classify_http,
    classify_http_trouble,
    retry_after_s,
)
from outbox.outcome import Delivered, Misconfigured, Outcome, Rejected, Retryable

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def told(outcome: Outcome) -> str:
    match outcome:
        case Delivered():
            return "done"
        case Rejected():
            return "P S" if outcome.suppress else "P"
        case Misconfigured():
            return f"C {outcome.scope}"
        case Retryable(attempts_max=3, retry_after_s=5.0):
            return "P after 3"
        case Retryable(ambiguous=True):
            return "ambiguous"
        case Retryable():
            assert outcome.attempts_max is None
            return "T" if outcome.scope == "job" else f"T {outcome.scope}"
        case _:
            return "?"


STATUSES: tuple[tuple[int, str, str], ...] = (
    (200, "done", "done"),
    (202, "done", "done"),
    (204, "done", "done"),
    (299, "done", "done"),
    (301, "C endpoint", "C job"),
    (302, "C endpoint", "C job"),
    (304, "C endpoint", "C job"),
    (307, "C endpoint", "C job"),
    (400, "P after 3", "P after 3"),
    (405, "P after 3", "P after 3"),
    (413, "P after 3", "P after 3"),
    (415, "P after 3", "P after 3"),
    (422, "P after 3", "P after 3"),
    (402, "P after 3", "P after 3"),
    (451, "P after 3", "P after 3"),
    (401, "C endpoint", "C job"),
    (403, "C endpoint", "C job"),
    (404, "T", "T"),
    (408, "T", "T"),
    (425, "T", "T"),
    (410, "P S", "P S"),
    (429, "T destination", "T destination"),
    (500, "T", "T"),
    (502, "T", "T"),
    (503, "T", "T"),
    (504, "T", "T"),
    (599, "T", "T"),
    (100, "T", "T"),
    (999, "T", "T"),
)
"""What a receiver may answer, and what that is to an endpoint and to a job's own `to`."""


@pytest.mark.parametrize(("status", "endpoint", "job"), STATUSES)
def test_each_row_of_the_table(status: int, endpoint: str, job: str) -> None:
    assert told(classify_http(status, {}, "endpoint", now=NOW)) == endpoint
    assert told(classify_http(status, {}, "job", now=NOW)) == job


def test_a_404_is_temporary_three_times_and_then_holds_the_endpoint() -> None:
    outcomes = [
        classify_http(404, {}, "endpoint", attempt=attempt, scope_key="e1", now=NOW)
        for attempt in (1, 2, 3, 4)
    ]
    assert [told(outcome) for outcome in outcomes] == ["T", "T", "T", "C endpoint"]
    held = outcomes[3]
    assert isinstance(held, Misconfigured)
    assert held.scope_key == "e1"


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120.0),
        ("Sun, 22 Nov 2026 12:05:00 GMT", 300.0),
        ("99999999999999999999999999", 86_400.0),
        ("Tue, 22 Nov 2033 12:05:00 GMT", 86_400.0),
    ],
)
def test_a_retry_after_is_for_everybody_who_talks_to_that_host(
    status: int, value: str, seconds: float
) -> None:
    outcome = classify_http(status, {"Retry-After": value}, "job", now=NOW)
    assert isinstance(outcome, Retryable)
    assert outcome.scope == "destination"
    assert outcome.retry_after_s == seconds


@pytest.mark.parametrize(
    "value",
    [None, "", "0", "-5", "soon", "1.5", "٣", "Sun, 22 Nov 2026 11:00:00 GMT", "Sun, 99 Foo 1"],
)
def test_a_retry_after_that_makes_no_sense_leaves_it_to_the_backoff(value: str | None) -> None:
    assert retry_after_s(value, NOW) is None


def test_a_retry_after_on_another_status_is_not_honoured() -> None:
    outcome = classify_http(500, {"Retry-After": "120"}, "job", now=NOW)
    assert isinstance(outcome, Retryable)
    assert outcome.retry_after_s is None


@pytest.mark.parametrize(
    ("trouble", "own_address", "body_sent", "expected"),
    [
        ("blocked", "endpoint", False, "C endpoint"),
        ("blocked", "job", False, "P"),
        ("nxdomain", "endpoint", False, "C endpoint"),
        ("nxdomain", "job", False, "P"),
        ("certificate", "endpoint", False, "C endpoint"),
        ("certificate", "job", False, "C job"),
        ("dns", "endpoint", False, "T"),
        ("connect", "job", False, "T"),
        ("tls", "job", False, "T"),
        ("timeout", "job", False, "T"),
        ("timeout", "job", True, "ambiguous"),
        ("lost", "endpoint", False, "T"),
        ("lost", "endpoint", True, "ambiguous"),
        ("protocol", "endpoint", True, "ambiguous"),
    ],
)
def test_each_way_to_get_no_answer(
    trouble: HttpTrouble, own_address: OwnAddress, body_sent: bool, expected: str
) -> None:
    outcome = classify_http_trouble(trouble, own_address, reason="why", body_sent=body_sent)
    assert told(outcome) == expected
    assert outcome.code == f"http.{trouble}"
