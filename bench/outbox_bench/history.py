"""Weeks of history, as a service of twenty tenants would have made it, written by SQL.

Straight into the tables, a day at a time (past/*.sql): what the doors and dispatchers would have
stored, but for the content hashes, which nobody reads again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files

from outbox_bench.arena import Connection

TENANTS = 20
QUEUES = ("email", "push", "in_app", "webhook", "sms")
DELIVERIES_PER_JOB = 1.06
"""Of what a day makes: a few jobs are tried more than once."""


@dataclass(frozen=True, kw_only=True)
class History:
    """`deliveries` over `days` up to now, of `users`, and `waiting` jobs beside them."""

    deliveries: int
    days: int
    users: int
    waiting: int


def write_history(connection: Connection, history: History, said: Callable[[str], None]) -> None:
    """Write it, and leave it analyzed and vacuumed, as upkeep and autovacuum would have."""
    connection.execute("set synchronous_commit = off")
    key = connection.execute("select address_key from outbox.setting").fetchone()
    assert key is not None
    given: dict[str, object] = {
        "tenants": TENANTS,
        "queues": list(QUEUES),
        "users": history.users,
        "waiting": history.waiting,
        "jobs": round(history.deliveries / DELIVERIES_PER_JOB / history.days),
        "address_key": key[0],
    }
    _run(connection, "tenants", given)
    _run(connection, "lanes", given)
    for age in range(history.days, 0, -1):
        connection.execute(
            "select outbox.make_partitions(1, clock_timestamp() - make_interval(days => %s))",
            (age,),
        )
        bounds = connection.execute(
            "select clock_timestamp() - make_interval(days => %s),"
            " clock_timestamp() - make_interval(days => %s)",
            (age, age - 1),
        ).fetchone()
        assert bounds is not None
        _run(connection, "day", given | {"from": bounds[0], "to": bounds[1]})
        said(f"{history.days - age + 1} of {history.days} days")
    for name in ("waiting", "counts", "quarters", "seconds"):
        _run(connection, name, given)
    connection.execute("vacuum analyze")
    connection.execute("checkpoint")


def _run(connection: Connection, name: str, given: dict[str, object]) -> None:
    statement = files("outbox_bench").joinpath("past", f"{name}.sql").read_text(encoding="utf-8")
    connection.execute(statement.encode(), given)
