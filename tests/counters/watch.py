"""What statements cost and how they run, told by Postgres itself: auto_explain, nested ones too.

Counters, never clocks: they say the same on a busy machine. Each statement that a watched
connection runs leaves its plan, as it was really chosen for the parameters that were really given,
with rows, buffers and WAL.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg
import pytest

from outbox.store.engine import Connection
from tests.postgres import Database

# As dispatchers have it (links.py), but for the role, which may not load a library.
SETTINGS = """
load 'auto_explain';
set auto_explain.log_min_duration = 0;
set auto_explain.log_analyze = on;
set auto_explain.log_buffers = on;
set auto_explain.log_wal = on;
set auto_explain.log_timing = off;
set auto_explain.log_nested_statements = on;
set auto_explain.log_format = json;
set auto_explain.log_level = notice;
set client_min_messages = notice;
set jit = off;
"""
ENGINE = "set plan_cache_mode = force_generic_plan; set enable_seqscan = off;"

SCANNED_ROWS_MAX = 1_000
"""A table with fewer rows may be read whole: lanes, tenants, handlers."""


@dataclass(frozen=True)
class Node:
    """One node of a plan."""

    raw: dict[str, Any]

    @property
    def kind(self) -> str:
        return str(self.raw["Node Type"])

    @property
    def table(self) -> str | None:
        return self.raw.get("Relation Name")

    @property
    def rows_read(self) -> float:
        """Rows that it looked at, over all of its loops."""
        dropped = self.raw.get("Rows Removed by Filter", 0)
        dropped += self.raw.get("Rows Removed by Index Recheck", 0)
        return float((self.raw.get("Actual Rows", 0) + dropped) * self.raw.get("Actual Loops", 0))


@dataclass(frozen=True)
class Seen:
    """A statement that was run."""

    text: str
    plan: dict[str, Any]

    def nodes(self) -> Iterator[Node]:
        """Yield every node of the plan."""
        waiting = [self.plan]
        while waiting:
            raw = waiting.pop()
            yield Node(raw)
            waiting += raw.get("Plans", [])

    @property
    def wal_bytes(self) -> int:
        return self._sum("WAL Bytes")

    @property
    def wal_images(self) -> int:
        return self._sum("WAL FPI")

    @property
    def buffers(self) -> int:
        return self._sum("Shared Hit Blocks") + self._sum("Shared Read Blocks")

    def _sum(self, counter: str) -> int:
        """Return the plan's own sum, and that of what writes after it.

        A WITH that changes rows and that nobody reads runs when the plan itself is over.
        """
        read = {node.raw.get("CTE Name") for node in self.nodes()}
        after = (
            node.raw
            for node in self.nodes()
            if node.kind == "ModifyTable"
            and (name := node.raw.get("Subplan Name", "").removeprefix("CTE "))
            and name not in read
        )
        return sum(int(raw.get(counter, 0)) for raw in (self.plan, *after))


@dataclass
class Watch:
    """A connection and what was seen on it."""

    connection: Connection
    seen: list[Seen] = field(default_factory=list)

    def take(self) -> list[Seen]:
        """Return what was seen since the last call. The outermost statement comes last."""
        taken, self.seen = self.seen, []
        return taken

    def note(self, diagnostic: psycopg.errors.Diagnostic) -> None:
        head, found, plan = (diagnostic.message_primary or "").partition("plan:\n")
        if found and head.startswith("duration:"):
            told = json.loads(plan)
            self.seen.append(Seen(told["Query Text"], told["Plan"]))


@asynccontextmanager
async def watching(database: Database, role: str) -> AsyncIterator[Watch]:
    """Yield a watched connection in one of our roles."""
    async with await psycopg.AsyncConnection.connect(
        database.admin_url, autocommit=True
    ) as connection:
        try:
            await connection.execute(SETTINGS)
        except psycopg.errors.UndefinedFile:
            pytest.skip("this server has no auto_explain")
        if role == "outbox_dispatcher":
            await connection.execute(ENGINE)
        await connection.execute(f"set role {role}".encode())
        watch = Watch(connection)
        connection.add_notice_handler(watch.note)
        yield watch


def objections(
    seen: list[Seen], *, rows_max: int, scans: frozenset[str] = frozenset()
) -> list[str]:
    """Return what is wrong with plans: whole tables read, and more rows than there should be.

    `rows_max` bounds the rows that any node looks at, sorts included. `scans` are tables that may
    be read whole on purpose.
    """
    found = []
    for statement in seen:
        for node in statement.nodes():
            text = " ".join(statement.text.split())[:60]
            if node.table in scans:
                continue
            if node.rows_read > rows_max:
                found.append(f"{node.kind} {node.table or ''} read {node.rows_read:.0f}: {text}")
            elif node.kind == "Seq Scan" and node.rows_read > SCANNED_ROWS_MAX:
                found.append(f"Seq Scan of {node.table}: {text}")
    return found
