"""The SQL of Outbox: migrations, queries (one statement a file) and audit queries, as data."""

from __future__ import annotations

from functools import cache
from importlib.resources import files


@cache
def query(name: str) -> str:
    """Return the text of `queries/<name>.sql`. Raises FileNotFoundError."""
    return files(__name__).joinpath("queries", f"{name}.sql").read_text(encoding="utf-8")
