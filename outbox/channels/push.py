"""The channel `push`: a notification to a user's phones, through FCM."""

from __future__ import annotations

from collections.abc import Mapping

from outbox.channels.api_channel import ApiChannel, Provider
from outbox.channels.api_client import ApiClient, own_addresses
from outbox.channels.fcm_message import prepared_push
from outbox.channels.guard_allow import AllowList
from outbox.channels.make_provider import make_provider
from outbox.channels.provider_config import ProviderConfig
from outbox.channels.service_account import parse_service_account
from outbox.message import Message
from outbox.outcome import Rejected


class PushChannel(ApiChannel):
    """Settings: `PUSH_KEY` (a service account's JSON), `PUSH_URL`. Raises ConfigError."""

    channel = "push"
    setting = "OUTBOX_PUSH_KEY"

    def _make(self, config: ProviderConfig, client: ApiClient) -> Provider:
        return make_provider(config, client)

    def _allowed(self, config: ProviderConfig | None, settings: Mapping[str, str]) -> AllowList:
        if config is None:
            return AllowList()
        return own_addresses(config, settings, parse_service_account(config.secret).token_uri)

    def _prepared(self, message: Message) -> Message | Rejected:
        return prepared_push(message)
