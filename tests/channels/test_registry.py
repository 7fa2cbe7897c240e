from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any, Protocol

import pytest

from outbox.channels.browser import BrowserChannel
from outbox.channels.email import EmailChannel
from outbox.channels.inbox import InboxChannel
from outbox.channels.log import LogChannel
from outbox.channels.push import PushChannel
from outbox.channels.registry import CONTRACT_CHANNELS, load_handlers, load_queue_handlers
from outbox.channels.sink import SinkChannel
from outbox.channels.sms import SmsChannel
from outbox.channels.telegram import TelegramChannel
from outbox.channels.webhook import WebhookChannel
from outbox.errors import ConfigError
from outbox.message import Device
from outbox.outcome import Delivered, SinkRow
from tests.channels.messages import email

GOOD = """
from outbox.outcome import Delivered

class Good:
    def __init__(self, settings):
        self.settings = settings
    async def __aenter__(self):
        return self
    async def __aexit__(self, kind, error, trace):
        return None
    async def deliver(self, message, *, timeout_s):
        return Delivered()

class NotAsync(Good):
    def deliver(self, message, *, timeout_s):
        return Delivered()

class NoDeliver:
    def __init__(self, settings):
        pass
    async def __aenter__(self):
        return self
    async def __aexit__(self, kind, error, trace):
        return None

class Demanding(Good):
    def __init__(self, settings):
        settings["FAX_NUMBER"]

def refusing(settings):
    from outbox.errors import ConfigError
    raise ConfigError("OUTBOX_FAX_NUMBER is missing")

nothing = None
"""


BROWSER = Device("https://push.example.com/1", p256dh="x", auth="y")
WHERE: dict[str, dict[str, Any]] = {
    "email": {"to": "nurzhan@example.com"},
    "push": {"to": "token"},
    "ws": {"to": "user-1"},
    "sms": {"to": "+77011234567"},
    "telegram": {"to": "42"},
    "inbox": {"to": "user-1"},
    "browser": {"to": None, "devices": (BROWSER,)},
    "webhook": {"to": "https://example.com/"},
}


class Install(Protocol):
    def __call__(
        self, group: str, entries: dict[str, str], *, package: str = "fax", code: str = GOOD
    ) -> None: ...


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Install a package with entry points, as pip would lay it out."""

    def lay_out(
        group: str, entries: dict[str, str], *, package: str = "fax", code: str = GOOD
    ) -> None:
        (tmp_path / f"{package}_plugin.py").write_text(code)
        info = tmp_path / f"{package}-1.0.dist-info"
        info.mkdir(exist_ok=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        lines = "".join(f"{name} = {value}\n" for name, value in entries.items())
        (info / "entry_points.txt").write_text(f"[{group}]\n{lines}")
        importlib.invalidate_caches()

    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("fax_plugin", "telefax_plugin"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return lay_out


def test_our_own_channels_are_found_like_anybodys() -> None:
    handlers = load_handlers({})
    assert isinstance(handlers["email"], EmailChannel)
    assert isinstance(handlers["webhook"], WebhookChannel)
    assert isinstance(handlers["inbox"], InboxChannel)
    assert isinstance(handlers["sms"], SmsChannel)
    assert isinstance(handlers["push"], PushChannel)
    assert isinstance(handlers["browser"], BrowserChannel)
    assert isinstance(handlers["telegram"], TelegramChannel)
    assert "ws" not in handlers


def test_every_channel_has_a_handler_in_the_sandbox() -> None:
    handlers = load_handlers({"MODE": "sandbox", "WS_PROVIDER": "socket"})
    assert set(CONTRACT_CHANNELS) <= set(handlers)
    assert isinstance(handlers["ws"], SinkChannel)


@pytest.mark.parametrize("channel", CONTRACT_CHANNELS)
async def test_every_channel_keeps_its_messages_in_the_sandbox(channel: str) -> None:
    async with load_handlers({"MODE": "sandbox"})[channel] as handler:
        outcome = await handler.deliver(email(channel=channel, **WHERE[channel]), timeout_s=5)
    assert isinstance(outcome, Delivered)
    (row,) = outcome.effects
    assert isinstance(row, SinkRow)
    assert row.channel == channel
    assert outcome.sent is not None
    assert outcome.sent.provider == "sink"


def test_log_and_sink_exist_for_channels_that_are_not_built() -> None:
    assert isinstance(load_handlers({"WS_PROVIDER": "log"})["ws"], LogChannel)
    assert isinstance(load_handlers({"WS_PROVIDER": "sink"})["ws"], SinkChannel)


def test_a_provider_that_no_channel_has_is_refused() -> None:
    with pytest.raises(ConfigError, match="OUTBOX_SMS_PROVIDER is 'fax'"):
        load_handlers({"SMS_PROVIDER": "fax"})


def test_a_plugins_channel_is_loaded_with_the_settings(install: Install) -> None:
    install("outbox.channels", {"fax": "fax_plugin:Good"})
    handler = load_handlers({"FAX_PROVIDER": "its-own"})["fax"]
    assert vars(handler)["settings"] == {"FAX_PROVIDER": "its-own"}


def test_a_plugins_channel_is_captured_like_ours(install: Install) -> None:
    install("outbox.channels", {"fax": "fax_plugin:Good"})
    assert isinstance(load_handlers({"MODE": "sandbox"})["fax"], SinkChannel)
    assert isinstance(load_handlers({"FAX_PROVIDER": "log"})["fax"], LogChannel)


def test_a_queue_handler_is_found_by_its_queue(install: Install) -> None:
    install("outbox.queues", {"media-processing": "fax_plugin:Good"})
    assert "media-processing" in load_queue_handlers({})
    assert "media-processing" not in load_handlers({})


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("no_such_plugin:Good", "cannot be loaded: ModuleNotFoundError"),
        ("fax_plugin:NoSuchClass", "cannot be loaded: AttributeError"),
        ("fax_plugin:nothing", "is no class or function"),
        ("fax_plugin:NotAsync", "is not async"),
        ("fax_plugin:NoDeliver", r"without deliver\(\)"),
        ("fax_plugin:Demanding", "cannot be started: KeyError"),
    ],
)
@pytest.mark.parametrize("group", ["outbox.channels", "outbox.queues"])
def test_a_broken_plugin_is_refused_by_name(
    install: Install, group: str, value: str, sentence: str
) -> None:
    install(group, {"fax": value})
    load = load_handlers if group == "outbox.channels" else load_queue_handlers
    with pytest.raises(ConfigError, match=f"'fax' .* from fax.* {sentence}"):
        load({})


def test_a_plugin_that_fails_at_import_is_refused_by_name(install: Install) -> None:
    install("outbox.channels", {"fax": "fax_plugin:Good"}, code="raise RuntimeError('no line')")
    with pytest.raises(ConfigError, match=r"'fax' .*RuntimeError: no line"):
        load_handlers({})


def test_a_plugins_own_sentence_about_a_setting_is_kept(install: Install) -> None:
    install("outbox.channels", {"fax": "fax_plugin:refusing"})
    with pytest.raises(ConfigError, match=r"^OUTBOX_FAX_NUMBER is missing$"):
        load_handlers({})


def test_two_plugins_for_one_name_are_refused(install: Install) -> None:
    install("outbox.channels", {"fax": "fax_plugin:Good"})
    install("outbox.channels", {"fax": "telefax_plugin:Good"}, package="telefax")
    with pytest.raises(ConfigError, match="Two plugins register 'fax'"):
        load_handlers({})
