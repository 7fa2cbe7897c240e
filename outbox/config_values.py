"""How one setting's text becomes its value: a parser each, which also says what it takes.

A parser raises ValueError with the end of a sentence that begins with the setting's name
("must be …"). It never repeats the text that it was given: that may be a secret.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Generic, Protocol, TypeVar
from urllib.parse import SplitResult, urlsplit, urlunsplit

import msgspec

from outbox.channels.guard_allow import parse_allow
from outbox.channels.provider_config import KINDS, URL_FORMS, parse_provider_url
from outbox.channels.s3 import parse_s3_url
from outbox.channels.smtp_url import parse_smtp_url
from outbox.channels.webhook_signature import SECRETS_MAX, SecretRefused, key_of
from outbox.errors import ConfigError
from outbox.sealing import KEYS_MAX

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

TEXT_CHARS_MAX = 4_096
BACKOFF_PAUSES_MAX = 100
BACKOFF_PAUSE_S_MAX = 30 * 86_400
MASK = "********"

_HOST = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63})*\Z")
_LOCALE = re.compile(r"[A-Za-z]{2,8}(?:[-_][A-Za-z0-9]{1,8})*\Z")


class Parser(Protocol[T_co]):
    """Makes a value of a text. `form` completes "must be …"."""

    @property
    def form(self) -> str:
        """What is taken, in a few words."""
        ...

    def __call__(self, text: str) -> T_co:
        """Return the value. Raises ValueError."""
        ...


@dataclass(frozen=True)
class Whole:
    """A whole number between two bounds, both included."""

    least: int
    most: int

    @property
    def form(self) -> str:
        """What is taken."""
        return f"a whole number from {self.least} to {self.most}"

    def __call__(self, text: str) -> int:
        """Return the number."""
        if not re.fullmatch(r"-?[0-9]{1,18}", text) or not self.least <= int(text) <= self.most:
            raise ValueError(f"must be {self.form}")
        return int(text)


@dataclass(frozen=True)
class Number:
    """A decimal number between two bounds, both included."""

    least: float
    most: float

    @property
    def form(self) -> str:
        """What is taken."""
        return f"a number from {text_of(self.least)} to {text_of(self.most)}"

    def __call__(self, text: str) -> float:
        """Return the number."""
        plain = re.fullmatch(r"-?[0-9]{1,12}(\.[0-9]{1,9})?", text)
        if not plain or not self.least <= float(text) <= self.most:
            raise ValueError(f"must be {self.form}")
        return float(text)


@dataclass(frozen=True)
class Choice:
    """One word of several; whoever types it as a Literal casts the parser."""

    words: tuple[str, ...]

    @property
    def form(self) -> str:
        """What is taken."""
        return " or ".join(filter(None, (", ".join(self.words[:-1]), self.words[-1])))

    def __call__(self, text: str) -> str:
        """Return the word, in lower case."""
        if text.lower() not in self.words:
            raise ValueError(f"must be {self.form}")
        return text.lower()


@dataclass(frozen=True)
class Form(Generic[T]):
    """A function with its description."""

    form: str
    parse: Callable[[str], T]

    def __call__(self, text: str) -> T:
        """Return the value."""
        if len(text) > TEXT_CHARS_MAX:
            raise ValueError(f"must be at most {TEXT_CHARS_MAX} characters")
        return self.parse(text)


class ProviderUrl:
    """The URL of a channel's provider over HTTP."""

    def __init__(self, channel: str) -> None:
        self._kinds = KINDS[channel]

    @property
    def form(self) -> str:
        """What is taken."""
        forms = [f"`{URL_FORMS[kind]}`" for kind in self._kinds]
        return f"{' or '.join(forms)}; `+http` after the kind for servers without TLS"

    def __call__(self, text: str) -> str:
        """Return the URL."""
        if len(text) > TEXT_CHARS_MAX or not text.isprintable() or " " in text:
            raise ValueError("must be a URL without a space")
        try:
            parse_provider_url(text, self._kinds)
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return text


