"""What OUTBOX_SMTP_URL says. Pure: settings look at it before anything is started."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from typing import Literal, TypeAlias
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

from outbox.errors import ConfigError

TlsMode: TypeAlias = Literal["implicit", "required", "opportunistic", "off"]

DEFAULT_PORTS = {"smtp": 25, "smtps": 465}


class SmtpServer(msgspec.Struct, frozen=True, kw_only=True):
    """One mail server and our login there.

    `tls`: `implicit` (smtps://) and `required` (STARTTLS or nothing) verify the certificate;
    `opportunistic` takes STARTTLS where it is offered and doesn't verify; `off` never does.
    Passwords go over an unencrypted connection only to this machine, or where it is `off`.
    """

    host: str
    port: int
    tls: TlsMode
    username: str | None = None
    password: str | None = None

    def __repr__(self) -> str:
        return f"SmtpServer({self.host}:{self.port}, tls={self.tls})"

    @property
    def is_local(self) -> bool:
        """Whether the server is on this machine."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


def parse_smtp_url(url: str) -> SmtpServer:
    """Return the server of `smtp[s]://[user:pass@]host[:port][?starttls=…]`.

    `starttls` is `required`, `opportunistic` or `off`; by default `required` where there is a
    login and the server is elsewhere, else `opportunistic`. Raises ConfigError, which never
    repeats the URL.
    """
    try:
        parts = urlsplit(url.strip())
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ConfigError("OUTBOX_SMTP_URL is no URL") from None
    if parts.scheme not in DEFAULT_PORTS or not host:
        raise ConfigError("OUTBOX_SMTP_URL is not smtp://host:port or smtps://host:port")
    if parts.path not in ("", "/") or parts.fragment:
        raise ConfigError("OUTBOX_SMTP_URL has a path or a fragment, which mean nothing there")
    username = unquote(parts.username) if parts.username else None
    password = unquote(parts.password) if parts.password else None
    if (username is None) != (password is None):
        raise ConfigError("OUTBOX_SMTP_URL has a user without a password, or the other way")
    server = SmtpServer(
        host=host,
        port=port or DEFAULT_PORTS[parts.scheme],
        tls="implicit",
        username=username,
        password=password,
    )
    mode = _starttls(parts.query)
    if parts.scheme == "smtps":
        if mode is not None:
            raise ConfigError("OUTBOX_SMTP_URL: smtps:// is encrypted already, without starttls=")
        return server
    default: TlsMode = "required" if username and not server.is_local else "opportunistic"
    return msgspec.structs.replace(server, tls=mode or default)


def smtp_server(settings: Mapping[str, str]) -> SmtpServer:
    """Return the server of `SMTP_URL`, with `SMTP_USERNAME` and `SMTP_PASSWORD` where they are.

    Raises ConfigError.
    """
    url = settings["SMTP_URL"]
    server = parse_smtp_url(url)
    username, password = settings.get("SMTP_USERNAME"), settings.get("SMTP_PASSWORD")
    if (username is None) != (password is None):
        raise ConfigError("OUTBOX_SMTP_URL has a user without a password, or the other way")
    if username is None:
        return server
    if server.username is not None:
        raise ConfigError("OUTBOX_SMTP_URL has a login in it, and there is another beside it")
    tls = server.tls
    if tls == "opportunistic" and not server.is_local and not _starttls(urlsplit(url).query):
        tls = "required"
    return msgspec.structs.replace(server, username=username, password=password, tls=tls)


def _starttls(query: str) -> TlsMode | None:
    mode: TlsMode | None = None
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name != "starttls":
            raise ConfigError(f"OUTBOX_SMTP_URL: {name!r} is unknown; there is only starttls=")
        match value:
            case "required" | "opportunistic" | "off":
                mode = value
            case _:
                raise ConfigError(
                    "OUTBOX_SMTP_URL: starttls= is none of required, opportunistic, off"
                )
    return mode
