"""What the demo sends, and what must come of it.

A scene is one thing that a producer does, over HTTP as any producer would. Where a sample was
accepted by an earlier run, it is known, and not sent twice; a copy with a new id goes out instead.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from time import monotonic
from types import TracebackType
from typing import Literal, Self, TypeAlias, TypeVar
from uuid import UUID

import httpx
import msgspec

from outbox.message import uuid7
from outbox_cli.demo.receivers import Caught, Receivers
from outbox_cli.demo.samples import Json, sample
from outbox_cli.exits import Failure

Ending: TypeAlias = Literal["sent", "expired", "failed"]
ENDED = frozenset({"sent", "expired", "failed", "cancelled"})
T = TypeVar("T")

POLL_S = 0.1
REQUEST_S_MAX = 30.0
PATIENCE_S = 20.0


@dataclass
class Act:
    """One job of a scene, from its acceptance to its end. Times are monotonic seconds."""

    title: str
    channel: str
    wanted: Ending
    job_id: UUID
    began: float = field(default_factory=monotonic)
    took_s: float | None = None
    status: str = "pending"
    recipient: str = ""
    said: str = ""
    faults: list[str] = field(default_factory=list)
    note: str = ""

    @property
    def is_over(self) -> bool:
        """Whether it has ended, and has been looked at."""
        return self.took_s is not None

    @property
    def is_as_expected(self) -> bool:
        """Whether it ended as it should have."""
        return self.is_over and self.status == self.wanted and not self.faults


class JobView(msgspec.Struct, frozen=True):
    """What of a job's view the demo reads."""

    status: str
    attempts: int | None = None
    last_error: str | None = None


class _Accepted(msgspec.Struct, frozen=True):
    job_id: UUID
    duplicate: bool = False


class _Sent(msgspec.Struct, frozen=True):
    id: UUID


class _EventAnswer(msgspec.Struct, frozen=True):
    job_ids: list[UUID]
    duplicate: bool = False


class _Listed(msgspec.Struct, frozen=True):
    job_id: UUID
    channel: str | None = None


class _Page(msgspec.Struct, frozen=True):
    items: list[_Listed]


class _InboxItem(msgspec.Struct, frozen=True):
    body: str
    job_id: UUID | None = None


class _Inbox(msgspec.Struct, frozen=True):
    items: list[_InboxItem]


class _DeadLetter(msgspec.Struct, frozen=True):
    job: dict[str, msgspec.Raw]
    error_message: str
    failed_at: datetime
    error_class: str
    error_code: str
    attempts: int
    reason: str


class _DeadLetters(msgspec.Struct, frozen=True):
    items: list[_DeadLetter]


