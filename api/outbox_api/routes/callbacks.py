"""What providers tell later of what they were given: receipts, bounces, opt-outs.

A callback brings no API key: it is believed by its signature, under the secret that the
provider's row has.
"""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import msgspec
from litestar.params import FromPath
from litestar.response.base import ASGIResponse

from outbox.channels.providers import RECEIPT_SECRET
from outbox.errors import Fault, SealBroken
from outbox.receipts import NoReceipts, ReceiptFormat, read_keyword, read_receipts, verify
from outbox.store import providers
from outbox.store.pool import EVERY_TENANT
from outbox.store.providers import StoredProvider, open_credentials
from outbox_api import samples
from outbox_api.answers import answer
from outbox_api.operations import Answer, Body, operation
from outbox_api.problems import Problem, invalid, not_found, unavailable
from outbox_api.requests import SMALL_BODY_BYTES_MAX, ApiRequest, read_body
from outbox_api.runtime import Runtime, runtime_of


class CallbackEvent(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one message (the format `standard`)."""

    status: str
    job_id: UUID | None = None
    message_id: str | None = None
    at: datetime | None = None
    detail: str | None = None
    hard: bool | None = None


class CallbackBody(msgspec.Struct, frozen=True, kw_only=True):
    """The format `standard`; the others are as their providers have them."""

    events: list[CallbackEvent]


class CallbackAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """How many events told something, of jobs that there are, that was not known yet."""

    events: int
    known: int
    stored: int


@operation(
    "POST",
    "/callbacks/{provider_id:uuid}",
    summary="Tell what became of messages",
    tag="administration",
    needs="open",
    body=Body(
        kind=CallbackBody,
        examples={
            "bounced": {
                "events": [
                    {"job_id": samples.JOB_ID, "status": "bounced", "detail": "550 5.1.1"},
                ]
            }
        },
        media_types=("application/json", "application/x-www-form-urlencoded"),
    ),
    answers={
        200: Answer(
            CallbackAnswer, "Taken in; again changes nothing.", dict(events=1, known=1, stored=1)
        )
    },
    problems=(400, 401, 404, 413, 422),
    path_examples={"provider_id": samples.RULE_ID},
    lenient=True,  # a URL may carry marks of the operator's, signed along with it
)
async def take_callback(request: ApiRequest, provider_id: FromPath[UUID]) -> ASGIResponse:
    """Take a provider's callback in, if its signature is right."""
    runtime = runtime_of(request)
    async with runtime.database.transaction(EVERY_TENANT, read_only=True) as connection:
        rows = await providers.list_providers(connection, tenant=None, provider_id=provider_id)
    if not rows or rows[0].receipts is None:
        raise not_found("provider that calls back")
    provider = rows[0]
    body = await read_body(request, SMALL_BODY_BYTES_MAX)
    how = msgspec.convert(provider.receipts, ReceiptFormat)
    now = datetime.now(UTC)
    headers = {
        name.decode("latin-1").lower(): value.decode("latin-1")
        for name, value in request.scope["headers"]
    }
    if not verify(
        how,
        _secret(runtime, provider),
        headers=headers,
        body=body,
        urls=_urls(request, headers),
        now=now,
    ):
        raise Problem(401, "The callback's signature is not the provider's.")
    said = read_keyword(how, body)
    if said is not None:
        async with runtime.database.transaction(provider.tenant_id) as connection:
            changed = await providers.take_keyword(connection, provider, said)
        return answer(CallbackAnswer(events=1, known=1, stored=int(changed)))
    try:
        events = read_receipts(how, body, now=now)
    except NoReceipts as error:
        raise invalid([Fault("", str(error))]) from error
    async with runtime.database.transaction(provider.tenant_id) as connection:
        taken = await providers.take_receipts(connection, provider, events)
    told = CallbackAnswer(events=len(events), known=taken.known, stored=taken.stored)
    return answer(told)


def _secret(runtime: Runtime, provider: StoredProvider) -> str:
    try:
        credentials = open_credentials(runtime.sealing, provider.sealed, provider.provider_id)
    except SealBroken as error:
        raise unavailable("The provider's secret cannot be read here.") from error
    return credentials.get(RECEIPT_SECRET, "")


def _urls(request: ApiRequest, headers: dict[str, str]) -> list[str]:
    """Return as which URL the caller may know us: behind a proxy, the scheme cannot be told."""
    path = request.scope["path"]
    query = request.scope["query_string"].decode("latin-1")
    tail = f"{path}?{query}" if query else path
    hosts = [headers[name] for name in ("x-forwarded-host", "host") if name in headers]
    return [f"{scheme}://{host}{tail}" for host in hosts for scheme in ("https", "http")]


ROUTES = [take_callback]
