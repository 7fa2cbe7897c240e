"""The settings: each a field of `Config`, with its default, its parser and its documentation.

docs/settings.md is written from them. `outbox.config` reads them in.
"""

# ruff: noqa: RUF009 -- `_setting` is dataclasses.field, which the rule would let pass

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias, TypeVar, cast, get_args

from outbox import config_values as values
from outbox.channels.registry import CONTRACT_CHANNELS
from outbox.config_values import Choice, Number, Parser, Whole

Mode: TypeAlias = Literal["live", "sandbox"]
EmailProvider: TypeAlias = Literal["smtp", "http", "log", "sink"]
WebhookProvider: TypeAlias = Literal["http", "log", "sink"]
LogLevel: TypeAlias = Literal["debug", "info", "warning", "error"]
LogFormat: TypeAlias = Literal["json", "console"]
SocketFallback: TypeAlias = Literal["retry", "inbox"]
OrderingOnFailure: TypeAlias = Literal["pass", "hold"]
Source: TypeAlias = Literal["default", "env", "file", "toml"]

T = TypeVar("T")

CONCURRENCY: Mapping[str, int] = {
    "email": 10,
    "sms": 3,
    "media-processing": 5,
    "media-sync": 5,
    "watermark": 3,
}
CONCURRENCY_OTHERS = 10
CONCURRENCY_PARSER = Whole(1, 10_000)
PROVIDERS: Mapping[str, Choice] = {
    channel: Choice(("inbox", "log", "sink") if channel == "inbox" else ("log", "sink"))
    for channel in CONTRACT_CHANNELS
    if channel not in ("email", "webhook")
}
"""What can be named as the provider of a channel that has no field of its own below."""
API_SETTINGS = (
    "EMAIL_URL",
    "ATTACHMENTS_BYTES_MAX",
    "S3_URL",
    "SMS_URL",
    "SMS_FROM",
    "SMS_REGION",
    "SMS_BODY",
    "TELEGRAM_URL",
    "TELEGRAM_MARKDOWN",
    "PUSH_KEY",
    "PUSH_URL",
    "BROWSER_KEY",
    "BROWSER_SUBJECT",
    "WS_FALLBACK",
    "WS_ACK_S",
)
"""What channels over HTTP APIs get to know."""
SECTIONS: Mapping[str, str] = {
    "DATABASE_URL": "The database",
    "HOST": "The HTTP API",
    "MODE": "Channels",
    "MAX_ATTEMPTS": "Retries and holds",
    "LEASE_S": "Dispatchers",
    "JOB_BYTES_MAX": "Limits",
    "ALERT_WEBHOOK": "Alerts",
    "TRACE_URL": "Traces",
    "LOG_LEVEL": "The log",
}
"""The first setting of each section of docs/settings.md."""
RECORD_S_MIN = 10
"""What a lease leaves over the longest delivery: time to record how it ended."""
_DAY_S = 86_400


@dataclass(frozen=True)
class Spec:
    """What a field of `Config` is as a setting."""

    parser: Parser[object]
    doc: str
    secret: bool
    url: bool

    @property
    def may_come_from_a_file(self) -> bool:
        """Whether `NAME_FILE` names a file with the value."""
        return self.secret or self.url


def _setting(
    default: T, parser: Parser[T], doc: str, *, secret: bool = False, url: bool = False
) -> T:
    """Declare a setting. Of a `url` the password alone is secret. Both can come from a file."""
    return field(
        default=default,
        repr=not (secret or url),
        metadata={"spec": Spec(parser, doc, secret, url)},
    )