class Story:
    """Plays the scenes against a service, and looks at what came of them. Enter it first."""

    def __init__(self, url: str, receivers: Receivers) -> None:
        self._receivers = receivers
        self._http = httpx.AsyncClient(
            base_url=f"{url}/api/v1", timeout=REQUEST_S_MAX, trust_env=False
        )
        self.acts: list[Act] = []

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._http.__aexit__(kind, error, trace)

    async def play(self) -> None:
        """Send everything."""
        await self._job("Welcome mail in Russian", "sent", sample("welcome_email"))
        friday, film = sample("black_friday_sale"), sample("new_film_recommendation")
        await self._job("Black Friday, too late", "expired", friday)
        await self._job("New film, too late", "expired", film)
        ahead = {"expires_at": (datetime.now(UTC) + timedelta(days=1)).isoformat()}
        for title, job in (("Black Friday", friday), ("New film", film)):
            await self._job(f"{title}, still in time", "sent", _fresh(job) | ahead)
        hook = sample("order_webhook")
        hook["to"] = f"http://127.0.0.1:{self._receivers.http_port}/orders"
        # Its address is another one at each run, so it is another job, too.
        await self._job("Signed webhook", "sent", _fresh(hook))
        await self._simple_send()
        await self._event()
        nobody = sample("welcome_without_address")
        await self._job("User without an address", "failed", nobody)
        await self._twice()

    async def settle(self, *, within_s: float, changed: Callable[[], None]) -> None:
        """Wait until every act is over, calling `changed` at each look; the rest are faults."""
        deadline = monotonic() + within_s
        while True:
            for act in self.acts:
                if not act.is_over:
                    await self._look(act)
            changed()
            waiting = [act for act in self.acts if not act.is_over]
            if not waiting:
                return
            if monotonic() > deadline:
                for act in waiting:
                    act.faults.append(f"still {act.status} after {within_s:.0f} s")
                changed()
                return
            await asyncio.sleep(POLL_S)

    # -- scenes ------------------------------------------------------------------------------

    async def _job(self, title: str, wanted: Ending, job: Json) -> None:
        answer = await self._post("/jobs", job, _Accepted)
        note = ""
        if answer.duplicate and wanted != "expired":
            job = _fresh(job)
            answer = await self._post("/jobs", job, _Accepted)
            note = "sent by an earlier run: a copy with a new id"
        elif answer.duplicate:
            note = "known from an earlier run"
        self._begin(title, str(job["channel"]), wanted, answer.job_id, note)

    async def _simple_send(self) -> None:
        answer = await self._post("/notifications/send", sample("simple_send"), _Sent)
        self._begin("Simple send", "email", "sent", answer.id)

    async def _event(self) -> None:
        event = sample("user_registered_event")
        answer = await self._post("/events", event, _EventAnswer)
        note = ""
        if answer.duplicate:
            event["event_id"] = str(uuid7())
            answer = await self._post("/events", event, _EventAnswer)
            note = "a copy of the event with a new id"
        page = await self._get(f"/jobs?event_id={event['event_id']}", _Page)
        channels = {job.job_id: job.channel or "" for job in page.items}
        for job_id in answer.job_ids:
            channel = channels.get(job_id, "")
            title = f"Rule makes {_words(channel)}"
            self._begin(title, channel, "sent", job_id, note)
        if len(answer.job_ids) != 2:
            raise Failure(f"The event made {len(answer.job_ids)} jobs; its rules make 2.")

    async def _twice(self) -> None:
        """Hand the first mail over again: it is known, and does not go out twice."""
        answer = await self._post("/jobs", sample("welcome_email"), _Accepted)
        if not answer.duplicate:
            self.acts[0].faults.append("the same job again was taken for a new one")

    def _begin(
        self, title: str, channel: str, wanted: Ending, job_id: UUID, note: str = ""
    ) -> None:
        self.acts.append(Act(title, channel, wanted, job_id, note=note))

    # -- looking -----------------------------------------------------------------------------

    async def _look(self, act: Act) -> None:
        job = await self._get(f"/jobs/{act.job_id}", JobView)
        act.status = job.status
        if job.status not in ENDED:
            return
        if job.status != act.wanted:
            act.faults.append(f"it should have been {act.wanted}: {job.last_error or 'no error'}")
        elif act.wanted == "failed":
            await self._check_dead_letter(act)
        elif act.wanted == "expired":
            act.said = "recorded as EXPIRED, never attempted"
            if job.attempts or self._receivers.of(act.job_id):
                act.faults.append("it was attempted")
        elif act.channel == "inbox":
            await self._check_inbox(act)
        else:
            self._check_caught(act)
        act.took_s = monotonic() - act.began

    def _check_caught(self, act: Act) -> None:
        arrived = self._receivers.of(act.job_id)
        if len(arrived) != 1:
            act.faults.append(f"it arrived {len(arrived)} times")
            return
        (caught,) = arrived
        act.recipient = caught.recipient
        if act.channel == "webhook":
            act.said = "signature verified"
            act.faults += _webhook_faults(caught)
        else:
            act.said = caught.subject or caught.parts.get("text/plain", "").strip()
            act.faults += _mail_faults(caught)

    async def _check_inbox(self, act: Act) -> None:
        user_id = sample("user_registered_event")["user_id"]
        inbox = await self._get(f"/recipients/{user_id}/inbox", _Inbox)
        found = [item for item in inbox.items if item.job_id == act.job_id]
        if len(found) != 1:
            act.faults.append(f"the inbox has it {len(found)} times")
            return
        act.recipient = str(user_id)
        act.said = found[0].body.strip()

    async def _check_dead_letter(self, act: Act) -> None:
        letters = await self._get(f"/dead-letters?job_id={act.job_id}", _DeadLetters)
        if len(letters.items) != 1:
            act.faults.append(f"it has {len(letters.items)} dead letters")
            return
        (letter,) = letters.items
        act.said = f"dead letter: {letter.error_message}"
        if letter.attempts != 1 or letter.reason != "permanent":
            act.faults.append(f"{letter.attempts} attempts, reason {letter.reason}")
        if letter.error_message != "User has no email" or "template_code" not in letter.job:
            act.faults.append("the dead letter isn't in the contract's shape")

    # -- HTTP --------------------------------------------------------------------------------

    async def _post(self, path: str, body: Json, kind: type[T]) -> T:
        return _read(await self._ask("POST", path, body), kind)

    async def _get(self, path: str, kind: type[T]) -> T:
        return _read(await self._ask("GET", path), kind)

    async def _ask(self, method: str, path: str, body: Json | None = None) -> httpx.Response:
        """Ask until somebody can answer, as a producer should: the key makes that harmless."""
        headers = {"Idempotency-Key": str(uuid7())} if body is not None else {}
        deadline = monotonic() + PATIENCE_S
        while True:
            answer = await self._http.request(method, path, json=body, headers=headers)
            if answer.status_code not in (429, 503) or monotonic() > deadline:
                return answer
            await asyncio.sleep(float(answer.headers.get("Retry-After", "1")))


def _read(answer: httpx.Response, kind: type[T]) -> T:
    if answer.status_code >= 300:
        raise Failure(
            f"{answer.request.method} {answer.request.url.path} was answered with "
            f"{answer.status_code}: {answer.text[:300]}"
        )
    return msgspec.json.decode(answer.content, type=kind)


def _fresh(job: Json) -> Json:
    return job | {"job_id": str(uuid7())}


def _words(channel: str) -> str:
    return {"email": "a mail", "inbox": "an in-app message"}.get(channel, f"one on {channel}")


def _mail_faults(caught: Caught) -> Sequence[str]:
    faults = []
    if "text/plain" not in caught.parts and "text/html" not in caught.parts:
        faults.append("the mail has no body")
    if "{{" in caught.subject + "".join(caught.parts.values()):
        faults.append("the mail was not rendered")
    return faults


def _webhook_faults(caught: Caught) -> Sequence[str]:
    body = msgspec.json.decode(caught.parts["json"].encode(), type=dict[str, msgspec.Raw])
    return [] if set(body) == {"type", "timestamp", "data"} else ["its body has another shape"]
