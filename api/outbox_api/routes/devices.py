"""Where a recipient is reached by push: FCM tokens and Web Push subscriptions (api.md 2)."""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode
from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

import msgspec
from litestar.params import FromPath
from litestar.response.base import ASGIResponse
from msgspec import Meta

from outbox.errors import Fault
from outbox.store import devices
from outbox.store.devices import DeviceParts
from outbox_api import samples
from outbox_api.answers import answer, no_content
from outbox_api.operations import Answer, Body, operation
from outbox_api.problems import invalid, not_found
from outbox_api.requests import ApiRequest, read_query, read_struct
from outbox_api.routes.recipients import user_in
from outbox_api.runtime import runtime_of
from outbox_api.tenancy import TenantQuery, one_tenant

PATH = "/recipients/{user_id:str}"
ADDRESS_CHARS_MAX = 2_048

_ENDPOINT = re.compile(r"https?://[^\s/?#@]+(?:[/?][^\s#]*)?", re.ASCII)
_TOKEN = re.compile(r"[A-Za-z0-9_:.-]+")


class FcmTokenBody(msgspec.Struct, frozen=True, kw_only=True):
    """What an app got of Firebase."""

    token: Annotated[str, Meta(min_length=1, max_length=ADDRESS_CHARS_MAX)]


class SubscriptionKeys(msgspec.Struct, frozen=True, kw_only=True):
    """The subscription's keys, base64url."""

    p256dh: Annotated[str, Meta(max_length=128)]
    auth: Annotated[str, Meta(max_length=64)]


