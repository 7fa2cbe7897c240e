"""Runs a folder of plain SQL files as one Alembic revision."""

from __future__ import annotations

from importlib.resources import files

from alembic import context, op


def folder_sql(folder: str) -> str:
    """Return the SQL of `migrations/<folder>/*.sql`, in the order of their names."""
    paths = sorted(
        (p for p in files(__package__).joinpath(folder).iterdir() if p.name.endswith(".sql")),
        key=lambda p: p.name,
    )
    return "\n".join(path.read_text(encoding="utf-8") for path in paths)


def apply(folder: str) -> None:
    """Execute a folder's SQL, or print it when Alembic runs offline (`outbox migrate --sql`)."""
    execute_script(folder_sql(folder))


def execute_script(script: str) -> None:
    """Execute several statements at once, without any reading of `:name` or `%s` in them."""
    if context.is_offline_mode():
        op.get_context().impl.static_output(script)
    else:
        driver = op.get_bind().connection.driver_connection
        if driver is None:
            raise RuntimeError("the migration's connection was closed")
        driver.execute(script)
