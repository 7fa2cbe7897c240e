"""Which provider a channel uses, read from the settings; and the time a provider may take.

`MODE=sandbox` means `sink` for every channel, whatever else is set. Else `<CHANNEL>_PROVIDER`
names one. Both `log` and `sink` exist for every channel, also for those with no handler yet.

A tenant's own provider is the same handler, made with settings of its own: `provider_settings`
writes them down from its row. What a kind of provider can be told is in `PROVIDER_KINDS`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from uuid import UUID

import msgspec

from outbox.errors import ConfigError

CAPTURING = frozenset({"log", "sink"})
"""Providers that send nothing: `log` prints, `sink` keeps."""

GUARDED = "GUARDED"
"""Set to `on` in the settings of a tenant's own provider: its hosts come from outside, so nothing
is connected to that `outbox.channels.guard` does not let pass (docs/tenants.md)."""

RECEIPT_SECRET = "receipt_secret"
"""The credential that a provider's callbacks are signed with; no handler gets to know it."""

DIRECTORY = "directory"
"""No channel, but a provider all the same: who knows a tenant's users (docs/tenants.md)."""

SHARED_SETTINGS = ("MODE", "TIMEOUT_S", "WEBHOOK_ALLOW", "ATTACHMENTS_BYTES_MAX", "S3_URL")
"""What of the operator's settings a tenant's provider gets to know. No provider's credentials; of
the bucket a tenant's mail gets what lies in the tenant's own folder."""


class ProviderKind(msgspec.Struct, frozen=True, kw_only=True):
    """What a provider of one kind can be told, by the settings' names in lower case.

    `config` is shown again, `credentials` are encrypted and never shown.
    """

    config: tuple[str, ...]
    credentials: tuple[str, ...] = ()
    required: tuple[str, ...] = ()


_MAIL_API = ProviderKind(
    config=("email_url", "mail_from"),
    credentials=("email_secret",),
    required=("email_url", "mail_from", "email_secret"),
)
PROVIDER_KINDS: Mapping[str, Mapping[str, ProviderKind]] = {
    "email": {
        "smtp": ProviderKind(
            config=("smtp_url", "mail_from", "smtp_pool_size"),
            credentials=("smtp_username", "smtp_password"),
            required=("smtp_url", "mail_from"),
        ),
        "postmark": _MAIL_API,
        "sendgrid": _MAIL_API,
    },
    "sms": {
        "twilio": ProviderKind(
            config=("sms_url", "sms_from", "sms_region"),
            credentials=("sms_username", "sms_secret"),
            required=("sms_url", "sms_from", "sms_username", "sms_secret"),
        ),
        "gateway": ProviderKind(
            config=("sms_url", "sms_from", "sms_region", "sms_body"),
            credentials=("sms_username", "sms_secret"),
            required=("sms_url",),
        ),
    },
    "telegram": {
        "telegram": ProviderKind(
            config=("telegram_url", "telegram_markdown"),
            credentials=("telegram_username", "telegram_secret"),
            required=("telegram_url", "telegram_username", "telegram_secret"),
        ),
    },
    "push": {
        "fcm": ProviderKind(
            config=("push_url",), credentials=("push_key",), required=("push_key",)
        ),
    },
    "browser": {
        "webpush": ProviderKind(
            config=("browser_subject",),
            credentials=("browser_key",),
            required=("browser_subject", "browser_key"),
        ),
    },
    DIRECTORY: {
        "http": ProviderKind(
            config=("directory_url",),
            credentials=("directory_secret",),
            required=("directory_url",),
        ),
    },
}
"""By channel and kind. A channel's own settings are all that has to be named here."""


class ProviderSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One provider of a tenant: a row of `outbox.provider`, its credentials decrypted."""

    provider_id: UUID
    tenant_id: str
    channel: str
    kind: str
    name: str
    config: Mapping[str, str] = {}
    credentials: Mapping[str, str] = {}
    wants_receipts: bool = False

    def __repr__(self) -> str:
        return f"ProviderSpec({self.tenant_id}, {self.channel}, {self.kind}, {self.name})"


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


def provider_settings(spec: ProviderSpec, base: Mapping[str, str]) -> dict[str, str]:
    """Return the settings that make a channel's handler this tenant's own provider.

    `base` are the process's settings, of which `SHARED_SETTINGS` alone go over.
    """
    settings = {name: base[name] for name in SHARED_SETTINGS if name in base}
    for told in (spec.config, spec.credentials):
        settings.update((k.upper(), v) for k, v in told.items() if k != RECEIPT_SECRET)
    settings[_setting(spec.channel)] = spec.kind
    settings[GUARDED] = "on"
    return settings


def own_deadline_s(timeout_s: float) -> float:
    """Return a deadline a little before the dispatcher's own, in seconds.

    A channel that gives up by itself can say how far it got (before or after the request went
    out); one that is cancelled can't.
    """
    return max(0.0, timeout_s - min(_MARGIN_S_MAX, timeout_s * _MARGIN_SHARE))


def _setting(channel: str) -> str:
    return f"{channel.upper().replace('-', '_')}_PROVIDER"
