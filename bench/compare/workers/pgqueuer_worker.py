"""PgQueuer over asyncpg and uvloop, in batches of 1,000."""

import json
import time

import asyncpg
import uvloop
from line import TEXT, Work, arguments, ids, tell
from pgqueuer import AsyncpgDriver, Job, PgQueuer, Queries

FILL_JOBS = 5_000


async def main() -> None:
    mode, url, count = arguments()
    connection = await asyncpg.connect(url)
    queries = Queries(AsyncpgDriver(connection))
    if mode == "fill":
        await queries.install()
        for start in range(0, count, FILL_JOBS):
            numbers = range(start, min(count, start + FILL_JOBS))
            payloads = [json.dumps({"n": n, "text": TEXT}).encode() for n in numbers]
            await queries.enqueue(["noop"] * len(numbers), payloads, [0] * len(numbers))
    elif mode == "work":
        work = Work()
        queue = PgQueuer.from_asyncpg_connection(connection)

        @queue.entrypoint("noop")
        async def noop(job: Job) -> None:
            work.started(json.loads(job.payload or b"{}").get("id"))

        work.ready_and_go()
        await queue.run(batch_size=1_000)
    else:
        for job_id in ids():
            async with connection.transaction():
                payload = json.dumps({"id": job_id, "text": TEXT}).encode()
                await queries.enqueue("noop", payload)
                at_ns = time.time_ns()
            tell(id=job_id, at_ns=at_ns)


if __name__ == "__main__":
    uvloop.run(main())
