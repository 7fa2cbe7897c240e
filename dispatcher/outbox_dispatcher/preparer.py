"""From claimed rows to messages: address, template, rendering; a batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from outbox.message import Device, LaneId, Message
from outbox.opting_out import OptOut, OptOutLinks, with_link
from outbox.outcome import Misconfigured, Outcome, Rejected, Retryable, Snoozed
from outbox.quiet import QUIET_HOURS, SEND_WINDOW, deferred_until, passes, quiet_until
from outbox.render import RenderFailure, RenderPool, RenderRequest, inline_source, join_context
from outbox.store.dispatch import Found, Wanted, find_recipients
from outbox.store.engine import Claimed, Connection
from outbox_dispatcher.directory import Person
from outbox_dispatcher.endpoints import EndpointShelf
from outbox_dispatcher.facts import Facts, event_type_of, read_facts
from outbox_dispatcher.slots import Item
from outbox_dispatcher.templates import Template, TemplateShelf
from outbox_dispatcher.tenants import TenantBook, TenantFacts

NO_ADDRESS = {
    "email": "User has no email",
    "sms": "User has no phone",
    "telegram": "User has no telegram chat",
    "push": "User has no device for push",
    "browser": "User has no browser that takes messages",
}


class Preparer:
    """Fills in `item.message`, or `item.decided` where there is nothing to deliver."""

    def __init__(
        self,
        *,
        render: RenderPool,
        default_locale: str,
        timeout_s: float,
        held: Callable[[Claimed, Facts], LaneId | None],
        now: Callable[[], datetime],
        tenants: TenantBook,
        endpoints: EndpointShelf,
        links: OptOutLinks,
    ) -> None:
        self._links = links
        self._endpoints = endpoints
        self._render = render
        self._tenants = tenants
        self._held = held
        self._now = now
        self._shelf = TemplateShelf()
        self._default_locale = default_locale
        self._timeout_s = timeout_s

    def prepare_payload(self, item: Item) -> None:
        """Make the message of a job that carries a payload: nothing to look up."""
        facts = self._read(item)
        item.message = _message(item.claimed, facts, to=facts.to, user_id=facts.user_id)

    async def look_up(self, items: Sequence[Item]) -> None:
        """Ask the directory of these items' one tenant for their users. No statement is run.

        Items that cannot be told anything about now are decided by that.
        """
        directory = self._tenants.get(items[0].claimed.tenant_id).directory
        if directory is None:
            return
        users = [(item, read_facts(item.claimed.job_json).user_id) for item in items]
        found = await directory.find(user_id for _, user_id in users if user_id is not None)
        for item, user_id in users:
            told = None if user_id is None else found[user_id]
            if isinstance(told, Misconfigured | Snoozed):
                # What is only a test holds nobody's lane.
                item.decided = None if item.claimed.test else told
            else:
                item.person = told

    async def prepare(
        self, connection: Connection, items: Sequence[Item], *, catalog: int = 0
    ) -> None:
        """Make the messages of channel jobs. Lets psycopg's OperationalError out.

        Items whose template is held are marked to be diverted into the hold's own lane.
        """
        facts = []
        for item in items:
            facts.append(self._read(item))
            if not item.claimed.test:
                item.divert_to = self._held(item.claimed, facts[-1])
        wanted = [_wanted(item, f) for item, f in zip(items, facts, strict=True)]
        named = [
            (item.claimed.tenant_id, f.endpoint)
            for item, f in zip(items, facts, strict=True)
            if f.endpoint is not None
        ]
        if named:
            await self._endpoints.load(connection, named, catalog=catalog)
        found = await find_recipients(connection, wanted)
        to_render: list[tuple[Item, Facts, Found, RenderRequest, Template | None]] = []
        for item, fact, known in zip(items, facts, found, strict=True):
            if item.divert_to is not None or item.decided is not None:
                continue
            person = known if item.person is None else _merged(known, item.person, fact)
            if not item.claimed.test:
                self._choose_provider(item)
            if fact.endpoint is not None:
                item.decided = self._endpoints.get(item.claimed.tenant_id, fact.endpoint).refusal
                if item.decided is not None:
                    continue
            item.decided = _refusal(item.claimed, person) or self._snooze(item, fact, person)
            if item.decided is not None:
                continue
            if fact.category is not None:
                item.opt_out_link = self._link(item.claimed, fact, person)
            if fact.template_code is None and fact.content is None:
                item.message = self._message(
                    item,
                    fact,
                    to=person.address,
                    user_id=fact.user_id,
                    devices=_devices(person),
                )
                continue
            template: Template | None = None
            if fact.template_code is not None:
                template = await self._choose(connection, item.claimed, fact, person)
                if template is None:
                    item.decided = _missing_template(item.claimed, fact)
                    continue
            to_render.append(
                (item, fact, person, _request(item, fact, person, template), template)
            )
        if to_render:
            await self._render_all(to_render)

    def _read(self, item: Item) -> Facts:
        facts = read_facts(item.claimed.job_json)
        item.timeout_s = facts.timeout_s or self._timeout_s
        return facts

    def _link(self, claimed: Claimed, facts: Facts, person: Found) -> str | None:
        """Return where the recipient opts out of the job's category."""
        if facts.user_id is None and person.address is None:
            return None
        return self._links.link(
            OptOut(
                tenant_id=claimed.tenant_id,
                channel=claimed.channel or "",
                category=facts.category or "",
                job_id=claimed.job_id,
                user_id=facts.user_id,
                address=None if facts.user_id else person.address,
            )
        )

    def _message(self, item: Item, facts: Facts, *, to: str | None, **rendered: Any) -> Message:
        """Return the message, with what its tenant and its endpoint add."""
        claimed = item.claimed
        tenant = self._tenants.get(claimed.tenant_id)
        if facts.endpoint is None:
            link = item.opt_out_link if claimed.channel == "email" else None
            return _message(claimed, facts, to=to, tenant=tenant, link=link, **rendered)
        endpoint = self._endpoints.get(claimed.tenant_id, facts.endpoint)
        return _message(
            claimed, facts, to=endpoint.url, tenant=tenant, secrets=endpoint.secrets, **rendered
        )

    def _choose_provider(self, item: Item) -> None:
        claimed = item.claimed
        item.error_rules = self._tenants.get(claimed.tenant_id).error_rules
        own = self._tenants.handler_of(claimed.tenant_id, claimed.channel or "")
        if own is not None:
            item.handler = own

    def _snooze(self, item: Item, facts: Facts, person: Found) -> Outcome | None:
        claimed = item.claimed
        tenant = self._tenants.get(claimed.tenant_id)
        quiet, window = None, None
        if person.quiet_from is not None and person.quiet_to is not None:
            quiet = person.quiet_from, person.quiet_to
        if tenant.send_windows:
            window = tenant.send_windows.get(facts.category or "*") or tenant.send_windows.get("*")
        if (quiet is None and window is None) or passes(
            channel=claimed.channel or "", category=facts.category, priority=claimed.priority
        ):
            return None
        zone, now = person.timezone or tenant.timezone or "UTC", self._now()
        until = deferred_until(quiet, window, zone, now)
        if until is None:
            return None
        quiet_end = None if quiet is None else quiet_until(*quiet, zone, now)
        whose = ["the recipient's quiet hours"] if quiet_end is not None else []
        whose += ["the tenant's send window"] if until != quiet_end else []
        return Snoozed(
            until=until,
            code=SEND_WINDOW if quiet_end is None else QUIET_HOURS,
            reason=f"{' and '.join(whose)}, in {zone}",
        )

    async def _choose(
        self, connection: Connection, claimed: Claimed, facts: Facts, person: Found
    ) -> Template | None:
        assert facts.template_code is not None
        key = (claimed.tenant_id, facts.template_code, claimed.channel or "")
        await self._shelf.load(connection, *key)
        return self._shelf.choose(
            key,
            wanted=facts.locale,
            recipient=person.locale,
            tenant=person.tenant_locale,
            service=self._default_locale,
            version=person.template_version,
        )

    async def _render_all(
        self, work: list[tuple[Item, Facts, Found, RenderRequest, Template | None]]
    ) -> None:
        answers = await self._render.render_many([request for *_, request, _ in work])
        for (item, facts, person, _, template), answer in zip(work, answers, strict=True):
            if isinstance(answer, RenderFailure):
                item.decided = _render_outcome(answer, facts)
                continue
            if template is not None:
                item.keep_content = template.keep_content
                item.on_ambiguous = template.on_ambiguous
                if item.claimed.crashes and template.on_ambiguous != "resend":
                    reason = "A dispatcher died with it; it may have been delivered"
                    item.decided = Retryable(code="lease.lost", reason=reason, ambiguous=True)
                    continue
            item.message = self._message(
                item,
                facts,
                to=person.address,
                user_id=facts.user_id,
                # A job's own subject stands where its content is its own as well.
                subject=answer.subject,
                text=answer.text,
                html=answer.html,
                template_version=None if template is None else template.version,
                locale=None if template is None else template.locale,
                devices=_devices(person),
            )


