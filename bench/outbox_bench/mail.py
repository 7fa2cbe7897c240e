"""Mail through the whole engine to an SMTP sink: see `outbox_bench.channels`."""

from __future__ import annotations

from outbox_bench import channels
from outbox_bench.channels import Options
from outbox_bench.figures import Figures, Said

__all__ = ["Options", "measure"]


def measure(options: Options, said: Said) -> Figures:
    """Return the figures."""
    return channels.measure("email", options, said)
