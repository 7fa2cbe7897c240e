"""What was caught instead of sent, and who gets nothing more."""

from __future__ import annotations

from tests.api.conftest import Api
from tests.api.stage import behind


async def test_what_was_caught_is_listed_and_shown_without_scripts(open_api: Api) -> None:
    behind(
        open_api,
        "insert into outbox.sink_message (tenant_id, caught_by, channel, recipient, subject, body,"
        " headers) values ('default', 'smtp', 'email', 'a@b.c', '<script>alert(1)</script>',"
        " 'plain', '{\"html\": \"<script>alert(2)</script><b>bold</b>\"}')",
    )
    (caught,) = (await open_api.client.get("/api/v1/sink")).json()["items"]
    assert caught["recipient"] == "a@b.c"
    for path in ("/", "/sink", f"/sink/{caught['id']}"):
        page = await open_api.client.get(path)
        assert page.status_code == 200, page.text
        assert page.headers["content-type"].startswith("text/html")
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert "<script>" not in page.text
        assert "&lt;script&gt;alert(1)" in page.text
    frame = await open_api.client.get(f"/sink/{caught['id']}/html")
    assert "<b>bold</b>" in frame.text
    assert frame.headers["content-security-policy"].startswith("sandbox; default-src 'none'")
    assert (await open_api.client.get("/assets/outbox.css")).status_code == 200
    assert (await open_api.client.get("/sink/999")).status_code == 404
    assert (await open_api.client.delete("/api/v1/sink")).status_code == 204
    assert (await open_api.client.get("/api/v1/sink")).json()["items"] == []


async def test_a_caught_webhook_goes_by_its_event_and_is_shown_a_value_a_line(
    open_api: Api,
) -> None:
    behind(
        open_api,
        "insert into outbox.sink_message (tenant_id, caught_by, channel, recipient, body, headers)"
        " values ('default', 'http', 'webhook', 'https://shop.example/orders',"
        ' \'{"type":"order.paid","data":{"total":12.50}}\', \'{}\'),'
        " ('default', 'http', 'webhook', 'https://shop.example/odd', '{no json', '{}')",
    )
    listed = await open_api.client.get("/sink")
    assert "<strong>order.paid</strong>" in listed.text
    assert "<strong>webhook</strong>" in listed.text
    items = (await open_api.client.get("/api/v1/sink")).json()["items"]
    (paid,) = [item for item in items if item["recipient"].endswith("orders")]
    page = await open_api.client.get(f"/sink/{paid['id']}")
    assert "\n    &#34;total&#34;: 12.50\n" in page.text
    (odd,) = [item for item in items if item["recipient"].endswith("odd")]
    assert "{no json" in (await open_api.client.get(f"/sink/{odd['id']}")).text


async def test_a_suppressed_address_is_listed_and_let_go(open_api: Api) -> None:
    behind(
        open_api,
        "insert into outbox.suppression (tenant_id, channel, address, code)"
        " values ('default', 'email', 'gone@example.com', 'smtp.5.1.1')",
    )
    listed = (await open_api.client.get("/api/v1/suppressions?limit=1")).json()
    assert listed["items"][0]["address"] == "gone@example.com"
    path = "/api/v1/suppressions/email/Gone@example.com"
    assert (await open_api.client.delete(path)).status_code == 204
    assert (await open_api.client.delete(path)).status_code == 404
