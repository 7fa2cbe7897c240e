"""The root of the branch for what must wait until no older version runs. Nothing waits yet."""

from __future__ import annotations

revision = "0001_post"
down_revision = None
branch_labels = ("post",)
depends_on = ("0001_pre",)


def upgrade() -> None:
    """Do nothing: the first schema has no older version."""
