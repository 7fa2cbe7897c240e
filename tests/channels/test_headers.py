from __future__ import annotations

import pytest

from outbox.channels.headers import HeaderRefused, check_headers

RESERVED = frozenset({"from", "bcc"})


def test_ordinary_headers_pass() -> None:
    check_headers({"X-A": "b\tc", "List-Unsubscribe": "<mailto:a@b>"}, reserved=RESERVED)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-A", "b\r\nBcc: c@example.com"),
        ("X-A", "b\nc"),
        ("X-A", "b\rc"),
        ("X-A", "b\x00c"),
        ("X-A", "b\x85c"),
        ("X-A", "b\u2028c"),
        ("X-A", "b\ud800c"),
        ("X-A", "b" * 2_001),
        ("X-A\r\nBcc", "c@example.com"),
        ("X A", "b"),
        ("X-A:", "b"),
        ("", "b"),
        ("Ж", "b"),
        ("X" * 101, "b"),
        ("From", "mallory@example.com"),
        ("bCC", "mallory@example.com"),
        ("Content-Type", "text/html"),
    ],
)
def test_a_header_that_could_do_more_is_refused_without_its_value(name: str, value: str) -> None:
    with pytest.raises(HeaderRefused) as refusal:
        check_headers({name: value}, reserved=RESERVED, reserved_prefixes=("content-",))
    assert "example" not in str(refusal.value)


def test_too_many_headers_are_refused() -> None:
    with pytest.raises(HeaderRefused):
        check_headers({f"X-{n}": "" for n in range(51)}, reserved=RESERVED)
