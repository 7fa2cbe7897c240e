"""Providers that repeat all they were told, and a person's life on every channel beside mail.

For the run whose output is searched (test_secrecy.py): what they answer has secrets and personal
data in it, which must not get any further than the database.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any, Protocol

import aiohttp
import pytest

from tests.channels.api_server import ApiServer, Call, Reply
from tests.channels.test_browser import VAPID_PEM, Browser
from tests.channels.test_push import PRIVATE_PEM, service_account

BOT_SECRET = "bot-secret-77ce"
ACCESS_TOKEN = "ya29.access-token-58c2"
DIRECTORY_SECRET = "directory-pass-2e94"
DEVICE_TOKEN = "device-token-c3d0"
PUSH_PLACE = "push-place-91a7"
PUSH_AUTH = b"auth-secret-66f1"
CHAT = "990017781"
KNOWN_SECRETS = (
    BOT_SECRET,
    ACCESS_TOKEN,
    DIRECTORY_SECRET,
    PRIVATE_PEM.splitlines()[5],
    VAPID_PEM.splitlines()[1],
)
ADDRESSES = (DEVICE_TOKEN, PUSH_PLACE, CHAT, PUSH_AUTH.decode())
SOON_S = 30.0


class Run(Protocol):
    """What test_secrecy.py has of its run."""

    async def call(self, method: str, path: str, *, status: int, **content: Any) -> Any: ...

    async def job(self, wanted: str, **fields: Any) -> str: ...


class RudeWorld:
    """Telegram, FCM with its login, a push service and a directory, behind one port."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()

    def speak(self, call: Call) -> Reply:
        """Refuse the first call of each kind with everything that it said; take the others."""
        kind = call.path.strip("/").partition("/")[0].partition("?")[0]
        self.calls[kind] += 1
        if kind == "token":
            return Reply(200, {"access_token": ACCESS_TOKEN, "expires_in": 3_600})
        said = f"{call.path} {dict(call.headers)} {call.body.decode('utf-8', 'replace')}"
        if kind == "users":
            if self.calls[kind] > 1:
                return Reply(401, {"error": said})
            found = {user: {"attributes": {"as": said}} for user in call.json["user_ids"]}
            return Reply(200, {"recipients": found})
        if self.calls[kind] == 1:
            error = {"code": 400, "message": said, "status": "INVALID_ARGUMENT", "details": []}
            return Reply(400, {"ok": False, "description": said, "error": error})
        return Reply(200, {"ok": True, "result": {"message_id": 1}, "name": "x"})


def settings(port: int) -> dict[str, str]:
    """Return the environment of a service that has these providers."""
    return {
        "OUTBOX_TELEGRAM_URL": f"telegram+http://123456:{BOT_SECRET}@127.0.0.1:{port}",
        "OUTBOX_PUSH_KEY": service_account(port),
        "OUTBOX_PUSH_URL": f"fcm+http://127.0.0.1:{port}",
        "OUTBOX_BROWSER_KEY": VAPID_PEM,
        "OUTBOX_BROWSER_SUBJECT": "mailto:ops@cinema.example",
        "OUTBOX_WS_ACK_S": "20",
    }


async def live_everywhere(
    run: Run, server: ApiServer, *, api: str, user: str, said: dict[str, Any]
) -> list[str]:
    """Tell a user on all other channels, well and badly; return the secrets that this made.

    `said` is what a message says: subject, content, data.
    """
    subscription = Browser(PUSH_PLACE, auth=PUSH_AUTH).device(server.port)
    keys = {"p256dh": subscription.p256dh, "auth": subscription.auth}
    assert subscription.auth is not None
    await run.call(
        "POST", f"/recipients/{user}/fcm-tokens", status=201, json={"token": DEVICE_TOKEN}
    )
    await run.call(
        "POST",
        f"/recipients/{user}/push-subscriptions",
        status=201,
        json={"endpoint": subscription.address, "keys": keys},
    )
    told = said | {"user_id": user}
    channels = ("telegram", "push", "browser")
    provider = {
        "channel": "directory",
        "kind": "http",
        "name": "crm",
        "config": {"directory_url": f"http://127.0.0.1:{server.port}/users"},
        "credentials": {"directory_secret": DIRECTORY_SECRET},
    }
    await run.call("POST", "/providers?tenant_id=beta", status=201, json=provider)
    ticket, *_ = await asyncio.gather(
        on_a_socket(run, api, user, told),
        *(run.job("failed", channel=channel, **told) for channel in channels),
        run.job("sent", channel="inbox", **told),
        run.job("sent", tenant_id="beta", channel="inbox", **told),
    )
    await asyncio.gather(
        *(run.job("sent", channel=channel, **told) for channel in channels),
        run.job("held", tenant_id="beta", channel="sms", **said, user_id=f"{user}-2"),
    )
    return [ticket, subscription.auth]


async def on_a_socket(run: Run, api: str, user: str, told: dict[str, Any]) -> str:
    """Reach a user's socket, and then nobody's; return the ticket that opened it."""
    made = await run.call("POST", f"/recipients/{user}/socket-tickets", status=201)
    ticket: str = made["ticket"]
    address = f"{api}/api/v1/ws?ticket={ticket}"
    async with aiohttp.ClientSession() as session, session.ws_connect(address) as socket:
        assert (await socket.receive_json(timeout=SOON_S))["type"] == "hello"
        sending = asyncio.create_task(run.job("sent", channel="ws", **told))
        message = await socket.receive_json(timeout=SOON_S)
        await socket.send_str(f'{{"ack": {message["text"]!r}')  # no JSON: it is told so
        assert (await socket.receive_json(timeout=SOON_S))["type"] == "error"
        await socket.send_json({"ack": message["id"]})
        await sending
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await session.ws_connect(f"{address}x")
        assert refused.value.status == 401
    await run.job("failed", channel="ws", max_attempts=1, **told)
    return ticket
