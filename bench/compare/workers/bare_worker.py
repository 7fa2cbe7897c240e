"""The plainest thing that starts at once: an insert that notifies, a listener that deletes."""

import json
import time

import psycopg
from line import TEXT, Work, arguments, ids, tell

TABLE = "create table bare (id bigserial primary key, payload jsonb not null)"
TAKE = """
delete from bare where id = any(array(
    select id from bare order by id limit 500 for update skip locked))
returning payload"""


def main() -> None:
    mode, url, _ = arguments()
    with psycopg.connect(url, autocommit=True) as connection:
        if mode == "fill":
            connection.execute(TABLE)
        elif mode == "work":
            _work(connection)
        else:
            for job_id in ids():
                with connection.transaction():
                    payload = json.dumps({"id": job_id, "text": TEXT})
                    connection.execute("insert into bare (payload) values (%s)", (payload,))
                    connection.execute("notify bare")
                    at_ns = time.time_ns()
                tell(id=job_id, at_ns=at_ns)


def _work(connection: psycopg.Connection) -> None:
    work = Work()
    connection.execute("listen bare")
    work.ready_and_go()
    while True:
        for (payload,) in connection.execute(TAKE, prepare=True).fetchall():
            work.started(payload.get("id"))
        for _ in connection.notifies(timeout=1.0, stop_after=1):
            pass


if __name__ == "__main__":
    main()
