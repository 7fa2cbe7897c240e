"""One-click unsubscribe (RFC 8058): what the links in our mails lead to.

A mailbox provider POSTs to the link when its user presses "unsubscribe"; that is all it takes,
with no key, no cookie and no form. A person who follows the link GETs a page that asks: so nothing
that merely looks at links unsubscribes anybody.
"""

from __future__ import annotations

from datetime import UTC, datetime
from html import escape

import structlog
from litestar.params import FromPath
from litestar.response.base import ASGIResponse

from outbox.opting_out import PATH, OptOut
from outbox.store import recipients
from outbox_api.operations import Answer, operation
from outbox_api.requests import ApiRequest
from outbox_api.runtime import runtime_of

_HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-robots-tag": "noindex",
}
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>body{{font:1.1rem/1.5 system-ui,sans-serif;max-width:34rem;margin:4rem auto;padding:0 1rem}}
button{{font:inherit;padding:.6rem 1.2rem}}</style></head>
<body><main><h1>{title}</h1>{rest}</main></body></html>
"""
_TOKEN = {"token": "4f1c2a9bAAECAwQFBgcICQoLDA0ODw"}

log = structlog.get_logger("outbox.api")


@operation(
    "GET",
    PATH + "/{token:str}",
    prefix="",
    summary="Ask whether to unsubscribe",
    tag="recipients",
    needs="open",
    answers={
        200: Answer(None, "A page that asks; looking changes nothing.", media_type="text/html"),
        404: Answer(None, "A page: the link does not work.", media_type="text/html"),
    },
    path_examples=_TOKEN,
    lenient=True,  # mailbox providers and link checkers add to links and forms
)
async def ask_to_unsubscribe(request: ApiRequest, token: FromPath[str]) -> ASGIResponse:
    """Show what the link is about, and a button."""
    wish = runtime_of(request).links.read(token)
    if wish is None:
        return _no_such_link()
    rest = (
        f"<p>You will get no more messages of the kind <strong>{escape(wish.category)}</strong>."
        '</p><form method="post"><button name="List-Unsubscribe" value="One-Click">'
        "Unsubscribe</button></form>"
    )
    return _page("Unsubscribe?", rest)


@operation(
    "POST",
    PATH + "/{token:str}",
    prefix="",
    summary="Unsubscribe",
    tag="recipients",
    needs="open",
    answers={
        200: Answer(None, "Opted out; again changes nothing.", media_type="text/html"),
        404: Answer(None, "A page: the link does not work.", media_type="text/html"),
    },
    problems=(503,),
    path_examples=_TOKEN,
    lenient=True,  # mailbox providers and link checkers add to links and forms
)
async def unsubscribe(request: ApiRequest, token: FromPath[str]) -> ASGIResponse:
    """Opt the recipient of a mail out of its category (RFC 8058)."""
    runtime = runtime_of(request)
    wish = runtime.links.read(token)
    if wish is None:
        return _no_such_link()
    async with runtime.database.transaction(wish.tenant_id) as connection:
        await recipients.opt_out(connection, wish, at=datetime.now(UTC))
    log.info("unsubscribed", tenant=wish.tenant_id, job_id=str(wish.job_id))
    return _done(wish)


def _done(wish: OptOut) -> ASGIResponse:
    rest = f"<p>No more messages of the kind <strong>{escape(wish.category)}</strong>.</p>"
    return _page("You are unsubscribed", rest)


def _no_such_link() -> ASGIResponse:
    rest = "<p>It may be incomplete, or too old. Any newer message has one that works.</p>"
    return _page("This link does not work", rest, status=404)


def _page(title: str, rest: str, *, status: int = 200) -> ASGIResponse:
    body = _PAGE.format(title=title, rest=rest).encode()
    return ASGIResponse(
        body=body, status_code=status, media_type="text/html; charset=utf-8", headers=_HEADERS
    )


ROUTES = [ask_to_unsubscribe, unsubscribe]
