"""`outbox templates`: push them from a folder, list them, preview them.

A folder holds `<code>/<channel>/<locale>/` with `subject.txt`, `text.txt` and `html.html` (those
that the channel has), and `schema.json`, a JSON Schema for `data`, if there is one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from outbox.channels.registry import CONTRACT_CHANNELS
from outbox.rehearsal import PAYLOADS_MAX, Mishap, rehearse
from outbox.render import (
    Preview,
    RenderFailure,
    RenderPool,
    RenderRequest,
    TemplateSource,
    normalise_locale,
)
from outbox.render import Problem as TemplateProblem
from outbox.store import catalog
from outbox.store.pool import Connection
from outbox_cli.acting import Why, acting
from outbox_cli.database import actor, in_transaction
from outbox_cli.exits import FAILED, FAULTS_SHOWN_MAX, Failure, say
from outbox_cli.groups import Json, Tenant, group
from outbox_cli.jsonfile import opened
from outbox_cli.shown import as_object, print_json, print_table

PART_BYTES_MAX = 262_144
TEMPLATES_MAX = 10_000
PAGE = 500
FILES = {
    "subject": "subject.txt",
    "text": "text.txt",
    "html": "html.html",
    "schema": "schema.json",
}

app = group()


@dataclass(frozen=True)
class Pushed:
    """A template as a folder has it."""

    code: str
    channel: str
    locale: str
    parts: catalog.TemplateParts

    @property
    def name(self) -> str:
        """How to call it in a sentence."""
        return f"{self.code}/{self.channel}/{self.locale}"

    def key(self, tenant: str) -> catalog.TemplateKey:
        """Return which template of that tenant's it is."""
        return catalog.TemplateKey(tenant, self.code, self.channel, self.locale)

    def source(self) -> TemplateSource:
        """Return it as rendering takes it."""
        return TemplateSource(
            subject=self.parts.subject, text=self.parts.text, html=self.parts.html, code=self.code
        )


@app.command("push")
def push(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="<code>/<channel>/<locale>/…")],
    tenant: Annotated[str, typer.Option(help="Whose templates they are.")] = "default",
    force: Annotated[
        bool, typer.Option("--force", help="Store what recent payloads cannot be rendered with.")
    ] = False,
    why: Why = None,
    json: Json = False,
) -> None:
    """Make new versions of the templates in a folder, of all that changed, or of none.

    All locales are rendered with the newest real payloads first.
    """
    found = list(read_folder(folder))

    async def work(connection: Connection) -> list[tuple[Pushed, int, bool]]:
        return await put_templates(connection, found, tenant=tenant, by=actor())

    with acting("template.push", tenant=tenant, why=why):
        refuse_broken(found)
        if not force:
            refuse_unfit(found, tenant=tenant)
        stored = in_transaction(work, make=True)
    rows = [(item.name, version, new) for item, version, new in stored]
    if json:
        print_json([{"template": n, "version": v, "new_version": new} for n, v, new in rows])
        return
    print_table(
        ("TEMPLATE", "VERSION", ""),
        ((name, version, "new" if new else "unchanged") for name, version, new in rows),
        empty="",
    )


@app.command("ls")
def ls(tenant: Tenant = None, code: str | None = None, json: Json = False) -> None:
    """List the templates in use."""

    async def read(connection: Connection) -> list[catalog.TemplateSummary]:
        rows: list[catalog.TemplateSummary] = []
        after = ("", "", "")
        while len(rows) < TEMPLATES_MAX:
            page = await catalog.list_templates(
                connection,
                tenant=tenant or "default",
                code=code,
                channel=None,
                after=after,
                limit=PAGE,
            )
            rows += page
            if len(page) < PAGE:
                break
            after = (page[-1].code, page[-1].channel, page[-1].locale)
        return rows

    rows = in_transaction(read, read_only=True)
    if json:
        print_json([as_object(row) for row in rows])
        return
    print_table(
        ("CODE", "CHANNEL", "LOCALE", "VERSION", "SUBJECT", "SINCE", "BY"),
        (
            (r.code, r.channel, r.locale, r.version, r.subject, r.created_at, r.created_by)
            for r in rows
        ),
        empty="There is no template yet.",
    )


@app.command("preview")
def preview(
    code: str,
    channel: str,
    locale: str,
    data: Annotated[
        str | None, typer.Option(help="A file with the variables as a JSON object; `-`: stdin.")
    ] = None,
    tenant: Tenant = None,
    json: Json = False,
) -> None:
    """Render a template with the given variables, and list those that are missing."""
    context = b"{}"
    if data is not None:
        with opened(data) as stream:
            context = stream.read(PART_BYTES_MAX + 1)
        if len(context) > PART_BYTES_MAX:
            raise Failure(f"the variables may have {PART_BYTES_MAX // 1024} KiB.")

    async def read(connection: Connection) -> catalog.TemplateRow | None:
        key = catalog.TemplateKey(tenant or "default", code, channel, locale)
        return await catalog.get_template(connection, key)

    row = in_transaction(read, read_only=True)
    if row is None or row.deleted_at is not None:
        raise Failure(f"There is no template {code}/{channel}/{locale}.")
    shown = asyncio.run(_preview(row, context))
    result = shown.result
    if json:
        print_json({"result": msgspec.to_builtins(result), "missing": shown.missing})
    elif not isinstance(result, RenderFailure):
        for name in ("subject", "text", "html"):
            part: str | None = getattr(result, name)
            if part is not None:
                print(f"--- {name}\n{part}")
    for name in shown.missing:
        say(f"the data has no {name}.")
    if isinstance(result, RenderFailure):
        if not json:
            say(f"{result.code}: {result.message}")
        raise typer.Exit(FAILED)


