from __future__ import annotations

import pytest

from outbox.channels.addresses import AddressRefused, parse_mailbox


@pytest.mark.parametrize(
    ("text", "address", "needs_smtputf8"),
    [
        ("ann@example.com", "ann@example.com", False),
        (" ann@EXAMPLE.com ", "ann@example.com", False),
        ("ann+tag@example.co.uk", "ann+tag@example.co.uk", False),
        ("a..b@docomo.example", "a..b@docomo.example", False),
        ('"ann b"@example.com', '"ann b"@example.com', False),
        ("ann@münchen.de", "ann@xn--mnchen-3ya.de", False),
        ("иван@почта.рф", "иван@xn--80a1acny.xn--p1ai", True),
        ("root@localhost", "root@localhost", False),
        ("ann@пример.example", "ann@xn--e1afmkfd.example", False),
    ],
)
def test_an_address_is_normalised(text: str, address: str, needs_smtputf8: bool) -> None:
    mailbox = parse_mailbox(text)
    assert mailbox.address == address
    assert mailbox.needs_smtputf8 is needs_smtputf8


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ann",
        "@example.com",
        "ann@",
        "ann@exa mple.com",
        "ann b@example.com",
        "Ann <ann@example.com>",
        "ann@example.com, bob@example.com",
        "ann@example.com>\r\nRCPT TO:<bob@example.com",
        "ann\r\nBcc: x@example.com",
        "ann\x00@example.com",
        "ann\u2028@example.com",
        "ann@[127.0.0.1]",
        "ann@-example.com",
        "ann@example..com",
        "ann@.example.com",
        '"ann\r\n"@example.com',
        "a" * 65 + "@example.com",
        "ann@" + ".".join(["a" * 60] * 5),
        "ann@\ud800.com",
        "\ud800@example.com",
        "ann@xn--a.рф\u0000",
    ],
)
def test_what_is_no_single_address_is_refused(text: str) -> None:
    with pytest.raises(AddressRefused) as refusal:
        parse_mailbox(text)
    assert "example" not in str(refusal.value)
