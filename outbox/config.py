"""Read the settings in: one typed, frozen object, made once at start.

A setting comes from the environment (`OUTBOX_PORT`), from a file that the environment names
(`OUTBOX_SECRET_KEY_FILE`, secrets only), from a TOML file (`port = 8080`), or from its default,
in this order. Everything that cannot be used is refused at once, in sentences.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from outbox.config_values import is_loopback, text_of
from outbox.errors import ConfigError
from outbox.settings import (
    CONCURRENCY_PARSER,
    PROVIDERS,
    RECORD_S_MIN,
    Config,
    Source,
    default_log_format,
    provider_name,
    settings_markdown,
    specs,
)

__all__ = ["Config", "Source", "load_config", "settings_markdown"]

PREFIX = "OUTBOX_"
PLUGIN_CHARS_MAX = 65_536
PLUGINS_MAX = 1_000
FILE_BYTES_MAX = 65_536
TOML_BYTES_MAX = 1_048_576
SHOWN_CHARS_MAX = 40

_QUEUE_CONCURRENCY = re.compile(r"QUEUE_([A-Z0-9_]{1,63})_CONCURRENCY")
_KUBERNETES_NAME = re.compile(
    r"(.+_)?(SERVICE_HOST|SERVICE_PORT(_.+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
_KUBERNETES_VALUE = re.compile(r"(tcp|udp|sctp)://")


@dataclass(frozen=True)
class _Rule:
    """A combination that cannot work. It is looked at where all of `names` are sound."""

    names: tuple[str, ...]
    is_broken: Callable[[Config], bool]
    sentence: str


_RULES = (
    _Rule(
        ("AUTH", "HOST"),
        lambda c: not c.auth and not is_loopback(c.host),
        "OUTBOX_AUTH=off needs a loopback address as OUTBOX_HOST: without keys, whoever reaches "
        "the port could send.",
    ),
    _Rule(
        ("TIMEOUT_S", "LEASE_S"),
        lambda c: c.timeout_s > c.timeout_s_max,
        f"OUTBOX_TIMEOUT_S must be at least {RECORD_S_MIN} s below OUTBOX_LEASE_S: a lease that "
        "ends during a delivery has it delivered twice.",
    ),
    _Rule(
        ("DIRECT_DATABASE_URL", "DATABASE_URL"),
        lambda c: c.direct_database_url is not None and c.database_url is None,
        "OUTBOX_DIRECT_DATABASE_URL needs OUTBOX_DATABASE_URL: it is another way to that one.",
    ),
    _Rule(
        ("EMAIL_PROVIDER", "SMTP_URL"),
        lambda c: c.email_provider == "smtp" and c.smtp_url is None,
        "OUTBOX_EMAIL_PROVIDER=smtp needs OUTBOX_SMTP_URL.",
    ),
    _Rule(
        ("SMTP_URL", "MAIL_FROM", "EMAIL_PROVIDER", "MODE"),
        lambda c: c.sends_mail_by_smtp and c.mail_from is None,
        "OUTBOX_MAIL_FROM is missing: mail by OUTBOX_SMTP_URL needs a sender.",
    ),
    _Rule(
        ("EMAIL_PROVIDER", "EMAIL_URL"),
        lambda c: c.email_provider == "http" and c.email_url is None,
        "OUTBOX_EMAIL_PROVIDER=http needs OUTBOX_EMAIL_URL.",
    ),
    _Rule(
        ("EMAIL_URL", "SMTP_URL", "EMAIL_PROVIDER"),
        lambda c: None not in (c.email_url, c.smtp_url) and c.email_provider is None,
        "OUTBOX_SMTP_URL and OUTBOX_EMAIL_URL are both set: OUTBOX_EMAIL_PROVIDER must say "
        "which of them sends mail, smtp or http.",
    ),
    _Rule(
        ("EMAIL_URL", "MAIL_FROM", "EMAIL_PROVIDER", "MODE"),
        lambda c: c.sends_mail_by_http and c.mail_from is None,
        "OUTBOX_MAIL_FROM is missing: mail by OUTBOX_EMAIL_URL needs a sender.",
    ),
    _Rule(
        ("SMS_URL", "SMS_FROM"),
        lambda c: (c.sms_url or "").startswith("twilio") and c.sms_from is None,
        "OUTBOX_SMS_FROM is missing: Twilio needs a sender.",
    ),
    _Rule(
        ("BROWSER_KEY", "BROWSER_SUBJECT"),
        lambda c: c.browser_key is not None and c.browser_subject is None,
        "OUTBOX_BROWSER_SUBJECT is missing: push services want to know whom to ask.",
    ),
    _Rule(
        ("PUBLIC_URL", "SECRET_KEY"),
        lambda c: c.public_url is not None and c.secret_key is None,
        "OUTBOX_PUBLIC_URL needs OUTBOX_SECRET_KEY: links to unsubscribe are signed.",
    ),
    _Rule(
        ("PORT", "METRICS_PORT"),
        lambda c: c.metrics_port == c.port,
        "OUTBOX_METRICS_PORT and OUTBOX_PORT must not be the same.",
    ),
    _Rule(
        ("BATCH_BYTES_MAX", "JOB_BYTES_MAX"),
        lambda c: c.batch_bytes_max < c.job_bytes_max,
        "OUTBOX_BATCH_BYTES_MAX must not be below OUTBOX_JOB_BYTES_MAX: a batch holds a job.",
    ),
    _Rule(
        ("HOLD_PROBE_S", "HOLD_MAX_S"),
        lambda c: c.hold_probe_s > c.hold_max_s,
        "OUTBOX_HOLD_PROBE_S must not be above OUTBOX_HOLD_MAX_S: nothing would be probed.",
    ),
    _Rule(
        ("HOLD_MAX_S", "RETENTION_S"),
        lambda c: c.hold_max_s > c.retention_s,
        "OUTBOX_HOLD_MAX_S must not be above OUTBOX_RETENTION_S: held jobs would be forgotten.",
    ),
)


@dataclass(frozen=True)
class _Entry:
    """A setting as somebody wrote it. `label` is how to call it in a sentence.

    `text` is None where a file had none; that fault is told already.
    """

    text: str | None
    source: Source
    label: str


def load_config(environ: Mapping[str, str], toml_path: Path | None = None) -> Config:
    """Return the settings in force. Raises ConfigError: a line for each fault, all of them.

    `toml_path` stands in for `OUTBOX_CONFIG`. No sentence repeats the value of a secret.
    """
    faults: list[str] = []
    named = environ.get("OUTBOX_CONFIG", "").strip()
    path = toml_path or (Path(named) if named else None)
    entries = {} if path is None else _layer(_toml_texts(path, faults), f" in {path}", faults)
    entries |= _layer(_environment_texts(environ), "", faults)

    broken: set[str] = set()
    found: dict[str, Any] = {}  # the fields of Config, each of its own type
    known = specs()
    grouped: dict[str, dict[str, int | str]] = {"queue_concurrency": {}, "channel_providers": {}}
    for name, entry in entries.items():
        if entry.text is None:
            broken.add(name)
            continue
        try:
            if name in known:
                found[name.lower()] = known[name].parser(entry.text)
            elif queue := _QUEUE_CONCURRENCY.fullmatch(name):
                grouped["queue_concurrency"][queue[1]] = CONCURRENCY_PARSER(entry.text)
            elif channel := _channels().get(name):
                grouped["channel_providers"][channel] = PROVIDERS[channel](entry.text)
        except ValueError as error:
            broken.add(name)
            is_secret = name in known and known[name].may_come_from_a_file
            shown = "" if is_secret else f", not {_cut(entry.text)!r}"
            faults.append(f"{entry.label} {error}{shown}.")
    config = Config(
        **{"log_format": default_log_format()} | found | grouped,
        plugins={name: entry.text or "" for name, entry in entries.items() if _is_plugin(name)},
        sources={name: entry.source for name, entry in entries.items()},
    )
    for rule in _RULES:
        if broken.isdisjoint(rule.names) and rule.is_broken(config):
            faults.append(rule.sentence)
    if faults:
        raise ConfigError("\n".join(faults))
    return config


def _layer(texts: Iterator[tuple[str, str]], where: str, faults: list[str]) -> dict[str, _Entry]:
    """Sort one source's texts by the setting they are for; read the files that it names."""
    entries: dict[str, _Entry] = {}
    files = {f"{name}_FILE": name for name, spec in specs().items() if spec.may_come_from_a_file}
    for written, text in texts:
        label = f"{PREFIX}{written}{where}"
        name = files.get(written, written)
        if not _is_known(name):
            faults.append(f"{label} is no setting{_suggestion(written, files)}")
        elif name in entries:
            faults.append(f"{PREFIX}{name} is set twice{where}, as {label} too: keep one.")
        elif written in files:
            content = _file_text(Path(text), label, faults)
            entries[name] = _Entry(content, "file", label)
        else:
            entries[name] = _Entry(text, "toml" if where else "env", label)
    if sum(map(_is_plugin, entries)) > PLUGINS_MAX:
        faults.append(f"There are over {PLUGINS_MAX} {PREFIX}PLUGIN_ settings{where}.")
    for name in filter(_is_plugin, entries):
        if len(entries[name].text or "") > PLUGIN_CHARS_MAX:
            faults.append(f"{PREFIX}{name} is longer than {PLUGIN_CHARS_MAX} characters.")
    return entries


