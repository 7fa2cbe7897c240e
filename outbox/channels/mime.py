"""Mail as bytes, put together by hand.

A tree of `email.message` objects costs about 2.5 ms for a mail with Cyrillic text and HTML; this
costs a few hundredths of that, and reads back the same (the tests hold it against
`email.parser`). Invariants of what `build_mail` returns:

- every line ends with CR LF, no bare CR or LF is in it (so no SMTP smuggling), no NUL;
- bodies are ASCII: 7bit where they are already, else quoted-printable or base64, whichever is
  the shorter; headers are ASCII, but for a To or From whose local part needs SMTPUTF8;
- no line is over 998 bytes; the same message gives the same bytes but for `Date`.
"""

from __future__ import annotations

import re
from base64 import b64encode
from binascii import b2a_qp
from collections.abc import Mapping, Sequence
from datetime import datetime
from email.utils import format_datetime

import msgspec

from outbox.channels.addresses import AddressRefused, Mailbox, parse_named_mailbox
from outbox.channels.mime_parts import base64_lines, part_of
from outbox.message import MailPart

RESERVED = frozenset(
    {
        "from",
        "sender",
        "to",
        "cc",
        "bcc",
        "subject",
        "date",
        "message-id",
        "mime-version",
        "return-path",
        "received",
        "authentication-results",
        "dkim-signature",
        "apparently-to",
    }
)
RESERVED_PREFIXES = ("content-", "resent-", "arc-")
"""Headers (in lower case) that a job may not bring along."""

# An encoded word is at most 75 characters, a line that holds one 76 (RFC 2047, 2).
_WORD_LINE_CHARS = 76
_WORD_FRAME_CHARS = len("=?utf-8?b?") + len("?=")
_PLAIN_LINE_CHARS = 76
_LINE_BYTES_7BIT_MAX = 900

_ASCII = bytes(range(128))
_NEWLINES = re.compile(r"\r\n|\r|\n")
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_NOT_7BIT = re.compile(r"[^\t\r\n -~]")
_LONG_LINE = re.compile(rf"[^\n]{{{_LINE_BYTES_7BIT_MAX}}}")
_ATOM_PHRASE = re.compile(r"[A-Za-z0-9!#$%&'*+\-/=?^_`{|}~ ]+\Z")


class Sender(msgspec.Struct, frozen=True):
    """Who mail is from: the envelope's address and the header's value."""

    mailbox: Mailbox
    header: str


def parse_sender(text: str) -> Sender:
    """Return the sender of `Name <address>` or `address`. Raises AddressRefused."""
    name, mailbox = parse_named_mailbox(text)
    return Sender(mailbox, _named("From", name, mailbox))


def check_reply_to(value: str) -> None:
    """Raise AddressRefused unless `value` is `Name <address>` or `address`, in ASCII."""
    if parse_named_mailbox(value)[1].needs_smtputf8:
        raise AddressRefused("the header Reply-To has an address outside ASCII")


def build_mail(
    *,
    sender: Sender,
    recipient: Mailbox,
    subject: str,
    text: str | None,
    html: str | None,
    message_id: str,
    date: datetime,
    headers: Mapping[str, str],
    parts: Sequence[MailPart] = (),
) -> bytes:
    """Return the whole mail. `message_id` is without its angle brackets, `date` is aware.

    `headers` have been through `check_headers` with the reserved names above, a Reply-To through
    `check_reply_to`. At least one of `text` and `html` is given.
    """
    head = [
        f"From: {sender.header}",
        f"To: {recipient.address}",
        f"Subject: {_unstructured('Subject', one_line(subject))}",
        f"Date: {format_datetime(date)}",
        f"Message-ID: <{message_id}>",
        "MIME-Version: 1.0",
    ]
    for name, value in headers.items():
        head.append(f"{name}: {_custom(name, value)}")
    # None of the boundaries is how another begins: an id begins with a hexadecimal digit.
    name = message_id.partition("@")[0]
    root = "multipart/alternative"
    if text is not None and html is not None:
        body = _multipart("alternative", f"=_{name}", [_part("plain", text), _part("html", html)])
    elif text is not None:
        body = _part("plain", text)
    else:
        body, root = _part("html", html or ""), "text/html"
    shown = [part_of(part) for part in parts if part.inline and html is not None]
    beside = [part_of(part) for part in parts if not part.inline or html is None]
    if shown:
        body = _multipart("related", f"=_related_{name}", [body, *shown], f'; type="{root}"')
    if beside:
        body = _multipart("mixed", f"=_mixed_{name}", [body, *beside])
    return b"\r\n".join(("\r\n".join(head).encode(), body, b""))


