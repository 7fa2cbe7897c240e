"""Everything that goes wrong, as the caller gets it: problem documents (RFC 9457).

    Problem           what a handler raises: a status, a sentence, faults with pointers
    problem_response  the document of any exception, ours or the framework's

A fault of ours is a 500 with a trace id that the log has as well; no SQL, no stack trace and no
secret ever leaves. Pointers into a body are RFC 6901; those into a query, path or header begin
with `/query/`, `/path/` and `/header/`.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping, Sequence
from http import HTTPStatus
from typing import Any

import msgspec
import psycopg
import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException
from litestar.response.base import ASGIResponse

from outbox.errors import Fault, NotPermitted, StoreUnavailable
from outbox_api.answers import PROBLEM_JSON

RETRY_AFTER_S = 1
FAULTS_MAX = 1_000
UNREACHABLE = frozenset({".", ".."})
"""What clients take out of a path before they ask (RFC 3986, 5.2.4): no name of anything."""
NO_SEGMENT = "must not be . or .., which no path can name"

_log = structlog.get_logger("outbox.api")

TITLES: Mapping[int, tuple[str, str]] = {
    400: ("bad-request", "The request cannot be read"),
    401: ("unauthorized", "An API key is needed"),
    403: ("forbidden", "The key may not do this"),
    404: ("not-found", "There is no such thing here"),
    405: ("method-not-allowed", "This method is not allowed here"),
    409: ("conflict", "It does not fit what is stored"),
    413: ("too-large", "The request is too large"),
    415: ("media-type", "The body's media type is not supported"),
    422: ("invalid", "The request breaks the contract"),
    429: ("backpressure", "The queue is too deep"),
    500: ("internal", "Something failed on our side"),
    503: ("unavailable", "The service cannot do this right now"),
}


class ProblemDocument(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The wire form of a problem."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    errors: Sequence[Fault] = ()
    trace_id: str | None = None


class Problem(Exception):
    """A request that is answered with a problem document."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        errors: Sequence[Fault] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.errors = tuple(errors)
        self.headers = dict(headers or {})


def not_found(what: str) -> Problem:
    """Return the 404 for something that isn't there, or is another tenant's."""
    return Problem(404, f"There is no such {what}.")


def no_such_queue() -> Problem:
    """Return the 404 for a queue's name that may be a typo."""
    return Problem(404, "No such queue: it has no handler here, and never had a job.")


def invalid(errors: Sequence[Fault], *, detail: str | None = None, status: int = 422) -> Problem:
    """Return the problem that lists these faults."""
    if detail is None:
        detail = "; ".join(f"{e.pointer or 'the body'} {e.message}" for e in errors[:3])
        detail += "." if len(errors) <= 3 else f"; and {len(errors) - 3} more."
    return Problem(status, detail, errors=errors[:FAULTS_MAX])


def unavailable(detail: str = "The database cannot be reached.") -> Problem:
    """Return the 503 that tells when to come back."""
    return Problem(503, detail, headers={"retry-after": str(RETRY_AFTER_S)})


def document(problem: Problem, instance: str, trace_id: str | None = None) -> ProblemDocument:
    """Return the wire form."""
    slug, title = TITLES.get(
        problem.status, (str(problem.status), HTTPStatus(problem.status).phrase)
    )
    return ProblemDocument(
        type=f"urn:outbox:problem:{slug}",
        title=title,
        status=problem.status,
        detail=problem.detail,
        instance=instance,
        errors=problem.errors,
        trace_id=trace_id,
    )


def to_problem(error: Exception) -> Problem | None:
    """Return what an exception means to the caller; None: a fault of ours."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, StoreUnavailable):
        return unavailable()
    if isinstance(error, NotPermitted):
        return Problem(403, "The key may not act for that tenant.")
    if isinstance(error, psycopg.DataError):
        return Problem(
            422, "The database cannot store this.", errors=[Fault("", "cannot be stored")]
        )
    if isinstance(error, HTTPException) and error.status_code < 500:
        phrase = HTTPStatus(error.status_code).phrase
        detail = {
            404: "There is nothing at this path.",
            405: "This path does not take this method.",
            413: "The body is too large.",
        }.get(error.status_code, f"{phrase}.")
        headers = {k.lower(): v for k, v in (error.headers or {}).items()}
        if "allow" in headers:
            headers["allow"] = allow(headers["allow"].split(", "))
        return Problem(error.status_code, detail, headers=headers)
    return None


def allow(methods: Collection[str]) -> str:
    """Return the Allow header of a path with these methods: OPTIONS goes anywhere, HEAD as GET."""
    extra = {"OPTIONS", "HEAD"} if "GET" in methods else {"OPTIONS"}
    return ", ".join(sorted(extra.union(methods)))


def problem_response(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Answer any exception; Litestar's exception handler."""
    problem = to_problem(error)
    trace_id = None
    # An encoded slash of a path that leads nowhere has never been put back (gate.SLASH).
    instance = request.scope["path"].encode("utf-8", "replace").decode()
    if problem is None:
        trace_id = trace_id_of(request)
        problem = Problem(500, "The fault is logged under the trace id.")
        _log.error(
            "request failed",
            trace_id=trace_id,
            method=request.scope["method"],
            route=getattr(request.scope.get("route_handler"), "name", None),
            exc_info=error,
        )
    elif isinstance(error, psycopg.DataError):
        _log.error("input that only the database refused", sqlstate=error.sqlstate)
    elif isinstance(error, StoreUnavailable):
        _log.warning("database unavailable", reason=str(error))
    request.scope["state"]["problem"] = problem  # for the operator log
    body = msgspec.json.encode(document(problem, instance, trace_id))
    return Response(
        body, status_code=problem.status, media_type=PROBLEM_JSON, headers=problem.headers
    )


def problem_answer(problem: Problem, instance: str) -> ASGIResponse:
    """Answer a problem outside of Litestar's handlers."""
    return ASGIResponse(
        body=msgspec.json.encode(document(problem, instance)),
        status_code=problem.status,
        media_type=PROBLEM_JSON,
        headers=problem.headers,
    )


def trace_id_of(request: Request[Any, Any, Any]) -> str:
    """Return the caller's W3C trace id, or a new one."""
    given = request.headers.get("traceparent", "").split("-")
    if len(given) == 4 and len(given[1]) == 32 and given[1].isalnum():
        return given[1]
    return secrets.token_hex(16)
