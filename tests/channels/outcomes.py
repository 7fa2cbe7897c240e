"""Outcomes in the words of the error tables."""

from __future__ import annotations

from outbox.outcome import Delivered, Misconfigured, Outcome, Rejected, Retryable


def told(outcome: Outcome) -> str:
    """Return `done`, `T` (with its scope), `ambiguous`, `P`, `P S`, `C` (with what is held)."""
    match outcome:
        case Delivered():
            return "done"
        case Rejected():
            return "P S" if outcome.suppress or outcome.gone else "P"
        case Misconfigured():
            return f"C {outcome.scope}"
        case Retryable(attempts_max=3):
            return "P after 3"
        case Retryable(ambiguous=True):
            return "ambiguous"
        case Retryable():
            return "T" if outcome.scope == "job" else f"T {outcome.scope}"
        case _:
            return "?"
