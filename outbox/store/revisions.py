"""Which schema this code needs and can live with, and who else runs on it.

A database has come as far as a `pre` and a `post` revision. Code that knows revision N needs `pre`
N; it can live with any later `pre`, and with no later `post`: so `post` waits for older processes,
which say by their heartbeats what they know (store.md 11).
"""

from __future__ import annotations

from importlib.resources import files
from typing import Literal, TypeAlias

import msgspec
import psycopg

from outbox.store.pool import Connection, fetch_one
from outbox_sql import query

Branch: TypeAlias = Literal["pre", "post"]

API_SILENT_S = 35.0
"""An API process that has not been heard of for so long is believed gone: three heartbeats."""
API_BEAT_S = 10.0


def revisions_of(branch: Branch) -> list[str]:
    """Return this version's revisions of a branch, oldest first."""
    versions = files("outbox_sql.migrations").joinpath("versions").iterdir()
    names = sorted(name.removesuffix(".py") for v in versions if (name := v.name).endswith(".py"))
    return [name for name in names if name[:4].isdecimal() and name.endswith(f"_{branch}")]


def known_revision() -> int:
    """Return the newest revision that this code knows, of either branch."""
    return max(int(name[:4]) for name in (*revisions_of("pre"), *revisions_of("post")))


def too_new(post: int) -> str | None:
    """Return a sentence if this code cannot live with what `post` has come to, else None."""
    known = known_revision()
    if post <= known:
        return None
    return (
        f"The database has been migrated past this version: its `post` part is at {post:04}, and "
        f"this code knows {known:04}. Run the version that migrated it."
    )


class Readiness(msgspec.Struct, frozen=True, kw_only=True):
    """What the store says of itself. `has_room`: there is a partition for tomorrow."""

    has_room: bool
    pre: int
    post: int

    def objection(self) -> str | None:
        """Return why requests cannot be served; None if they can."""
        if self.pre < known_revision():
            return "The database is not migrated for this version."
        if not self.has_room:
            return "No partition is left for tomorrow: no dispatcher has made any."
        return too_new(self.post)


async def readiness(connection: Connection) -> Readiness:
    """Ask the store how it stands. Raises psycopg's errors where it is not migrated at all."""
    found = await fetch_one(connection, Readiness, "store_ready", {})
    assert found is not None
    return found


class ApiProcess(msgspec.Struct, frozen=True, kw_only=True):
    """An API process, as its heartbeat tells of it. `process_id` is random."""

    process_id: int
    name: str
    version: str
    schema_revision: int
    pid: int


async def api_beat(connection: Connection, process: ApiProcess) -> int:
    """Say that an API process lives; return how far `post` has come."""
    cursor = await connection.execute(query("api_beat"), msgspec.structs.asdict(process))
    row = await cursor.fetchone()
    assert row is not None
    return int(row[0])


async def api_gone(connection: Connection, process: ApiProcess) -> None:
    """Say that an API process has ended."""
    await connection.execute(
        "delete from outbox.api_process where process_id = %s", (process.process_id,)
    )


def older_processes(url: str, revision: int) -> list[str]:
    """Return the living processes that don't know `revision`: its `post` part waits for them."""
    with psycopg.connect(url, connect_timeout=5) as connection:
        rows = connection.execute(
            query("older_processes"), {"revision": revision, "silent_s": API_SILENT_S}
        )
        return [str(row[0]) for row in rows]
