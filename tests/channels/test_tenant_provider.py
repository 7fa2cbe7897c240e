"""A tenant's own provider: the channel's handler, made with settings of its own."""

from __future__ import annotations

from uuid import uuid4

import pytest

from outbox.channels.email import EmailChannel
from outbox.channels.providers import ProviderSpec, provider_settings
from outbox.channels.registry import make_handler
from outbox.channels.smtp_url import smtp_server
from outbox.errors import ConfigError
from outbox.outcome import Delivered, Misconfigured
from tests.channels.mail_server import MailServer, mail_server
from tests.channels.messages import email

BASE = {
    "MODE": "live",
    "TIMEOUT_S": "30",
    "SMTP_URL": "smtp://operator:secret@mail.internal",
    "MAIL_FROM": "operator@example.com",
    "PLUGIN_FAX": "secret",
    "WEBHOOK_ALLOW": "127.0.0.1",
}


def spec(port: int = 25, **config: str) -> ProviderSpec:
    return ProviderSpec(
        provider_id=uuid4(),
        tenant_id="acme",
        channel="email",
        kind="smtp",
        name="main",
        config={
            "smtp_url": f"smtp://127.0.0.1:{port}?starttls=off",
            "mail_from": "acme@example.com",
            **config,
        },
        credentials={"smtp_username": "acme", "smtp_password": "hunter2!"},
    )


def test_a_provider_is_told_its_own_settings_and_none_of_the_operator_s_secrets() -> None:
    assert provider_settings(spec(2525), BASE) == {
        "MODE": "live",
        "TIMEOUT_S": "30",
        "WEBHOOK_ALLOW": "127.0.0.1",
        "EMAIL_PROVIDER": "smtp",
        "SMTP_URL": "smtp://127.0.0.1:2525?starttls=off",
        "MAIL_FROM": "acme@example.com",
        "SMTP_USERNAME": "acme",
        "SMTP_PASSWORD": "hunter2!",
        "GUARDED": "on",
    }


def test_a_provider_s_repr_shows_no_credentials() -> None:
    assert "hunter2" not in repr(spec())


def test_a_password_beside_the_url_goes_over_an_encrypted_connection_alone() -> None:
    login = {"SMTP_USERNAME": "acme", "SMTP_PASSWORD": "hunter2!"}
    assert smtp_server({"SMTP_URL": "smtp://mail.example.com", **login}).tls == "required"
    off = smtp_server({"SMTP_URL": "smtp://mail.example.com?starttls=off", **login})
    assert (off.tls, off.username, off.password) == ("off", "acme", "hunter2!")
    with pytest.raises(ConfigError, match="another beside it"):
        smtp_server({"SMTP_URL": "smtp://a:b@mail.example.com", **login})


async def deliver(provider: ProviderSpec, base: dict[str, str]) -> object:
    handler = make_handler("email", provider_settings(provider, base))
    assert isinstance(handler, EmailChannel)
    async with handler:
        return await handler.deliver(email(), timeout_s=5)


async def login_server_mail(server: MailServer) -> list[str]:
    return [mail.sender for mail in server.mails]


async def test_a_tenant_s_mail_goes_through_its_own_server_with_its_own_login() -> None:
    async with mail_server(offers_login=True) as server:
        outcome = await deliver(spec(server.port), BASE)
        assert isinstance(outcome, Delivered), outcome
        assert server.logins == [("acme", "hunter2!")]
        assert await login_server_mail(server) == ["acme@example.com"]


async def test_a_tenant_s_mail_server_may_not_be_inside() -> None:
    closed = BASE | {"WEBHOOK_ALLOW": ""}
    async with mail_server() as server:
        for url in (
            f"smtp://127.0.0.1:{server.port}",
            f"smtp://localhost:{server.port}",
            f"smtp://2130706433:{server.port}",
            f"smtp://[::ffff:127.0.0.1]:{server.port}",
        ):
            outcome = await deliver(spec(smtp_url=url), closed)
            assert isinstance(outcome, Misconfigured), outcome
            assert (outcome.code, outcome.scope) == ("smtp.blocked", "lane")
        assert server.opened == 0


async def test_a_tenant_s_mail_server_listens_where_mail_servers_do() -> None:
    outcome = await deliver(spec(smtp_url="smtp://93.184.215.14:6379"), BASE)
    assert isinstance(outcome, Misconfigured)
    assert "6379" in outcome.reason
