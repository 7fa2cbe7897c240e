"""A service account's key, as Google's console hands it out, and the assertion that it signs."""

from __future__ import annotations

from urllib.parse import urlencode

import google.auth.crypt
import google.auth.jwt
import msgspec

from outbox.errors import ConfigError

SCOPE = "https://www.googleapis.com/auth/firebase.messaging"
ASSERTION_S = 3_600


class ServiceAccount(msgspec.Struct, frozen=True):
    """The parts that a login needs."""

    project_id: str
    client_email: str
    private_key: str
    private_key_id: str = ""
    token_uri: str = "https://oauth2.googleapis.com/token"

    def __repr__(self) -> str:
        return f"ServiceAccount({self.client_email})"


def parse_service_account(text: str) -> ServiceAccount:
    """Return what the JSON says. Raises ConfigError, which never repeats it."""
    try:
        account = msgspec.json.decode(text, type=ServiceAccount)
    except msgspec.DecodeError:
        raise ConfigError("OUTBOX_PUSH_KEY is no service account's key in JSON") from None
    if not account.token_uri.startswith(("https://", "http://")):
        raise ConfigError("OUTBOX_PUSH_KEY has a token_uri that is no URL")
    return account


class Assertions:
    """Signs what is exchanged for an access token (RFC 7523)."""

    def __init__(self, account: ServiceAccount) -> None:
        self._account = account
        try:
            self._signer = google.auth.crypt.RSASigner.from_string(  # type: ignore[no-untyped-call]
                account.private_key, account.private_key_id
            )
        except (ValueError, TypeError):
            raise ConfigError("OUTBOX_PUSH_KEY has a private_key that is none") from None

    def form(self, now_s: float) -> bytes:
        """Return the body that asks for a token."""
        claims = {
            "iss": self._account.client_email,
            "sub": self._account.client_email,
            "aud": self._account.token_uri,
            "iat": int(now_s),
            "exp": int(now_s) + ASSERTION_S,
            "scope": SCOPE,
        }
        signed: bytes = google.auth.jwt.encode(self._signer, claims)  # type: ignore[no-untyped-call]
        grant = "urn:ietf:params:oauth:grant-type:jwt-bearer"
        return urlencode({"grant_type": grant, "assertion": signed.decode()}).encode()
