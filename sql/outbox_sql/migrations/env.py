"""Alembic's environment: one transaction, one advisory lock, everything owned by outbox_owner."""

from __future__ import annotations

from importlib.resources import files

from alembic import context

# Any other number would do; it only has to stay the same.
MIGRATION_LOCK = 7237113001

bootstrap = files(__package__ or "outbox_sql.migrations").joinpath("bootstrap.sql")
bootstrap_sql = bootstrap.read_text(encoding="utf-8")

if context.is_offline_mode():
    context.configure(dialect_name="postgresql", version_table_schema="outbox", output_buffer=None)
    with context.begin_transaction():
        context.get_context().impl.static_output(bootstrap_sql)
        context.run_migrations()
else:
    connection = context.config.attributes["connection"]
    driver = connection.connection.driver_connection
    driver.execute(f"select pg_advisory_xact_lock({MIGRATION_LOCK})")
    driver.execute(bootstrap_sql)
    context.configure(connection=connection, version_table_schema="outbox")
    with context.begin_transaction():
        context.run_migrations()
