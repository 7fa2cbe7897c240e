"""Where the mail server is, and how a session with it begins: connect, TLS, login."""

from __future__ import annotations

import asyncio
import functools
import os
import re
import socket
import ssl

import aiosmtplib
import msgspec

from outbox.channels.guard import Blocked, Guard, LookupFailed, NameNotFound
from outbox.channels.smtp_errors import Stage
from outbox.channels.smtp_url import SmtpServer, TlsMode

GUARDED_PORTS = frozenset({25, 465, 587, 2525})
"""Where a tenant's mail server may listen, unless the operator opened its host."""
_HOSTNAME = re.compile(r"[A-Za-z0-9.-]{1,253}\Z")


class SessionRefused(Exception):
    """No session, because of how we or the server are set up. `stage` says where it ended."""

    def __init__(self, stage: Stage, code: str, reason: str) -> None:
        self.stage, self.code, self.reason = stage, code, reason
        super().__init__(reason)


class Progress(msgspec.Struct):
    """How far a transaction has come; read when it breaks off."""

    stage: Stage = "connect"


def tls_contexts() -> dict[TlsMode, ssl.SSLContext]:
    """Return a context for each mode that has one. Reads the system's certificates: slow.

    They are not changed afterwards, so a thousand tenants' pools share them.
    """
    return _tls_contexts(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))


@functools.lru_cache(maxsize=4)
def _tls_contexts(file: str | None, folder: str | None) -> dict[TlsMode, ssl.SSLContext]:
    # OpenSSL reads the two variables by itself.
    verifying = ssl.create_default_context()
    trusting = ssl.create_default_context()
    # Against somebody who only listens; a server that must be the right one is `required`.
    trusting.check_hostname = False
    trusting.verify_mode = ssl.CERT_NONE
    return {"implicit": verifying, "required": verifying, "opportunistic": trusting}


async def open_session(
    server: SmtpServer,
    contexts: dict[TlsMode, ssl.SSLContext],
    progress: Progress,
    *,
    guard: Guard | None = None,
) -> aiosmtplib.SMTP:
    """Return a session that is ready for MAIL; `progress` tells where it broke off.

    With a `guard`, to an address that it let pass. Raises aiosmtplib's errors, OSError,
    SessionRefused. The caller bounds the time.
    """
    progress.stage = "connect"
    sock = None if guard is None else await _guarded_socket(guard, server)
    client = aiosmtplib.SMTP(
        hostname=server.host,
        port=server.port if sock is None else None,
        sock=sock,
        local_hostname=_our_name(),
        use_tls=server.tls == "implicit",
        start_tls=False,
        tls_context=contexts.get(server.tls),
        timeout=None,
    )
    try:
        await client.connect()
        await _greet(client)
        encrypted = server.tls == "implicit"
        if server.tls in ("required", "opportunistic"):
            encrypted = await _start_tls(client, server, progress)
        if server.username is not None and server.password is not None:
            progress.stage = "auth"
            await _log_in(client, server, server.username, server.password, encrypted)
    except BaseException:
        client.close()
        raise
    return client


async def _guarded_socket(guard: Guard, server: SmtpServer) -> socket.socket:
    """Return a connection to an address that the guard checked, and no other."""
    try:
        addresses = await guard.resolve_for(server.host, server.port, ports=GUARDED_PORTS)
    except Blocked as error:
        reason = f"The mail server may not be reached: {error}"
        raise SessionRefused("connect", "smtp.blocked", reason) from None
    except (NameNotFound, LookupFailed) as error:
        raise socket.gaierror(socket.EAI_NONAME, str(error)) from error
    loop = asyncio.get_running_loop()
    failed: OSError = ConnectionRefusedError()
    for address in addresses:
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setblocking(False)
        try:
            await loop.sock_connect(sock, (str(address), server.port))
        except OSError as error:
            sock.close()
            failed = error
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise failed


async def _greet(client: aiosmtplib.SMTP) -> None:
    try:
        await client.ehlo()
    except aiosmtplib.SMTPHeloError as error:
        if not 500 <= error.code <= 599 or not client.is_connected:
            raise
        await client.helo()


async def _start_tls(client: aiosmtplib.SMTP, server: SmtpServer, progress: Progress) -> bool:
    progress.stage = "tls"
    if not client.supports_extension("starttls"):
        if server.tls == "opportunistic":
            return False
        raise SessionRefused("tls", "smtp.starttls", "The mail server does not offer STARTTLS")
    try:
        await client.starttls()
    except aiosmtplib.SMTPResponseException:
        # Refused in words: the session is whole, and goes on unencrypted if it may.
        if server.tls != "opportunistic" or not client.is_connected:
            raise
        return False
    await _greet(client)
    return True


async def _log_in(
    client: aiosmtplib.SMTP, server: SmtpServer, username: str, password: str, encrypted: bool
) -> None:
    if not encrypted and server.tls != "off" and not server.is_local:
        raise SessionRefused(
            "auth", "smtp.unencrypted", "The connection is not encrypted: no password is sent"
        )
    if not client.supports_extension("auth"):
        raise SessionRefused("auth", "smtp.auth", "The mail server does not offer a login")
    if not client.supported_auth_methods:
        raise SessionRefused(
            "auth", "smtp.auth", "The mail server offers none of the logins that we know"
        )
    await client.login(username, password)


def _our_name() -> str:
    """Return this machine's name for EHLO, without asking DNS (which may hang)."""
    name = socket.gethostname()
    return name if _HOSTNAME.match(name) else "localhost"
