"""The SQL of Outbox: migrations, queries (one statement a file) and audit queries, as data."""

from __future__ import annotations

from functools import cache
from importlib.resources import files


@cache
def query(name: str) -> str:
    """Return the statement in `queries/<name>.sql`. Raises FileNotFoundError.

    Without comments and indentation: psycopg keeps what it has read of a statement, but not of
    one that is longer than 4,096 characters.
    """
    text = files(__name__).joinpath("queries", f"{name}.sql").read_text(encoding="utf-8")
    lines = (line.strip() for line in text.splitlines())
    return "\n".join(line for line in lines if line and not line.startswith("--"))
