"""Writes sql/outbox_sql/schema.sql: what all migrations come to, for people to read.

`make schema` (`python -m tests.schema_dump`) makes a fresh database, migrates it, and takes what
pg_dump says of it, without what differs from day to day: the daily partitions, pg_dump's session
settings and its keys. tests/store/test_schema.py fails when the file is not today's.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path

from outbox.embedded import EmbeddedServer
from outbox.embedded_cluster import find_binaries
from outbox.migrate import migrate

PATH = Path(__file__).parent.parent / "sql" / "outbox_sql" / "schema.sql"

HEADER = """\
-- Today's whole schema. Written by `make schema` from the migrations; a test compares. The daily
-- partitions of job and delivery are left out, and so is Alembic's own table.
set check_function_bodies = false;

"""

_NOISE = re.compile(
    r"--\n-- Name: .*\n--\n\n"  # what follows says so itself
    r"|^--\n-- PostgreSQL database dump.*\n--\n"
    r"|^-- Dumped .*\n"
    r"|^\\(?:un)?restrict .*\n"
    r"|^SET .*\n"
    r"|^SELECT pg_catalog\.set_config.*\n",
    re.MULTILINE,
)

# Postgres 18 names what nobody names, and by chance.
_NAMED_NOT_NULL = re.compile(r" CONSTRAINT \w+_not_null\d* NOT NULL")


def dump_schema(admin_url: str) -> str:
    """Return the schema of a migrated database as SQL that would make it."""
    done = subprocess.run(
        [
            *(find_binaries() / "pg_dump", "--schema-only", "--schema=outbox", "--no-owner"),
            *(
                "--exclude-table=outbox.(job|delivery)_2*",
                "--exclude-table=outbox.alembic_version",
            ),
            f"--dbname={admin_url}",
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    body = _NAMED_NOT_NULL.sub(" NOT NULL", _NOISE.sub("", done.stdout)).strip()
    return HEADER + re.sub(r"\n{3,}", "\n\n", body) + "\n"


def main() -> None:
    """Write the file."""
    with (
        tempfile.TemporaryDirectory() as folder,
        EmbeddedServer.acquire(Path(folder), settings={"fsync": "off"}) as server,
    ):
        migrate(server.admin_url)
        PATH.write_text(dump_schema(server.admin_url), encoding="utf-8")


if __name__ == "__main__":
    main()
