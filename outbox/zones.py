"""Time zones by name, the same on every machine."""

from __future__ import annotations

from zoneinfo import ZoneInfo

_OF_THIS_MACHINE = frozenset({"localtime", "posixrules", "Factory"})
_OTHER_TREES = ("posix/", "right/")
"""Copies of the database that not every machine has; `right/` counts leap seconds."""


def zone(name: str) -> ZoneInfo:
    """Return the zone. Raises ValueError for what is none, or depends on the machine."""
    if name in _OF_THIS_MACHINE or name.startswith(_OTHER_TREES):
        raise ValueError(f"{name} is no zone of the time zone database")
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, LookupError, ImportError):
        raise ValueError(f"{name!r} is no known time zone") from None


def is_zone(name: str) -> bool:
    """Tell whether `zone` would take it."""
    try:
        zone(name)
    except ValueError:
        return False
    return True