def _switch(text: str) -> bool:
    if text.lower() in ("on", "true", "yes", "1"):
        return True
    if text.lower() in ("off", "false", "no", "0"):
        return False
    raise ValueError("must be on or off")


def _plain(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must be printable text")
    return text


def _secret(text: str) -> str:
    if not (text.isascii() and text.isprintable() and " " not in text and len(text) >= 12):
        raise ValueError("must be at least 12 printable ASCII characters without a space")
    return text


def _secret_keys(text: str) -> str:
    keys = text.split()
    if len(keys) > KEYS_MAX:
        raise ValueError(f"must be at most {KEYS_MAX} keys")
    if len(set(keys)) < len(keys):
        raise ValueError("must not name a key twice")
    for key in keys:
        _secret(key)
    return " ".join(keys)


def _database_url(text: str) -> str:
    parts = _url(text)
    if parts is None or parts.scheme not in ("postgresql", "postgres"):
        raise ValueError("must be a URL: postgresql://user:password@host:port/database")
    return text


def _smtp_url(text: str) -> str:
    parts = _url(text)
    if parts is None or parts.scheme not in ("smtp", "smtps") or not parts.hostname:
        raise ValueError("must be smtp://user:password@host:port, or smtps://…")
    try:
        parse_smtp_url(text)
    except ConfigError as error:
        raise ValueError(str(error).removeprefix("OUTBOX_SMTP_URL").lstrip(": ")) from None
    return text


def _s3_url(text: str) -> str:
    if not text.isprintable() or " " in text:
        raise ValueError("must be a URL without a space")
    try:
        parse_s3_url(text)
    except ConfigError as error:
        raise ValueError(str(error)) from None
    return text


def _url(text: str) -> SplitResult | None:
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        return None
    return parts if text.isprintable() and " " not in text else None


def _host(text: str) -> str:
    try:
        ip_address(text)
    except ValueError:
        if not _HOST.match(text) or text.rpartition(".")[2].isdigit():
            raise ValueError("must be an IP address or a host name") from None
    return text


def _allow(text: str) -> tuple[str, ...]:
    try:
        parse_allow(text)
    except ConfigError:
        raise ValueError(
            "must be hosts, host:port, addresses or networks (10.0.0.0/8), separated by commas"
        ) from None
    return tuple(re.split(r"[,\s]+", text.strip(", \t\n")))


def _trace_url(text: str) -> str:
    if "{trace_id}" not in text:
        raise ValueError("must hold {trace_id}, where the trace's id goes")
    _web_url(text.replace("{trace_id}", "0" * 32))
    return text


def _web_url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or " " in text:
        raise ValueError("must be https://… or http://…")
    return text


def _public_url(text: str) -> str:
    parts = urlsplit(_web_url(text))
    if parts.query or parts.fragment or parts.username or not text.isascii() or len(text) > 200:
        raise ValueError("must be https://… without login, query and fragment")
    if parts.scheme != "https" and not is_loopback(parts.hostname or ""):
        raise ValueError("must be https://…: mailboxes take no other link")
    return text


def _webhook_secret(text: str) -> str:
    secrets = text.split()
    if len(secrets) > SECRETS_MAX:
        raise ValueError(f"must be at most {SECRETS_MAX} secrets")
    for secret in secrets:
        try:
            key_of(secret)
        except SecretRefused:
            raise ValueError("must be whsec_ and base64 of 8 bytes or more") from None
    return text


def _region(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z]{2}", text):
        raise ValueError("must be a region's two letters such as KZ")
    return text.upper()


def _service_account(text: str) -> str:
    try:
        names = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    except msgspec.DecodeError:
        names = {}
    if not {"project_id", "client_email", "private_key"} <= set(names):
        raise ValueError("must be a service account's key: JSON with project_id, client_email, …")
    return text


def _private_key(text: str) -> str:
    if "BEGIN" not in text and not re.fullmatch(r"[A-Za-z0-9_=-]{40,2000}", text):
        raise ValueError("must be a private key: PEM, or base64url")
    return text


def _contact(text: str) -> str:
    if not re.fullmatch(r"mailto:[^\s@]+@[^\s@]+|https://[^\s]+", text):
        raise ValueError("must be mailto:somebody@example.com or https://…")
    return text


def _backoff(text: str) -> tuple[float, ...]:
    pause_s = Number(0, BACKOFF_PAUSE_S_MAX)
    texts = [part.strip() for part in text.split(",")]
    if len(texts) > BACKOFF_PAUSES_MAX:
        raise ValueError(f"must be at most {BACKOFF_PAUSES_MAX} pauses")
    try:
        return tuple(map(pause_s, texts))
    except ValueError:
        raise ValueError(
            f"must be pauses in seconds, separated by commas, each {pause_s.form}"
        ) from None


def _locale(text: str) -> str:
    if not _LOCALE.match(text):
        raise ValueError("must be a language tag such as en or pt-BR")
    return text


SWITCH: Parser[bool] = Form("on or off", _switch)
TEXT: Parser[str] = Form("text", _plain)
SECRET: Parser[str] = Form("12 characters or more, ASCII", _secret)
SECRET_KEYS: Parser[str] = Form("12 characters or more, ASCII; several with spaces", _secret_keys)
FOLDER: Parser[Path] = Form("a folder", lambda text: Path(_plain(text)))
DATABASE_URL: Parser[str] = Form("`postgresql://user:password@host:port/database`", _database_url)
SMTP_URL: Parser[str] = Form(
    "`smtp://user:password@host:port` or `smtps://…`, with `?starttls=required` if need be",
    _smtp_url,
)
S3_URL: Parser[str] = Form(
    "`s3://KEY:SECRET@host:port/bucket/folder?region=…`; `s3+http://` for servers without TLS",
    _s3_url,
)
REGION: Parser[str] = Form("two letters", _region)
BODY: Parser[str] = Form("a template", lambda text: text)
SERVICE_ACCOUNT: Parser[str] = Form("a service account's key, JSON", _service_account)
VAPID_KEY: Parser[str] = Form("a P-256 private key, PEM or base64url", _private_key)
CONTACT: Parser[str] = Form("`mailto:…` or `https://…`", _contact)
HOST: Parser[str] = Form("an IP address or a host name", _host)
ALLOW: Parser[tuple[str, ...]] = Form("hosts and networks, separated by commas", _allow)
WEB_URL: Parser[str] = Form("`https://…` or `http://…`", _web_url)
PUBLIC_URL: Parser[str] = Form("`https://…`", _public_url)
TRACE_URL: Parser[str] = Form("`https://…` with `{trace_id}` in it", _trace_url)
WEBHOOK_SECRET: Parser[str] = Form("`whsec_` and base64; several with spaces", _webhook_secret)
BACKOFF: Parser[tuple[float, ...]] = Form("seconds, separated by commas", _backoff)
LOCALE: Parser[str] = Form("a language tag", _locale)


def is_loopback(host: str) -> bool:
    """Tell whether `host` is this machine and nothing else, as far as its text shows."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def text_of(value: object) -> str:
    """Return a value as it would be written in the environment."""
    match value:
        case bool():
            return "on" if value else "off"
        case float():
            return repr(value).removesuffix(".0")
        case tuple():
            return ",".join(map(text_of, value))
        case _:
            return str(value)


def masked_url(url: str) -> str:
    """Return `url` without a password, in its authority or among its parameters."""
    parts = urlsplit(url)
    login, at, place = parts.netloc.rpartition("@")
    user, colon, _ = login.partition(":")
    query = re.sub(r"(?i)((?:^|&)[^=&]*pass[^=&]*=)[^&]*", rf"\1{MASK}", parts.query)
    netloc = f"{user}{colon}{MASK if colon else ''}{at}{place}"
    return urlunsplit(parts._replace(netloc=netloc, query=query))