def _wanted(item: Item, facts: Facts) -> Wanted:
    claimed = item.claimed
    channel = claimed.channel or ""
    own = None if item.person is None else item.person.address(channel)
    return Wanted(
        id=claimed.id,
        tenant_id=claimed.tenant_id,
        user_id=facts.user_id,
        channel=channel,
        address=facts.to or own,
        category=facts.category,
        again=claimed.attempt > 1 or claimed.series > 1,
    )


def _merged(found: Found, person: Person, facts: Facts) -> Found:
    """Return what our tables say, with what the tenant's directory knows better."""
    quiet_from, quiet_to = found.quiet_from, found.quiet_to
    if person.quiet_hours is not None:
        quiet_from, quiet_to = person.quiet_hours.hours
    user = {
        "user_id": facts.user_id,
        "email": person.email,
        "phone": person.phone,
        "locale": person.locale,
        "timezone": person.timezone,
        "attributes": person.attributes,
    }
    return msgspec.structs.replace(
        found,
        locale=person.locale or found.locale,
        timezone=person.timezone or found.timezone,
        user_json=msgspec.json.encode(user).decode(),
        opted_out=found.opted_out or facts.category in person.opt_outs,
        quiet_from=quiet_from,
        quiet_to=quiet_to,
    )


def _refusal(claimed: Claimed, person: Found) -> Outcome | None:
    if person.address is None and person.devices_json is None and claimed.channel != "webhook":
        channel = claimed.channel or ""
        reason = NO_ADDRESS.get(channel, f"User has no address for {channel}")
        return Rejected(code="recipient.no_address", reason=reason)
    if person.suppressed is not None:
        reason = f"The address is suppressed: {person.suppressed}"
        return Rejected(code="recipient.suppressed", reason=reason)
    if person.opted_out:
        return Rejected(
            code="recipient.suppressed", reason="The recipient opted out of this category"
        )
    return None


