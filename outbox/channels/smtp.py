"""The provider `smtp`: one message a transaction, over pooled sessions.

A transaction is MAIL, RCPT, DATA, body. Once the final dot is out, losing the connection is
ambiguous: the server may have taken the mail. Before that, nothing was delivered.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections import deque
from collections.abc import Mapping
from typing import TypeVar

import aiosmtplib
import msgspec

from outbox.channels.addresses import Mailbox
from outbox.channels.guard import Guard
from outbox.channels.smtp_errors import (
    Row,
    Stage,
    classify_smtp,
    enhanced_code,
    smtp_row,
)
from outbox.channels.smtp_pool import IDLE_S_MAX, SmtpPool
from outbox.channels.smtp_session import Progress, SessionRefused
from outbox.channels.smtp_url import SmtpServer
from outbox.errors import ConfigError
from outbox.outcome import Delivered, Misconfigured, Outcome, Rejected, Retryable, Sent

POLICY_WINDOW = 20
"""How many last answers tell whether the provider as a whole is refused for policy."""

_Error = TypeVar("_Error", bound=BaseException)
_QUEUED_AS = re.compile(r"\b(?:queued as|id=)\s*<?([A-Za-z0-9._@+-]{1,200})", re.IGNORECASE)


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """One mail on its way: who it is from and to, and its bytes (CR LF at every line's end)."""

    sender: Mailbox
    recipient: Mailbox
    mail: bytes


class _Refused(Exception):
    """The server said no."""

    def __init__(self, stage: Stage, code: int, text: str) -> None:
        self.stage, self.code, self.text = stage, code, text
        super().__init__(code)


class _Stale(Exception):
    """The session is of no use, and took nothing: it was closed, or is out of step with us."""


class SmtpProvider:
    """Mail through one server. Enter it in the loop that uses it."""

    def __init__(
        self,
        server: SmtpServer,
        *,
        pool_size: int,
        idle_s_max: float = IDLE_S_MAX,
        guard: Guard | None = None,
    ) -> None:
        self._server = server
        self._guard = guard
        self._pool_size = pool_size
        self._idle_s_max = idle_s_max
        self._pool: SmtpPool | None = None
        self._last_refused_for_policy: deque[bool] = deque(maxlen=POLICY_WINDOW)

    async def open(self) -> None:
        """Make the pool; no connection is opened yet."""
        self._pool = SmtpPool(
            self._server, size=self._pool_size, idle_s_max=self._idle_s_max, guard=self._guard
        )
        await self._pool.open()

    def close(self) -> None:
        """Close what is idle."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    async def send(self, envelope: Envelope, *, timeout_s: float, sent: Sent) -> Outcome:
        """Deliver one mail within `timeout_s`, waiting for a free session included."""
        if self._pool is None:
            raise RuntimeError("the provider has not been opened")
        progress = Progress()
        try:
            async with asyncio.timeout(timeout_s):
                try:
                    reply = await self._transact(self._pool, envelope, progress)
                except _Stale:
                    # Nothing had been taken: a new session costs no try, and no duplicate.
                    self._pool.drop_idle()
                    reply = await self._transact(self._pool, envelope, progress, fresh=True)
        except _Refused as refused:
            return self._refused(refused, envelope, sent)
        except (SessionRefused, aiosmtplib.SMTPException, OSError) as error:
            return _outcome_of(error, progress.stage, sent, envelope)
        if reply is None:
            return Rejected(
                code="smtp.smtputf8",
                reason="The mail server takes no addresses outside ASCII",
                sent=sent,
            )
        self._last_refused_for_policy.append(False)
        return Delivered(provider_message_id=_queue_id(reply), sent=sent)

    async def _transact(
        self, pool: SmtpPool, envelope: Envelope, progress: Progress, *, fresh: bool = False
    ) -> str | None:
        """Return the reply to the mail, or None if the server can't take such addresses.

        Raises _Refused, _Stale, and what the connection raises.
        """
        client, reused = await pool.take(progress, fresh=fresh)
        whole = False
        try:
            options = _mail_options(client, envelope)
            if options is None:
                whole = True
                return None
            reply = await _converse(client, envelope, options, progress)
            whole = True
            return reply
        except aiosmtplib.SMTPServerDisconnected:
            if reused and progress.stage == "mail":
                raise _Stale from None
            raise
        except _Refused as refused:
            # 421 to the first command: the server tells that it had closed the session.
            if reused and refused.stage == "mail" and refused.code == 421:
                raise _Stale from None
            # 503 says that the two of us are at different places in the conversation.
            if refused.code == 503 and refused.stage != "body" and not fresh:
                raise _Stale from None
            raise
        finally:
            if whole:
                pool.give_back(client)
            else:
                pool.drop(client)

    def _refused(self, refused: _Refused, envelope: Envelope, sent: Sent) -> Outcome:
        enhanced = enhanced_code(refused.text)
        text = _masked(refused.text, envelope)
        row = smtp_row(refused.code, enhanced, text, stage=refused.stage)
        outcome = classify_smtp(refused.code, enhanced, text, stage=refused.stage)
        if self._policy_holds(row):
            outcome = Misconfigured(code=outcome.code, reason=outcome.reason, scope="lane")
        return msgspec.structs.replace(outcome, sent=sent)

    def _policy_holds(self, row: Row) -> bool:
        """Note one refusal; tell whether half of the last twenty answers were for policy."""
        if not row.policy and row.verdict == "T":
            return False  # says nothing about what the receivers think of us
        window = self._last_refused_for_policy
        window.append(row.policy)
        return row.policy and sum(window) * 2 >= POLICY_WINDOW


def _mail_options(client: aiosmtplib.SMTP, envelope: Envelope) -> list[bytes] | None:
    """Return MAIL's parameters, or None where the server cannot take the addresses."""
    options: list[bytes] = []
    if client.supports_extension("size"):
        options.append(b"SIZE=%d" % len(envelope.mail))
    if envelope.sender.needs_smtputf8 or envelope.recipient.needs_smtputf8:
        if not client.supports_extension("smtputf8"):
            return None
        options += [b"BODY=8BITMIME", b"SMTPUTF8"]
    return options


async def _converse(
    client: aiosmtplib.SMTP, envelope: Envelope, options: list[bytes], progress: Progress
) -> str:
    """Return the server's reply to the mail. Raises _Refused for any other than yes."""
    progress.stage = "mail"
    sender = f"FROM:<{envelope.sender.address}>".encode()
    await _command(client, progress, b"MAIL", sender, *options)
    progress.stage = "rcpt"
    await _command(client, progress, b"RCPT", f"TO:<{envelope.recipient.address}>".encode())
    progress.stage = "data"
    await _command(client, progress, b"DATA", expected=354)
    protocol = client.protocol
    if protocol is None:
        raise aiosmtplib.SMTPServerDisconnected("Connection lost")
    # A dot that begins a line is doubled (RFC 5321, 4.5.2); no mail begins with one.
    protocol.write(envelope.mail.replace(b"\r\n.", b"\r\n..") + b".\r\n")
    progress.stage = "body"
    code, text = await protocol.read_response()
    if not 200 <= code <= 299:
        raise _Refused("body", code, text)
    return text


async def _command(
    client: aiosmtplib.SMTP, progress: Progress, *words: bytes, expected: int = 250
) -> None:
    code, text = await client.execute_command(*words)
    if code != expected and not (expected == 250 and 200 <= code <= 299):
        raise _Refused(progress.stage, code, text)


def _outcome_of(error: Exception, stage: Stage, sent: Sent, envelope: Envelope) -> Outcome:
    """Return what a broken-off transaction means."""
    if isinstance(error, SessionRefused):
        return Misconfigured(code=error.code, reason=error.reason, scope="lane", sent=sent)
    certificate = _caused_by(error, ssl.SSLCertVerificationError)
    if certificate is not None:
        reason = f"The mail server's certificate is not valid: {certificate.verify_message}"
        return Misconfigured(code="smtp.certificate", reason=reason, scope="lane", sent=sent)
    if stage == "body":
        return Retryable(
            code="smtp.lost",
            reason="The connection was lost after the mail was sent, before the server's answer",
            scope="provider",
            ambiguous=True,
            sent=sent,
        )
    if isinstance(error, aiosmtplib.SMTPResponseException) and error.code > 0:
        text = _masked(error.message, envelope)
        outcome = classify_smtp(error.code, enhanced_code(text), text, stage=stage)
        return msgspec.structs.replace(outcome, sent=sent)
    if isinstance(error, TimeoutError) and not isinstance(error, aiosmtplib.SMTPException):
        code, reason = "smtp.timeout", f"The mail server did not answer in time, at {stage}"
    elif _caused_by(error, socket.gaierror) is not None:
        code, reason = "smtp.dns", "The mail server's name cannot be resolved"
    elif stage == "connect":
        code, reason = "smtp.connect", "The mail server cannot be reached"
    elif stage == "tls":
        code, reason = "smtp.tls", "No encrypted connection could be made"
    else:
        code, reason = "smtp.lost", f"The connection was lost, at {stage}"
    return Retryable(code=code, reason=reason, scope="provider", sent=sent)


def _caused_by(error: BaseException | None, kind: type[_Error]) -> _Error | None:
    """Return the first error of `kind` along the chain of causes."""
    while error is not None and not isinstance(error, kind):
        error = error.__cause__
    return error


def _masked(text: str, envelope: Envelope) -> str:
    """Return a server's text without the addresses that it may have repeated."""
    for mailbox in (envelope.recipient, envelope.sender):
        text = re.sub(re.escape(mailbox.address), "…", text, flags=re.IGNORECASE)
    return " ".join(text.encode("utf-8", "replace").decode("utf-8", "replace").split())


def _queue_id(reply: str) -> str:
    """Return the server's own name for the mail, else its whole reply."""
    match = _QUEUED_AS.search(reply)
    return match[1] if match else " ".join(reply.split())[:200]


def pool_size_of(settings: Mapping[str, str]) -> int:
    """Return `SMTP_POOL_SIZE`, 10 by default. Raises ConfigError unless it is 1 to 200."""
    text = settings.get("SMTP_POOL_SIZE", "10").strip()
    if not (text.isascii() and text.isdigit()) or not 1 <= int(text[:6]) <= 200:
        raise ConfigError(f"OUTBOX_SMTP_POOL_SIZE is {text[:20]!r}; it is a number from 1 to 200")
    return int(text)
