"""Sources that keep breaking their limits: not rendered for a while, so that others are.

A template with an endless loop costs its whole time limit, each time. The first failures may be
the fault of those messages' data, and are theirs alone; from the third running on, the source is
what must be mended, and for a few seconds its messages are answered without being rendered.
Pure: time comes in as an argument (seconds of a monotonic clock).
"""

from __future__ import annotations

from collections import OrderedDict

from outbox.render.wire import TemplateSource

STRIKES_MAX = 3
PAUSE_S = 10.0
SOURCES_MAX = 1_000


class Quarantine:
    """Counts breaches by source; any success forgives all of them."""

    def __init__(self) -> None:
        self._strikes: OrderedDict[TemplateSource, int] = OrderedDict()
        self._until_s: dict[TemplateSource, float] = {}

    def __bool__(self) -> bool:
        """Whether any source is watched: lets the caller skip the rest where all is well."""
        return bool(self._strikes)

    def blocks(self, source: TemplateSource, now_s: float) -> bool:
        """Return whether `source` should not be tried now."""
        return now_s < self._until_s.get(source, now_s)

    def strike(self, source: TemplateSource, now_s: float) -> bool:
        """Count a breach; return whether the source itself is to blame by now."""
        strikes = self._strikes.pop(source, 0) + 1
        self._strikes[source] = strikes
        if len(self._strikes) > SOURCES_MAX:
            self.forgive(next(iter(self._strikes)))
        if strikes < STRIKES_MAX:
            return False
        self._until_s[source] = now_s + PAUSE_S
        return True

    def forgive(self, source: TemplateSource) -> None:
        """Forget the breaches of a source that was rendered."""
        self._strikes.pop(source, None)
        self._until_s.pop(source, None)
