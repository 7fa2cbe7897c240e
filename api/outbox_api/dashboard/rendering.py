"""How pages are made: templates, headers, forms and answers to htmx.

The policy lets a page load what this host serves and nothing else: no inline script, no inline
style. What others wrote (a mail's HTML) is shown in a sandboxed frame, from a response whose own
policy allows neither scripts nor loads.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from functools import cache
from typing import TypeVar
from urllib.parse import parse_qsl, quote, urlsplit

import jinja2
import msgspec
from litestar.handlers import HTTPRouteHandler
from litestar.response.base import ASGIResponse

from outbox.errors import Fault
from outbox_api.auth import TEST_MAY, Need, Principal, Scope
from outbox_api.dashboard import humane
from outbox_api.dashboard.sessions import ANYBODY
from outbox_api.operations import Answer, Handler, Method, operation
from outbox_api.problems import Problem, invalid
from outbox_api.requests import ApiRequest, header, read_body
from outbox_api.runtime import runtime_of

FORM_BYTES_MAX = 2 * 1024 * 1024
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; frame-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
FRAME_POLICY = (
    "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; font-src data:; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'self'"
)
HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cache-control": "no-store",
}
TONES = {
    "sent": "good",
    "failed": "bad",
    "expired": "warm",
    "cancelled": "mute",
    "retrying": "warm",
    "processing": "calm",
    "pending": "calm",
    "scheduled": "mute",
}

PAGES: tuple[tuple[str, str, str, Scope], ...] = (
    ("overview", "/", "Overview", "jobs:read"),
    ("jobs", "/jobs", "Jobs", "jobs:read"),
    ("dead-letters", "/dead-letters", "Dead letters", "jobs:read"),
    ("templates", "/templates", "Templates", "jobs:read"),
    ("schedules", "/schedules", "Schedules", "jobs:read"),
    ("recipients", "/recipients", "Recipients", "jobs:read"),
    ("providers", "/providers", "Providers", "admin"),
    ("sink", "/sink", "Sink", "jobs:read"),
    ("log", "/operator-log", "Operator log", "admin"),
)
"""What the bar leads to: name, path, label, and what its route needs."""

T = TypeVar("T", bound=msgspec.Struct)


def page_route(method: Method, path: str, *, summary: str, needs: Need) -> _Route:
    """Make a page's route: pages take the session's cookie, and are no part of the API."""
    return _Route(method, path, summary, needs)


class _Route:
    """Turns a handler into a route."""

    def __init__(self, method: Method, path: str, summary: str, needs: Need) -> None:
        self._method: Method = method
        self._path = path
        self._summary = summary
        self._needs: Need = needs

    def __call__(self, handler: Handler) -> HTTPRouteHandler:
        """Return the route."""
        return operation(
            self._method,
            self._path,
            summary=self._summary,
            tag="pages",
            needs=self._needs,
            answers={200: Answer(None, "A page.", media_type="text/html")},
            prefix="",
            is_page=True,
        )(handler)


def role_of(principal: Principal) -> str | None:
    """Return what somebody is here, by the key's scopes; None: the key may not look."""
    if "admin" in principal.scopes:
        return "admin"
    if not principal.may("jobs:read"):
        return None
    return "operator" if principal.may("jobs:write") else "viewer"


def whose(principal: Principal) -> dict[str, object]:
    """Return what every page is told about who looks at it."""
    return {
        "who": principal.name,
        "tenant": principal.tenant,
        "role": role_of(principal),
        "is_test": principal.test,
        "may_admin": principal.may("admin"),
        "pages": [
            (name, path, label)
            for name, path, label, needs in PAGES
            if principal.may(needs)
            and (not principal.test or (f"GET {path}" in TEST_MAY and path != "/"))
        ],
    }


@cache
def environment_of() -> jinja2.Environment:
    """Return the templates, made once."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("outbox_api", "dashboard/html"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for name in (
        "about",
        "ago",
        "clock",
        "count",
        "masked",
        "rate",
        "spark",
        "span",
        "unaddressed",
    ):
        environment.filters[name] = getattr(humane, name)
    environment.filters["title"] = humane.title_of
    environment.filters["json"] = lambda raw: msgspec.json.format(bytes(raw), indent=2).decode()
    environment.filters["path"] = lambda text: quote(str(text), safe="")
    environment.globals |= {"tones": TONES, "mask": humane.MASK}
    return environment


async def render(request: ApiRequest, name: str, **values: object) -> str:
    """Return a template's text, which knows who is asking."""
    auth = request.auth
    return (
        environment_of()
        .get_template(f"{name}.html")
        .render(
            may_write=auth.may("jobs:write"),
            needs_key=runtime_of(request).config.auth,
            mode=runtime_of(request).config.mode,
            **({"token": await token_of(request)} | whose(auth) | values),
        )
    )


