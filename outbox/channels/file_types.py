"""What a file is: by its first bytes, and by what is said of it as far as they bear it out."""

from __future__ import annotations

import re

UNKNOWN = "application/octet-stream"

_PDF_WITHIN = 1_024
"""Readers look for a PDF's mark so far in."""
_MARKS: tuple[tuple[bytes, str], ...] = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"PK\x03\x04", "application/zip"),
    (b"PK\x05\x06", "application/zip"),
    (b"\x1f\x8b\x08", "application/gzip"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "application/x-ole-storage"),
    (b"{\\rtf", "application/rtf"),
)
_PAGES = (b"<!doctype html", b"<html", b"<head", b"<body", b"<script", b"<svg")
_MARKED = frozenset({kind for _, kind in _MARKS} | {"application/pdf", "image/webp"})
# What is a container of another name inside: office documents, books, archives.
_ZIPPED = re.compile(r"application/(vnd\.[^/]+|[^/]*zip[^/]*|java-archive)\Z")
_OLE = re.compile(r"application/(msword|vnd\.ms-[^/]+|vnd\.visio|x-msi)\Z")
_GZIPPED = re.compile(r"application/([^/]*gzip[^/]*|x-tar|x-compressed[^/]*)\Z|image/svg\+xml\Z")
_FAMILIES = {
    "application/zip": _ZIPPED,
    "application/x-ole-storage": _OLE,
    "application/gzip": _GZIPPED,
    "application/rtf": re.compile(r"text/rtf\Z|application/msword\Z"),
}
# A mail's reader would run these, or take them for parts of the mail.
_ACTIVE = re.compile(
    r"text/html|application/xhtml|image/svg|[^/]+/(x-)?(java|ecma)script|text/xml"
)
_STRUCTURAL = ("multipart/", "message/")
_TYPE = re.compile(r"[a-z0-9!#$&^_.+-]{1,64}/[a-z0-9!#$&^_.+-]{1,64}\Z")


def file_type(content: bytes, *, wanted: str | None, told: str | None) -> str | None:
    """Return a file's type; None where it is certainly not what is `wanted`.

    `wanted` is what the job says, `told` the server's Content-Type. A server's word for a page or
    a script is not taken: it may be the one for an error.
    """
    found = _found(content)
    if wanted is not None:
        wanted = wanted.lower()
        if found is None:
            return None if wanted in _MARKED else wanted
        return wanted if _fits(found, wanted) else None
    essence = (told or "").partition(";")[0].strip().lower()
    if not _TYPE.match(essence) or essence.startswith(_STRUCTURAL) or _ACTIVE.match(essence):
        essence = UNKNOWN
    if found is None:
        return UNKNOWN if essence in _MARKED else essence
    if found == "text/html":
        return UNKNOWN
    return essence if essence != UNKNOWN and _fits(found, essence) else found


def _found(content: bytes) -> str | None:
    """Return the type that the first bytes show, if they show any."""
    for mark, kind in _MARKS:
        if content.startswith(mark):
            return kind
    if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        return "image/webp"
    start = content[:_PDF_WITHIN]
    if start.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(_PAGES):
        return "text/html"
    return "application/pdf" if b"%PDF-" in start else None


def _fits(found: str, said: str) -> bool:
    if said in (found, UNKNOWN):
        return True
    if found == "text/html":
        return said.startswith("text/") or said in ("application/xhtml+xml", "image/svg+xml")
    family = _FAMILIES.get(found)
    return family is not None and family.match(said) is not None
