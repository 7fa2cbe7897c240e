"""Why a job is where it is: what it waits for, and what happens next (api.md 2)."""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

import msgspec

from outbox.quiet import QUIET_HOURS, SEND_WINDOW
from outbox.store import jobs
from outbox.store.jobs import AHEAD_MAX, Explanation, FullJobRow, LastDelivery, Progress
from outbox.store.pool import Connection

WAIT_S_SHOWN_MAX = 10 * 365 * 86_400.0
"""A slow rate and a long line come to more than a date can hold."""

_PUT_OFF_BY = {QUIET_HOURS: "quiet hours", SEND_WINDOW: "send window"}


class LaneView(msgspec.Struct, frozen=True, kw_only=True):
    """The line that the job stands in."""

    tenant_id: str
    queue: str
    scope: str
    paused_at: datetime | None = None
    paused_by: str | None = None
    held_at: datetime | None = None
    hold_code: str | None = None
    hold_reason: str | None = None
    probe_at: datetime | None = None


class UsedTemplate(msgspec.Struct, frozen=True, kw_only=True):
    """Which template; the version is chosen at the first attempt."""

    code: str | None
    version: int | None
    locale: str | None


class ExplainedJob(msgspec.Struct, frozen=True, kw_only=True):
    """`explanation` says it in words; the rest is what they are made of."""

    job_id: UUID
    status: str
    explanation: str
    waiting_for: str | None
    waiting_behind: UUID | None = None
    since: datetime | None
    next_at: datetime | None
    ahead: int | None
    dispatchers_alive: int | None
    lane: LaneView | None
    progress: Progress | None = None
    template: UsedTemplate
    last: LastDelivery | None


async def explain(connection: Connection, id_: int) -> ExplainedJob | None:
    """Explain one job, by its internal id."""
    row = await jobs.show(connection, id_)
    if row is None:
        return None
    why = await jobs.explain(connection, id_)
    last = await jobs.last_delivery(connection, id_)
    template = UsedTemplate(
        code=row.template_code,
        version=last.template_version if last is not None else None,
        locale=row.locale,
    )
    if why is None:
        return ExplainedJob(
            job_id=row.job_id,
            status=row.status,
            explanation=_ended(row, last),
            waiting_for=None,
            since=row.finished_at,
            next_at=None,
            ahead=None,
            dispatchers_alive=None,
            lane=None,
            template=template,
            last=last,
        )
    waiting_for, since, next_at, text = _live(row, why, last)
    return ExplainedJob(
        job_id=row.job_id,
        status=row.status,
        explanation=text,
        waiting_for=waiting_for,
        waiting_behind=why.head_job_id,
        since=since,
        next_at=next_at,
        ahead=why.ahead,
        dispatchers_alive=why.dispatchers_alive,
        lane=LaneView(
            tenant_id=why.tenant_id,
            queue=why.queue,
            scope=why.scope,
            paused_at=why.paused_at,
            paused_by=why.paused_by,
            held_at=why.held_at,
            hold_code=why.hold_code,
            hold_reason=why.hold_reason,
            probe_at=why.probe_at,
        ),
        progress=row.progress,
        template=template,
        last=last,
    )


def _ended(row: FullJobRow, last: LastDelivery | None) -> str:
    match row.status:
        case "sent":
            provider = f" by {last.provider}" if last is not None and last.provider else ""
            return f"It was taken{provider} at attempt {row.attempts}. Nothing more happens."
        case "failed":
            attempts = "1 attempt" if row.attempts == 1 else f"{row.attempts} attempts"
            return (
                f"It failed after {attempts} ({row.last_error_code}) and is a dead "
                "letter: it waits for a retry or a replay by somebody."
            )
        case "expired":
            return "Its expires_at passed before it was delivered. Nothing more happens."
        case "cancelled":
            return "It was withdrawn before it was sent. Nothing more happens."
        case other:
            return f"It is {other}."


def _live(
    row: FullJobRow, why: Explanation, last: LastDelivery | None
) -> tuple[str, datetime | None, datetime | None, str]:
    """Return what a live job waits for, since when, until when, and a sentence."""
    if why.claimed_at is not None:
        text = f"Attempt {why.attempt} is running"
        text += f" on {why.claimed_by}." if why.claimed_by else "."
        text += _how_far(row.progress)
        if why.cancel:
            text += " It was withdrawn: it ends after this attempt."
        return "outcome", why.claimed_at, why.lease_until, text
    if why.follows:
        return "ordering head", row.accepted_at, None, _behind(why)
    if why.paused_at is not None:
        text = f"Its lane was paused by {why.paused_by}; it goes on when the lane is resumed."
        return "lane paused", why.paused_at, None, text
    if why.held_at is not None:
        where = f" ({why.scope})" if why.scope else ""
        if why.probe_at is None:
            text = "It may have been delivered already, so nobody tries it: release or cancel it."
            return "lane held", why.held_at, None, text
        text = (
            f"Its lane{where} is held: {why.hold_code}. One job is tried at probe_at; when that "
            "succeeds the rest follows."
        )
        return "lane held", why.held_at, why.probe_at, text
    if why.available_at > why.now:
        return _not_due(row, why, last)
    if why.dispatchers_alive == 0:
        text = f"It is due, but no dispatcher that serves {why.queue} is alive."
        return "no dispatcher", why.available_at, None, text
    if why.handlers_alive == 0:
        return "no handler", why.available_at, None, f"It is due, but {_no_handler(why)}."
    return _limited(why) or _in_line(why)


