from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email import policy
from email.message import EmailMessage
from email.parser import BytesParser

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from outbox.channels.addresses import AddressRefused, parse_mailbox
from outbox.channels.mime import build_mail, check_reply_to, parse_sender
from outbox.message import MailPart

SENDER = parse_sender("Кинотеатр «Звезда» <noreply@cinema.kz>")
unhurried = settings(deadline=None)
WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=400)
WRAPPED = st.lists(WORDS, max_size=5).map("".join)


def mail(
    *,
    subject: str = "Hello",
    text: str | None = "Hello",
    html: str | None = None,
    to: str = "ann@example.com",
    headers: Mapping[str, str] | None = None,
    parts: Sequence[MailPart] = (),
) -> bytes:
    return build_mail(
        sender=SENDER,
        recipient=parse_mailbox(to),
        subject=subject,
        text=text,
        html=html,
        message_id="f4d7c0c3-7bd2-4d5b-9891-93f6ac0242ef@cinema.kz",
        date=datetime(2026, 11, 22, 12, 0, tzinfo=UTC),
        headers=headers or {},
        parts=parts,
    )


def parsed(raw: bytes) -> EmailMessage:
    assert raw.endswith(b"\r\n")
    assert not re.search(rb"\r(?!\n)|(?<!\r)\n|\x00", raw)
    assert max(map(len, raw.split(b"\r\n"))) <= 998
    message = BytesParser(policy=policy.default).parsebytes(raw)
    for part in message.walk():
        assert part.defects == []
    return message


def body(message: EmailMessage, kind: str) -> str:
    part = message.get_body((kind,))
    assert part is not None
    content: str = part.get_content()
    return content.replace("\r\n", "\n")


def test_a_russian_mail_reads_back_with_subject_text_and_html() -> None:
    text = "Здравствуйте, Нуржан!\n\nДобро пожаловать.\n.\n..две точки\nFrom here"
    html = "<p>Здравствуйте, <b>Нуржан</b></p>\n" * 40
    subject = "Добро пожаловать в кинотеатр «Звезда», Нуржан: первый сеанс за наш счёт"
    message = parsed(mail(subject=subject, text=text, html=html))
    assert message["Subject"] == subject
    assert message["From"] == "Кинотеатр «Звезда» <noreply@cinema.kz>"
    assert message["To"] == "ann@example.com"
    assert message["Message-ID"] == "<f4d7c0c3-7bd2-4d5b-9891-93f6ac0242ef@cinema.kz>"
    assert message["Date"] == "Sun, 22 Nov 2026 12:00:00 +0000"
    assert message.get_content_type() == "multipart/alternative"
    assert [part.get_content_type() for part in message.iter_parts()] == [
        "text/plain",
        "text/html",
    ]
    assert body(message, "plain") == text
    assert body(message, "html") == html


def test_a_mail_may_have_only_text_or_only_html() -> None:
    only_text = parsed(mail(text="Only text"))
    assert only_text.get_content_type() == "text/plain"
    assert body(only_text, "plain") == "Only text\n"
    only_html = parsed(mail(text=None, html="<p>Только HTML</p>"))
    assert only_html.get_content_type() == "text/html"
    assert body(only_html, "html").rstrip("\n") == "<p>Только HTML</p>"


@unhurried
@given(text=WRAPPED, html=WRAPPED)
def test_any_text_reads_back_as_it_was(text: str, html: str) -> None:
    message = parsed(mail(text=text, html=html))
    assert body(message, "plain") == text
    assert body(message, "html") == html


