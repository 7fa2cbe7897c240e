"""The sandbox from enqueue to sink: magic recipients fail as real ones would."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID

from outbox.channels.http_errors import HTTP_TABLE, HTTP_TROUBLE_TABLE
from outbox.channels.registry import load_handlers
from outbox.channels.smtp_errors import SMTP_TABLE
from outbox_dispatcher.sockets import SocketChannel
from tests.channels.test_magic import MAIL, provider_rows
from tests.e2e.test_channels_through_the_engine import notify, person, template
from tests.e2e.test_devices import device
from tests.engine.desk import Desk, dispatching


async def test_in_the_sandbox_a_job_to_a_magic_recipient_fails_as_it_would_in_earnest(
    desk: Desk,
) -> None:
    template(desk)
    handlers = load_handlers({"MODE": "sandbox"})
    async with dispatching(desk, {}, channels=handlers):
        gone = notify(desk, user_id=None, to="fail+550-5.1.1@sink.test")
        later = notify(desk, user_id=None, to="fail+421@sink.test")
        await desk.until_status(gone, "failed")
        await desk.until_status(later, "retrying")
    assert desk.deliveries(gone) == [("FAILED", 1, "smtp.5.1.1", False)]
    assert desk.deliveries(later)[0] == ("RETRYING", 1, "smtp.421", False)
    suppressed = desk.rows("select address, code from outbox.suppression")
    assert suppressed == [("fail+550-5.1.1@sink.test", "smtp.5.1.1")]


ENDS = {"T": "RETRYING", "P": "FAILED", "C": "RETRYING", "D": "SENT"}


def asked_rows() -> Iterator[tuple[str, str, str]]:
    """Yield each row of each table: channel, address, and how its first attempt has to end."""
    for asked, row in zip(MAIL, SMTP_TABLE, strict=True):
        yield "email", f"fail+{asked}@sink.test", ENDS[row.verdict]
    for channel, asked, verdict in provider_rows():
        yield channel, f"fail+{asked}@sink.test", ENDS[verdict]
    for http in HTTP_TABLE:
        asked = f"{http.first:03d}" + ("-7" if http.asks else "")
        yield "webhook", f"https://sink.test/fail+{asked}", ENDS[http.verdict]
    for trouble, told in HTTP_TROUBLE_TABLE.items():
        yield "webhook", f"https://sink.test/fail+{trouble}", ENDS[told.for_job or told.verdict]


async def test_each_row_of_every_channel_s_table_ends_a_test_job_s_attempt_as_it_says(
    desk: Desk,
) -> None:
    """From enqueue to history. (In the sandbox one held lane would keep the others waiting.)"""
    handlers = {"ws": SocketChannel(desk.database.url, {})} | load_handlers({})
    wanted: dict[UUID, tuple[str, str, str]] = {}
    async with dispatching(desk, {}, channels=handlers):
        desk.admin.execute("set outbox.mode = 'test'")
        for n, (channel, address, ends) in enumerate(asked_rows()):
            where: dict[str, object] = {"to": address, "user_id": None}
            if channel == "browser":
                person(desk, f"u{n}")
                device(desk, f"u{n}", channel, address, "p", "a")
                where = {"user_id": f"u{n}"}
            job_id = notify(desk, channel=channel, template_code=None, content="Hi", **where)
            wanted[job_id] = (channel, address, ends)
        ended = (
            "select distinct on (job_id) job_id, status, error_code"
            " from outbox.notification_delivery order by job_id, lease_no"
        )
        await desk.until(lambda: len(desk.rows(ended)) == len(wanted))
        found = {job_id: (status, code) for job_id, status, code in desk.rows(ended)}
    assert {wanted[j][:2]: found[j][0] for j in wanted} == {w[:2]: w[2] for w in wanted.values()}
    assert "sink.unknown" not in {code for _, code in found.values()}
    assert desk.rows("select 1 from outbox.lane where held_at is not null and scope = ''") == []
    assert desk.rows("select 1 from outbox.destination") == []