def _how_far(progress: Progress | None) -> str:
    if progress is None:
        return ""
    text = f": {progress.text}" if progress.text else ""
    # Rounded down: what is not done yet must not read as if it were.
    return f" It has come to {int(progress.fraction * 100)} %{text}."


def _limited(why: Explanation) -> tuple[str, datetime | None, datetime | None, str] | None:
    """Return what limit of its lane, or of its destination, a due job waits for."""
    closed = _shut(why)
    if closed is not None:
        return closed
    for whose, rate_per_s, tokens in (
        (why.destination, why.destination_rate_per_s, why.destination_tokens),
        ("its lane", why.rate_per_s, why.tokens),
    ):
        if rate_per_s is not None and tokens is not None and tokens < 1:
            wait_s = (1 - tokens + (why.ahead or 0)) / rate_per_s
            at = why.now + timedelta(seconds=min(wait_s, WAIT_S_SHOWN_MAX))
            text = (
                f"It is due, but {whose} may have {rate_per_s:g} a second, over all dispatchers. "
                f"{_many(why)} jobs are ahead of it, so its turn comes at about next_at."
            )
            return "rate", why.available_at, at, text
    if why.concurrency_max is not None and why.places_taken >= why.concurrency_max:
        text = (
            f"It is due, but its lane may have {why.concurrency_max} at once, over all "
            f"dispatchers, and all are taken. {_many(why)} jobs are ahead of it."
        )
        return "concurrency", why.available_at, None, text
    return None


def _shut(why: Explanation) -> tuple[str, datetime | None, datetime | None, str] | None:
    """Return why nobody may talk to the job's destination, or only one at a time."""
    until = why.destination_paused_until
    if until is not None:
        text = f"{why.destination} asked for a pause, which the whole fleet keeps to."
        return "destination paused", None, until, text
    if why.destination_open_until is None:
        return None
    since, until = why.destination_opened_at, why.destination_open_until
    text = (
        f"Most attempts at {why.destination} failed, so its breaker is open for the whole fleet. "
    )
    if until > why.now:
        text += "One job is tried at next_at; when that is answered the rest follows."
        return "breaker open", since, until, text
    text += "One job is being tried; when that is answered the rest follows."
    return "breaker half open", since, None, text


def _no_handler(why: Explanation) -> str:
    what = f"channel {why.channel}" if why.channel is not None else f"queue {why.queue}"
    return f"no dispatcher that is alive has a handler for the {what} installed"


def _many(why: Explanation) -> str:
    ahead = why.ahead or 0
    return f"{AHEAD_MAX} or more" if ahead >= AHEAD_MAX else str(ahead)


def _in_line(why: Explanation) -> tuple[str, datetime | None, datetime | None, str]:
    text = f"It is due, and {_many(why)} jobs are ahead of it in its lane."
    return "dispatcher", why.available_at, None, text


def _behind(why: Explanation) -> str:
    if why.head_is_dead:
        return (
            f"It has the ordering_key of {why.head_job_id}, which failed and keeps it back: "
            "replay or cancel that one."
        )
    if why.head_job_id is None:
        return "The job before it, with the same ordering_key, has just ended: it is next."
    ahead = why.ahead or 0
    many = f"{AHEAD_MAX} or more jobs" if ahead >= AHEAD_MAX else f"{ahead} job(s)"
    return (
        f"{many} with the same ordering_key go before it. The first is {why.head_job_id}: see "
        "what that one waits for."
    )


def _not_due(
    row: FullJobRow, why: Explanation, last: LastDelivery | None
) -> tuple[str, datetime | None, datetime | None, str]:
    match why.waits:
        case 1:
            code = last.error_code if last is not None else None
            text = f"Attempt {why.attempt} failed ({code}); the next one is at next_at."
            since = last.finished_at if last is not None else None
            return "backoff", since, why.available_at, text
        case 2:
            if last is None or last.error_class != "snoozed":
                return "snooze", None, why.available_at, "It was put off until next_at."
            what = _PUT_OFF_BY.get(last.error_code or "", "snooze")
            text = f"It was put off until next_at: {last.error_message or what}."
            return what, last.finished_at, why.available_at, text
        case 3:
            text = "Its destination asked for a pause, which holds for the whole fleet."
            return "destination paused", None, why.available_at, text
        case 4:
            text = f"At the last look {_no_handler(why)}; it is offered again at next_at."
            if why.handlers_alive:
                text = "The dispatcher that had it has no handler for it; others have, at next_at."
            return "no handler", None, why.available_at, text
        case _:
            text = "Its producer wants it sent at next_at, not before."
            return "send_after", row.accepted_at, why.available_at, text
