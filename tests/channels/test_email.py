from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from outbox.channels.email import EmailChannel
from outbox.errors import ConfigError
from outbox.outcome import Delivered, Misconfigured, Outcome, Rejected, Retryable, SinkRow
from tests.channels.certificates import make_authority
from tests.channels.mail_server import DROP, HANG, MailServer, mail_server
from tests.channels.messages import KEY, email
from tests.channels.test_smtp_errors import REPLIES, told_of


def settings(server: MailServer, **more: str) -> dict[str, str]:
    return {
        "SMTP_URL": f"smtp://127.0.0.1:{server.port}",
        "MAIL_FROM": "Кинотеатр <noreply@cinema.kz>",
        **more,
    }


async def send_one(server: MailServer, *, timeout_s: float = 30.0, **more: str) -> Outcome:
    async with EmailChannel(settings(server, **more)) as channel:
        return await channel.deliver(email(), timeout_s=timeout_s)


async def test_a_mail_arrives_and_the_outcome_says_what_was_sent() -> None:
    async with mail_server() as server:
        outcome = await send_one(server)
    assert isinstance(outcome, Delivered)
    assert outcome.provider_message_id == "4F9D195432C"
    assert outcome.sent is not None
    assert outcome.sent.provider == "smtp"
    assert outcome.sent.recipient == "nurzhan@example.com"
    assert outcome.sent.subject == "Добро пожаловать, Нуржан!"
    assert outcome.sent.template_version == 3
    assert outcome.sent.content is not None
    (received,) = server.mails
    assert received.sender == "noreply@cinema.kz"
    assert received.recipients == ["nurzhan@example.com"]
    mail = received.parsed()
    assert mail["Subject"] == "Добро пожаловать, Нуржан!"
    assert mail["Message-ID"] == f"<{KEY}@cinema.kz>"
    part = mail.get_body(("plain",))
    assert part is not None
    assert part.get_content().splitlines() == [
        "Здравствуйте, Нуржан!",
        "Вход: https://cinema.kz/login",
    ]


async def test_the_content_and_the_message_id_are_the_same_over_retries() -> None:
    async with mail_server() as server, EmailChannel(settings(server)) as channel:
        first = await channel.deliver(email(attempt=1), timeout_s=30)
        second = await channel.deliver(email(attempt=2), timeout_s=30)
    assert isinstance(first, Delivered)
    assert isinstance(second, Delivered)
    assert first.sent == second.sent
    assert len({mail.parsed()["Message-ID"] for mail in server.mails}) == 1


async def test_lines_that_begin_with_a_dot_arrive_whole() -> None:
    async with mail_server() as server, EmailChannel(settings(server)) as channel:
        text = ".\n..\n.hidden\nend\n."
        assert isinstance(
            await channel.deliver(email(text=text, html=None), timeout_s=30), Delivered
        )
    assert server.mails[0].parsed().get_content().splitlines() == text.split("\n")


