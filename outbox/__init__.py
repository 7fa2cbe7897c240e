"""Outbox: hand a job over in your own transaction; it is delivered or accounted for."""
