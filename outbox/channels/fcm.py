"""The provider `fcm`: FCM's HTTP v1 API, with an access token that is exchanged now and then."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime

import msgspec

from outbox.channels.api_client import ApiClient, by_status, no_answer, reason_of, said_by
from outbox.channels.captured import sent_by
from outbox.channels.devices import to_each
from outbox.channels.fcm_message import fcm_request
from outbox.channels.http_client import HttpAnswer, HttpFailure
from outbox.channels.http_errors import retry_after_s
from outbox.channels.provider_config import ProviderConfig
from outbox.channels.provider_errors import FCM_TABLE, classify, find_row
from outbox.channels.service_account import Assertions, parse_service_account
from outbox.message import Device, Message
from outbox.outcome import Delivered, Misconfigured, Outcome, Retryable, Sent

TOKEN_MARGIN_S = 300.0
"""A token is exchanged so long before it runs out."""
_ENCODE = msgspec.json.Encoder().encode


class _Violation(msgspec.Struct):
    field: str = ""


class _Detail(msgspec.Struct, rename={"error_code": "errorCode", "violations": "fieldViolations"}):
    error_code: str | None = None
    violations: list[_Violation] = []


class _Error(msgspec.Struct):
    message: str = ""
    status: str = ""
    details: list[_Detail] = []


class _Answer(msgspec.Struct):
    name: str | None = None
    error: _Error | None = None


class _Token(msgspec.Struct):
    access_token: str
    expires_in: float = 3_600.0


class Fcm:
    """Its secret is the service account's key, as JSON."""

    def __init__(self, config: ProviderConfig, client: ApiClient) -> None:
        account = parse_service_account(config.secret)
        self._client = client
        self._url = f"{config.base_url}/v1/projects/{account.project_id}/messages:send"
        self._token_url = account.token_uri
        self._assertions = Assertions(account)
        self._token = ""
        self._token_until = 0.0
        self._exchanging = asyncio.Lock()

    async def send(self, message: Message, *, timeout_s: float) -> Outcome:
        """Send to each of the user's devices."""
        deadline = time.monotonic() + timeout_s
        return await to_each(message, lambda device: self._send(message, device, deadline))

    async def _send(self, message: Message, device: Device, deadline: float) -> Outcome:
        sent = msgspec.structs.replace(sent_by("fcm", message), recipient=device.address)
        body = _ENCODE(fcm_request(message, device.address, datetime.now(UTC)))
        for may_refresh in (True, False):
            token = await self._access_token(deadline, sent)
            if not isinstance(token, str):
                return token
            result = await self._client.post(
                self._url,
                headers={
                    "Authorization": f"Bearer {token}",
                    "Content-Type": "application/json; charset=utf-8",
                },
                body=body,
                timeout_s=max(0.0, deadline - time.monotonic()),
            )
            if isinstance(result, HttpFailure):
                return no_answer(result, sent)
            answer = result
            told = _read(answer.body)
            if answer.status == 200:
                return Delivered(provider_message_id=told.name, sent=sent)
            code = _code(told.error)
            if not (may_refresh and answer.status in (401, 403) and code != "SENDER_ID_MISMATCH"):
                break
            self._forget(token)
        return _refused(answer, told.error or _Error(), code, message, sent)

    async def _access_token(self, deadline: float, sent: Sent) -> str | Outcome:
        """Return a token that is good for a while yet, or why there is none."""
        async with self._exchanging:
            if self._token and time.monotonic() < self._token_until:
                return self._token
            answer = await self._client.post(
                self._token_url,
                headers={"Content-Type": "application/x-www-form-urlencoded"},
                body=self._assertions.form(time.time()),
                timeout_s=max(0.0, deadline - time.monotonic()),
            )
            if isinstance(answer, HttpFailure):
                return no_answer(answer, sent, body_matters=False)
            if answer.status != 200:
                return _no_token(answer, sent)
            try:
                token = msgspec.json.decode(answer.body, type=_Token)
            except (msgspec.DecodeError, UnicodeDecodeError):
                reason = "The token's answer is not what RFC 6749 says"
                return Retryable(code="fcm.token", reason=reason, sent=sent)
            self._token = token.access_token
            good_for_s = max(token.expires_in - TOKEN_MARGIN_S, token.expires_in / 2)
            self._token_until = time.monotonic() + good_for_s
            return self._token

    def _forget(self, token: str) -> None:
        if self._token == token:
            self._token = ""


def _no_token(answer: HttpAnswer, sent: Sent) -> Outcome:
    reason = reason_of(answer.status, said_by(answer))
    if 400 <= answer.status <= 499 and answer.status not in (408, 425, 429):
        # invalid_grant and its kin: the key was revoked, or our clock is wrong.
        return Misconfigured(code="fcm.token", reason=reason, scope="lane", sent=sent)
    return Retryable(
        code="fcm.token",
        reason=reason,
        scope="provider",
        retry_after_s=retry_after_s(answer.headers.get("Retry-After"), datetime.now(UTC)),
        sent=sent,
    )


def _refused(
    answer: HttpAnswer, error: _Error, code: str, message: Message, sent: Sent
) -> Outcome:
    said = error.message or said_by(answer)
    row = find_row(FCM_TABLE, code) or find_row(FCM_TABLE, str(answer.status))
    if row is None:
        return by_status(answer, said, attempt=message.attempt, sent=sent)
    named = code if find_row(FCM_TABLE, code) else str(answer.status)
    return classify(
        row,
        code=f"fcm.{named}",
        reason=reason_of(answer.status, said),
        retry_after_s=retry_after_s(answer.headers.get("Retry-After"), datetime.now(UTC)),
        sent=sent,
    )


def _code(error: _Error | None) -> str:
    """Return the most telling name: FCM's own, else Google's; `token` where that is at fault."""
    if error is None:
        return ""
    code = next((d.error_code for d in error.details if d.error_code), None) or error.status
    if code != "INVALID_ARGUMENT":
        return code
    fields = {violation.field for detail in error.details for violation in detail.violations}
    if "message.token" in fields or "registration token" in error.message.lower():
        return "token"
    return code


def _read(body: bytes) -> _Answer:
    try:
        return msgspec.json.decode(body, type=_Answer)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _Answer()
