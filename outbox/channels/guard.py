"""Keeps requests to addresses that came from outside away from everything inside.

Overview. A URL is looked at twice: `check_url` judges its shape (scheme, credentials, port, odd
spellings of a host, address literals); `resolve` judges what a name stands for, at the moment of
connecting. The HTTP client connects to exactly the addresses that `resolve` returned, so a name
cannot be rebound between check and connect.

Trust window. What was resolved is kept for `CACHE_S`; a kept-alive connection stays with the
address that was checked when it was opened.

Formally, no byte may reach an address that is not public. What we enforce: no connection to an
address outside `PUBLIC_V6` or inside one of the networks below, unless the operator opened it;
a router of the operator's that maps public addresses inwards is beyond what can be seen here.
"""

from __future__ import annotations

import asyncio
import re
import socket
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
)
from typing import NewType, TypeAlias

import msgspec
from yarl import URL

from outbox.channels.guard_allow import AllowList, parse_allow

Address: TypeAlias = IPv4Address | IPv6Address
Lookup: TypeAlias = Callable[[str], Awaitable[Sequence[str]]]
"""Resolves a name to address literals. Raises socket.gaierror."""
CheckedUrl = NewType("CheckedUrl", URL)
"""A URL that `Guard.check_url` let pass: the only kind that the HTTP client takes."""

URL_CHARS_MAX = 2_048
PASSED_URLS_MAX = 1_024
CACHE_S = 10.0
CACHE_NAMES_MAX = 1_024
LOOKUP_S_MAX = 10.0
LOOKUP_THREADS = 8

# IANA special-purpose registries, RFC 6890; 168.63.129.16 is a cloud's metadata service.
CLOSED_V4 = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8",
            "10.0.0.0/8",
            "100.64.0.0/10",
            "127.0.0.0/8",
            "168.63.129.16/32",
            "169.254.0.0/16",
            "172.16.0.0/12",
            "192.0.0.0/24",
            "192.0.2.0/24",
            "192.31.196.0/24",
            "192.52.193.0/24",
            "192.88.99.0/24",
            "192.168.0.0/16",
            "192.175.48.0/24",
            "198.18.0.0/15",
            "198.51.100.0/24",
            "203.0.113.0/24",
            "224.0.0.0/4",
            "240.0.0.0/4",
        ),
    )
)
# Everything outside is closed: mapped and compatible IPv4, NAT64, unique local, link-local, …
PUBLIC_V6 = IPv6Network("2000::/3")
# IETF protocols with Teredo and ORCHID, documentation, 6to4, AS112.
CLOSED_V6 = tuple(
    map(
        IPv6Network,
        ("2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20"),
    )
)

# Well-known ports of what is not HTTP: a POST to them could be read as commands.
CLOSED_PORTS = frozenset(
    (
        *(0, 1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95),
        *(101, 102, 103, 104, 109, 110, 111, 113, 115, 117, 119, 123, 135, 137, 138, 139, 143),
        *(161, 162, 179, 389, 427, 445, 465, 512, 513, 514, 515, 526, 530, 531, 532, 540, 548),
        *(554, 556, 563, 587, 601, 623, 636, 873, 989, 990, 993, 995, 1080, 1433, 1434, 1521),
        *(1719, 1720, 1723, 1883, 2049, 2181, 2375, 2376, 2379, 2380, 3128, 3306, 3389, 3659),
        *(4045, 4190, 4222, 4369, 5060, 5061, 5432, 5433, 5671, 5672, 5900, 6000, 6379, 6380),
        *(6432, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 8883, 9042, 9092, 10080, 11211),
        *(26379, 27017, 27018, 50051),
    )
)

_FORBIDDEN = re.compile(r"[\x00-\x20\x7f-\xa0\\\u2028\u2029\ud800-\udfff]")
_AUTHORITY = re.compile(r"[A-Za-z]+://([^/?#]*)")
_HOST = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*\.?\Z")
# "Ends in a number" (WHATWG URL): resolvers read it as an IPv4 address in disguise.
_NUMBER = re.compile(r"(?:[0-9]+|0x[0-9a-f]*)\Z")
_NOT_FOUND = frozenset({socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)})


class Blocked(Exception):
    """The guard refuses. The text says why, and nothing of what was resolved."""


class NameNotFound(Exception):
    """The host's name does not exist."""


class LookupFailed(Exception):
    """The name could not be resolved just now."""


class _Known(msgspec.Struct, frozen=True):
    until: float
    addresses: tuple[Address, ...]


def guard_of(settings: Mapping[str, str]) -> Guard | None:
    """Return the guard that a tenant's own provider passes; None for the operator's own.

    Raises ConfigError.
    """
    if settings.get("GUARDED") != "on":
        return None
    return Guard(parse_allow(settings.get("WEBHOOK_ALLOW", "")))


def is_public(address: Address) -> bool:
    """Tell whether an address belongs to the public internet, and to a single host there."""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in CLOSED_V4)
    if address.scope_id is not None:
        return False
    return address in PUBLIC_V6 and not any(address in network for network in CLOSED_V6)