@dataclass(frozen=True, kw_only=True)
class Config:
    """All settings of a process. Made by `outbox.config.load_config`."""

    database_url: str | None = _setting(
        None,
        values.DATABASE_URL,
        "The Postgres to use, as a login that is no superuser. Unset: an embedded server.",
        url=True,
    )
    direct_database_url: str | None = _setting(
        None,
        values.DATABASE_URL,
        "The same database past a transaction pooler: for LISTEN, advisory locks, migrations.",
        url=True,
    )
    data_dir: Path = _setting(
        Path(".outbox"), values.FOLDER, "Where the embedded server keeps its cluster."
    )
    pool_size: int = _setting(8, Whole(2, 200), "Connections to Postgres per process.")
    host: str = _setting("127.0.0.1", values.HOST, "The address that the API binds to.")
    port: int = _setting(8080, Whole(1, 65_535), "The port of API and dashboard.")
    metrics_port: int | None = _setting(
        None,
        Whole(1, 65_535),
        "Health and metrics of a process without an API port. Unset: none.",
    )
    api_workers: int = _setting(1, Whole(1, 64), "Processes that answer HTTP.")
    leave_s: float = _setting(
        0.0,
        Number(0, 600),
        "How long an API answers on after a SIGTERM, no longer ready, so that proxies notice.",
    )
    auth: bool = _setting(
        True, values.SWITCH, "Whether API keys are asked for. `off` only on a loopback host."
    )
    admin_key: str | None = _setting(
        None, values.SECRET, "The first API key, with all scopes on all tenants.", secret=True
    )
    secret_key: str | None = _setting(
        None,
        values.SECRET_KEYS,
        "Encrypts and signs what the database keeps. Of several the first does, all can read.",
        secret=True,
    )
    mode: Mode = _setting(
        "live",
        cast("Parser[Mode]", Choice(get_args(Mode))),
        "`sandbox` delivers nothing: every channel keeps what it would have sent.",
    )
    smtp_url: str | None = _setting(
        None, values.SMTP_URL, "The default tenant's mail server.", url=True
    )
    smtp_pool_size: int = _setting(
        10, Whole(1, 200), "Connections to the mail server per dispatcher process."
    )
    mail_from: str | None = _setting(
        None, values.TEXT, "The sender of mail: `address` or `Name <address>`."
    )
    email_provider: EmailProvider | None = _setting(
        None,
        cast("Parser[EmailProvider]", Choice(get_args(EmailProvider))),
        "What sends mail: a server, an HTTP API, the log, or nobody (`sink` keeps it). Unset: "
        "`smtp` where OUTBOX_SMTP_URL is set, `http` where OUTBOX_EMAIL_URL is.",
    )
    email_url: str | None = _setting(
        None, values.ProviderUrl("email"), "The HTTP API that sends mail.", url=True
    )
    attachments_bytes_max: int = _setting(
        10_485_760,
        Whole(1_024, 104_857_600),
        "What the attachments of one mail may come to. Each mail on its way takes about five times"
        " as much memory.",
    )
    s3_url: str | None = _setting(
        None,
        values.S3_URL,
        "The bucket for attachments by S3 key, with the extra `s3`. `{tenant}` in the folder is"
        " the job's tenant; without it the bucket is the default tenant's alone.",
        url=True,
    )
    sms_url: str | None = _setting(
        None,
        values.ProviderUrl("sms"),
        "What sends SMS. Until it is set, they are held.",
        url=True,
    )
    sms_from: str | None = _setting(
        None, values.TEXT, "The sender of SMS: a number, a name, Twilio's messaging service."
    )
    sms_region: str | None = _setting(
        None,
        values.REGION,
        "Whose national numbers are understood. Unset: nobody's, only +7… ones are.",
    )
    sms_body: str | None = _setting(
        None, values.BODY, "What a `gateway` is sent (docs/channels.md). Unset: JSON."
    )
    telegram_url: str | None = _setting(
        None, values.ProviderUrl("telegram"), "The bot, by its token's two halves.", url=True
    )
    telegram_markdown: bool = _setting(
        False, values.SWITCH, "Whether templates' texts are MarkdownV2. HTML is always HTML."
    )
    push_key: str | None = _setting(
        None, values.SERVICE_ACCOUNT, "The login of `push` at FCM.", secret=True
    )
    push_url: str = _setting(
        "fcm://fcm.googleapis.com", values.ProviderUrl("push"), "Where FCM is.", url=True
    )
    browser_key: str | None = _setting(
        None, values.VAPID_KEY, "Signs what goes to browsers (VAPID).", secret=True
    )
    browser_subject: str | None = _setting(
        None, values.CONTACT, "Whom push services ask about what `browser` sends."
    )
    ws_fallback: SocketFallback = _setting(
        "retry",
        cast("Parser[SocketFallback]", Choice(get_args(SocketFallback))),
        "What becomes of a `ws` message whose user has no socket open.",
    )
    ws_ack_s: float = _setting(
        5.0, Number(0.1, 600), "How long a user's client may take to acknowledge a `ws` message."
    )
    webhook_provider: WebhookProvider = _setting(
        "http",
        cast("Parser[WebhookProvider]", Choice(get_args(WebhookProvider))),
        "What sends webhooks.",
    )
    webhook_secret: str | None = _setting(
        None,
        values.WEBHOOK_SECRET,
        "Signs webhooks whose endpoint has no secret of its own.",
        secret=True,
    )
    webhook_allow: tuple[str, ...] = _setting(
        (),
        values.ALLOW,
        "Hosts and networks that webhooks and Web Push may reach though they aren't public.",
    )
    public_url: str | None = _setting(
        None,
        values.PUBLIC_URL,
        "Where recipients reach the API from outside: links to unsubscribe lead there. Unset:"
        " mails have none.",
    )
    timeout_s: float = _setting(
        30.0, Number(0.1, 3_600), "The longest delivery; at least 10 s below OUTBOX_LEASE_S."
    )
    default_locale: str = _setting(
        "en", values.LOCALE, "The locale where neither job, recipient nor tenant has one."
    )
    render_workers: int = _setting(
        1, Whole(1, 64), "Processes that render templates, per dispatcher."
    )
    max_attempts: int | None = _setting(
        None, Whole(1, 100), "Attempts per job. Unset: as many as the backoff has pauses, and one."
    )
    backoff_s: tuple[float, ...] | None = _setting(
        None, values.BACKOFF, "Pauses between attempts, each ±20 %. Unset: by channel."
    )
    hold_max_s: int = _setting(
        7 * _DAY_S,
        Whole(60, 365 * _DAY_S),
        "How long a job is held for a configuration error before it is a dead letter.",
    )
    hold_probe_s: float = _setting(
        30.0, Number(0.1, _DAY_S), "The first pause before a held lane is probed; it grows."
    )
    receipt_overdue_s: int = _setting(
        _DAY_S,
        Whole(60, 365 * _DAY_S),
        "How long a provider that calls back may say nothing of a message until it is `missing`.",
    )
    lease_s: int = _setting(
        60, Whole(11, _DAY_S), "How long a claim holds, and a silent dispatcher is believed."
    )
    heartbeat_s: float = _setting(
        1.0,
        Number(0.1, 1.5),
        "How often a dispatcher says that it lives; past 2 s without, it starts nothing.",
    )
    drain_s: float = _setting(
        30.0, Number(0, 3_600), "Grace for deliveries in flight after a SIGTERM."
    )
    prefetch_max: int = _setting(
        1_000, Whole(1, 100_000), "Jobs that a dispatcher claims ahead of its free slots."
    )
    queue_concurrency: Mapping[str, int] = field(default_factory=dict)
    """Deliveries at once per queue, where set; the key is the queue as a variable names it."""
    job_bytes_max: int = _setting(262_144, Whole(1_024, 16_777_216), "The largest job.")
    batch_jobs_max: int = _setting(10_000, Whole(1, 100_000), "The most jobs in a batch.")
    batch_bytes_max: int = _setting(
        33_554_432, Whole(1_024, 1_073_741_824), "The largest body of a batch."
    )
    queue_depth_max: int = _setting(
        1_000_000, Whole(1, 10**12), "A queue as deep as this answers 429 over HTTP."
    )
    retention_s: int = _setting(
        90 * _DAY_S,
        Whole(_DAY_S, 3_650 * _DAY_S),
        "How long jobs, their history and their keys are kept, in whole days.",
    )
    dead_letter_retention_s: int = _setting(
        180 * _DAY_S,
        Whole(_DAY_S, 3_650 * _DAY_S),
        "How long dead letters are kept, each with a copy of its job, and who did what to them.",
    )
    ordering_on_failure: OrderingOnFailure = _setting(
        "pass",
        cast("Parser[OrderingOnFailure]", Choice(get_args(OrderingOnFailure))),
        "What a job that failed for good does to those behind it with its `ordering_key`: lets"
        " them `pass`, or `hold`s them until it is replayed or cancelled.",
    )
    template_check: bool = _setting(
        True, values.SWITCH, "Whether a job with a template that nobody has is refused."
    )
    alert_webhook: str | None = _setting(
        None,
        values.WEB_URL,
        "Where alerts are posted, signed as webhooks are; OUTBOX_WEBHOOK_ALLOW opens the way to"
        " hosts that aren't public. Unset: nowhere.",
        secret=True,
    )
    trace_url: str | None = _setting(
        None,
        values.TRACE_URL,
        "Where your traces are shown: the dashboard's page of a job links to its own. Unset: it"
        " shows the trace's id alone.",
    )
    log_level: LogLevel = _setting(
        "info",
        cast("Parser[LogLevel]", Choice(get_args(LogLevel))),
        "The least severe line that is logged.",
    )
    log_format: LogFormat = _setting(
        "json",
        cast("Parser[LogFormat]", Choice(get_args(LogFormat))),
        "How lines look. Unset: `console` where stderr is a terminal, else `json`.",
    )
    channel_providers: Mapping[str, str] = field(default_factory=dict)
    """The providers named for channels of `PROVIDERS`, by channel."""
    plugins: Mapping[str, str] = field(default_factory=dict, repr=False)
    """`OUTBOX_PLUGIN_…` as they are, by name without `OUTBOX_`."""
    sources: Mapping[str, Source] = field(default_factory=dict, repr=False, compare=False)
    """Where each value came from, by name without `OUTBOX_`; the others are defaults."""

    @property
    def is_embedded(self) -> bool:
        """Whether the database is the embedded server."""
        return self.database_url is None

    @property
    def sends_mail_by_smtp(self) -> bool:
        """Whether mail goes to a server."""
        return (
            self.mode == "live"
            and self.smtp_url is not None
            and self.email_provider in (None, "smtp")
        )

    @property
    def sends_mail_by_http(self) -> bool:
        """Whether mail goes to a provider's API."""
        chosen = self.email_provider or ("smtp" if self.smtp_url else "http")
        return self.mode == "live" and self.email_url is not None and chosen == "http"

    @property
    def timeout_s_max(self) -> int:
        """The longest `timeout_s` that a job may ask for."""
        return self.lease_s - RECORD_S_MIN

    def concurrency(self, queue: str) -> int:
        """Return how many jobs of `queue` a dispatcher process delivers at once."""
        default = CONCURRENCY.get(queue, CONCURRENCY_OTHERS)
        return self.queue_concurrency.get(queue_name(queue), default)

    def handler_settings(self) -> Mapping[str, str]:
        """Return what channels get to know: texts, by name without `OUTBOX_`."""
        shared = ("MODE", "SMTP_URL", "SMTP_POOL_SIZE", "MAIL_FROM", "EMAIL_PROVIDER", "TIMEOUT_S")
        webhooks = ("WEBHOOK_PROVIDER", "WEBHOOK_SECRET", "WEBHOOK_ALLOW")
        found = {name: getattr(self, name.lower()) for name in (*shared, *webhooks, *API_SETTINGS)}
        if found["EMAIL_PROVIDER"] is None and self.smtp_url is not None:
            found["EMAIL_PROVIDER"] = "smtp"
        texts = {name: values.text_of(value) for name, value in found.items() if value is not None}
        providers = {provider_name(c): p for c, p in self.channel_providers.items()}
        return {**texts, **providers, **self.plugins}

    def describe(self) -> list[tuple[str, str, Source]]:
        """Return variable, value and source of all that is in force, secrets masked."""
        shown = {name: _shown(getattr(self, name.lower()), spec) for name, spec in specs().items()}
        for queue in sorted({*map(queue_name, CONCURRENCY), *self.queue_concurrency}):
            default = {queue_name(q): n for q, n in CONCURRENCY.items()}.get(queue, 0)
            number = self.queue_concurrency.get(queue, default)
            shown[f"QUEUE_{queue}_CONCURRENCY"] = str(number)
        for channel, provider in sorted(self.channel_providers.items()):
            shown[provider_name(channel)] = provider
        shown |= dict.fromkeys(sorted(self.plugins), values.MASK)  # a plugin's may be a secret
        return [
            (f"OUTBOX_{name}", value, self.sources.get(name, "default"))
            for name, value in shown.items()
        ]


