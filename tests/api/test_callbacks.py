"""Receipts and bounces in: signed, forward only, and what they suppress."""

from __future__ import annotations

import hmac
import json
import time
from base64 import b64encode
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode
from uuid import UUID, uuid4

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from standardwebhooks.webhooks import Webhook

from tests.api.conftest import ADMIN_KEY, Api, running_api
from tests.channels.mail_server import mail_server
from tests.e2e.test_tenants import delivering, mail
from tests.engine.desk import Desk
from tests.postgres import Database

SECRET_KEY = "a-secret-key-of-the-operator"
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@pytest.fixture
async def api(database: Database) -> AsyncIterator[Api]:
    """The API with a secret key."""
    async with running_api(
        database.url, secret_key=SECRET_KEY, webhook_allow=("127.0.0.1",)
    ) as client:
        client.headers["authorization"] = f"Bearer {ADMIN_KEY}"
        yield Api(client, database)


async def provider(
    api: Api, how: str, secret: str, *, port: int = 2525, tenant: str = "acme"
) -> str:
    made = await api.client.post(
        "/api/v1/providers",
        params={"tenant_id": tenant},
        json={
            "channel": "email",
            "kind": "smtp",
            "name": "main",
            "config": {
                "smtp_url": f"smtp://127.0.0.1:{port}?starttls=off",
                "mail_from": "a@acme.example",
            },
            "credentials": {"receipt_secret": secret},
            "receipts": how,
        },
    )
    assert made.status_code == 201, made.text
    provider_id: str = made.json()["provider_id"]
    return provider_id


async def standard(api: Api, provider_id: str, *events: dict[str, Any]) -> httpx.Response:
    body = json.dumps({"events": events})
    at = datetime.now(UTC)
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": Webhook(SECRET).sign("msg_1", at, body),
        "content-type": "application/json",
    }
    async with api.with_key(None) as client:
        return await client.post(f"/api/v1/callbacks/{provider_id}", content=body, headers=headers)


async def sent(desk: Desk, api: Api, how: str, secret: str) -> tuple[str, UUID]:
    """Deliver a mail by a provider that calls back; return the provider and the job."""
    async with mail_server() as server:
        provider_id = await provider(api, how, secret, port=server.port)
        async with delivering(desk, secret_key=SECRET_KEY):
            job_id = mail(desk)
            await desk.until_status(job_id, "sent")
    return provider_id, job_id


def receipt(desk: Desk, job_id: UUID) -> tuple[str | None, bool]:
    (row,) = desk.rows(
        "select receipt_status, receipt_at is not null from outbox.notification where job_id = %s",
        job_id,
    )
    return row[0], row[1]


async def test_a_receipt_is_taken_in_once_and_its_status_moves_forward_only(api: Api) -> None:
    desk = Desk(api.database)
    provider_id, job_id = await sent(desk, api, "standard", SECRET)
    assert receipt(desk, job_id) == (None, False)
    event = {"job_id": str(job_id), "status": "delivered"}
    first = await standard(api, provider_id, event)
    assert first.status_code == 200, first.text
    assert first.json() == {"events": 1, "known": 1, "stored": 1}
    assert (await standard(api, provider_id, event)).json()["stored"] == 0
    assert receipt(desk, job_id) == ("delivered", True)
    await standard(api, provider_id, event | {"status": "complained"})
    await standard(api, provider_id, event | {"status": "opened"})
    assert receipt(desk, job_id) == ("complained", True)
    assert desk.rows("select status from outbox.receipt order by receipt_id") == [
        ("delivered",),
        ("complained",),
        ("opened",),
    ]
    shown = (await api.client.get(f"/api/v1/jobs/{job_id}?tenant_id=acme")).json()
    assert shown["receipt_status"] == "complained"
    assert shown["status"] == "sent"
    desk.close()


async def test_a_hard_bounce_suppresses_the_address_and_a_soft_one_does_not(api: Api) -> None:
    desk = Desk(api.database)
    provider_id, job_id = await sent(desk, api, "standard", SECRET)
    event = {"job_id": str(job_id), "status": "bounced", "detail": "mailbox full", "hard": False}
    await standard(api, provider_id, event)
    assert desk.value("select count(*) from outbox.suppression") == 0
    _, other = await sent_again(desk, api, provider_id)
    await standard(api, provider_id, {"job_id": str(other), "status": "bounced"})
    assert desk.rows("select tenant_id, channel, address, code from outbox.suppression") == [
        ("acme", "email", "ann@example.com", "receipt.bounced")
    ]
    desk.close()


async def sent_again(desk: Desk, api: Api, provider_id: str) -> tuple[str, UUID]:
    async with mail_server() as server:
        desk.admin.execute(
            "update outbox.provider set config = config || jsonb_build_object('smtp_url',"
            " 'smtp://127.0.0.1:' || %s || '?starttls=off'), updated_at = clock_timestamp()",
            (server.port,),
        )
        async with delivering(desk, secret_key=SECRET_KEY):
            job_id = mail(desk)
            await desk.until_status(job_id, "sent")
    return provider_id, job_id