async def page(
    request: ApiRequest, name: str, *, status: int = 200, **values: object
) -> ASGIResponse:
    """Answer a whole page, or a part of one."""
    return html(await render(request, name, **values), status=status)


def html(
    text: str, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> ASGIResponse:
    """Answer HTML under the pages' policy."""
    sent = {"content-security-policy": POLICY, "x-frame-options": "DENY", **HEADERS}
    return ASGIResponse(
        body=text.encode(),
        media_type="text/html",
        headers=sent | dict(headers or {}),
        status_code=status,
    )


def framed(text: str) -> ASGIResponse:
    """Answer what somebody else wrote, for the sandboxed frame."""
    headers = {"content-security-policy": FRAME_POLICY, **HEADERS}
    return ASGIResponse(body=text.encode(), media_type="text/html", headers=headers)


def told(text: str, *, go: str | None = None) -> ASGIResponse:
    """Answer a press of a button: a sentence to show; `go`: the page to look at then."""
    headers = dict(HEADERS)
    # Headers are latin-1: JSON's own escapes carry the rest.
    headers["hx-trigger"] = _ascii_json({"told": text})
    if go is not None:
        headers["hx-redirect"] = go
    return ASGIResponse(status_code=204, headers=headers)


def _ascii_json(value: object) -> str:
    text = msgspec.json.encode(value).decode()
    return text.encode("ascii", "backslashreplace").decode().replace("\\x", "\\u00")


def goes(path: str, *, headers: Mapping[str, str] | None = None) -> ASGIResponse:
    """Answer: look there."""
    return ASGIResponse(status_code=303, headers={"location": path, **HEADERS, **(headers or {})})


def is_htmx(request: ApiRequest) -> bool:
    """Tell whether a script of ours asks, for a part of a page."""
    return header(request, b"hx-request") is not None


async def token_of(request: ApiRequest) -> str:
    """Return the token of this session's forms."""
    session = request.scope["state"].get("session", ANYBODY)
    return await runtime_of(request).sessions.token(session)


async def read_form(request: ApiRequest) -> dict[str, str]:
    """Return a form's fields; empty ones are left out. Raises Problem 403 without its token.

    Every POST of a page goes through here: a test sees to that.
    """
    body = await read_body(request, FORM_BYTES_MAX)
    origin = header(request, b"origin")
    if origin is not None and urlsplit(origin).netloc != (header(request, b"host") or ""):
        raise Problem(403, "This form is of another site.")
    try:
        fields = dict(parse_qsl(body.decode(), max_num_fields=64))
    except ValueError:
        raise Problem(400, "The form cannot be read.") from None
    given = header(request, b"x-csrf-token") or fields.get("csrf", "")
    if not hmac.compare_digest(given.encode(), (await token_of(request)).encode()):
        raise Problem(403, "The page is too old: load it again.")
    fields.pop("csrf", None)
    if any("\x00" in value for value in fields.values()):
        raise Problem(400, "The form holds a NUL character.")
    return {name: value.replace("\r\n", "\n") for name, value in fields.items()}


def query_of(request: ApiRequest, kind: type[T]) -> T:
    """Return a page's parameters; empty ones are left out. Raises Problem 400."""
    given = {name: text for name, text in request.query_params.items() if text != ""}
    return as_struct(given, kind, status=400)


def as_struct(given: Mapping[str, str], kind: type[T], *, status: int = 422) -> T:
    """Return fields of a form or a query as a struct. Raises Problem."""
    if any(
        "\x00" in text or any("\ud800" <= c <= "\udfff" for c in text) for text in given.values()
    ):
        raise Problem(status, "A field holds a character that no text has.")
    try:
        return msgspec.convert(dict(given), kind, strict=False)
    except msgspec.ValidationError as error:
        what = str(error)
        raise invalid([Fault("", what[:1].lower() + what[1:])], status=status) from None
