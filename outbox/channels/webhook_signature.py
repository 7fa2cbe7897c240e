"""Standard Webhooks signatures (https://www.standardwebhooks.com), symmetric, version `v1`."""

from __future__ import annotations

import binascii
import hmac
from base64 import b64decode, b64encode
from collections.abc import Sequence
from functools import lru_cache

_PREFIX = "whsec_"
SECRET_BYTES_MIN = 8
SECRETS_MAX = 8


class SecretRefused(ValueError):
    """A secret that no signature can be made with. The text never repeats it."""


def signature_header(
    secrets: Sequence[str], *, message_id: str, timestamp_s: int, body: bytes
) -> str:
    """Return the value of `webhook-signature`: one signature a secret, so that keys can rotate.

    Raises SecretRefused.
    """
    if len(secrets) > SECRETS_MAX:
        raise SecretRefused(f"there are over {SECRETS_MAX} webhook secrets")
    signed = b"%b.%d.%b" % (message_id.encode(), timestamp_s, body)
    digests = (hmac.digest(key_of(secret), signed, "sha256") for secret in secrets)
    return " ".join(f"v1,{b64encode(digest).decode()}" for digest in digests)


@lru_cache(maxsize=1_024)
def key_of(secret: str) -> bytes:
    """Return the key in `whsec_<base64>` or `<base64>`, padded or not. Raises SecretRefused."""
    encoded = secret.strip().removeprefix(_PREFIX)
    try:
        key = b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise SecretRefused("a webhook secret is not whsec_ and base64") from None
    if len(key) < SECRET_BYTES_MIN:
        raise SecretRefused(f"a webhook secret is shorter than {SECRET_BYTES_MIN} bytes")
    return key
