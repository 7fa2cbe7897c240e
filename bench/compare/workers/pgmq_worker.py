"""pgmq by a plain loop: read 500, handle, delete; idle it polls ten times a second.

No process manages anything, and nothing is tried again before its visibility timeout.
"""

import json
import time
from importlib.resources import files

import psycopg
from line import TEXT, Work, arguments, ids, tell

FILL_JOBS = 5_000
BATCH = 500
POLL_MS = 100


def main() -> None:
    mode, url, count = arguments()
    with psycopg.connect(url, autocommit=True) as connection:
        if mode == "fill":
            connection.execute((files("pgmq") / "sql" / "pgmq.sql").read_bytes())
            connection.execute("select pgmq.create('noop')")
            for start in range(0, count, FILL_JOBS):
                numbers = range(start, min(count, start + FILL_JOBS))
                messages = [json.dumps({"n": n, "text": TEXT}) for n in numbers]
                connection.execute("select pgmq.send_batch('noop', %s::jsonb[])", (messages,))
        elif mode == "work":
            _work(connection)
        else:
            for job_id in ids():
                with connection.transaction():
                    message = json.dumps({"id": job_id, "text": TEXT})
                    connection.execute("select pgmq.send('noop', %s::jsonb)", (message,))
                    at_ns = time.time_ns()
                tell(id=job_id, at_ns=at_ns)


def _work(connection: psycopg.Connection) -> None:
    work = Work()
    work.ready_and_go()
    read = "select msg_id, message from pgmq.read('noop', 60, %s)"
    poll = f"select msg_id, message from pgmq.read_with_poll('noop', 60, %s, 5, {POLL_MS})"
    while True:
        rows = connection.execute(read, (BATCH,), prepare=True).fetchall()
        if not rows:
            rows = connection.execute(poll.encode(), (BATCH,), prepare=True).fetchall()
        if not rows:
            continue
        for _, message in rows:
            work.started(message.get("id"))
        msg_ids = [row[0] for row in rows]
        connection.execute("select pgmq.delete('noop', %s::bigint[])", (msg_ids,), prepare=True)


if __name__ == "__main__":
    main()
