"""Links by which a recipient opts out of a category, without a login (RFC 8058).

    <OUTBOX_PUBLIC_URL>/unsubscribe/<key id><sealed: who, out of what, by which job>

What a link names is encrypted and authenticated under OUTBOX_SECRET_KEY: nobody can make one up,
and an address is not in any proxy's log. A link works for as long as its key is among the keys.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from uuid import UUID

import msgspec

from outbox.errors import SealBroken
from outbox.quiet import TRANSACTIONAL
from outbox.sealing import Keyring, Sealed

PATH = "/unsubscribe"
TOKEN_CHARS_MAX = 1_200
LINK_CHARS_MAX = 900
"""A header's line has room for so much: ids and addresses at all of their limits."""
KEY_ID_CHARS = 8
LINK_HEADER, POST_HEADER = "List-Unsubscribe", "List-Unsubscribe-Post"
_PLACE = "outbox/opt-out/1"


class OptOut(msgspec.Struct, frozen=True, array_like=True):
    """Who does not want what any more: a user of the directory, or an address without one."""

    tenant_id: str
    channel: str
    category: str
    job_id: UUID
    user_id: str | None
    address: str | None


class OptOutLinks:
    """Makes links, where the settings say whereto they lead, and reads what they name."""

    def __init__(self, public_url: str | None, keyring: Keyring) -> None:
        self._base = None if public_url is None else public_url.rstrip("/") + PATH
        self._keyring = keyring

    def link(self, opt_out: OptOut) -> str | None:
        """Return a link; None where there can be none, or none is due."""
        if self._base is None or not self._keyring or opt_out.category == TRANSACTIONAL:
            return None
        sealed = self._keyring.seal(msgspec.msgpack.encode(opt_out), place=_PLACE)
        text = urlsafe_b64encode(sealed.content).rstrip(b"=").decode()
        link = f"{self._base}/{sealed.key_id}{text}"
        return link if len(link) <= LINK_CHARS_MAX else None

    def read(self, token: str) -> OptOut | None:
        """Return what a link's last part names; None: it is none of ours."""
        if not token.isascii() or not KEY_ID_CHARS < len(token) <= TOKEN_CHARS_MAX:
            return None
        key_id, text = token[:KEY_ID_CHARS], token[KEY_ID_CHARS:]
        try:
            content = urlsafe_b64decode(text + "=" * (-len(text) % 4))
            opened = self._keyring.open(Sealed(key_id, content), place=_PLACE)
            return msgspec.msgpack.decode(opened, type=OptOut)
        except (SealBroken, ValueError, msgspec.MsgspecError):
            return None


def with_link(headers: Mapping[str, str], link: str | None) -> Mapping[str, str]:
    """Return a mail's headers with the link in them, unless the job brings one of its own."""
    if link is None or any(name.lower().startswith("list-unsubscribe") for name in headers):
        return headers
    return {
        **headers,
        LINK_HEADER: f"<{link}>",
        POST_HEADER: "List-Unsubscribe=One-Click",
    }
