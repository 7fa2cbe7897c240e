"""The one place that knows which HTTP library is used: a POST in, an answer or a reason out.

No redirects, no proxies from the environment, no cookies, no decompression, a cap on the answer,
one deadline over everything, and only addresses that the guard let pass. aiohttp, because
httpx's own pool slows down with the number of open requests (docs/dependencies.md).
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Mapping
from types import TracebackType
from typing import Self

import aiohttp
import msgspec
from aiohttp.abc import AbstractResolver, AbstractStreamWriter, ResolveResult
from aiohttp.payload import BytesPayload

from outbox.channels.guard import Blocked, CheckedUrl, Guard, LookupFailed, NameNotFound
from outbox.channels.http_errors import HttpTrouble

ANSWER_BYTES_MAX = 64 * 1024
ANSWER_S_MAX = 5.0
"""How long the rest of an answer may take once its status is known."""
CONNECTIONS_MAX = 1_000
# Shorter than what common servers wait before they close an idle connection (5 s), so that a
# request seldom meets one that is just being closed.
KEEPALIVE_S = 4.0

_NO_TIMEOUT = aiohttp.ClientTimeout(total=None)


class HttpAnswer(msgspec.Struct, frozen=True):
    """A status came back. `body` is cut at `ANSWER_BYTES_MAX`."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class HttpFile(msgspec.Struct, frozen=True):
    """What a GET came to. `body` is empty unless the status is a 2xx; None: it is too long."""

    status: int
    headers: Mapping[str, str]
    body: bytes | None


class HttpFailure(msgspec.Struct, frozen=True):
    """No status came back. `body_sent`: the request may have been read whole."""

    trouble: HttpTrouble
    reason: str
    body_sent: bool


class HttpClient:
    """A pool of connections, entered in the loop that uses it."""

    def __init__(self, guard: Guard, *, tls: ssl.SSLContext | None = None) -> None:
        self._guard = guard
        self._tls = tls
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(
            resolver=_GuardedResolver(self._guard),
            use_dns_cache=False,
            ssl=self._tls or ssl.create_default_context(),
            limit=CONNECTIONS_MAX,
            keepalive_timeout=KEEPALIVE_S,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
            timeout=_NO_TIMEOUT,
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None
        self._guard.close()

    async def post(
        self, url: CheckedUrl, *, headers: Mapping[str, str], body: bytes, timeout_s: float
    ) -> HttpAnswer | HttpFailure:
        """POST `body` and wait at most `timeout_s`. The network's faults are returned."""
        if self._session is None:
            raise RuntimeError("the client has not been entered")
        payload = _Body(body)
        try:
            async with asyncio.timeout(timeout_s) as deadline:
                async with self._session.post(
                    url, data=payload, headers=headers, allow_redirects=False
                ) as response:
                    answer = await _read_capped(response, deadline)
                    return HttpAnswer(response.status, response.headers, answer)
        except _EXPECTED as error:
            trouble, reason = _told(error)
        return HttpFailure(trouble, reason, payload.begun and trouble in _AFTER_CONNECTING)

    async def get(
        self, url: CheckedUrl, *, headers: Mapping[str, str], bytes_max: int, timeout_s: float
    ) -> HttpFile | HttpFailure:
        """GET a file of at most `bytes_max`, within `timeout_s`. Faults are returned."""
        if self._session is None:
            raise RuntimeError("the client has not been entered")
        try:
            async with (
                asyncio.timeout(timeout_s),
                self._session.get(url, headers=headers, allow_redirects=False) as response,
            ):
                whole = 200 <= response.status <= 299
                body = await _read_whole(response, bytes_max) if whole else b""
                if body is None or not whole:
                    response.close()  # what is left of it would have to be read
                return HttpFile(response.status, response.headers, body)
        except _EXPECTED as error:
            trouble, reason = _told(error)
        return HttpFailure(trouble, reason, body_sent=False)


# ValueError: aiohttp's parser lets a few out for answers that are no HTTP.
_EXPECTED = (Blocked, NameNotFound, LookupFailed, aiohttp.ClientError, OSError, ValueError)
_AFTER_CONNECTING: frozenset[HttpTrouble] = frozenset({"timeout", "lost", "protocol"})


class _Body(BytesPayload):
    """A body that remembers whether any of it went out.

    Begun counts as sent: what is in the kernel's buffer may arrive, whatever happens here.
    """

    def __init__(self, body: bytes) -> None:
        super().__init__(body)
        self.begun = False

    async def write_with_length(
        self, writer: AbstractStreamWriter, content_length: int | None
    ) -> None:
        self.begun = True
        await super().write_with_length(writer, content_length)


class _GuardedResolver(AbstractResolver):
    """Hands aiohttp the addresses that the guard checked, and no others."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host,
                host=str(address),
                port=port,
                family=socket.AF_INET if address.version == 4 else socket.AF_INET6,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in await self._guard.resolve(host, port)
        ]

    async def close(self) -> None:
        return None


async def _read_capped(response: aiohttp.ClientResponse, deadline: asyncio.Timeout) -> bytes:
    """Return the answer's first bytes. The status stands, whatever becomes of the rest."""
    if response.content.is_eof() and response.content.total_bytes <= ANSWER_BYTES_MAX:
        return response.content.read_nowait()  # it came whole, with the status: the usual case
    soon = asyncio.get_running_loop().time() + ANSWER_S_MAX
    when = deadline.when()
    chunks: list[bytes] = []
    room = ANSWER_BYTES_MAX
    try:
        async with asyncio.timeout_at(soon if when is None else min(soon, when - 0.01)):
            while room > 0 and not response.content.at_eof():
                chunk = (await response.content.readany())[:room]
                chunks.append(chunk)
                room -= len(chunk)
    except (aiohttp.ClientError, OSError, ValueError):
        room = 0
    if room <= 0:
        response.close()
    return b"".join(chunks)


async def _read_whole(response: aiohttp.ClientResponse, bytes_max: int) -> bytes | None:
    """Return the whole answer, or None for one of more than `bytes_max`."""
    if (response.content_length or 0) > bytes_max:
        return None
    chunks: list[bytes] = []
    room = bytes_max
    async for chunk in response.content.iter_any():
        room -= len(chunk)
        if room < 0:
            return None
        chunks.append(chunk)
    return b"".join(chunks)


def _told(error: Exception) -> tuple[HttpTrouble, str]:
    """Return the kind of trouble, and a sentence without addresses in it."""
    match error:
        case Blocked():
            return "blocked", str(error)
        case NameNotFound():
            return "nxdomain", str(error)
        case LookupFailed():
            return "dns", str(error)
        case aiohttp.ClientConnectorCertificateError():
            return "certificate", f"The receiver's certificate is not valid: {_tls_reason(error)}"
        case aiohttp.ClientConnectorSSLError():
            return "tls", f"No TLS connection could be made: {_tls_reason(error)}"
        case aiohttp.ClientConnectorError():
            return "connect", f"No connection could be made: {error.strerror or 'unknown error'}"
        case TimeoutError():
            return "timeout", "The receiver did not answer in time"
        case aiohttp.ClientConnectionError() | aiohttp.ClientPayloadError() | OSError():
            return "lost", "The connection was closed before an answer came"
        case _:
            return "protocol", f"The receiver's answer is not HTTP ({type(error).__name__})"


def _tls_reason(error: Exception) -> str:
    # aiohttp's own errors are SSLErrors too, without a reason: what they wrap has it.
    cause = error.__cause__
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return cause.verify_message
        if isinstance(cause, ssl.SSLError):
            return str(cause.reason)
        cause = cause.__cause__
    return "no reason given"
