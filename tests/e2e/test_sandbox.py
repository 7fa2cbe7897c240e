"""The sandbox from enqueue to sink: magic recipients fail as real ones would."""

from __future__ import annotations

from outbox.channels.registry import load_handlers
from tests.e2e.test_channels_through_the_engine import notify, template
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
