"""The doors to Postgres: SQL in files (outbox_sql.queries), rows in typed structs, no logic."""
