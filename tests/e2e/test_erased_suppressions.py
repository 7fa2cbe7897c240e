"""Who was suppressed and then erased is not written to again, though nobody knows the address."""

from __future__ import annotations

import pytest

from tests.engine.desk import Desk, Scripted, dispatching

ADDRESS = "Ann@Example.com"


def suppress_and_erase(desk: Desk, *, expires: str | None = None) -> None:
    desk.admin.execute(
        "insert into outbox.recipient (tenant_id, user_id, email) values ('default', 'ann', %s)",
        (ADDRESS,),
    )
    desk.admin.execute(
        "insert into outbox.suppression (tenant_id, channel, address, code, reason, expires_at)"
        " values ('default', 'email', lower(%s), 'complained', 'ann@example.com said so',"
        " clock_timestamp() + %s::interval)",
        (ADDRESS, expires),
    )
    desk.admin.execute("select outbox.erase_recipient('default', 'ann', 'test')")


@pytest.mark.parametrize(
    ("address", "expires", "status"),
    [
        (ADDRESS, None, "failed"),
        ("ann@example.com", "1 hour", "failed"),
        ("ann@example.com", "-1 second", "sent"),
        ("bob@example.com", None, "sent"),
    ],
)
async def test_an_erased_address_stays_suppressed_for_as_long_as_it_was(
    desk: Desk, address: str, expires: str | None, status: str
) -> None:
    suppress_and_erase(desk, expires=expires)
    assert "ann" not in str(desk.rows("select * from outbox.suppression")).lower()
    handler = Scripted()
    async with dispatching(desk, {}, channels={"email": handler}):
        job_id = desk.enqueue(
            channel="email", to=address, content="Hello", data={}, meta={}, notify=True,
            created_at="2026-11-22T12:00:00Z",
        )  # fmt: skip
        await desk.until_status(job_id, "sent", "failed")
    assert desk.status(job_id) == status
    assert len(handler.seen) == (status == "sent")