@pytest.mark.parametrize(
    ("stage", "answer", "code", "kind"),
    [
        ("connect", "554 5.7.1 go away", "smtp.5.7.1", "T provider"),
        ("connect", "421 busy", "smtp.421", "T provider"),
        ("connect", DROP, "smtp.connect", "T provider"),
        ("ehlo", "421 4.3.2 closing", "smtp.4.3.2", "T provider"),
        ("ehlo", DROP, "smtp.connect", "T provider"),
        ("mail", "550 sender refused", "smtp.550", "C"),
        ("mail", "451 4.3.0 queue", "smtp.4.3.0", "T provider"),
        ("mail", DROP, "smtp.lost", "T provider"),
        ("rcpt", "550 5.1.1 <nurzhan@example.com> unknown", "smtp.5.1.1", "P S"),
        ("rcpt", "450 4.7.1 greylisted", "smtp.4.7.1", "T job"),
        ("rcpt", "552 5.2.2 full", "smtp.5.2.2", "P"),
        ("rcpt", "421 4.3.2 closing", "smtp.4.3.2", "T provider"),
        ("rcpt", DROP, "smtp.lost", "T provider"),
        ("data", "554 5.6.0 no", "smtp.5.6.0", "P"),
        ("data", "451 later", "smtp.451", "T job"),
        ("data", DROP, "smtp.lost", "T provider"),
        ("body", "554 5.7.1 spam", "smtp.5.7.1", "P"),
        ("body", "452 4.3.1 storage", "smtp.4.3.1", "T provider"),
        ("body", DROP, "smtp.lost", "ambiguous"),
        ("rcpt", "nonsense", "smtp.lost", "T provider"),
        ("body", "nonsense", "smtp.lost", "ambiguous"),
    ],
)
async def test_each_stage_can_fail_in_its_own_way(
    stage: str, answer: str, code: str, kind: str
) -> None:
    async with mail_server() as server:
        server.answer(stage, answer)
        outcome = await send_one(server)
    match outcome:
        case Retryable(ambiguous=True):
            assert kind == "ambiguous"
        case Retryable():
            assert kind == f"T {outcome.scope}"
        case Rejected():
            assert kind == ("P S" if outcome.suppress else "P")
        case Misconfigured():
            assert kind == "C"
            assert outcome.scope == "lane"
        case _:
            raise AssertionError(outcome)
    assert outcome.code == code
    assert "nurzhan@" not in outcome.reason
    assert outcome.sent is not None
    assert outcome.sent.recipient == "nurzhan@example.com"


async def test_each_row_of_the_table_means_the_same_over_the_wire() -> None:
    replies = [reply for reply in REPLIES if reply[0] >= 400]
    async with mail_server() as server:
        for code, text, expected in replies:
            # One alone: a channel remembers how often it was refused for policy.
            async with EmailChannel(settings(server)) as channel:
                server.answer("rcpt", *[f"{code} {text}"] * (2 if code == 503 else 1))
                outcome = await channel.deliver(email(), timeout_s=30)
                assert told_of(outcome) == expected, (code, text)
    assert not server.mails
    assert len(replies) > 50


@pytest.mark.parametrize(
    ("stage", "ambiguous"),
    [("connect", False), ("mail", False), ("rcpt", False), ("data", False), ("body", True)],
)
async def test_a_silent_server_is_ambiguous_only_after_the_final_dot(
    stage: str, ambiguous: bool
) -> None:
    async with mail_server() as server:
        server.answer(stage, HANG)
        outcome = await send_one(server, timeout_s=0.4)
    assert isinstance(outcome, Retryable)
    assert outcome.scope == "provider"
    assert outcome.ambiguous is ambiguous


@pytest.mark.parametrize("stage", ["mail", "rcpt", "data"])
async def test_a_server_out_of_step_is_asked_once_more_on_a_connection_of_its_own(
    stage: str,
) -> None:
    async with mail_server() as server, EmailChannel(settings(server)) as channel:
        server.answer(stage, "503 5.5.1 bad sequence")
        assert isinstance(await channel.deliver(email(attempt=7), timeout_s=30), Delivered)
        assert server.opened == 2
        server.answer(stage, "503 5.5.1 bad sequence", "503 5.5.1 bad sequence")
        outcome = await channel.deliver(email(), timeout_s=30)
        assert isinstance(outcome, Retryable)
        assert (outcome.code, outcome.attempts_max) == ("smtp.5.5.1", 2)
        assert server.opened == 3
    assert len(server.mails) == 1


async def test_a_cancelled_delivery_leaves_no_connection_behind() -> None:
    async with mail_server() as server, EmailChannel(settings(server)) as channel:
        server.answer("rcpt", HANG)
        task = asyncio.create_task(channel.deliver(email(), timeout_s=30))
        await server.reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await server.closed.wait()
        assert isinstance(await channel.deliver(email(), timeout_s=30), Delivered)


async def test_an_unreachable_server_is_the_providers_trouble() -> None:
    async with mail_server() as server:
        closed = settings(server)
    async with EmailChannel(closed) as channel:
        outcome = await channel.deliver(email(), timeout_s=5)
    assert isinstance(outcome, Retryable)
    assert (outcome.code, outcome.scope) == ("smtp.connect", "provider")