def specs() -> dict[str, Spec]:
    """Return all settings with a field of their own, by name without `OUTBOX_`, in order."""
    found = ((f.name.upper(), f.metadata.get("spec")) for f in dataclasses.fields(Config))
    return {name: spec for name, spec in found if isinstance(spec, Spec)}


def default_log_format() -> LogFormat:
    """Return how to log where nobody has said it: for people on a terminal, else for machines."""
    return "console" if sys.stderr.isatty() else "json"


def queue_name(queue: str) -> str:
    """Return a queue as variables name it: `media-sync` is MEDIA_SYNC."""
    return "".join(c if c.isalnum() else "_" for c in queue).upper()


def provider_name(channel: str) -> str:
    """Return the setting that names a channel's provider, without `OUTBOX_`."""
    return f"{channel.upper()}_PROVIDER"


def _shown(value: object, spec: Spec) -> str:
    if value is None or value == ():
        return ""
    text = values.text_of(value)
    if spec.secret:
        return values.MASK
    return values.masked_url(text) if spec.url else text


def settings_markdown() -> str:
    """Return docs/settings.md."""
    lines = [_MARKDOWN_HEAD]
    defaults = Config()
    for name, spec in specs().items():
        if name in SECTIONS:
            lines += ["", f"## {SECTIONS[name]}", "", "| variable | takes | default | |"]
            lines += ["|---|---|---|---|"]
        default = getattr(defaults, name.lower())
        shown = f"`{values.text_of(default)}`" if default not in (None, ()) else ""
        if name == "LOG_FORMAT":
            shown = ""
        file = f", `OUTBOX_{name}_FILE`" if spec.may_come_from_a_file else ""
        cells = (f"`OUTBOX_{name}`{file}", spec.parser.form, shown, spec.doc)
        lines.append(f"| {' | '.join(cells)} |")
    concurrency = ", ".join(f"{queue} {number}" for queue, number in CONCURRENCY.items())
    lines.append(
        _MARKDOWN_TAIL.format(
            concurrency=concurrency,
            others=CONCURRENCY_OTHERS,
            most=CONCURRENCY_PARSER.form,
            channels=", ".join(PROVIDERS),
        )
    )
    return "\n".join(lines)


