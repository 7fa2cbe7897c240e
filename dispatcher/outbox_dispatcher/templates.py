"""The templates in use, kept for a second, so that a campaign does not ask for each mail."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from time import monotonic

from outbox.lifecycle import Ambiguity
from outbox.render import TemplateSource, locale_chain
from outbox.store.dispatch import TemplateRow, find_templates
from outbox.store.engine import Connection

KEPT_S = 1.0
KEPT_MAX = 1_000


@dataclass(frozen=True, slots=True)
class Template:
    """A template chosen for a job. One `source` object a version: the pool knows it again."""

    source: TemplateSource
    locale: str
    version: int
    schema_json: bytes | None
    keep_content: str
    on_ambiguous: Ambiguity = "resend"


class TemplateShelf:
    """Looks templates up by tenant, code and channel; chooses by locale and version."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, str, str], tuple[float, list[Template], set[int]]] = (
            OrderedDict()
        )

    async def load(self, connection: Connection, tenant_id: str, code: str, channel: str) -> None:
        """Have the template at hand for `choose`."""
        key = (tenant_id, code, channel)
        kept = self._kept.get(key)
        if kept is not None and monotonic() - kept[0] < KEPT_S:
            return
        rows = await find_templates(connection, tenant_id=tenant_id, code=code, channel=channel)
        before = [] if kept is None else kept[1]
        templates = [_known(before, _template(row, code)) for row in rows]
        newest = {n for n, row in enumerate(rows) if row.newest}
        self._kept[key] = (monotonic(), templates, newest)
        self._kept.move_to_end(key)
        while len(self._kept) > KEPT_MAX:
            self._kept.popitem(last=False)

    def choose(
        self,
        key: tuple[str, str, str],
        *,
        wanted: str | None,
        recipient: str | None,
        tenant: str | None,
        service: str,
        version: int | None,
    ) -> Template | None:
        """Return the template in the first locale that it has; `version` None: the newest."""
        kept = self._kept.get(key)
        if kept is None:
            return None
        _, templates, newest = kept
        chain = locale_chain(wanted=wanted, recipient=recipient, tenant=tenant, service=service)
        for locale in chain:
            found = [(n, t) for n, t in enumerate(templates) if t.locale == locale]
            for n, template in found:
                if template.version == version or (version is None and n in newest):
                    return template
            if found:
                # The version that it was rendered with is not of this locale: take the newest.
                return found[0][1]
        return None


def _template(row: TemplateRow, code: str) -> Template:
    return Template(
        source=TemplateSource(
            subject=row.subject, text=row.text, html=row.html, version=row.version, code=code
        ),
        locale=row.locale,
        version=row.version,
        schema_json=None if row.schema_json is None else row.schema_json.encode(),
        keep_content=row.keep_content,
        on_ambiguous=row.on_ambiguous,
    )


def _known(before: list[Template], template: Template) -> Template:
    """Return the same object as last time where nothing has changed."""
    return next((old for old in before if old == template), template)