def _multipart(subtype: str, boundary: str, parts: Sequence[bytes], more: str = "") -> bytes:
    """Return headers and body of several parts, without a line break at the end."""
    line = f"\r\n--{boundary}".encode()
    head = f'Content-Type: multipart/{subtype}; boundary="{boundary}"{more}\r\n'.encode()
    return head + b"".join(line + b"\r\n" + part for part in parts) + line + b"--"


def _part(subtype: str, text: str) -> bytes:
    """Return headers and body of one text part, without a line break at the end."""
    text = _NEWLINES.sub("\r\n", text)
    if not _NOT_7BIT.search(text) and not _LONG_LINE.search(text) and "=_" not in text:
        return f"Content-Type: text/{subtype}; charset=utf-8\r\n\r\n{text}".encode()
    raw = text.encode("utf-8", "replace")
    # Base64 makes 4/3 of every byte; quoted-printable 3 of each that is not ASCII.
    if len(raw.translate(None, _ASCII)) * 6 > len(raw):
        encoding, body = "base64", base64_lines(raw)
    else:
        # It takes its soft line breaks after the first break it finds: so there is one.
        encoding, body = "quoted-printable", b2a_qp(raw + b"\r\n", istext=True)[:-2]
    head = (
        f"Content-Type: text/{subtype}; charset=utf-8\r\n"
        f"Content-Transfer-Encoding: {encoding}\r\n\r\n"
    )
    return head.encode() + body


def one_line(text: str) -> str:
    """Return `text` with each run of line breaks and control characters as one space."""
    return _CONTROLS.sub(" ", text).strip()


def _unstructured(name: str, value: str) -> str:
    """Return a header's value: as it is, folded, or in encoded words."""
    if value.isascii() and "=?" not in value:
        if len(name) + 2 + len(value) <= _PLAIN_LINE_CHARS:
            return value
        folded = _folded(name, value)
        if folded is not None:
            return folded
    return _encoded_words(name, value)


def _folded(name: str, value: str) -> str | None:
    """Return an ASCII value in several lines, or None if it would not read back the same."""
    words = value.split(" ")
    if "" in words or "\t" in value or max(map(len, words)) > _LINE_BYTES_7BIT_MAX:
        return None
    lines: list[str] = []
    line = words[0]
    room = _PLAIN_LINE_CHARS - len(name) - 2
    for word in words[1:]:
        if len(line) + 1 + len(word) > room:
            lines.append(line)
            line, room = word, _PLAIN_LINE_CHARS - 1
        else:
            line = f"{line} {word}"
    lines.append(line)
    return "\r\n ".join(lines)


def _encoded_words(name: str, value: str) -> str:
    """Return base64 encoded words, cut between characters (RFC 2047, 5)."""
    words: list[str] = []
    room = _word_bytes(len(name) + 2)
    chunk = bytearray()
    for character in value:
        raw = character.encode("utf-8", "replace")
        if len(chunk) + len(raw) > room:
            words.append(_word(chunk))
            chunk.clear()
            room = _word_bytes(1)
        chunk += raw
    words.append(_word(chunk))
    return "\r\n ".join(words)


def _word_bytes(taken_chars: int) -> int:
    # At least one character of four bytes has to fit, however long the header's name is.
    return max(4, (_WORD_LINE_CHARS - taken_chars - _WORD_FRAME_CHARS) // 4 * 3)


def _word(raw: bytes | bytearray) -> str:
    return f"=?utf-8?b?{b64encode(raw).decode()}?="


def _named(header: str, name: str, mailbox: Mailbox) -> str:
    name = one_line(name)
    if not name:
        return mailbox.address
    if not name.isascii() or "=?" in name:
        return f"{_encoded_words(header, name)}\r\n <{mailbox.address}>"
    if _ATOM_PHRASE.match(name):
        return f"{name} <{mailbox.address}>"
    escaped = name.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}" <{mailbox.address}>'


def _custom(name: str, value: str) -> str:
    if name.lower() != "reply-to":
        return _unstructured(name, one_line(value))
    shown, mailbox = parse_named_mailbox(value)
    return _named(name, shown, mailbox)