def _environment_texts(environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield what the environment sets. Compose files and charts set to "" what they leave out."""
    for key, value in sorted(environ.items()):
        name, text = key.removeprefix(PREFIX), value.strip()
        is_ours = key.startswith(PREFIX) and name != "CONFIG" and not name.startswith("TEST_")
        if is_ours and text and not _is_of_kubernetes(name, text):
            yield name, text


def _is_of_kubernetes(name: str, text: str) -> bool:
    """Tell a setting from a Service's variables: every pod beside a Service `outbox` has them."""
    if name == "PORT" or name.endswith("_PORT"):
        return bool(_KUBERNETES_VALUE.match(text)) or name.endswith("SERVICE_PORT")
    return bool(_KUBERNETES_NAME.fullmatch(name))


def _toml_texts(path: Path, faults: list[str]) -> Iterator[tuple[str, str]]:
    """Yield what a TOML file sets. A table's name is the beginning of its keys' names."""
    content = _file_text(path, "OUTBOX_CONFIG", faults, bytes_max=TOML_BYTES_MAX)
    try:
        table = tomllib.loads(content or "")
    except (ValueError, RecursionError) as error:  # TOMLDecodeError is a ValueError
        faults.append(f"{path} (OUTBOX_CONFIG) is no TOML: {error}.")
        return
    yield from _flattened(table, "", path, faults)


def _flattened(
    table: Mapping[str, object], prefix: str, path: Path, faults: list[str]
) -> Iterator[tuple[str, str]]:
    for key, value in table.items():
        name = prefix + key.upper().replace("-", "_")
        match value:
            case dict():
                yield from _flattened(value, f"{name}_", path, faults)
            case list() if all(isinstance(each, str | int | float) for each in value):
                yield name, ",".join(map(text_of, value))
            case str() | int() | float():
                yield name, text_of(value).strip()
            case _:
                faults.append(f"{PREFIX}{name} in {path} must be a text, a number or a list.")


def _file_text(
    path: Path, label: str, faults: list[str], *, bytes_max: int = FILE_BYTES_MAX
) -> str | None:
    """Return a file's text without the line end that editors add; None, and a fault, else."""
    try:
        with path.open("rb") as file:
            content = file.read(bytes_max + 1)
        if len(content) > bytes_max:
            faults.append(f"{label} names {path}, which is larger than {bytes_max} bytes.")
            return None
        if text := content.decode("utf-8").strip():
            return text
        faults.append(f"{label} names {path}, which is empty.")
    except OSError as error:
        faults.append(f"{label} names {path}, which cannot be read: {error.strerror}.")
    except ValueError:  # not UTF-8, or a NUL in the path
        faults.append(f"{label} names a file that holds no UTF-8 text.")
    return None


def _is_known(name: str) -> bool:
    is_of_its_own = name in specs() or name in _channels() or _is_plugin(name)
    return is_of_its_own or bool(_QUEUE_CONCURRENCY.fullmatch(name))


def _is_plugin(name: str) -> bool:
    return name.startswith("PLUGIN_") and name != "PLUGIN_"


def _channels() -> dict[str, str]:
    return {provider_name(channel): channel for channel in PROVIDERS}


def _suggestion(name: str, files: Mapping[str, str]) -> str:
    if name.removesuffix("_FILE") in specs():
        return f"; did you mean {PREFIX}{name.removesuffix('_FILE')}?"
    names = [*specs(), *files, *_channels()]
    close = difflib.get_close_matches(name[:SHOWN_CHARS_MAX], names, n=1)
    return f"; did you mean {PREFIX}{close[0]}?" if close else "."


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN_CHARS_MAX else text[:SHOWN_CHARS_MAX] + "…"
