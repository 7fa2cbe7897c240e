"""Simple sends."""

from __future__ import annotations

import pytest

from tests.api.conftest import Api
from tests.api.stage import SEND, behind


async def test_the_simple_send_speaks_its_own_words(open_api: Api) -> None:
    message = {
        "type": "email",
        "recipient": "user@example.com",
        "content": "Hello {{ name }}!",
        "variables": {"name": "Ann"},
    }
    sent = await open_api.client.post("/api/v1/notifications/send", json=message)
    assert sent.status_code == 202
    assert set(sent.json()) == {"id", "status"}
    assert sent.json()["status"] == "pending"
    path = f"/api/v1/notifications/{sent.json()['id']}/status"
    before = (await open_api.client.get(path)).json()
    assert set(before) == {
        "id", "type", "recipient", "status", "attempts", "error", "created_at", "updated_at",
        "history",
    }  # fmt: skip
    assert (before["type"], before["recipient"]) == ("email", "user@example.com")
    behind(open_api, SEND)
    after = (await open_api.client.get(path)).json()
    assert after["status"] == "sent"
    assert [change["status"] for change in after["history"]] == ["pending", "processing", "sent"]
    expired = await open_api.client.post(
        "/api/v1/notifications/send", json=message | {"expires_at": "2025-01-01T00:00:00Z"}
    )
    told = (
        await open_api.client.get(f"/api/v1/notifications/{expired.json()['id']}/status")
    ).json()
    assert told["status"] == "failed"
    assert "expired" in told["error"]


@pytest.mark.parametrize(
    ("changes", "pointers"),
    [
        ({"recipient": "nobody"}, {"/recipient"}),
        ({"variables": []}, {"/variables"}),
        ({"content": None}, {"/template_id"}),
        ({"template_id": "nix", "content": None}, {"/template_id"}),
        ({"type": "ws"}, {"/type"}),
        ({"type": "pigeon", "priority": "top"}, {"/type", "/priority"}),
        ({"send_after": "soon"}, {"/send_after"}),
    ],
)
async def test_a_simple_send_that_is_wrong_is_told_in_its_own_words(
    open_api: Api, changes: dict[str, object], pointers: set[str]
) -> None:
    message = {"type": "email", "recipient": "a@b.c", "content": "x", "variables": {}}
    answer = await open_api.client.post("/api/v1/notifications/send", json=message | changes)
    assert answer.status_code == 422, answer.text
    assert {e["pointer"] for e in answer.json()["errors"]} == pointers
