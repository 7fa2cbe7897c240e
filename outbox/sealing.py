"""Secrets as the database keeps them: AES-256-GCM, under a key of `OUTBOX_SECRET_KEY`.

    sealed = nonce (12 bytes), ciphertext, tag          key_id = which key it was

The setting may hold several keys: the first seals, all of them open. So a key is rotated by
putting a new one in front, sealing everything anew (`outbox providers reencrypt`), and taking the
old one away. A sealed text belongs to a place (a row's id, `place`): copied into another row it
does not open.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from typing import NamedTuple

from outbox.errors import SealBroken

KEYS_MAX = 8
NONCE_BYTES = 12


class Sealed(NamedTuple):
    """A secret, encrypted."""

    key_id: str
    content: bytes


class Keyring:
    """The keys that may seal and open. `text`: one or several, separated by white space."""

    def __init__(self, text: str | None) -> None:
        self._keys = {_key_id(key): _derived(key) for key in (text or "").split()}

    def __repr__(self) -> str:
        return f"Keyring({', '.join(self._keys)})"

    def __bool__(self) -> bool:
        """Whether there is any key at all."""
        return bool(self._keys)

    @property
    def newest(self) -> str:
        """The id of the key that seals. Raises SealBroken when there is none."""
        if not self._keys:
            raise SealBroken("OUTBOX_SECRET_KEY is not set: secrets cannot be kept")
        return next(iter(self._keys))

    def seal(self, secret: bytes, *, place: str) -> Sealed:
        """Encrypt a secret for one place. Raises SealBroken without a key."""
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        key_id = self.newest
        nonce = os.urandom(NONCE_BYTES)
        return Sealed(
            key_id, nonce + AESGCM(self._keys[key_id]).encrypt(nonce, secret, place.encode())
        )

    def open(self, sealed: Sealed, *, place: str) -> bytes:
        """Return the secret. Raises SealBroken: no such key, another place, or it was changed."""
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        key = self._keys.get(sealed.key_id)
        if key is None:
            raise SealBroken(f"no key of OUTBOX_SECRET_KEY is {sealed.key_id}, which it is under")
        nonce, text = sealed.content[:NONCE_BYTES], sealed.content[NONCE_BYTES:]
        try:
            return AESGCM(key).decrypt(nonce, text, place.encode())
        except (InvalidTag, ValueError):
            raise SealBroken("what is stored is no secret that was sealed for here") from None


def _derived(key: str) -> bytes:
    return hmac.digest(key.encode(), b"outbox/credentials/1", hashlib.sha256)


def _key_id(key: str) -> str:
    return hmac.digest(key.encode(), b"outbox/key-id/1", hashlib.sha256)[:4].hex()
