"""Attachments through the engine: from a job's words to the mail, and a bucket that refuses us."""

from __future__ import annotations

from pathlib import Path

from tests.channels.hook_server import hook_server
from tests.channels.mail_server import mail_server
from tests.channels.s3_server import s3_server
from tests.e2e.test_channels_through_the_engine import delivering, notify
from tests.engine.desk import Desk

PLAIN = {"template_code": None, "user_id": None, "to": "ann@example.com", "content": "Hello"}


async def test_a_job_s_attachments_arrive_and_no_history_has_their_content(desk: Desk) -> None:
    async with hook_server() as hooks, mail_server() as server:
        hooks.body = b"%PDF-1.7 the secret of the invoice"
        url = f"http://127.0.0.1:{hooks.port}/"
        async with delivering(desk, server, WEBHOOK_ALLOW="127.0.0.1"):
            attachments = [{"url": url, "filename": "Счёт.pdf", "inline": None}]
            job_id = notify(desk, **PLAIN, attachments=attachments)
            await desk.until_status(job_id, "sent")
            hooks.status = 404
            gone = notify(desk, **PLAIN, attachments=[{"url": url}])
            await desk.until_status(gone, "failed")
    (mail,) = server.mails
    (part,) = mail.parsed().iter_attachments()
    assert (part.get_filename(), part.get_content_type()) == ("Счёт.pdf", "application/pdf")
    assert part.get_content() == hooks.body
    assert desk.deliveries(gone) == [("FAILED", 1, "attachment.404", False)]
    assert desk.value("select count(*) from outbox.suppression") == 0
    kept = desk.value("select string_agg(d::text, '') from outbox.delivery as d")
    assert "secret" not in kept
    assert "127.0.0.1" not in kept


async def test_a_bucket_that_refuses_us_holds_what_needs_it_and_no_other_mail(
    desk: Desk, tmp_path: Path
) -> None:
    held = "select held_at is not null from outbox.lane where scope = 'endpoint:s3'"
    with s3_server(tmp_path / "s3") as bucket:
        bucket.put("a.txt", b"of the bucket")
        async with mail_server() as server:
            async with delivering(desk, server, S3_URL=bucket.url(login="AKIAOUTBOX:wrong")):
                waiting = [
                    notify(desk, **PLAIN, attachments=[{"s3": "a.txt"}], max_attempts=1)
                    for _ in range(5)
                ]
                await desk.until(lambda: desk.rows(held) == [(True,)])
                plain = notify(desk, **PLAIN)
                await desk.until_status(plain, "sent")
                later = notify(desk, **PLAIN, attachments=[{"s3": "a.txt"}], max_attempts=1)
                moved = (
                    "select count(*) from outbox.entry as e join outbox.lane as l using (lane_id)"
                )
                await desk.until(lambda: desk.value(f"{moved} where l.scope = 'endpoint:s3'") == 6)
                assert desk.deliveries(later) == []  # it was not tried: that is known already
            async with delivering(desk, server, S3_URL=bucket.url()):
                for job_id in (*waiting, later):
                    await desk.until_status(job_id, "sent")
    assert len(server.mails) == 7
    assert desk.value("select count(*) from outbox.dead_letter") == 0
    assert desk.value("select max(attempt) from outbox.delivery") == 1