async def _preview(row: catalog.TemplateRow, context: bytes) -> Preview:
    source = TemplateSource(
        subject=row.subject,
        text=row.body_text,
        html=row.body_html,
        version=row.version,
        code=row.code,
    )
    async with RenderPool(workers=1) as pool:
        return await pool.preview(
            RenderRequest(
                source=source,
                context_json=context,
                locale=row.locale,
                schema_json=None if row.schema is None else row.schema.encode(),
            )
        )


def read_folder(folder: Path) -> Iterator[Pushed]:
    """Yield the templates in a folder. Raises Failure for a layout that is none."""
    if not folder.is_dir():
        raise Failure(f"{folder} is no folder.")
    places = sorted(path for path in folder.glob("*/*/*") if path.is_dir())
    if len(places) > TEMPLATES_MAX:
        raise Failure(f"{folder} has more than {TEMPLATES_MAX} templates.")
    if not places:
        raise Failure(
            f"There is no template in {folder}: it needs <code>/<channel>/<locale>/text.txt."
        )
    for place in places:
        code, channel, locale = place.relative_to(folder).parts
        if channel not in CONTRACT_CHANNELS:
            raise Failure(f"{place}: no channel is called {channel!r}.")
        normal = normalise_locale(locale)
        if normal is None:
            raise Failure(f"{place}: {locale!r} is no language tag.")
        strange = sorted(f.name for f in place.iterdir() if f.name not in FILES.values())
        if strange:
            known = ", ".join(FILES.values())
            raise Failure(f"{place}: {strange[0]} is not read; there may be {known}.")
        texts = {part: _text(place / name) for part, name in FILES.items()}
        if texts["text"] is None and texts["html"] is None:
            raise Failure(f"{place}: there is neither text.txt nor html.html.")
        subject = texts["subject"]
        yield Pushed(
            code,
            channel,
            normal,
            catalog.TemplateParts(
                # A subject is one line: the line feed at its end is the editor's.
                subject=None if subject is None else subject.strip("\r\n"),
                text=texts["text"],
                html=texts["html"],
                schema=texts["schema"],
                keep_content="hash",
            ),
        )


def refuse_broken(found: list[Pushed]) -> None:
    """Raise Failure with everything that is wrong with templates: syntax, and their schemas."""
    problems = asyncio.run(_problems(found))
    if not problems:
        return
    lines = [
        f"{item.name} {problem.part}"
        + (f" line {problem.line}" if problem.line is not None else "")
        + f": {problem.message}"
        for item, problem in problems[:FAULTS_SHOWN_MAX]
    ]
    raise Failure("Nothing was stored:\n  " + "\n  ".join(lines))


async def _problems(found: list[Pushed]) -> list[tuple[Pushed, TemplateProblem]]:
    problems: list[tuple[Pushed, TemplateProblem]] = []
    if found:
        async with RenderPool(workers=1) as pool:
            for item in found:
                schema = item.parts.schema
                told = await pool.validate(
                    item.source(), schema_json=None if schema is None else schema.encode()
                )
                problems += [(item, problem) for problem in told]
    return problems


def refuse_unfit(found: list[Pushed], *, tenant: str) -> None:
    """Raise Failure with each changed template that the newest payloads do not fit."""

    async def read(connection: Connection) -> list[tuple[Pushed, list[catalog.Payload]]]:
        changed = []
        for item in found:
            key = item.key(tenant)
            if not catalog.is_stored(await catalog.get_template(connection, key), item.parts):
                payloads = await catalog.recent_payloads(connection, key, limit=PAYLOADS_MAX)
                changed.append((item, payloads))
        return changed

    mishaps = asyncio.run(_mishaps(in_transaction(read, read_only=True, make=True), tenant))
    if mishaps:
        lines = [f"{item.name} {mishap}" for item, mishap in mishaps[:FAULTS_SHOWN_MAX]]
        raise Failure("Nothing was stored (--force would):\n  " + "\n  ".join(lines))


async def _mishaps(
    changed: list[tuple[Pushed, list[catalog.Payload]]], tenant: str
) -> list[tuple[Pushed, Mishap]]:
    mishaps: list[tuple[Pushed, Mishap]] = []
    if any(payloads for _, payloads in changed):
        async with RenderPool(workers=1) as pool:
            for item, payloads in changed:
                schema = None if item.parts.schema is None else item.parts.schema.encode()
                told = await rehearse(
                    pool, item.key(tenant), item.source(), payloads, schema_json=schema
                )
                mishaps += [(item, mishap) for mishap in told]
    return mishaps


async def put_templates(
    connection: Connection, found: list[Pushed], *, tenant: str, by: str
) -> list[tuple[Pushed, int, bool]]:
    """Store them; return each with its version, and whether that is a new one."""
    stored = []
    for item in found:
        row, new = await catalog.put_template(connection, item.key(tenant), item.parts, actor=by)
        stored.append((item, row.version, new))
    return stored


def _text(path: Path) -> str | None:
    if not path.exists():
        return None
    if path.stat().st_size > PART_BYTES_MAX:
        raise Failure(f"{path} is larger than {PART_BYTES_MAX // 1024} KiB.")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Failure(f"{path} is no UTF-8 text.") from error
    if "\x00" in text:
        raise Failure(f"{path} has a NUL character, which cannot be stored.")
    return text
