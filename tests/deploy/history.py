"""`python -m tests.deploy.history URL`: prints what a database tells of its jobs, as JSON."""

from __future__ import annotations

import sys
from uuid import UUID

import msgspec
import psycopg

from tests.faults.checker import ATTEMPTS_SQL, JOBS_SQL, Attempt


class Told(msgspec.Struct):
    """Jobs as (id, status, series), and their attempts."""

    jobs: list[tuple[UUID, str, int]]
    attempts: list[Attempt]


def main() -> None:
    with psycopg.connect(sys.argv[1]) as connection:
        told = Told(
            jobs=[(row[0], row[1], row[2]) for row in connection.execute(JOBS_SQL)],
            attempts=[Attempt(*row) for row in connection.execute(ATTEMPTS_SQL)],
        )
    print(msgspec.json.encode(told).decode())


if __name__ == "__main__":
    main()
