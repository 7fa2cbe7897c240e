"""What goes wrong, as a page for whoever looks with a browser; as a problem document else."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from litestar import Request, Response

from outbox_api.auth import NOBODY
from outbox_api.dashboard.rendering import HEADERS, POLICY, environment_of, whose
from outbox_api.operations import operation_of
from outbox_api.problems import TITLES, problem_response, to_problem
from outbox_api.runtime import runtime_of

OURS = "Something failed on our side: the log has it."


def page_or_problem(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Answer any exception; Litestar's exception handler."""
    document = problem_response(request, error)
    accepts = request.headers.get("accept", "")
    found = operation_of(request.scope.get("route_handler"))
    is_htmx = "hx-request" in request.headers
    if (found is not None and not found.is_page) or not ("text/html" in accepts or is_htmx):
        return document
    problem = to_problem(error)
    status = document.status_code or 500
    detail = problem.detail if problem is not None else OURS
    if status == 401:
        path = request.url.path
        there = f"/sign-in?next={quote(path, safe='/')}" if path != "/" else "/sign-in"
        name = "hx-redirect" if is_htmx else "location"
        return Response(b"", status_code=401 if is_htmx else 303, headers={name: there, **HEADERS})
    headers = {"content-security-policy": POLICY, "x-frame-options": "DENY", **HEADERS}
    if is_htmx:
        return Response(
            detail.encode(), status_code=status, media_type="text/plain", headers=headers
        )
    auth = request.scope.get("auth") or NOBODY
    runtime = runtime_of(request)
    text = (
        environment_of()
        .get_template("error.html")
        .render(
            **whose(auth),
            may_write=False,
            needs_key=runtime.config.auth,
            mode=runtime.config.mode,
            token="",
            here="",
            status=status,
            what=TITLES.get(status, ("", "This cannot be done"))[1],
            detail=detail,
        )
    )
    return Response(text.encode(), status_code=status, media_type="text/html", headers=headers)
