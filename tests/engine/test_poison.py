"""Nothing that a job holds can stop a lane: it is refused at the door, or it goes through."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest

from outbox.message import Message
from outbox.outcome import Delivered, Outcome, Rejected
from tests.engine.desk import QUEUE, Desk, Scripted, dispatching, drain, in_s

LINE = "one two\n"
DEEP = 200
EVERY_KIND = {
    "combining": "e\u0301\u0300" * 500,
    "right to left": "\u202eשלום\u2066مرحبا\u2069",
    "astral": "👩‍👩‍👧‍👦🏳️‍🌈" * 100,
    "noncharacters": "\ufffe\uffff\U0010ffff",
    "controls": "".join(chr(n) for n in range(1, 32)) + "\x7f\x85\u2028\u2029\ufeff",
    "lone surrogate escaped": "\\ud800",
    "template": "{{ 7 * 7 }}{% for x in range(9) %}{% endfor %}{# #}",
    "format": "%s%(x)s{0}$1\\",
    "sql": "'; drop table outbox.entry; --",
    "markup": "<script>alert(1)</script>\r\nBcc: eve@cinema.example\r\n\r\n",
}


def nested(depth: int) -> object:
    inner: object = "bottom"
    for n in range(depth):
        inner = [inner] if n % 2 else {"deeper": inner}
    return inner


POISON: dict[str, object] = {
    **EVERY_KIND,
    "a megabyte in one string": "x" * 250_000 + "ж" * 100_000,
    "many keys": {f"key {n}": n for n in range(10_000)},
    "deep": nested(DEEP),
    "numbers": [10**400, -(10**400), 0.1, -1.5, 0],
    "odd keys": {"": 1, "__proto__": {}, "a.b": 2, "{{ x }}": 3, "'": 4},
}


def offer(desk: Desk, **fields: Any) -> bool:
    """Hand a job in; return whether it was accepted. A refusal says why, and where."""
    try:
        desk.enqueue(**fields)
    except psycopg.DatabaseError as refusal:
        return "pointer" not in (refusal.diag.message_detail or "")
    return True


@pytest.mark.parametrize("name", POISON)
async def test_whatever_a_payload_holds_its_neighbours_are_delivered(
    desk: Desk, name: str
) -> None:
    before = desk.enqueue()
    accepted = offer(desk, payload={"poison": POISON[name]})
    after = desk.enqueue()
    handler = Scripted()
    await drain(desk, {QUEUE: handler}, concurrency={QUEUE: 1})
    assert {desk.status(job_id) for job_id in (before, after)} == {"sent"}
    assert len(handler.seen) == 2 + accepted
    if accepted:
        payloads = [json.loads(message.payload_json or b"{}") for message in handler.seen]
        assert {"poison": POISON[name]} in payloads, "and comes as it was handed in"


@pytest.mark.parametrize("name", POISON)
async def test_whatever_a_message_s_data_holds_its_neighbours_are_delivered(
    desk: Desk, name: str
) -> None:
    common: dict[str, Any] = {
        "channel": "email",
        "to": "ann@cinema.example",
        "subject": "hello {{ poison }}",
        "content": "{{ poison }}",
        "created_at": in_s(0),
        "meta": {},
    }
    before = desk.enqueue(data={"poison": LINE}, **common)
    offer(desk, data={"poison": POISON[name]}, **common)
    after = desk.enqueue(data={"poison": LINE}, **common)
    handler = Scripted()
    await drain_channel(desk, handler)
    assert {desk.status(job_id) for job_id in (before, after)} == {"sent"}
    assert desk.value("select count(*) from outbox.entry where attempt = 0") == 0


async def test_what_a_provider_answers_cannot_stop_a_lane_either(desk: Desk) -> None:
    answers = [*map(str, EVERY_KIND.values()), "\x00", "\ud800\udfff\udc00", "x" * 1_000_000]
    waiting = iter(answers)

    async def deliver(message: Message) -> Outcome:
        text = next(waiting, None)
        return Delivered() if text is None else Rejected(code=text, reason=text)

    poisoned = [desk.enqueue() for _ in answers]
    good = desk.enqueue()
    await drain(desk, {QUEUE: Scripted(deliver)}, concurrency={QUEUE: 1})
    assert {desk.status(job_id) for job_id in poisoned} == {"failed"}
    assert desk.status(good) == "sent"
    assert desk.value("select count(*) from outbox.dead_letter") == len(answers)


async def drain_channel(desk: Desk, handler: Scripted) -> None:
    async with dispatching(desk, {}, channels={"email": handler}):
        await desk.until(
            lambda: (
                desk.value("select count(*) from outbox.entry where attempt = 0") == 0
                and desk.value("select count(*) from outbox.entry where claimed_by is not null")
                == 0
            )
        )
