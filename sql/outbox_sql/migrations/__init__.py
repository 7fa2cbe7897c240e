"""Migrations: plain SQL in folders, revisions in versions/."""
