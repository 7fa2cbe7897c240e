"""Procrastinate with 100 jobs at once; its clock starts before `defer_async` is called."""

import asyncio
import time

import procrastinate
from line import TEXT, Work, arguments, ids, tell

FILL_JOBS = 1_000
mode, url, count = arguments()
app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=url))
work = Work()


@app.task(name="noop", queue="noop")
async def noop(id: str | None = None, n: int = 0, text: str = "") -> None:
    work.started(id)


async def main() -> None:
    async with app.open_async():
        if mode == "fill":
            await app.schema_manager.apply_schema_async()
            for start in range(0, count, FILL_JOBS):
                numbers = range(start, min(count, start + FILL_JOBS))
                await noop.batch_defer_async(*({"n": n, "text": TEXT} for n in numbers))
        elif mode == "work":
            work.ready_and_go()
            await app.run_worker_async(concurrency=100, delete_jobs="never")
        else:
            for job_id in ids():
                at_ns = time.time_ns()
                await noop.defer_async(id=job_id, text=TEXT)
                tell(id=job_id, at_ns=at_ns)


if __name__ == "__main__":
    asyncio.run(main())