class SubscriptionBody(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What `PushSubscription.toJSON()` says."""

    endpoint: Annotated[str, Meta(min_length=1, max_length=ADDRESS_CHARS_MAX)]
    keys: SubscriptionKeys
    expiration_time: float | None = None


class DeviceView(msgspec.Struct, frozen=True, kw_only=True):
    """A device. A subscription's keys are not shown."""

    device_id: UUID
    channel: Literal["push", "browser"]
    address: str
    created_at: datetime
    seen_at: datetime


class DeviceList(msgspec.Struct, frozen=True, kw_only=True):
    """All of a user's devices, the one that was seen last first."""

    items: list[DeviceView]
    next_cursor: str | None = None


_TOKEN_BODY = {"token": "bk3RNwTe3H0:CI2k_HHwgIpoDKCIZvvDMExUdFQ3P1"}
_SUBSCRIPTION = {
    "endpoint": "https://push.example.com/send/gAAAAABk",
    "expirationTime": None,
    "keys": {
        "p256dh": "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpk"
        "NtoIAiw4",
        "auth": "BTBZMqHH6r4Tts7J_aSIgg",
    },
}
_VIEW = {
    "device_id": samples.JOB_ID,
    "channel": "push",
    "address": _TOKEN_BODY["token"],
    "created_at": samples.AT,
    "seen_at": samples.AT,
}
_BROWSER = _VIEW | {"channel": "browser", "address": _SUBSCRIPTION["endpoint"]}
_PATH = {"user_id": samples.USER_ID}


@operation(
    "POST",
    PATH + "/fcm-tokens",
    summary="Register an app's FCM token",
    tag="recipients",
    needs="jobs:write",
    query=TenantQuery,
    body=Body(kind=FcmTokenBody, examples={"token": _TOKEN_BODY}),
    answers={
        201: Answer(DeviceView, "A new device.", _VIEW),
        200: Answer(DeviceView, "It was known, if perhaps as somebody else's.", _VIEW),
    },
    problems=(400, 413, 415, 422),
    path_examples=_PATH,
)
async def post_fcm_token(request: ApiRequest, user_id: FromPath[str]) -> ASGIResponse:
    """Remember where the channel `push` reaches a user. A user has at most 20 tokens."""
    tenant = one_tenant(request.auth, read_query(request, TenantQuery).tenant_id)
    body = await read_struct(request, FcmTokenBody)
    if not _TOKEN.fullmatch(body.token):
        raise invalid([Fault("/token", "must be an FCM registration token")])
    parts = DeviceParts(channel="push", address=body.token)
    return await _register(request, tenant, user_id, parts)


@operation(
    "POST",
    PATH + "/push-subscriptions",
    summary="Register a browser's Web Push subscription",
    tag="recipients",
    needs="jobs:write",
    query=TenantQuery,
    body=Body(kind=SubscriptionBody, examples={"subscription": _SUBSCRIPTION}),
    answers={
        201: Answer(DeviceView, "A new device.", _BROWSER),
        200: Answer(DeviceView, "It was known, if perhaps as somebody else's.", _BROWSER),
    },
    problems=(400, 413, 415, 422),
    path_examples=_PATH,
)
async def post_subscription(request: ApiRequest, user_id: FromPath[str]) -> ASGIResponse:
    """Remember where the channel `browser` reaches a user. A user has at most 20 of them."""
    tenant = one_tenant(request.auth, read_query(request, TenantQuery).tenant_id)
    body = await read_struct(request, SubscriptionBody)
    faults = []
    if not _ENDPOINT.fullmatch(body.endpoint):
        faults.append(Fault("/endpoint", "must be an http or https URL"))
    if len(_unbase64(body.keys.p256dh)) != 65:
        faults.append(Fault("/keys/p256dh", "must be an uncompressed P-256 point, base64url"))
    if len(_unbase64(body.keys.auth)) != 16:
        faults.append(Fault("/keys/auth", "must be 16 bytes, base64url"))
    if faults:
        raise invalid(faults)
    parts = DeviceParts(
        channel="browser", address=body.endpoint, p256dh=body.keys.p256dh, auth=body.keys.auth
    )
    return await _register(request, tenant, user_id, parts)


async def _register(
    request: ApiRequest, tenant: str, user_id: str, parts: DeviceParts
) -> ASGIResponse:
    user = user_in(user_id)
    async with runtime_of(request).database.transaction(request.auth.sees) as connection:
        device, created = await devices.put_device(connection, tenant, user, parts)
    return answer(_view(device), status=201 if created else 200)


@operation(
    "GET",
    PATH + "/devices",
    summary="List a user's devices",
    tag="recipients",
    needs="jobs:read",
    query=TenantQuery,
    answers={
        200: Answer(
            DeviceList,
            "All of them, the one that was seen last first.",
            {"items": [_VIEW], "next_cursor": None},
        )
    },
    problems=(422,),
    path_examples=_PATH,
)
async def list_devices(request: ApiRequest, user_id: FromPath[str]) -> ASGIResponse:
    """List where push reaches a user."""
    user = user_in(user_id)
    tenant = one_tenant(request.auth, read_query(request, TenantQuery).tenant_id)
    async with runtime_of(request).database.transaction(
        request.auth.sees, read_only=True
    ) as connection:
        rows = await devices.list_devices(connection, tenant, user)
    return answer(DeviceList(items=[_view(row) for row in rows]))


@operation(
    "DELETE",
    PATH + "/devices/{device_id:uuid}",
    summary="Forget a device",
    tag="recipients",
    needs="jobs:write",
    query=TenantQuery,
    answers={204: Answer(None, "Nothing is sent there any more.")},
    problems=(404, 422),
    path_examples=_PATH | {"device_id": samples.JOB_ID},
)
async def delete_device(
    request: ApiRequest, user_id: FromPath[str], device_id: FromPath[UUID]
) -> ASGIResponse:
    """Forget a device, as when its user signs out."""
    user = user_in(user_id)
    tenant = one_tenant(request.auth, read_query(request, TenantQuery).tenant_id)
    async with runtime_of(request).database.transaction(request.auth.sees) as connection:
        if not await devices.delete_device(connection, tenant, user, device_id):
            raise not_found("device")
    return no_content()


def _view(row: devices.DeviceRow) -> DeviceView:
    return DeviceView(**msgspec.structs.asdict(row))


def _unbase64(text: str) -> bytes:
    """Return the bytes, or none where it is not base64url."""
    stripped = text.rstrip("=")
    if not re.fullmatch(r"[A-Za-z0-9_-]*", stripped) or len(stripped) % 4 == 1:
        return b""
    return urlsafe_b64decode(stripped + "=" * (-len(stripped) % 4))


ROUTES = [post_fcm_token, post_subscription, list_devices, delete_device]
