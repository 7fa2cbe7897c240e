"""Calls of providers' HTTP APIs: guarded like any other request, and told apart when they fail."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import ip_address, ip_network
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from outbox.channels.guard import Blocked, Guard, Lookup
from outbox.channels.guard_allow import AllowList, parse_allow
from outbox.channels.http_client import HttpAnswer, HttpClient, HttpFailure
from outbox.channels.http_errors import classify_http, classify_http_trouble
from outbox.channels.provider_config import ProviderConfig
from outbox.outcome import Outcome, Sent

REASON_CHARS_MAX = 300
USER_AGENT = "Outbox/1"

_HEADERS = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity"}


class ApiClient:
    """A pool of connections to providers, entered in the loop that uses it."""

    def __init__(self, allow: AllowList, *, lookup: Lookup | None = None) -> None:
        self._guard = Guard(allow, lookup=lookup)
        self._http = HttpClient(self._guard)

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._http.__aexit__(kind, error, trace)

    async def post(
        self, url: str, *, headers: Mapping[str, str], body: bytes, timeout_s: float
    ) -> HttpAnswer | HttpFailure:
        """POST `body` to an address that the guard lets pass, and wait at most `timeout_s`."""
        try:
            checked = self._guard.check_url(url)
        except Blocked as error:
            return HttpFailure("blocked", str(error), body_sent=False)
        return await self._http.post(
            checked, headers={**_HEADERS, **headers}, body=body, timeout_s=timeout_s
        )


def own_addresses(
    config: ProviderConfig | None, settings: Mapping[str, str], *more_urls: str
) -> AllowList:
    """Return what the guard lets pass: the hosts and ports of a provider that is the operator's.

    A tenant's own provider has what `WEBHOOK_ALLOW` opens, and nothing else.
    """
    if config is None or not config.trusted:
        return parse_allow(settings.get("WEBHOOK_ALLOW", ""))
    return _exactly(filter(None, (config.base_url, *more_urls)))


def _exactly(urls: Iterable[str]) -> AllowList:
    hosts: set[tuple[str, int | None]] = set()
    networks = []
    for url in urls:
        parts = urlsplit(url)
        host = (parts.hostname or "").lower()
        port = parts.port or (443 if parts.scheme == "https" else 80)
        try:
            networks.append((ip_network(ip_address(host)), port))
        except ValueError:
            hosts.add((host, port))
    return AllowList(frozenset(hosts), tuple(networks))


def no_answer(failure: HttpFailure, sent: Sent | None, *, body_matters: bool = True) -> Outcome:
    """Return what it means that the provider did not answer.

    `body_matters`: whether a request that was read may have sent the message.
    """
    return classify_http_trouble(
        failure.trouble,
        "provider",
        reason=failure.reason.replace("The receiver", "The provider"),
        body_sent=failure.body_sent and body_matters,
        sent=sent,
    )


def by_status(answer: HttpAnswer, said: str, *, attempt: int, sent: Sent | None) -> Outcome:
    """Return what an answer means that no table of the provider's own knows."""
    return classify_http(
        answer.status,
        answer.headers,
        "provider",
        reason=reason_of(answer.status, said),
        attempt=attempt,
        sent=sent,
    )


def reason_of(status: int, said: str) -> str:
    """Return a sentence with the status and the start of what the provider said."""
    text = " ".join(said.split())[:REASON_CHARS_MAX]
    return f"The provider answered {status}{f': {text}' if text else ''}"


def said_by(answer: HttpAnswer) -> str:
    """Return the start of an answer as text."""
    return answer.body[: 4 * REASON_CHARS_MAX].decode("utf-8", "replace")