async def test_a_receipt_finds_its_job_by_the_provider_s_own_id(api: Api) -> None:
    desk = Desk(api.database)
    provider_id, job_id = await sent(desk, api, "standard", SECRET)
    own = desk.value("select provider_message_id from outbox.receipt_expected")
    assert own == "4F9D195432C"
    told = await standard(api, provider_id, {"message_id": own, "status": "delivered"})
    assert told.json()["stored"] == 1
    assert receipt(desk, job_id) == ("delivered", True)
    other = await standard(
        api,
        provider_id,
        {"message_id": "nobody's", "status": "delivered"},
        {"job_id": str(uuid4()), "status": "delivered"},
    )
    assert other.json() == {"events": 2, "known": 0, "stored": 0}
    desk.close()


async def test_what_nobody_told_about_is_missing_and_may_still_come(api: Api) -> None:
    desk = Desk(api.database)
    provider_id, job_id = await sent(desk, api, "standard", SECRET)
    assert desk.value("select outbox.miss_receipts(60, 100)") == 0
    desk.admin.execute("update outbox.receipt_expected set expected_at = now() - interval '61 s'")
    assert desk.value("select outbox.miss_receipts(60, 100)") == 1
    assert receipt(desk, job_id) == ("missing", True)
    assert desk.value("select outbox.miss_receipts(60, 100)") == 0
    await standard(api, provider_id, {"job_id": str(job_id), "status": "delivered"})
    assert receipt(desk, job_id) == ("delivered", True)
    desk.close()


async def test_nothing_is_taken_in_without_the_right_signature(api: Api) -> None:
    desk = Desk(api.database)
    provider_id, job_id = await sent(desk, api, "standard", SECRET)
    body = json.dumps({"events": [{"job_id": str(job_id), "status": "bounced"}]})
    now = datetime.now(UTC)
    old = datetime.fromtimestamp(now.timestamp() - 301, UTC)

    def signed(secret: str, at: datetime) -> dict[str, str]:
        return {
            "webhook-id": "m",
            "webhook-timestamp": str(int(at.timestamp())),
            "webhook-signature": Webhook(secret).sign("m", at, body),
        }

    other = "whsec_" + b64encode(b"another secret of 24 byte").decode()
    path = f"/api/v1/callbacks/{provider_id}"
    async with api.with_key(None) as client:
        for headers in ({}, signed(other, now), signed(SECRET, old)):
            answer = await client.post(path, content=body, headers=headers)
            assert answer.status_code == 401, headers
        changed = await client.post(path, content=body + " ", headers=signed(SECRET, now))
        assert changed.status_code == 401
        nobody = await client.post(f"/api/v1/callbacks/{uuid4()}", content=body)
        assert nobody.status_code == 404
        garbage = await standard(api, provider_id, {"job_id": str(job_id), "status": "eaten"})
        assert garbage.status_code == 422
    assert desk.value("select count(*) from outbox.receipt") == 0
    desk.close()


async def test_one_tenant_s_provider_cannot_tell_of_another_s_job(api: Api) -> None:
    desk = Desk(api.database)
    _, job_id = await sent(desk, api, "standard", SECRET)
    evil = await provider(api, "standard", SECRET, tenant="evil")
    told = await standard(api, evil, {"job_id": str(job_id), "status": "bounced"})
    assert told.json() == {"events": 1, "known": 0, "stored": 0}
    assert receipt(desk, job_id) == (None, False)
    desk.close()


async def test_twilio_s_form_is_checked_against_its_url(api: Api) -> None:
    token = "the-auth-token-of-twilio"
    desk = Desk(api.database)
    provider_id, job_id = await sent(desk, api, "twilio", token)
    form = {"MessageSid": "4F9D195432C", "MessageStatus": "undelivered", "ErrorCode": "30005"}
    path = f"/api/v1/callbacks/{provider_id}"
    url = f"{api.client.base_url}".rstrip("/") + path
    text = url + "".join(key + form[key] for key in sorted(form))
    signature = b64encode(hmac.digest(token.encode(), text.encode(), "sha1")).decode()
    async with api.with_key(None) as client:
        headers = {
            "x-twilio-signature": signature,
            "content-type": "application/x-www-form-urlencoded",
        }
        changed = urlencode(form | {"ErrorCode": "30003"})
        assert (await client.post(path, content=changed, headers=headers)).status_code == 401
        right = await client.post(path, content=urlencode(form), headers=headers)
    assert right.json() == {"events": 1, "known": 1, "stored": 1}
    assert receipt(desk, job_id)[0] == "bounced"
    assert desk.value("select reason from outbox.suppression") == "Twilio 30005"
    desk.close()