async def test_a_server_whose_name_does_not_resolve_is_the_providers_trouble() -> None:
    given = {"SMTP_URL": "smtp://no-such-host.invalid:25", "MAIL_FROM": "a@b.kz"}
    async with EmailChannel(given) as channel:
        outcome = await channel.deliver(email(), timeout_s=30)
    assert isinstance(outcome, Retryable)
    assert (outcome.code, outcome.scope) == ("smtp.dns", "provider")


async def test_ten_of_the_last_twenty_refused_for_policy_hold_the_lane() -> None:
    async with mail_server() as server, EmailChannel(settings(server)) as channel:
        for _ in range(9):
            assert isinstance(await channel.deliver(email(), timeout_s=30), Delivered)
        server.answer("body", *["550 5.7.1 reputation"] * 10)
        outcomes = [await channel.deliver(email(), timeout_s=30) for _ in range(10)]
    assert all(isinstance(outcome, Rejected) for outcome in outcomes[:9])
    assert not any(isinstance(one, Rejected) and one.suppress for one in outcomes)
    assert isinstance(outcomes[9], Misconfigured)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"to": None}, "recipient.no_address"),
        ({"to": ""}, "recipient.no_address"),
        ({"to": "nobody"}, "recipient.address"),
        ({"to": "a@b.kz>\r\nRCPT TO:<c@d.kz"}, "recipient.address"),
        ({"headers": {"X-A": "b\r\nBcc: c@d.kz"}}, "mail.header"),
        ({"headers": {"X-A": "b\x00"}}, "mail.header"),
        ({"headers": {"Bcc": "c@d.kz"}}, "mail.header"),
        ({"headers": {"message-ID": "<1@x>"}}, "mail.header"),
        ({"headers": {"Content-Type": "text/html"}}, "mail.header"),
        ({"headers": {"Reply-To": "nobody"}}, "mail.header"),
        ({"text": None, "html": None}, "mail.empty"),
    ],
)
@pytest.mark.parametrize("provider", ["smtp", "sink"])
async def test_what_can_never_be_mail_is_rejected_before_any_provider_is_asked(
    changes: dict[str, object], code: str, provider: str
) -> None:
    async with mail_server() as server:
        async with EmailChannel(settings(server, EMAIL_PROVIDER=provider)) as channel:
            outcome = await channel.deliver(email(**changes), timeout_s=5)
        assert server.opened == 0
    assert isinstance(outcome, Rejected)
    assert outcome.code == code
    assert not outcome.suppress


async def test_a_user_without_an_address_is_told_in_the_contracts_words() -> None:
    async with EmailChannel({}) as channel:
        outcome = await channel.deliver(email(to=None), timeout_s=5)
    assert isinstance(outcome, Rejected)
    assert outcome.reason == "User has no email"


@pytest.mark.parametrize("missing", ["SMTP_URL", "MAIL_FROM"])
async def test_mail_waits_until_a_provider_is_set(missing: str) -> None:
    given = {"SMTP_URL": "smtp://127.0.0.1:1", "MAIL_FROM": "a@b.kz"}
    del given[missing]
    async with EmailChannel(given) as channel:
        outcome = await channel.deliver(email(), timeout_s=5)
    assert isinstance(outcome, Misconfigured)
    assert (outcome.code, outcome.scope) == ("provider.missing", "lane")


async def test_the_sandbox_keeps_mail_whatever_else_is_set() -> None:
    async with mail_server() as server:
        given = settings(server, MODE="sandbox", EMAIL_PROVIDER="smtp")
        async with EmailChannel(given) as channel:
            outcome = await channel.deliver(email(headers={"X-A": "b"}), timeout_s=5)
        assert server.opened == 0
    assert isinstance(outcome, Delivered)
    (row,) = outcome.effects
    assert isinstance(row, SinkRow)
    assert (row.channel, row.recipient) == ("email", "nurzhan@example.com")
    assert row.subject == "Добро пожаловать, Нуржан!"
    assert row.body.startswith("Здравствуйте")
    assert '"X-A":"b"' in row.headers_json
    assert "<b>Нуржан</b>" in row.headers_json