_MARKDOWN_HEAD = """# Settings

<!-- Written by `python -m outbox.settings`; a test compares. Edit outbox/settings.py instead. -->

A setting is an environment variable, `OUTBOX_PORT=8080`, or a line of the TOML file that
`OUTBOX_CONFIG` names, `port = 8080`. The environment wins. Secrets can be in files of their own:
`OUTBOX_SECRET_KEY_FILE=/run/secrets/key`. An empty variable counts as unset. `outbox config`
prints what is in force and where it came from. An unknown `OUTBOX_` variable, a value that does
not fit and a combination that cannot work are refused at start, all of them at once."""

_MARKDOWN_TAIL = """
## By queue, by channel, by plugin

| variable | takes | default | |
|---|---|---|---|
| `OUTBOX_QUEUE_<NAME>_CONCURRENCY` | {most} | {concurrency}, others {others} | Deliveries at \
once in one dispatcher process. The queue in capitals, `-` and `.` as `_`: `media-sync` is \
`OUTBOX_QUEUE_MEDIA_SYNC_CONCURRENCY`. |
| `OUTBOX_<CHANNEL>_PROVIDER` | log or sink | | For any other channel ({channels}): print what \
would be sent, or keep it. |
| `OUTBOX_PLUGIN_<NAME>` | text | | Handed to channels and queue handlers as it is. |

Variables that Kubernetes makes for a Service named `outbox…` (`OUTBOX_SERVICE_HOST`,
`OUTBOX_PORT=tcp://…`) are ignored, and so is `OUTBOX_TEST_…`, which belongs to the test suite."""


if __name__ == "__main__":
    print(settings_markdown())
