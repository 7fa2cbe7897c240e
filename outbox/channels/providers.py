"""Which provider a channel uses, read from the settings; and the time a provider may take.

`MODE=sandbox` means `sink` for every channel, whatever else is set. Else `<CHANNEL>_PROVIDER`
names one. Both `log` and `sink` exist for every channel, also for those with no handler yet.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from outbox.errors import ConfigError

CAPTURING = frozenset({"log", "sink"})
"""Providers that send nothing: `log` prints, `sink` keeps."""

_MARGIN_S_MAX = 0.5
_MARGIN_SHARE = 0.05


def named_provider(settings: Mapping[str, str], channel: str) -> str | None:
    """Return the provider that the settings name for `channel`, known or not, else None."""
    if settings.get("MODE", "live") == "sandbox":
        return "sink"
    return settings.get(_setting(channel), "").strip().lower() or None


def chosen_provider(
    settings: Mapping[str, str], channel: str, *, known: Collection[str] = ()
) -> str | None:
    """Return the provider's name, or None where the settings leave it to the channel.

    `known` are the channel's own providers. Raises ConfigError for any other name.
    """
    name = named_provider(settings, channel)
    if name is None or name in CAPTURING or name in known:
        return name
    choices = ", ".join(sorted({*known, *CAPTURING}))
    raise ConfigError(f"OUTBOX_{_setting(channel)} is {name!r}; {channel} has {choices}")


def own_deadline_s(timeout_s: float) -> float:
    """Return a deadline a little before the dispatcher's own, in seconds.

    A channel that gives up by itself can say how far it got (before or after the request went
    out); one that is cancelled can't.
    """
    return max(0.0, timeout_s - min(_MARGIN_S_MAX, timeout_s * _MARGIN_SHARE))


def _setting(channel: str) -> str:
    return f"{channel.upper().replace('-', '_')}_PROVIDER"