@pytest.mark.parametrize(
    "given",
    [
        {"SMTP_URL": "http://host"},
        {"SMTP_URL": "smtp://"},
        {"SMTP_URL": "smtp://host:notaport"},
        {"SMTP_URL": "smtp://host:99999"},
        {"SMTP_URL": "smtp://user@host"},
        {"SMTP_URL": "smtp://host/path"},
        {"SMTP_URL": "smtp://host?starttls=maybe"},
        {"SMTP_URL": "smtp://host?verify=no"},
        {"SMTP_URL": "smtps://host?starttls=required"},
        {"SMTP_URL": "smtp://host", "SMTP_POOL_SIZE": "0"},
        {"SMTP_URL": "smtp://host", "SMTP_POOL_SIZE": "many"},
        {"MAIL_FROM": "nobody"},
        {"MAIL_FROM": "a@b.kz\r\nBcc: c@d.kz"},
        {"EMAIL_PROVIDER": "carrier-pigeon"},
    ],
)
def test_a_malformed_setting_is_refused_at_the_start(given: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="OUTBOX_"):
        EmailChannel(given)


def test_a_refused_url_shows_no_password() -> None:
    with pytest.raises(ConfigError) as refusal:
        EmailChannel({"SMTP_URL": "smtp://user:hunter2@host:notaport"})
    assert "hunter2" not in str(refusal.value)


async def test_an_address_outside_ascii_goes_to_a_server_that_takes_it() -> None:
    async with mail_server() as server, EmailChannel(settings(server)) as channel:
        outcome = await channel.deliver(email(to="иван@почта.рф"), timeout_s=5)
    assert isinstance(outcome, Delivered)
    assert server.mails[0].recipients == ["иван@xn--80a1acny.xn--p1ai"]
    assert "SMTPUTF8" in server.mails[0].options


async def test_an_address_outside_ascii_is_rejected_where_the_server_cannot() -> None:
    async with mail_server(smtputf8=False) as server, EmailChannel(settings(server)) as channel:
        outcome = await channel.deliver(email(to="иван@почта.рф"), timeout_s=5)
        assert isinstance(outcome, Rejected)
        assert (outcome.code, outcome.suppress) == ("smtp.smtputf8", False)
        assert isinstance(await channel.deliver(email(), timeout_s=5), Delivered)
        assert server.opened == 1


async def test_a_mail_too_large_for_the_server_is_rejected_before_it_is_sent() -> None:
    async with mail_server() as server, EmailChannel(settings(server)) as channel:
        outcome = await channel.deliver(email(html="ж" * 20_000_000), timeout_s=60)
    assert isinstance(outcome, Rejected)
    assert outcome.code == "smtp.552"


