"""Sign-in to the dashboard: an API key in a sealed cookie, and the token of every form.

The cookie holds the key itself, encrypted and authenticated (AES-GCM), so a session needs no
table, every API process can read it, and a key that is revoked ends its sessions within a second.
The secret it is sealed with is derived from one of the database's own and from OUTBOX_SECRET_KEY,
so a new secret key ends every session.

A form's token is an HMAC over its session: a page of another site can neither read nor guess it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import time
from typing import TYPE_CHECKING

import msgspec

from outbox.store import queues
from outbox.store.pool import EVERY_TENANT, Database

if TYPE_CHECKING:
    from outbox.config import Config

COOKIE = "outbox_session"
SESSION_S = 12 * 3600
COOKIE_CHARS_MAX = 2_048
NONCE_BYTES = 12
ANYBODY = "anybody"
"""Stands for the session where none is needed (OUTBOX_AUTH=off)."""


class Session(msgspec.Struct, frozen=True):
    """Who has signed in, with which key, until when (Unix time)."""

    name: str
    key: str
    until_s: float


class Sessions:
    """Makes and reads cookies; asks the database for its secret once."""

    def __init__(self, database: Database, config: Config) -> None:
        self._database = database
        self._own = (config.secret_key or config.admin_key or "").encode()
        self._secret: bytes | None = None

    async def begin(self, key: str) -> str:
        """Return the cookie of a new session. Raises StoreUnavailable."""
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        name = base64.urlsafe_b64encode(os.urandom(18)).decode()
        session = Session(name=name, key=key, until_s=time.time() + SESSION_S)
        nonce = os.urandom(NONCE_BYTES)
        sealed = AESGCM(await self._key(b"seal")).encrypt(
            nonce, msgspec.json.encode(session), COOKIE.encode()
        )
        return base64.urlsafe_b64encode(nonce + sealed).rstrip(b"=").decode()

    async def read(self, cookie: str) -> Session | None:
        """Return the session; None: it is over, or was not made here."""
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        if len(cookie) > COOKIE_CHARS_MAX:
            return None
        try:
            whole = base64.b64decode(
                cookie + "=" * (-len(cookie) % 4), altchars=b"-_", validate=True
            )
            text = AESGCM(await self._key(b"seal")).decrypt(
                whole[:NONCE_BYTES], whole[NONCE_BYTES:], COOKIE.encode()
            )
            session = msgspec.json.decode(text, type=Session)
        except (binascii.Error, ValueError, InvalidTag, msgspec.MsgspecError):
            return None
        return session if session.until_s > time.time() else None

    async def token(self, session: str) -> str:
        """Return what every form of a session carries."""
        return hmac.digest(await self._key(b"form"), session.encode(), hashlib.sha256).hex()

    async def sign(self, purpose: bytes, text: bytes) -> bytes:
        """Return 32 bytes that nobody else can make for this text."""
        return hmac.digest(await self._key(purpose), text, hashlib.sha256)

    async def _key(self, purpose: bytes) -> bytes:
        if self._secret is None:
            async with self._database.transaction(EVERY_TENANT, read_only=True) as connection:
                stored = await queues.session_secret(connection)
            self._secret = hmac.digest(stored, b"outbox/session/1" + self._own, hashlib.sha256)
        return hmac.digest(self._secret, purpose, hashlib.sha256)


def cookie_in(header: str) -> str | None:
    """Return the session's cookie out of a Cookie header."""
    for part in header.split(";"):
        name, _, value = part.strip().partition("=")
        if name == COOKIE:
            return value
    return None


def cookie_header(value: str, *, secure: bool, max_age_s: int = SESSION_S) -> str:
    """Return a Set-Cookie header. `secure`: the browser came by https."""
    text = f"{COOKIE}={value}; Path=/; HttpOnly; SameSite=Lax; Max-Age={max_age_s}"
    return f"{text}; Secure" if secure else text