def _devices(person: Found) -> tuple[Device, ...]:
    if person.devices_json is None:
        return ()
    return msgspec.json.decode(person.devices_json, type=tuple[Device, ...])


def _missing_template(claimed: Claimed, facts: Facts) -> Outcome:
    code = facts.template_code or ""
    return Misconfigured(
        code="template.missing",
        reason=f"Template {code!r} has no {claimed.channel} body in any locale that would do",
        scope="template",
        scope_key=code,
    )


def _request(item: Item, facts: Facts, person: Found, template: Template | None) -> RenderRequest:
    job = {
        "job_id": str(item.claimed.job_id),
        "channel": item.claimed.channel,
        "template_code": facts.template_code,
        "created_at": item.claimed.created_at,
        "attempt": item.claimed.attempt,
        "unsubscribe_url": item.opt_out_link or "",
    }
    context = join_context(
        bytes(facts.data),
        user=person.user_json.encode(),
        meta=bytes(facts.meta),
        job=msgspec.json.encode(job),
    )
    if template is None:
        source = inline_source(facts.content or "", facts.subject)
        return RenderRequest(source=source, context_json=context)
    return RenderRequest(
        source=template.source,
        context_json=context,
        locale=template.locale,
        schema_json=template.schema_json,
    )


def _render_outcome(failure: RenderFailure, facts: Facts) -> Outcome:
    if failure.kind == "temporary":
        return Retryable(code=failure.code, reason=failure.message)
    if failure.kind == "configuration" and facts.template_code is not None:
        return Misconfigured(
            code=failure.code,
            reason=failure.message,
            scope="template",
            scope_key=facts.template_code,
        )
    # An inline template is the job's own: nobody else could mend it.
    return Rejected(code=failure.code, reason=failure.message)


def _message(
    claimed: Claimed,
    facts: Facts,
    *,
    to: str | None,
    user_id: str | None,
    tenant: TenantFacts | None = None,
    subject: str | None = None,
    text: str | None = None,
    html: str | None = None,
    template_version: int | None = None,
    locale: str | None = None,
    devices: tuple[Device, ...] = (),
    secrets: tuple[str, ...] = (),
    link: str | None = None,
) -> Message:
    key: UUID = claimed.job_id
    return Message(
        key=key,
        tenant_id=claimed.tenant_id,
        queue=claimed.queue,
        channel=claimed.channel,
        attempt=claimed.attempt,
        to=to,
        endpoint=facts.endpoint,
        user_id=user_id,
        subject=subject,
        text=text,
        html=html,
        template_code=facts.template_code,
        template_version=template_version,
        locale=locale,
        category=facts.category,
        event_type=event_type_of(facts),
        created_at=claimed.created_at,
        expires_at=claimed.expires_at,
        headers=with_link(facts.headers or {}, link),
        data_json=bytes(facts.data),
        payload_json=bytes(facts.payload) or None,
        meta_json=bytes(facts.meta),
        traceparent=claimed.traceparent,
        secrets=secrets,
        sender=None if tenant is None else tenant.sender,
        phone_region=None if tenant is None else tenant.phone_region,
        devices=devices,
        attachments=facts.attachments or (),
        test=claimed.test,
    )
