"""W3C trace contexts as text, read without any library of tracing."""

from __future__ import annotations

import re
import sys

_TRACEPARENT = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


def is_traceparent(text: str) -> bool:
    """Tell whether a text is a W3C traceparent of version 00."""
    return _TRACEPARENT.fullmatch(text) is not None


def trace_id_of(traceparent: str | None) -> str | None:
    """Return the trace id, for a line of the log."""
    return traceparent[3:35] if traceparent is not None and len(traceparent) == 55 else None


def current_traceparent() -> str | None:
    """Return the caller's present span, where the caller itself uses OpenTelemetry."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return None
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"
