"""Finds the handlers of this process, by entry points, and refuses a broken one at the start.

Two groups: `outbox.channels` (the entry's name is the channel) and `outbox.queues` (the name is
the queue). Ours are registered the same way as anybody's. A channel without a handler is absent
from the result, so that its jobs wait; with the provider `log` or `sink`, and in the sandbox, it
gets a handler that sends nothing.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points

from outbox.channels import Handler
from outbox.channels.log import LogChannel
from outbox.channels.providers import chosen_provider, named_provider
from outbox.channels.sink import SinkChannel
from outbox.errors import ConfigError

CHANNELS_GROUP = "outbox.channels"
QUEUES_GROUP = "outbox.queues"

CONTRACT_CHANNELS = ("email", "push", "ws", "sms", "telegram", "inbox", "browser", "webhook")
"""The channels that a job may name (docs/contracts.md 1), built or not."""


def load_handlers(settings: Mapping[str, str]) -> dict[str, Handler]:
    """Return a handler for each channel that can be delivered here, by the channel's name.

    They are made, not yet entered. Raises ConfigError that names the plugin, or the setting,
    which cannot be used. A plugin is loaded also where its messages are only captured, so that a
    fault in it shows in the sandbox.
    """
    found = _entries(CHANNELS_GROUP)
    handlers = {name: _make(entry, settings) for name, entry in found.items()}
    for channel in dict.fromkeys((*CONTRACT_CHANNELS, *found)):
        if channel not in found:
            captured = _capturing(channel, chosen_provider(settings, channel))
        elif found[channel].value.startswith("outbox.channels."):
            continue  # ours read the setting themselves, and check the message first
        else:
            captured = _capturing(channel, named_provider(settings, channel))
        if captured is not None:
            handlers[channel] = captured
    return handlers


def make_handler(channel: str, settings: Mapping[str, str]) -> Handler:
    """Return one more handler of a channel, made with settings of its own (a tenant's provider).

    Not yet entered. Raises ConfigError, which names no value.
    """
    entry = _entries(CHANNELS_GROUP).get(channel)
    if entry is None:
        raise ConfigError(f"No handler for {channel} is installed")
    return _make(entry, settings)


def is_installed(channel: str) -> bool:
    """Tell whether a channel's handler can be made in this process: the API may do without."""
    entry = _entries(CHANNELS_GROUP).get(channel)
    if entry is None:
        return False
    try:
        entry.load()
    except Exception:
        return False
    return True


def load_queue_handlers(settings: Mapping[str, str]) -> dict[str, Handler]:
    """Return a handler for each queue that carries a `payload`, by the queue's name.

    They are made, not yet entered. Raises ConfigError that names a plugin which cannot be used.
    """
    return {name: _make(entry, settings) for name, entry in _entries(QUEUES_GROUP).items()}


def _capturing(channel: str, provider: str | None) -> Handler | None:
    if provider == "sink":
        return SinkChannel(channel)
    if provider == "log":
        return LogChannel(channel)
    return None


def _entries(group: str) -> dict[str, EntryPoint]:
    found: dict[str, EntryPoint] = {}
    for entry in entry_points(group=group):
        other = found.setdefault(entry.name, entry)
        if other.value != entry.value:
            raise ConfigError(
                f"Two plugins register {entry.name!r} in {group}: "
                f"{_shown(other)} and {_shown(entry)}; uninstall one of them"
            )
    return found


def _make(entry: EntryPoint, settings: Mapping[str, str]) -> Handler:
    plugin = f"The plugin {entry.name!r} ({_shown(entry)})"
    try:
        factory = entry.load()
    # A plugin's import may raise anything at all.
    except Exception as error:
        raise ConfigError(f"{plugin} cannot be loaded: {_first_line(error)}") from error
    if not callable(factory):
        raise ConfigError(f"{plugin} is no class or function that makes a handler")
    try:
        handler = factory(settings)
    except ConfigError:
        raise  # it is a sentence about a setting already
    except Exception as error:
        raise ConfigError(f"{plugin} cannot be started: {_first_line(error)}") from error
    for method in ("__aenter__", "__aexit__", "deliver"):
        if not callable(getattr(handler, method, None)):
            raise ConfigError(f"{plugin} makes a handler without {method}()")
    if not inspect.iscoroutinefunction(handler.deliver):
        raise ConfigError(f"{plugin} makes a handler whose deliver() is not async")
    checked: Handler = handler
    return checked


def _shown(entry: EntryPoint) -> str:
    origin = f" from {entry.dist.name}" if entry.dist is not None else ""
    return f"{entry.value}{origin}"


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