@pytest.mark.parametrize(
    ("said", "before", "after"),
    [
        ({"Body": " start\n"}, "twilio.21610", None),
        ({"Body": "Yes"}, "receipt.opted_out", None),
        ({"Body": "Да", "OptOutType": "START"}, "twilio.21610", None),
        ({"Body": "START"}, "twilio.21614", "twilio.21614"),
        ({"Body": "start the car"}, "twilio.21610", "twilio.21610"),
        ({"Body": "START", "SmsStatus": "sent"}, "twilio.21610", "twilio.21610"),
        ({"Body": "STOP"}, None, "receipt.opted_out"),
        ({"Body": "нет", "OptOutType": "STOP"}, None, "receipt.opted_out"),
        ({"Body": "STOP"}, "twilio.21614", "twilio.21614"),
        ({"Body": "HELP", "OptOutType": "HELP"}, None, None),
    ],
)
async def test_who_answers_stop_gets_no_sms_until_they_answer_start(
    api: Api, said: dict[str, str], before: str | None, after: str | None
) -> None:
    desk = Desk(api.database)
    token, number = "the-auth-token-of-twilio", "+77011234567"
    made = await api.client.post(
        "/api/v1/providers",
        params={"tenant_id": "acme"},
        json={
            "channel": "sms",
            "kind": "twilio",
            "name": "main",
            "config": {"sms_url": "twilio://api.twilio.com", "sms_from": "+15005550006"},
            "credentials": {"sms_username": "AC1", "sms_secret": "x", "receipt_secret": token},
            "receipts": "twilio",
        },
    )
    assert made.status_code == 201, made.text
    for tenant, code in (("acme", before), ("other", "twilio.21610")):
        if code is not None:
            desk.admin.execute(
                "insert into outbox.suppression (tenant_id, channel, address, code)"
                " values (%s, 'sms', %s, %s)",
                (tenant, number, code),
            )
    form = {"MessageSid": "SM1", "SmsStatus": "received", "From": number, "To": "+15005550006"}
    form |= said
    path = f"/api/v1/callbacks/{made.json()['provider_id']}"
    text = f"{api.client.base_url}".rstrip("/") + path + "".join(k + form[k] for k in sorted(form))
    signature = b64encode(hmac.digest(token.encode(), text.encode(), "sha1")).decode()
    headers = {"content-type": "application/x-www-form-urlencoded"}
    async with api.with_key(None) as client:
        forged = await client.post(path, content=urlencode(form), headers=headers)
        headers["x-twilio-signature"] = signature
        taken = await client.post(path, content=urlencode(form), headers=headers)
    assert (forged.status_code, taken.status_code) == (401, 200)
    left = dict(desk.rows("select tenant_id, code from outbox.suppression"))
    assert left == {"other": "twilio.21610"} | ({} if after is None else {"acme": after})
    desk.close()


async def test_sendgrid_s_events_are_checked_by_its_public_key(api: Api) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    desk = Desk(api.database)
    provider_id, job_id = await sent(desk, api, "sendgrid", b64encode(public).decode())
    body = json.dumps(
        [
            {"event": "processed", "smtp-id": f"<{job_id}@acme.example>"},
            {"event": "bounce", "type": "bounce", "smtp-id": f"<{job_id}@acme.example>"},
        ]
    ).encode()
    at = str(int(time.time()))
    signature = b64encode(key.sign(at.encode() + body, ec.ECDSA(SHA256()))).decode()
    path = f"/api/v1/callbacks/{provider_id}"
    headers = {
        "x-twilio-email-event-webhook-signature": signature,
        "x-twilio-email-event-webhook-timestamp": at,
    }
    async with api.with_key(None) as client:
        assert (await client.post(path, content=body + b" ", headers=headers)).status_code == 401
        right = await client.post(path, content=body, headers=headers)
    assert right.json() == {"events": 1, "known": 1, "stored": 1}
    assert receipt(desk, job_id)[0] == "bounced"
    desk.close()


async def test_postmark_s_record_is_checked_by_the_url_s_password(api: Api) -> None:
    desk = Desk(api.database)
    provider_id, job_id = await sent(desk, api, "postmark", "hook:password-of-it")
    record = {
        "RecordType": "Bounce",
        "Type": "HardBounce",
        "MessageID": "x",
        "Metadata": {"job_id": str(job_id)},
        "Description": "gone",
    }
    path = f"/api/v1/callbacks/{provider_id}"
    async with api.with_key(None) as client:
        wrong = await client.post(path, json=record, auth=("hook", "guess"))
        assert wrong.status_code == 401
        right = await client.post(path, json=record, auth=("hook", "password-of-it"))
    assert right.json()["stored"] == 1
    assert desk.value("select code from outbox.suppression") == "receipt.bounced"
    desk.close()


async def test_a_provider_that_calls_back_needs_a_secret_that_fits(api: Api) -> None:
    for how, secret in (
        ("standard", "not base64!"),
        ("sendgrid", "bm8ga2V5"),
        ("postmark", "nocolon"),
        ("twilio", None),
    ):
        body: dict[str, Any] = {
            "channel": "email",
            "kind": "smtp",
            "name": "main",
            "config": {"smtp_url": "smtp://a.example.com", "mail_from": "a@acme.example"},
            "receipts": how,
        }
        if secret is not None:
            body["credentials"] = {"receipt_secret": secret}
        answer = await api.client.post("/api/v1/providers", json=body)
        assert answer.status_code == 422, how
        assert answer.json()["errors"][0]["pointer"] == "/credentials/receipt_secret"
