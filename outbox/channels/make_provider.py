"""From a provider's config to the provider: a pure function, whoever keeps the config."""

from __future__ import annotations

from typing import assert_never

from outbox.channels.api_channel import Provider
from outbox.channels.api_client import ApiClient
from outbox.channels.provider_config import ProviderConfig


def make_provider(config: ProviderConfig, client: ApiClient) -> Provider:
    """Return the provider, which makes its calls by `client`. No I/O. Raises ConfigError."""
    match config.kind:
        case "twilio":
            from outbox.channels.twilio import Twilio

            return Twilio(config, client)
        case "gateway":
            from outbox.channels.sms_gateway import SmsGateway

            return SmsGateway(config, client)
        case "telegram":
            from outbox.channels.telegram_bot import TelegramBot

            return TelegramBot(config, client)
        case "fcm":
            from outbox.channels.fcm import Fcm

            return Fcm(config, client)
        case "webpush":
            from outbox.channels.web_push import WebPush

            return WebPush(config, client)
        case "postmark":
            from outbox.channels.mail_api import Postmark

            return Postmark(config, client)
        case "sendgrid":
            from outbox.channels.mail_api import SendGrid

            return SendGrid(config, client)
        case _:
            assert_never(config.kind)
