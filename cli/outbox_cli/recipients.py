"""`outbox recipients`: the directory."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer

from outbox.errors import Fault
from outbox.store import recipients
from outbox.store.pool import Connection
from outbox_cli.acting import Why, acting
from outbox_cli.database import in_transaction
from outbox_cli.exits import Failure, say
from outbox_cli.groups import Json, group
from outbox_cli.jsonfile import faults_of, opened, values_in
from outbox_cli.shown import print_json

RECIPIENTS_MAX = 1_000_000

app = group()


class Recipient(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A recipient as a file has it: what `PUT /recipients/{user_id}` takes, and the id."""

    user_id: Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
    email: Annotated[str, msgspec.Meta(max_length=320)] | None = None
    phone: Annotated[str, msgspec.Meta(max_length=32)] | None = None
    telegram_chat_id: Annotated[str, msgspec.Meta(max_length=64)] | None = None
    locale: Annotated[str, msgspec.Meta(max_length=35)] | None = None
    timezone: Annotated[str, msgspec.Meta(max_length=64)] | None = None
    attributes: dict[str, msgspec.Raw] = {}
    opt_outs: list[str] = []
    quiet_hours: dict[str, msgspec.Raw] | None = None

    def parts(self) -> recipients.RecipientParts:
        """Return what the directory stores."""
        quiet = None if self.quiet_hours is None else msgspec.json.encode(self.quiet_hours)
        return recipients.RecipientParts(
            email=self.email,
            phone=self.phone,
            telegram_chat_id=self.telegram_chat_id,
            locale=self.locale,
            timezone=self.timezone,
            attributes=msgspec.json.encode(self.attributes).decode(),
            opt_outs=self.opt_outs,
            quiet_hours=None if quiet is None else quiet.decode(),
        )


@app.command("push")
def push(
    file: Annotated[str, typer.Argument(help="One, an array, or NDJSON; `-` is stdin.")],
    tenant: Annotated[str, typer.Option(help="Whose recipients they are.")] = "default",
    why: Why = None,
    json: Json = False,
) -> None:
    """Put recipients into the directory, all of them or none."""
    people = read_recipients(file)

    async def work(connection: Connection) -> int:
        return await put_recipients(connection, people, tenant=tenant)

    with acting("recipient.push", tenant=tenant, why=why, recipients=len(people)):
        new = in_transaction(work, make=True)
    if json:
        print_json({"recipients": len(people), "new": new})
        return
    say(f"{len(people)} recipients, {new} of them new.")


def read_recipients(path: str) -> list[Recipient]:
    """Return the recipients in a file. Raises Failure that names the first bad one."""
    people: list[Recipient] = []
    with opened(path) as stream:
        for text in values_in(stream, lambda _: None):
            if len(people) == RECIPIENTS_MAX:
                raise Failure(f"a file may have {RECIPIENTS_MAX} recipients.")
            people.append(_recipient(text, len(people) + 1))
    return people


async def put_recipients(connection: Connection, people: list[Recipient], *, tenant: str) -> int:
    """Store them; return how many are new."""
    new = 0
    for person in people:
        new += await recipients.put_recipient(connection, tenant, person.user_id, person.parts())
    return new


def _recipient(text: bytes, number: int) -> Recipient:
    faults = faults_of(text)
    if not faults:
        try:
            return msgspec.json.decode(text, type=Recipient)
        except msgspec.ValidationError as error:
            faults = [Fault("", str(error))]
    fault = faults[0]
    raise Failure(f"recipient {number}: {fault.pointer} {fault.message}.".replace(":  ", ": "))