class TestTls:
    async def test_implicit_tls_is_used_and_verified(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        authority = make_authority(tmp_path)
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca_file))
        async with mail_server(implicit_tls=authority.server) as server:
            url = f"smtps://127.0.0.1:{server.port}"
            assert isinstance(await send_one(server, SMTP_URL=url), Delivered)

    @pytest.mark.parametrize("mode", ["implicit", "required"])
    async def test_a_certificate_of_nobody_we_know_holds_the_lane(
        self, tmp_path: Path, mode: str
    ) -> None:
        context = make_authority(tmp_path).server
        implicit = context if mode == "implicit" else None
        starttls = context if mode == "required" else None
        async with mail_server(implicit_tls=implicit, starttls=starttls) as server:
            scheme, query = ("smtps", "") if implicit else ("smtp", "?starttls=required")
            outcome = await send_one(server, SMTP_URL=f"{scheme}://127.0.0.1:{server.port}{query}")
        assert isinstance(outcome, Misconfigured)
        assert (outcome.code, outcome.scope) == ("smtp.certificate", "lane")
        assert not server.mails

    async def test_a_certificate_for_another_host_holds_the_lane(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        authority = make_authority(tmp_path, host="mail.example.com")
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca_file))
        async with mail_server(starttls=authority.server) as server:
            url = f"smtp://127.0.0.1:{server.port}?starttls=required"
            outcome = await send_one(server, SMTP_URL=url)
        assert isinstance(outcome, Misconfigured)
        assert outcome.code == "smtp.certificate"

    async def test_required_starttls_is_used_and_carries_the_login(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        authority = make_authority(tmp_path)
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca_file))
        async with mail_server(starttls=authority.server) as server:
            url = f"smtp://us%40er:p%3Ass@127.0.0.1:{server.port}?starttls=required"
            assert isinstance(await send_one(server, SMTP_URL=url), Delivered)
        assert server.logins == [("us@er", "p:ss")]

    async def test_required_starttls_that_is_not_offered_holds_the_lane(self) -> None:
        async with mail_server() as server:
            url = f"smtp://127.0.0.1:{server.port}?starttls=required"
            outcome = await send_one(server, SMTP_URL=url)
        assert isinstance(outcome, Misconfigured)
        assert (outcome.code, outcome.scope) == ("smtp.starttls", "lane")

    @pytest.mark.parametrize(
        ("answer", "kind"),
        [("454 4.7.0 not now", Retryable), ("554 never", Misconfigured), (DROP, Retryable)],
    )
    async def test_required_starttls_that_is_refused_sends_nothing(
        self, tmp_path: Path, answer: str, kind: type[Outcome]
    ) -> None:
        async with mail_server(starttls=make_authority(tmp_path).server) as server:
            server.answer("starttls", answer)
            url = f"smtp://127.0.0.1:{server.port}?starttls=required"
            outcome = await send_one(server, SMTP_URL=url)
        assert isinstance(outcome, kind)
        assert not server.mails

    async def test_opportunistic_starttls_takes_any_certificate_or_none(
        self, tmp_path: Path
    ) -> None:
        async with mail_server(starttls=make_authority(tmp_path).server) as server:
            assert isinstance(await send_one(server), Delivered)
            server.answer("starttls", "454 not now")
            assert isinstance(await send_one(server), Delivered)

    async def test_starttls_that_is_off_is_not_used(self, tmp_path: Path) -> None:
        async with mail_server(starttls=make_authority(tmp_path).server) as server:
            server.answer("starttls", "554 it was asked for")
            url = f"smtp://127.0.0.1:{server.port}?starttls=off"
            assert isinstance(await send_one(server, SMTP_URL=url), Delivered)
            assert server.answers["starttls"]


class TestLogin:
    async def test_a_refused_login_holds_the_lane(self) -> None:
        async with mail_server(offers_login=True) as server:
            server.accepts_login = False
            outcome = await send_one(server, SMTP_URL=f"smtp://u:hunter2@127.0.0.1:{server.port}")
        assert isinstance(outcome, Misconfigured)
        assert (outcome.code, outcome.scope) == ("smtp.5.7.8", "lane")
        assert "hunter2" not in outcome.reason

    async def test_a_login_that_the_server_cannot_check_just_now_is_temporary(self) -> None:
        async with mail_server(offers_login=True) as server:
            server.answer("auth", *["454 4.7.0 not now"] * 5)
            outcome = await send_one(server, SMTP_URL=f"smtp://u:p@127.0.0.1:{server.port}")
        assert isinstance(outcome, Retryable)
        assert outcome.scope == "provider"

    async def test_a_server_without_a_login_holds_the_lane(self) -> None:
        async with mail_server() as server:
            outcome = await send_one(server, SMTP_URL=f"smtp://u:p@127.0.0.1:{server.port}")
        assert isinstance(outcome, Misconfigured)
        assert outcome.code == "smtp.auth"

    async def test_a_server_that_wants_a_login_first_holds_the_lane(self) -> None:
        async with mail_server() as server:
            server.answer("mail", "530 5.7.0 Authentication required")
            outcome = await send_one(server)
        assert isinstance(outcome, Misconfigured)
        assert outcome.code == "smtp.5.7.0"
