"""Settings: where they come from, what is refused, and that no secret is shown."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import pytest

from outbox.config import Config, load_config, settings_markdown
from outbox.errors import ConfigError
from outbox.settings import CONCURRENCY, SECTIONS, specs

ROOT = Path(__file__).parents[2]


def load(**settings: str) -> Config:
    return load_config({f"OUTBOX_{name}": text for name, text in settings.items()})


def faults(environ: Mapping[str, str], toml_path: Path | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_config(environ, toml_path)
    return str(caught.value).splitlines()


# -- values ----------------------------------------------------------------------------------


def test_without_any_setting_everything_has_its_default() -> None:
    config = load_config({})
    assert config == dataclasses.replace(Config(), log_format=config.log_format)
    assert config.is_embedded
    assert config.auth
    assert (config.host, config.port, config.data_dir) == ("127.0.0.1", 8080, Path(".outbox"))
    assert {source for _, _, source in config.describe()} == {"default"}


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("DATABASE_URL", "postgres://ann@db/outbox", "postgres://ann@db/outbox"),
        ("DATA_DIR", "/var/lib/outbox", Path("/var/lib/outbox")),
        ("HOST", "::", "::"),
        ("PORT", " 9000 ", 9000),
        ("AUTH", "on", True),
        ("AUTH", "off", False),
        ("MODE", "Sandbox", "sandbox"),
        ("TIMEOUT_S", "2.5", 2.5),
        ("BACKOFF_S", "2, 4,8.5", (2.0, 4.0, 8.5)),
        ("MAX_ATTEMPTS", "3", 3),
        ("TEMPLATE_CHECK", "false", False),
        (
            "WEBHOOK_ALLOW",
            "localhost, 10.0.0.0/8,[::1]:80",
            ("localhost", "10.0.0.0/8", "[::1]:80"),
        ),
        ("WEBHOOK_SECRET", "whsec_c2VjcmV0LXNlY3JldA==", "whsec_c2VjcmV0LXNlY3JldA=="),
        ("LOG_FORMAT", "console", "console"),
    ],
)
def test_a_text_becomes_a_value_of_the_settings_type(name: str, text: str, value: object) -> None:
    assert getattr(load(**{name: text}), name.lower()) == value


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("PORT", "http", "must be a whole number from 1 to 65535, not 'http'."),
        ("PORT", "0", "must be a whole number from 1 to 65535, not '0'."),
        ("PORT", "٣", "must be a whole number from 1 to 65535, not '٣'."),
        ("TIMEOUT_S", "nan", "must be a number from 0.1 to 3600, not 'nan'."),
        ("HEARTBEAT_S", "2", "must be a number from 0.1 to 1.5, not '2'."),
        ("AUTH", "maybe", "must be on or off, not 'maybe'."),
        ("MODE", "test", "must be live or sandbox, not 'test'."),
        ("EMAIL_PROVIDER", "fax", "must be smtp, http, log or sink, not 'fax'."),
        ("SMS_PROVIDER", "twilio", "must be log or sink, not 'twilio'."),
        ("HOST", "not a host", "must be an IP address or a host name, not 'not a host'."),
        ("HOST", "1.2.3.4.5", "must be an IP address or a host name, not '1.2.3.4.5'."),
        ("DEFAULT_LOCALE", "russian language", "must be a language tag such as en or pt-BR,"),
        ("BACKOFF_S", "1,,2", "must be pauses in seconds, separated by commas,"),
        ("BACKOFF_S", "1," * 200 + "1", "must be at most 100 pauses,"),
        ("WEBHOOK_ALLOW", "10.0.0.0/99", "must be hosts, host:port, addresses or networks"),
        ("QUEUE_EMAIL_CONCURRENCY", "0", "must be a whole number from 1 to 10000, not '0'."),
        ("MAIL_FROM", "a" * 5_000, "must be at most 4096 characters, not 'aaaaaaaaaa"),
    ],
)
def test_a_text_that_does_not_fit_is_refused_by_name(name: str, text: str, says: str) -> None:
    (sentence,) = faults({f"OUTBOX_{name}": text})
    assert sentence.startswith(f"OUTBOX_{name} {says}")


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("SECRET_KEY", "hunter2", "must be at least 12 printable ASCII characters"),
        ("ADMIN_KEY", "hunter2 hunter2 hunter2", "must be at least 12 printable ASCII characters"),
        ("WEBHOOK_SECRET", "whsec_hunter2", "must be whsec_ and base64 of 8 bytes or more"),
        ("DATABASE_URL", "mysql://ann:hunter2@db/outbox", "must be a URL: postgresql://"),
        ("DATABASE_URL", "host=db password=hunter2", "must be a URL: postgresql://"),
        ("DATABASE_URL", "postgresql://ann:hunter2@db:port/x", "must be a URL: postgresql://"),
        ("SMTP_URL", "ann:hunter2@mail:25", "must be smtp://user:password@host:port"),
        ("SMTP_URL", "smtp://mail?starttls=maybe", "starttls= is none of required, opportunistic"),
        ("SMTP_URL", "smtp://ann@mail", "has a user without a password"),
        ("S3_URL", "s3://AK:hunter2@host", "must be s3://KEY:SECRET@host/bucket"),
        ("S3_URL", "s3://hunter2@host/bucket", "has a key without a secret"),
        ("SMS_URL", "twilio://hunter2@api", "must be twilio://SID:TOKEN@api.twilio.com"),
        ("EMAIL_URL", "postmark://hunter2@api", "must be postmark://:TOKEN@"),
        ("TELEGRAM_URL", "telegram://1:hunter2@api?x", "has a query or a fragment"),
        ("PUSH_URL", "fcm://hunter2@fcm.googleapis.com", "has a login"),
        ("PUSH_KEY", '{"private_key": "hunter2"}', "must be a service account's key"),
        ("BROWSER_KEY", "hunter2", "must be a private key"),
    ],
)
def test_a_secret_that_does_not_fit_is_refused_without_repeating_it(
    name: str, text: str, says: str
) -> None:
    (sentence,) = faults({f"OUTBOX_{name}": text})
    assert sentence.startswith(f"OUTBOX_{name} {says}")
    assert "hunter2" not in sentence


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"AUTH": "off", "HOST": "0.0.0.0"}, "OUTBOX_AUTH=off needs a loopback address"),
        ({"AUTH": "off", "HOST": "outbox.example"}, "OUTBOX_AUTH=off needs a loopback address"),
        ({"TIMEOUT_S": "51"}, "OUTBOX_TIMEOUT_S must be at least 10 s below OUTBOX_LEASE_S"),
        ({"LEASE_S": "39"}, "OUTBOX_TIMEOUT_S must be at least 10 s below OUTBOX_LEASE_S"),
        ({"DIRECT_DATABASE_URL": "postgresql://db/x"}, "OUTBOX_DIRECT_DATABASE_URL needs"),
        ({"EMAIL_PROVIDER": "smtp"}, "OUTBOX_EMAIL_PROVIDER=smtp needs OUTBOX_SMTP_URL."),
        ({"SMTP_URL": "smtp://mail:25"}, "OUTBOX_MAIL_FROM is missing"),
        ({"EMAIL_PROVIDER": "http"}, "OUTBOX_EMAIL_PROVIDER=http needs OUTBOX_EMAIL_URL."),
        ({"EMAIL_URL": "postmark://:t@api"}, "OUTBOX_MAIL_FROM is missing"),
        (
            {"EMAIL_URL": "postmark://:t@api", "SMTP_URL": "smtp://m", "MAIL_FROM": "a@b.kz"},
            "OUTBOX_SMTP_URL and OUTBOX_EMAIL_URL are both set",
        ),
        ({"SMS_URL": "twilio://a:b@api"}, "OUTBOX_SMS_FROM is missing"),
        ({"BROWSER_KEY": "k" * 43}, "OUTBOX_BROWSER_SUBJECT is missing"),
        ({"PORT": "9000", "METRICS_PORT": "9000"}, "OUTBOX_METRICS_PORT and OUTBOX_PORT"),
        ({"BATCH_BYTES_MAX": "2000"}, "OUTBOX_BATCH_BYTES_MAX must not be below"),
        ({"HOLD_MAX_S": "60", "HOLD_PROBE_S": "61"}, "OUTBOX_HOLD_PROBE_S must not be above"),
        ({"HOLD_MAX_S": "8000000"}, "OUTBOX_HOLD_MAX_S must not be above OUTBOX_RETENTION_S"),
    ],
)
def test_a_combination_that_cannot_work_is_refused(settings: dict[str, str], says: str) -> None:
    (sentence,) = faults({f"OUTBOX_{name}": text for name, text in settings.items()})
    assert sentence.startswith(says)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1.2.3", "::1"])
def test_keys_can_be_switched_off_on_a_loopback_host(host: str) -> None:
    assert not load(AUTH="off", HOST=host).auth


def test_all_faults_are_told_at_once_and_a_broken_value_causes_no_second_one() -> None:
    sentences = faults(
        {
            "OUTBOX_PORT": "x",
            "OUTBOX_PROT": "8080",
            "OUTBOX_LEASE_S": "soon",
            "OUTBOX_AUTH": "off",
            "OUTBOX_HOST": "0.0.0.0",
        }
    )
    assert sorted(sentence.split()[0] for sentence in sentences) == [
        "OUTBOX_AUTH=off",
        "OUTBOX_LEASE_S",
        "OUTBOX_PORT",
        "OUTBOX_PROT",
    ]


# -- names -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("PROT", "OUTBOX_PROT is no setting; did you mean OUTBOX_PORT?"),
        ("SMPT_URL", "OUTBOX_SMPT_URL is no setting; did you mean OUTBOX_SMTP_URL?"),
        ("XYZZY", "OUTBOX_XYZZY is no setting."),
        ("PORT_FILE", "OUTBOX_PORT_FILE is no setting; did you mean OUTBOX_PORT?"),
        ("PLUGIN_", "OUTBOX_PLUGIN_ is no setting"),
        ("QUEUE__CONCURRENCY", "OUTBOX_QUEUE__CONCURRENCY is no setting"),
    ],
)
def test_an_unknown_name_is_refused_and_the_nearest_is_offered(name: str, says: str) -> None:
    (sentence,) = faults({f"OUTBOX_{name}": "hunter2"})
    assert sentence.startswith(says)
    assert "hunter2" not in sentence


def test_what_is_not_ours_is_left_alone() -> None:
    load_config({"PATH": "/bin", "OUTBOXES": "3", "OUTBOX_TEST_DATABASE_URL": "postgresql://x/y"})


def test_the_variables_of_a_kubernetes_service_are_no_settings_of_ours() -> None:
    config = load_config(
        {
            "OUTBOX_SERVICE_HOST": "10.0.0.7",
            "OUTBOX_SERVICE_PORT": "8080",
            "OUTBOX_SERVICE_PORT_HTTP": "8080",
            "OUTBOX_PORT": "tcp://10.0.0.7:8080",
            "OUTBOX_PORT_8080_TCP": "tcp://10.0.0.7:8080",
            "OUTBOX_PORT_8080_TCP_PROTO": "tcp",
            "OUTBOX_API_SERVICE_HOST": "10.0.0.8",
            "OUTBOX_API_SERVICE_PORT": "8080",
            "OUTBOX_API_PORT": "tcp://10.0.0.8:8080",
            "OUTBOX_API_PORT_8080_TCP_ADDR": "10.0.0.8",
        }
    )
    assert config.port == 8080


def test_an_empty_variable_counts_as_unset() -> None:
    assert load(PORT="", SMTP_URL=" ").describe() == load_config({}).describe()


# -- sources ---------------------------------------------------------------------------------


def test_a_secret_can_come_from_a_file_and_the_line_end_is_no_part_of_it(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("0123456789abcdef\n")
    config = load(SECRET_KEY_FILE=str(tmp_path / "key"))
    assert config.secret_key == "0123456789abcdef"
    assert config.sources == {"SECRET_KEY": "file"}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "cannot be read: No such file or directory."),
        (b"\n", "is empty."),
        (b"\xff" * 20, "holds no UTF-8 text."),
        (b"a" * 70_000, "is larger than 65536 bytes."),
    ],
)
def test_a_secrets_file_that_is_no_good_is_named(
    tmp_path: Path, content: bytes | None, says: str
) -> None:
    path = tmp_path / "key"
    if content is not None:
        path.write_bytes(content)
    (sentence,) = faults({"OUTBOX_SECRET_KEY_FILE": str(path)})
    assert sentence.startswith("OUTBOX_SECRET_KEY_FILE names ")
    assert sentence.endswith(says)


def test_a_secret_that_is_set_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("0123456789abcdef")
    (sentence,) = faults(
        {"OUTBOX_ADMIN_KEY": "0123456789ab", "OUTBOX_ADMIN_KEY_FILE": str(tmp_path / "key")}
    )
    assert sentence == "OUTBOX_ADMIN_KEY is set twice, as OUTBOX_ADMIN_KEY_FILE too: keep one."


def test_a_toml_file_sets_what_the_environment_leaves_out(tmp_path: Path) -> None:
    path = tmp_path / "outbox.toml"
    path.write_text(
        """
        port = 9000
        host = "::1"
        auth = false
        heartbeat_s = 0.5
        backoff_s = [2, 4.5]
        [webhook]
        allow = ["localhost", "10.0.0.0/8"]
        [queue.media-sync]
        concurrency = 2
        """
    )
    config = load_config({"OUTBOX_CONFIG": str(path), "OUTBOX_PORT": "9001"})
    assert (config.port, config.host, config.auth, config.heartbeat_s) == (9001, "::1", False, 0.5)
    assert config.backoff_s == (2.0, 4.5)
    assert config.webhook_allow == ("localhost", "10.0.0.0/8")
    assert config.concurrency("media-sync") == 2
    assert config.sources["PORT"] == "env"
    assert config.sources["HOST"] == "toml"
    assert load_config({}, path).port == 9000


def test_a_secrets_file_of_the_environment_wins_over_the_toml_file(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("from-the-file")
    (tmp_path / "outbox.toml").write_text('secret_key = "from-the-toml"')
    environ = {"OUTBOX_SECRET_KEY_FILE": str(tmp_path / "key")}
    assert load_config(environ, tmp_path / "outbox.toml").secret_key == "from-the-file"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("port = ", "is no TOML: "),
        ("prot = 1", "OUTBOX_PROT in {path} is no setting; did you mean OUTBOX_PORT?"),
        ("port = 'x'", "OUTBOX_PORT in {path} must be a whole number from 1 to 65535, not 'x'."),
        ("port = 2026-11-22", "OUTBOX_PORT in {path} must be a text, a number or a list."),
        ("config = 'other.toml'", "OUTBOX_CONFIG in {path} is no setting"),
        ("[" * 5_000, "is no TOML: "),
    ],
)
def test_a_toml_file_that_is_no_good_is_named(tmp_path: Path, content: str, says: str) -> None:
    path = tmp_path / "outbox.toml"
    path.write_text(content)
    (sentence,) = faults({"OUTBOX_CONFIG": str(path)})
    assert says.format(path=path) in sentence


def test_a_toml_file_that_is_missing_is_refused() -> None:
    (sentence,) = faults({"OUTBOX_CONFIG": "/nonexistent.toml"})
    assert sentence.startswith("OUTBOX_CONFIG names /nonexistent.toml, which cannot be read")


# -- what others get -------------------------------------------------------------------------


def test_concurrency_is_by_queue_with_defaults() -> None:
    config = load(QUEUE_EMAIL_CONCURRENCY="20", QUEUE_BULK_MAIL_CONCURRENCY="4")
    assert config.concurrency("email") == 20
    assert config.concurrency("bulk-mail") == config.concurrency("bulk.mail") == 4
    assert config.concurrency("anything") == 10
    for queue, number in CONCURRENCY.items():
        assert load_config({}).concurrency(queue) == number


def test_handlers_get_texts_without_the_prefix_and_only_what_is_theirs() -> None:
    config = load(
        SMTP_URL="smtp://mail:25",
        MAIL_FROM="Ann <ann@example.com>",
        WEBHOOK_ALLOW="localhost 10.0.0.0/8",
        SMS_PROVIDER="log",
        PLUGIN_FAX_URL="https://fax.example/?a=b",
        SECRET_KEY="0123456789abcdef",
        DATABASE_URL="postgresql://db/outbox",
    )
    assert config.handler_settings() == {
        "MODE": "live",
        "SMTP_URL": "smtp://mail:25",
        "SMTP_POOL_SIZE": "10",
        "MAIL_FROM": "Ann <ann@example.com>",
        "EMAIL_PROVIDER": "smtp",
        "TIMEOUT_S": "30",
        "WEBHOOK_PROVIDER": "http",
        "WEBHOOK_ALLOW": "localhost,10.0.0.0/8",
        "SMS_PROVIDER": "log",
        "PUSH_URL": "fcm://fcm.googleapis.com",
        "TELEGRAM_MARKDOWN": "off",
        "WS_FALLBACK": "retry",
        "WS_ACK_S": "5",
        "ATTACHMENTS_BYTES_MAX": "10485760",
        "PLUGIN_FAX_URL": "https://fax.example/?a=b",
    }


def test_no_secret_is_shown_by_describe_or_by_repr() -> None:
    config = load(
        DATABASE_URL="postgresql://ann:hunter2@db:5432/outbox?sslpassword=hunter2&sslmode=require",
        DIRECT_DATABASE_URL="postgresql://ann:hunter2@db/outbox",
        SMTP_URL="smtp://ann:hunter2@mail:25?starttls=required",
        S3_URL="s3://AK:hunter2@host/bucket/{tenant}",
        MAIL_FROM="ann@example.com",
        SECRET_KEY="hunter2-hunter2",
        ADMIN_KEY="hunter2-hunter2",
        WEBHOOK_SECRET="whsec_hunter2hunter2",
        PLUGIN_TOKEN="hunter2",
    )
    shown = {name: value for name, value, _ in config.describe()}
    assert "hunter2" not in repr(shown) + repr(config)
    assert shown["OUTBOX_DATABASE_URL"] == (
        "postgresql://ann:********@db:5432/outbox?sslpassword=********&sslmode=require"
    )
    assert shown["OUTBOX_SMTP_URL"] == "smtp://ann:********@mail:25?starttls=required"
    assert shown["OUTBOX_S3_URL"] == "s3://AK:********@host/bucket/{tenant}"
    assert shown["OUTBOX_SECRET_KEY"] == shown["OUTBOX_PLUGIN_TOKEN"] == "********"


def test_describe_tells_where_each_value_came_from() -> None:
    rows = load(PORT="9000", QUEUE_SMS_CONCURRENCY="1").describe()
    assert ("OUTBOX_PORT", "9000", "env") in rows
    assert ("OUTBOX_QUEUE_SMS_CONCURRENCY", "1", "env") in rows
    assert ("OUTBOX_QUEUE_EMAIL_CONCURRENCY", "10", "default") in rows
    assert ("OUTBOX_HOST", "127.0.0.1", "default") in rows


def test_the_settings_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        load_config({}).port = 1  # type: ignore[misc]


# -- documentation ---------------------------------------------------------------------------


def test_the_documentation_is_what_the_code_says() -> None:
    assert (ROOT / "docs" / "settings.md").read_text() == settings_markdown() + "\n"


def test_each_setting_is_documented_in_a_sentence_and_each_section_begins_with_one() -> None:
    for name, spec in specs().items():
        assert spec.doc.endswith("."), name
        assert f"`OUTBOX_{name}`" in settings_markdown()
    assert set(SECTIONS) <= set(specs())


@pytest.mark.parametrize("name", list(specs()))
def test_a_default_passes_its_own_parser(name: str) -> None:
    for setting, shown, _ in load_config({}).describe():
        if setting == f"OUTBOX_{name}" and shown:
            assert getattr(load(**{name: shown}), name.lower()) == getattr(
                load_config({}), name.lower()
            )
