"""What the channels that go through a provider's HTTP API have in common.

A channel checks and prepares the message before anybody is asked, so that a fault of the
message's own is told in the sandbox as well; its provider then makes one call of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import ClassVar, Protocol, Self

from outbox.channels.api_client import ApiClient, own_addresses
from outbox.channels.captured import refused_test
from outbox.channels.guard import Lookup
from outbox.channels.guard_allow import AllowList
from outbox.channels.log import LogChannel
from outbox.channels.magic import is_magic
from outbox.channels.provider_config import KINDS, ProviderConfig, configured_provider
from outbox.channels.providers import chosen_provider, own_deadline_s
from outbox.channels.sink import SinkChannel
from outbox.message import Message
from outbox.outcome import Misconfigured, Outcome, Rejected


class Provider(Protocol):
    """Sends prepared messages of one channel. It has no retry loop, and keeps no message."""

    async def send(self, message: Message, *, timeout_s: float) -> Outcome:
        """Send one message within `timeout_s`."""
        ...


class ApiChannel:
    """The base of these channels. Until a provider is set, their messages are held, not failed."""

    channel: ClassVar[str]
    setting: ClassVar[str]
    """What to set, in the words of docs/settings.md."""

    def __init__(self, settings: Mapping[str, str], *, lookup: Lookup | None = None) -> None:
        provider = chosen_provider(settings, self.channel, known=KINDS[self.channel])
        self._capture: LogChannel | SinkChannel | None = None
        if provider == "log":
            self._capture = LogChannel(self.channel)
        elif provider == "sink":
            self._capture = SinkChannel(self.channel)
        config = configured_provider(settings, self.channel)
        self._client = ApiClient(self._allowed(config, settings), lookup=lookup)
        self._provider = None if config is None else self._make(config, self._client)

    def _make(self, config: ProviderConfig, client: ApiClient) -> Provider:
        """Return the provider. Raises ConfigError."""
        raise NotImplementedError

    def _prepared(self, message: Message) -> Message | Rejected:
        """Return the message as the provider takes it, or why no provider could."""
        raise NotImplementedError

    def _allowed(self, config: ProviderConfig | None, settings: Mapping[str, str]) -> AllowList:
        """Return what the guard lets pass."""
        return own_addresses(config, settings)

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._client.__aexit__(kind, error, trace)

    async def deliver(self, message: Message, *, timeout_s: float) -> Outcome:
        """Deliver one message."""
        if isinstance(self._capture, SinkChannel) and is_magic(self.channel, message):
            return await self._capture.deliver(message, timeout_s=timeout_s)
        prepared = self._prepared(message)
        if isinstance(prepared, Rejected):
            return prepared
        if self._capture is not None:
            return await self._capture.deliver(prepared, timeout_s=timeout_s)
        if (refused := refused_test(message)) is not None:
            return refused
        if self._provider is None:
            return Misconfigured(
                code="provider.missing", reason=f"{self.setting} is not set", scope="lane"
            )
        return await self._provider.send(prepared, timeout_s=own_deadline_s(timeout_s))
