"""The channel `email`: MIME through SMTP, or by a provider's HTTP API, or to `log` or `sink`.

`Message-ID` is made of the job's id, so it is the same over all retries, and mailboxes that
drop duplicates do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache, partial
from time import monotonic
from types import TracebackType
from typing import Self

import msgspec

from outbox.channels.addresses import AddressRefused, Mailbox, parse_mailbox
from outbox.channels.api_channel import Provider
from outbox.channels.api_client import ApiClient, own_addresses
from outbox.channels.attachments import Attachments
from outbox.channels.captured import refused_test, sent_by
from outbox.channels.guard import guard_of
from outbox.channels.headers import HeaderRefused, check_headers
from outbox.channels.log import LogChannel
from outbox.channels.make_provider import make_provider
from outbox.channels.mime import (
    RESERVED,
    RESERVED_PREFIXES,
    Sender,
    build_mail,
    check_reply_to,
    parse_sender,
)
from outbox.channels.provider_config import KINDS, configured_provider
from outbox.channels.providers import GUARDED, chosen_provider, own_deadline_s
from outbox.channels.sink import SinkChannel
from outbox.channels.smtp import Envelope, SmtpProvider, pool_size_of
from outbox.channels.smtp_url import smtp_server
from outbox.errors import ConfigError
from outbox.message import Message
from outbox.outcome import Misconfigured, Outcome, Rejected


class EmailChannel:
    """Providers: `smtp` (where `SMTP_URL` is set), `http` (where `EMAIL_URL` is), `log`, `sink`.

    Settings: `SMTP_URL`, `SMTP_POOL_SIZE`, `EMAIL_URL`, `MAIL_FROM` (`Name <address>` or
    `address`); a tenant's own provider has its login beside a URL without one (`SMTP_USERNAME`,
    `SMTP_PASSWORD`, `EMAIL_SECRET`). Raises ConfigError for one that is malformed; one that is
    missing holds the lane instead, so that mail waits until an operator has set it. Attachments
    have settings of their own (`outbox.channels.attachments`).
    """

    def __init__(self, settings: Mapping[str, str]) -> None:
        provider = chosen_provider(settings, "email", known={"smtp", "http", *KINDS["email"]})
        self._capture: LogChannel | SinkChannel | None = None
        self._smtp: SmtpProvider | None = None
        self._client: ApiClient | None = None
        self._api: Provider | None = None
        self._sender: Sender | None = None
        self._is_tenants = GUARDED in settings
        self._attachments = Attachments(settings)
        if provider == "log":
            self._capture = LogChannel("email")
        elif provider == "sink":
            self._capture = SinkChannel("email")
        elif provider not in (None, "smtp") or not settings.get("SMTP_URL"):
            self._api = self._make_api(settings)
        elif settings.get("SMTP_URL"):
            self._smtp = SmtpProvider(
                smtp_server(settings), pool_size=pool_size_of(settings), guard=guard_of(settings)
            )
        if settings.get("MAIL_FROM"):
            try:
                self._sender = parse_sender(settings["MAIL_FROM"])
            except AddressRefused as error:
                raise ConfigError(f"OUTBOX_MAIL_FROM: {error}") from None

    def _make_api(self, settings: Mapping[str, str]) -> Provider | None:
        config = configured_provider(settings, "email")
        if config is None or not config.options:
            return None  # told when there is a mail to send
        self._client = ApiClient(own_addresses(config, settings))
        return make_provider(config, self._client)

    async def __aenter__(self) -> Self:
        if self._smtp is not None:
            await self._smtp.open()
        if self._client is not None:
            await self._client.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._smtp is not None:
            self._smtp.close()
        if self._client is not None:
            await self._client.__aexit__(kind, error, trace)
        await self._attachments.close()

    async def deliver(self, message: Message, *, timeout_s: float) -> Outcome:
        """Send one mail; a fault of the message's own is told before any provider is asked."""
        checked = _check(message)
        if isinstance(checked, Rejected):
            return checked
        if self._capture is not None:
            return await self._capture.deliver(message, timeout_s=timeout_s)
        if (refused := refused_test(message)) is not None:
            return refused
        if self._api is None and self._smtp is None:
            return _missing("OUTBOX_SMTP_URL, OUTBOX_EMAIL_URL or OUTBOX_EMAIL_PROVIDER")
        sender = self._sender
        if message.sender is not None and not self._is_tenants:
            sender = _sender_of(message.sender)
        if self._smtp is not None and sender is None:
            return _missing("OUTBOX_MAIL_FROM")
        ends = monotonic() + own_deadline_s(timeout_s)
        if message.attachments:
            fetched = await self._attachments.fetch(message, timeout_s=ends - monotonic())
            if not isinstance(fetched, Message):
                return fetched
            message = fetched
        if self._api is not None:
            told = None if self._is_tenants else message.sender
            prepared = msgspec.structs.replace(message, to=checked.address, sender=told)
            return await self._api.send(prepared, timeout_s=max(0.0, ends - monotonic()))
        assert sender is not None
        return await self._by_smtp(message, sender, checked, ends)

    async def _by_smtp(
        self, message: Message, sender: Sender, recipient: Mailbox, ends: float
    ) -> Outcome:
        assert self._smtp is not None
        build = partial(
            build_mail,
            sender=sender,
            recipient=recipient,
            subject=message.subject or "",
            text=message.text,
            html=message.html,
            message_id=f"{message.key}@{sender.mailbox.domain}",
            date=datetime.now(UTC),
            headers=message.headers,
            parts=message.parts,
        )
        # Megabytes take their time, in which leases have to be kept.
        mail = await asyncio.to_thread(build) if message.parts else build()
        return await self._smtp.send(
            Envelope(sender=sender.mailbox, recipient=recipient, mail=mail),
            timeout_s=max(0.0, ends - monotonic()),
            sent=sent_by("smtp", message),
        )


@lru_cache(maxsize=1_024)
def _sender_of(text: str) -> Sender | None:
    """Return a tenant's own From; None for one that is none, which its door refuses."""
    try:
        return parse_sender(text)
    except AddressRefused:
        return None


def _check(message: Message) -> Mailbox | Rejected:
    """Return the recipient, or why the message can go through no provider."""
    if not message.to:
        return Rejected(code="recipient.no_address", reason="User has no email")
    sent = sent_by(None, message)
    try:
        recipient = parse_mailbox(message.to)
    except AddressRefused as error:
        return Rejected(code="recipient.address", reason=str(error), sent=sent)
    try:
        check_headers(message.headers, reserved=RESERVED, reserved_prefixes=RESERVED_PREFIXES)
        for name, value in message.headers.items():
            if name.lower() == "reply-to":
                check_reply_to(value)
    except (HeaderRefused, AddressRefused) as error:
        return Rejected(code="mail.header", reason=str(error), sent=sent)
    if message.text is None and message.html is None:
        return Rejected(code="mail.empty", reason="The mail has neither text nor HTML", sent=sent)
    return recipient


def _missing(setting: str) -> Misconfigured:
    return Misconfigured(code="provider.missing", reason=f"{setting} is not set", scope="lane")