@unhurried
@given(subject=st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S", "Zs"])))
def test_any_subject_reads_back_and_folds(subject: str) -> None:
    raw = mail(subject=subject)
    # What is left at the edges, and runs of spaces between encoded words, mail doesn't keep.
    assert "".join(parsed(raw)["Subject"].split()) == "".join(subject.split())
    for line in raw.partition(b"\r\n\r\n")[0].split(b"\r\n"):
        assert b"=?utf-8?b?" not in line or len(line) <= 76


def test_a_long_ascii_subject_is_folded_and_reads_back() -> None:
    subject = "The quick brown fox jumps over the lazy dog " * 9 + "end"
    raw = mail(subject=subject)
    assert parsed(raw)["Subject"] == subject
    assert max(map(len, raw.split(b"\r\n"))) <= 78


def test_a_subject_that_looks_encoded_reads_back_literally() -> None:
    assert parsed(mail(subject="=?utf-8?b?QQ==?="))["Subject"] == "=?utf-8?b?QQ==?="


def test_a_line_break_in_a_subject_adds_no_header() -> None:
    message = parsed(mail(subject="Hi\r\nBcc: victim@example.com\u2028X: y\x00"))
    assert message["Bcc"] is None
    assert message["X"] is None
    assert message["Subject"] == "Hi Bcc: victim@example.com X: y"


def test_very_long_lines_are_wrapped_without_loss() -> None:
    html = "<p>" + "x" * 100_000 + "</p>"
    assert body(parsed(mail(text="t", html=html)), "html") == html


def test_text_that_contains_the_boundary_stays_in_its_part() -> None:
    text = "--=_f4d7c0c3-7bd2-4d5b-9891-93f6ac0242ef--\nstill here"
    message = parsed(mail(text=text, html="<p>x</p>"))
    assert body(message, "plain") == text
    assert len(list(message.iter_parts())) == 2


NAMES = st.text(
    st.characters(codec="utf-8", categories=["L", "N", "P", "S", "M"], exclude_characters="/\\"),
    min_size=1,
    max_size=255,
).filter(lambda name: name == name.strip())


@unhurried
@given(name=NAMES, content=st.binary(max_size=300), html=st.booleans(), inline=st.booleans())
@example(name="Счёт №7 за ноябрь " * 14 + ".", content=b"", html=True, inline=False)
@example(name='a"b; c=d', content=b"--=_mixed_\r\n", html=False, inline=True)
def test_any_attachment_reads_back_with_its_name(
    name: str, content: bytes, html: bool, inline: bool
) -> None:
    part = MailPart(filename=name, content_type="application/pdf", content=content)
    shown = MailPart(filename="a.png", content_type="image/png", content=content, inline=inline)
    raw = mail(text="Привет", html="<p>x</p>" if html else None, parts=[part, shown])
    message = parsed(raw)
    files = {p.get_filename(): p for p in message.walk() if p.get_filename() is not None}
    assert {name: p.get_payload(decode=True) for name, p in files.items()} == {
        name: content,
        "a.png": content,
    }
    assert files["a.png"]["Content-ID"] == ("<a.png>" if inline else None)
    assert body(message, "plain").rstrip("\n") == "Привет"
    for line in raw.split(b"\r\n"):
        assert not line.startswith(b" filename*") or len(line) <= 78


def test_plain_ascii_goes_out_as_it_is() -> None:
    assert b"\r\n\r\nHello\r\nWorld\r\n" in mail(text="Hello\nWorld")


def test_a_local_part_outside_ascii_is_kept_and_a_domain_becomes_ascii() -> None:
    raw = mail(to="иван@почта.рф")
    assert "To: иван@xn--80a1acny.xn--p1ai\r\n".encode() in raw


def test_custom_headers_are_encoded_where_they_need_it() -> None:
    headers = {
        "X-Campaign": "чёрная пятница",
        "References": " ".join(f"<{n:032}@example.com>" for n in range(20)),
        "Reply-To": "Поддержка <help@cinema.kz>",
        "X-Empty": "",
    }
    message = parsed(mail(headers=headers))
    for name in headers:
        assert message[name] == headers[name]
    assert message["Reply-To"].addresses[0].addr_spec == "help@cinema.kz"


def test_a_reply_to_that_is_no_address_is_refused() -> None:
    with pytest.raises(AddressRefused):
        check_reply_to("nobody")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a@b.kz", "a@b.kz"),
        ("Cinema <a@b.kz>", "Cinema <a@b.kz>"),
        ('"Cinema, Inc." <a@b.kz>', '"Cinema, Inc." <a@b.kz>'),
        ("Кино <a@кино.kz>", "Кино <a@xn--h1adke.kz>"),
    ],
)
def test_a_sender_reads_back(text: str, shown: str) -> None:
    raw = build_mail(
        sender=parse_sender(text),
        recipient=parse_mailbox("ann@example.com"),
        subject="",
        text="",
        html=None,
        message_id="1@x",
        date=datetime(2026, 11, 22, tzinfo=UTC),
        headers={},
    )
    assert parsed(raw)["From"] == shown