class Guard:
    """One process's guard: the operator's allow-list, and names resolved a moment ago."""

    def __init__(self, allow: AllowList, *, lookup: Lookup | None = None) -> None:
        self._allow = allow
        self._threads: ThreadPoolExecutor | None = None
        self._lookup = lookup or self._lookup_in_threads
        self._passed: dict[str, CheckedUrl] = {}
        self._known: dict[str, _Known] = {}
        self._running: dict[str, asyncio.Task[tuple[Address, ...]]] = {}

    def check_url(self, text: str) -> CheckedUrl:
        """Return the URL, parsed as the client will read it. Raises Blocked."""
        passed = self._passed.get(text)
        if passed is None:
            passed = self._check_url(text)
            if len(self._passed) >= PASSED_URLS_MAX:
                self._passed.pop(next(iter(self._passed)))
            self._passed[text] = passed
        return passed

    def _check_url(self, text: str) -> CheckedUrl:
        if len(text) > URL_CHARS_MAX:
            raise Blocked(f"the URL is over {URL_CHARS_MAX} characters long")
        if _FORBIDDEN.search(text):
            raise Blocked("the URL has spaces, backslashes or control characters in it")
        try:
            url = URL(text)
            host, port = url.raw_host, url.port
        except ValueError as error:
            raise Blocked("the URL cannot be read") from error
        if url.scheme not in ("http", "https"):
            raise Blocked("the URL is neither http nor https")
        if not host or port is None:
            raise Blocked("the URL has no host")
        # As it was written: the parser drops an empty user, and the brackets of odd literals.
        authority = _AUTHORITY.match(text)
        written = authority[1] if authority else ""
        if "@" in written:
            raise Blocked("the URL has credentials in it")
        if "[" in written and ":" not in host:
            raise Blocked("the URL's host is no address")
        literal = _literal(host)
        if literal is not None:
            self._admit(host, port, (literal,))
        if port in CLOSED_PORTS and not self._allow.opens_port(host, literal, port):
            raise Blocked(f"the URL's port {port} is not one for HTTP")
        return CheckedUrl(url.with_fragment(None))

    async def resolve(self, host: str, port: int) -> tuple[Address, ...]:
        """Return the addresses of `host`, all of them fit to connect to.

        Raises Blocked when any of them is not public and not allowed (a name that mixes both is
        a trick), NameNotFound, LookupFailed.
        """
        addresses = await self._addresses(host.rstrip(".").lower())
        self._admit(host, port, addresses)
        return addresses

    async def resolve_for(
        self, host: str, port: int, *, ports: frozenset[int]
    ) -> tuple[Address, ...]:
        """Return the same for a protocol that is not HTTP and has `ports` of its own.

        Another port must be opened by the operator, with its host.
        """
        addresses = await self.resolve(host, port)
        opened = self._allow.opens_host(host, port) or all(
            self._allow.opens_address(address, port) for address in addresses
        )
        if port not in ports and not opened:
            raise Blocked(f"the port {port} is not one for this")
        return addresses

    def close(self) -> None:
        """Forget what is known, and let go of the threads."""
        for task in self._running.values():
            task.cancel()
        self._known.clear()
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
            self._threads = None

    def _admit(self, host: str, port: int, addresses: Sequence[Address]) -> None:
        if self._allow.opens_host(host, port):
            return
        for address in addresses:
            if not is_public(address) and not self._allow.opens_address(address, port):
                raise Blocked("the host is no public address")

    async def _addresses(self, host: str) -> tuple[Address, ...]:
        known = self._known.get(host)
        if known is not None and time.monotonic() < known.until:
            return known.addresses
        task = self._running.get(host)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._look_up(host))
            self._running[host] = task
            task.add_done_callback(lambda done: self._finished(host, done))
        # One who gives up must not take the lookup away from the others.
        return await asyncio.shield(task)

    def _finished(self, host: str, task: asyncio.Task[tuple[Address, ...]]) -> None:
        self._running.pop(host, None)
        if task.cancelled() or task.exception() is not None:
            return
        while len(self._known) >= CACHE_NAMES_MAX:
            self._known.pop(next(iter(self._known)))
        self._known.pop(host, None)
        self._known[host] = _Known(time.monotonic() + CACHE_S, task.result())

    async def _look_up(self, host: str) -> tuple[Address, ...]:
        try:
            async with asyncio.timeout(LOOKUP_S_MAX):
                found = await self._lookup(host)
        except socket.gaierror as error:
            if error.errno in _NOT_FOUND:
                raise NameNotFound("the host's name does not exist") from error
            raise LookupFailed("the host's name could not be resolved") from error
        except (OSError, UnicodeError) as error:  # a timeout is an OSError
            raise LookupFailed("the host's name could not be resolved") from error
        addresses = tuple(ip_address(literal) for literal in dict.fromkeys(found))
        if not addresses:
            raise NameNotFound("the host's name has no address")
        return addresses

    async def _lookup_in_threads(self, host: str) -> Sequence[str]:
        # Threads of our own: names that resolve slowly must not keep others from working.
        if self._threads is None:
            self._threads = ThreadPoolExecutor(LOOKUP_THREADS, thread_name_prefix="outbox-dns")
        return await asyncio.get_running_loop().run_in_executor(
            self._threads, _lookup_blocking, host
        )


def _lookup_blocking(host: str) -> Sequence[str]:
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


def _literal(host: str) -> Address | None:
    """Return the address that `host` is, or None for a name. Raises Blocked for odd spellings."""
    if ":" in host:
        try:
            return IPv6Address(host)
        except ValueError as error:
            raise Blocked("the URL's host is no address") from error
    if not _HOST.match(host):
        raise Blocked("the URL's host is no name")
    if _NUMBER.match(host.rstrip(".").rpartition(".")[2]):
        try:
            return IPv4Address(host)
        except ValueError as error:
            raise Blocked("the URL's host is an oddly written address") from error
    return None
