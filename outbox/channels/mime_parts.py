"""Attachments as parts of a mail: their headers, and base64."""

from __future__ import annotations

from base64 import b64encode
from urllib.parse import quote

from outbox.message import MailPart

SEGMENT_CHARS = 56
"""Of an encoded file name a line (RFC 2231, 3); with its frame it is under 78."""


def part_of(part: MailPart) -> bytes:
    """Return one part's headers and body, without a line break at the end."""
    kind = part.content_type
    if kind.startswith("text/") and _is_utf8(part.content):
        kind += "; charset=utf-8"
    lines = [
        f"Content-Type: {kind}",
        "Content-Transfer-Encoding: base64",
        f"Content-Disposition: {'inline' if part.inline else 'attachment'};",
        *_filename(part.filename),
    ]
    if part.inline:
        lines.append(f"Content-ID: <{part.filename}>")
    return "\r\n".join((*lines, "", "")).encode() + base64_lines(part.content)


def base64_lines(raw: bytes) -> bytes:
    """Return base64 in lines of 76 characters."""
    encoded = b64encode(raw)
    return b"\r\n".join([encoded[at : at + 76] for at in range(0, len(encoded), 76)])


def _filename(name: str) -> list[str]:
    """Return the parameter `filename`, in lines that begin with a blank."""
    if name.isascii():
        escaped = name.replace("\\", "\\\\").replace('"', '\\"')
        return [f' filename="{escaped}"']
    segments = [""]
    for character in name:
        encoded = quote(character, safe="")
        if len(segments[-1]) + len(encoded) > SEGMENT_CHARS:
            segments.append("")
        segments[-1] += encoded
    if len(segments) == 1:
        return [f" filename*=utf-8''{segments[0]}"]
    segments[0] = f"utf-8''{segments[0]}"
    lines = [f" filename*{n}*={segment};" for n, segment in enumerate(segments)]
    return [*lines[:-1], lines[-1].removesuffix(";")]


def _is_utf8(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True
