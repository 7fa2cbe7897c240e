"""The first schema: tables, the contract, the doors, views, operations, security."""

from __future__ import annotations

from outbox_sql.migrations.apply import apply

revision = "0001_pre"
down_revision = None
branch_labels = ("pre",)
depends_on = None


def upgrade() -> None:
    """Create everything. There is no way down: restore a backup instead."""
    apply("0001_pre")
