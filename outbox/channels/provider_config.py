"""Where a channel's provider is, and our login there: one small struct, wherever it is kept.

A provider of the settings is written as a URL, `kind://user:secret@host[:port][/path]`, where the
kind stands for https; `kind+http://` is for servers on one's own machine or network. Making a
provider of the struct is `outbox.channels.make_provider`'s, a pure function.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias
from urllib.parse import unquote, urlsplit

import msgspec

from outbox.errors import ConfigError

ProviderKind: TypeAlias = Literal[
    "twilio", "gateway", "telegram", "fcm", "webpush", "postmark", "sendgrid"
]

KINDS: Mapping[str, tuple[ProviderKind, ...]] = {
    "email": ("postmark", "sendgrid"),
    "sms": ("twilio", "gateway"),
    "push": ("fcm",),
    "browser": ("webpush",),
    "telegram": ("telegram",),
}
"""The providers over HTTP that each channel has."""

URL_FORMS: Mapping[str, str] = {
    "twilio": "twilio://SID:TOKEN@api.twilio.com",
    "gateway": "gateway://USER:SECRET@host/path",
    "telegram": "telegram://BOT_ID:SECRET@api.telegram.org",
    "fcm": "fcm://fcm.googleapis.com",
    "postmark": "postmark://:TOKEN@api.postmarkapp.com",
    "sendgrid": "sendgrid://:KEY@api.sendgrid.com",
}
_SETTING_OF: Mapping[str, str] = {
    "email": "EMAIL_URL",
    "sms": "SMS_URL",
    "push": "PUSH_KEY",
    "browser": "BROWSER_KEY",
    "telegram": "TELEGRAM_URL",
}
"""Without which a channel has no provider."""
_OPTIONS: Mapping[str, Mapping[str, str]] = {
    "email": {"from": "MAIL_FROM"},
    "sms": {"from": "SMS_FROM", "region": "SMS_REGION", "body": "SMS_BODY"},
    "push": {},
    "browser": {"subject": "BROWSER_SUBJECT"},
    "telegram": {"markdown": "TELEGRAM_MARKDOWN"},
}
_NEEDS_USER = frozenset({"twilio", "telegram"})
_NEEDS_SECRET = frozenset({"twilio", "telegram", "postmark", "sendgrid"})


class ProviderConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One provider of one channel.

    `base_url` begins with https:// or http:// and has no slash at its end (none for `webpush`,
    whose addresses are its subscriptions'). `secret` is a token, a password, or a key as text.
    `options`, by kind: `from`, `region`, `body` (sms); `from` (email); `markdown` (telegram);
    `subject` (webpush). `trusted`: the address is the operator's own, so the guard lets it pass.
    """

    kind: ProviderKind
    base_url: str = ""
    username: str = ""
    secret: str = ""
    options: Mapping[str, str] = {}
    trusted: bool = False

    def __repr__(self) -> str:
        return f"ProviderConfig({self.kind}, {self.base_url.partition('?')[0]})"


def parse_provider_url(
    url: str, kinds: tuple[ProviderKind, ...], *, login: tuple[str, str] = ("", "")
) -> ProviderConfig:
    """Return the provider that a URL of the settings names.

    `login` stands beside a URL that has none. Raises ConfigError: the end of a sentence that
    begins with the setting's name. It never repeats the URL.
    """
    form = "must be " + " or ".join(URL_FORMS[kind] for kind in kinds)
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ConfigError(form) from None
    name, plus, transport = parts.scheme.partition("+")
    kind = next((k for k in kinds if k == name), None)
    if kind is None or not host or (plus and transport != "http"):
        raise ConfigError(form)
    if parts.fragment or (parts.query and kind != "gateway"):
        raise ConfigError("has a query or a fragment, which mean nothing there")
    written = unquote(parts.username or ""), unquote(parts.password or "")
    if any(written) and any(login):
        raise ConfigError("has a login in it, and there is another beside it")
    username, secret = written if any(written) else login
    if (kind in _NEEDS_SECRET and not secret) or (kind in _NEEDS_USER and not username):
        raise ConfigError(form)
    if kind == "fcm" and (username or secret):
        raise ConfigError("has a login, where the service account's key is OUTBOX_PUSH_KEY")
    place = f"[{host}]" if ":" in host else host
    address = f"{place}:{port}" if port is not None else place
    query = f"?{parts.query}" if parts.query else ""
    return ProviderConfig(
        kind=kind,
        base_url=f"{transport or 'https'}://{address}{parts.path.rstrip('/')}{query}",
        username=username,
        secret=secret,
    )


def configured_provider(settings: Mapping[str, str], channel: str) -> ProviderConfig | None:
    """Return what the settings say of a channel's provider over HTTP, or None.

    Settings have names without `OUTBOX_`. A tenant's own provider (`GUARDED`) has its login
    beside the URL, and is not trusted. Raises ConfigError.
    """
    setting = _SETTING_OF[channel]
    if not settings.get(setting):
        return None
    options = {o: settings[name] for o, name in _OPTIONS[channel].items() if settings.get(name)}
    is_tenants = settings.get("GUARDED") == "on"
    match channel:
        case "browser":
            if not options:
                raise ConfigError("OUTBOX_BROWSER_KEY needs OUTBOX_BROWSER_SUBJECT")
            config = ProviderConfig(kind="webpush", secret=settings["BROWSER_KEY"])
        case "push":
            url = settings.get("PUSH_URL") or URL_FORMS["fcm"]
            config = _parsed("PUSH_URL", url, KINDS["push"], {})
            config = msgspec.structs.replace(config, secret=settings["PUSH_KEY"])
        case _:
            config = _parsed(setting, settings[setting], KINDS[channel], settings)
    return msgspec.structs.replace(config, options=options, trusted=not is_tenants)


def _parsed(
    setting: str, url: str, kinds: tuple[ProviderKind, ...], settings: Mapping[str, str]
) -> ProviderConfig:
    channel = setting.removesuffix("_URL")
    login = settings.get(f"{channel}_USERNAME", ""), settings.get(f"{channel}_SECRET", "")
    try:
        return parse_provider_url(url, kinds, login=login)
    except ConfigError as error:
        raise ConfigError(f"OUTBOX_{setting} {error}") from None
