"""A small history in which everything happened once, for the audit queries to find."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

from tests.audit.hand import Hand
from tests.engine.desk import Desk, in_s

ANN = "Ann@example.com"
EVENT = "6a9f7f26-4c0c-4a91-9f3d-b159c2dcb001"
CAMPAIGN = "bf_loyal_customers_2025"


@dataclass(frozen=True)
class Story:
    """The jobs, by what became of them."""

    welcome: UUID
    """user-1, EVENT: retried once, then sent to ANN."""
    refused: UUID
    """user-1: failed, replayed by kim, failed again, retried by ann, not over yet."""
    campaign: list[UUID]
    """CAMPAIGN: two sent to bob, one expired, one waiting in a paused lane."""
    twice: UUID
    """user-3: its dispatcher died, it was sent again, and the first had got through."""
    foreign: UUID
    """acme's user-1: sent to ANN."""
    scheduled: UUID
    """user-2, for in an hour."""


async def tell(desk: Desk, hand: Hand) -> Story:
    """Let it happen."""
    for tenant in ("default", "acme"):
        desk.admin.execute(
            "insert into outbox.template (tenant_id, code, channel, locale, version, body_text)"
            " values (%s, 'welcome_email', 'email', 'en', 1, 'Hello')",
            (tenant,),
        )
    welcome = _mail(desk, "user-1", meta={"event_id": EVENT})
    to_ann = {"provider": "smtp", "recipient": ANN, "subject": "Hello", "template_version": 1}
    await hand.retry_at(await hand.claim_one("email"), hand.now(), "smtp.lost", **to_ann)
    await hand.deliver(await hand.claim_one("email"), provider_message_id="<1@x>", **to_ann)

    foreign = _mail(desk, "user-1", tenant="acme")
    (claimed,) = await hand.claim("email", "acme")
    await hand.deliver(claimed, **to_ann)

    refused = _mail(desk, "user-1")
    await hand.fail(await hand.claim_one("email"), "smtp.mailbox", provider="smtp")
    hand.retry(refused, "replay", "kim")
    await hand.fail(await hand.claim_one("email"), "smtp.mailbox", provider="smtp")
    hand.retry(refused, "retry", "ann")
    (waiting,) = await hand.claim("email")

    twice = _mail(desk, "user-3")
    lost = await hand.claim_one("email")
    await hand.die([lost])
    again = await hand.claim_one("email")
    await hand.deliver(lost, provider="smtp", provider_message_id="<2@x>")
    await hand.deliver(again, provider="smtp", provider_message_id="<3@x>")
    await hand.release(waiting)

    meta = {"campaign_id": CAMPAIGN}
    campaign = [_mail(desk, f"user-{n}", queue="bulk", meta=meta) for n in (1, 2)]
    for claimed in await hand.claim("bulk"):
        await hand.deliver(claimed, recipient="bob@example.com")
    campaign.append(_mail(desk, "user-3", queue="bulk", meta=meta, expires_at=in_s(-1)))
    desk.admin.execute("select outbox.set_paused('bulk', 'default', true, 'kim')")
    campaign.append(_mail(desk, "user-4", queue="bulk", meta=meta))

    scheduled = _mail(desk, "user-2", send_after=in_s(3600))
    return Story(welcome, refused, campaign, twice, foreign, scheduled)


def _mail(desk: Desk, user: str, *, tenant: str = "default", **fields: Any) -> UUID:
    fields = {"meta": {"event_id": str(uuid4())}} | fields
    return desk.enqueue(
        tenant=tenant,
        channel="email",
        user_id=user,
        template_code="welcome_email",
        locale="en",
        data={},
        created_at=in_s(0),
        **fields,
    )
