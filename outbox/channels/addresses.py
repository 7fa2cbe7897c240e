"""Mail addresses: parsed once, with nothing in them that could leave its place on the wire."""

from __future__ import annotations

import re
from email.utils import parseaddr
from functools import lru_cache

import idna
import msgspec

LOCAL_BYTES_MAX = 64
ADDRESS_BYTES_MAX = 254

# RFC 5322 atext, with dots anywhere (some real mailboxes have two in a row), and RFC 6532.
_ATOMS = re.compile(r"[A-Za-z0-9!#$%&'*+\-/=?^_`{|}~.\u00a1-\U0010ffff]+\Z")
_QUOTED = re.compile(r'"(?:[ !#-\[\]-~]|\\[ -~])+"\Z')
_UNPRINTABLE = re.compile("[\x00-\x20\x7f-\xa0\u2028\u2029\ud800-\udfff]")
_DOMAIN = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*\Z")


class AddressRefused(ValueError):
    """No address that mail can go to. The text never repeats it."""


class Mailbox(msgspec.Struct, frozen=True):
    """One address. `domain` is ASCII (IDNA); `local` may not be, then SMTPUTF8 is needed."""

    local: str
    domain: str

    @property
    def address(self) -> str:
        """The address as it goes into an envelope and a header."""
        return f"{self.local}@{self.domain}"

    @property
    def needs_smtputf8(self) -> bool:
        """Whether the local part has characters outside ASCII."""
        return not self.local.isascii()


def parse_mailbox(text: str) -> Mailbox:
    """Return the one address that `text` is: no display name, no list, no address literal.

    Raises AddressRefused. An internationalised domain is turned into its ASCII form.
    """
    local, at, domain = text.strip().rpartition("@")
    if not at or not local or not domain:
        raise AddressRefused("the address has no local part or no domain")
    quoted = _QUOTED.match(local) is not None
    if not quoted and (not _ATOMS.match(local) or _UNPRINTABLE.search(local)):
        raise AddressRefused("the address has characters that no mailbox name has")
    mailbox = Mailbox(local, ascii_domain(domain))
    if len(local.encode()) > LOCAL_BYTES_MAX or len(mailbox.address.encode()) > ADDRESS_BYTES_MAX:
        raise AddressRefused("the address is too long")
    return mailbox


@lru_cache(maxsize=4_096)
def ascii_domain(domain: str) -> str:
    """Return `domain` in lower case and ASCII. Raises AddressRefused if it is no domain name."""
    if not domain.isascii():
        try:
            domain = idna.encode(domain, uts46=True).decode("ascii")
        except idna.IDNAError as error:
            raise AddressRefused("the address has no valid domain") from error
    domain = domain.lower()
    if len(domain) > 253 or not _DOMAIN.match(domain):
        raise AddressRefused("the address has no valid domain")
    return domain


def parse_named_mailbox(text: str) -> tuple[str, Mailbox]:
    """Return display name (or "") and mailbox of `Name <address>`. Raises AddressRefused."""
    if _UNPRINTABLE.search(text.replace(" ", "")):
        raise AddressRefused("the address has control characters in it")
    name, address = parseaddr(text)
    if not address:
        raise AddressRefused("there is no address")
    return name, parse_mailbox(address)
