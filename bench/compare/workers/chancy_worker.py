"""Chancy, asyncio, 3,000 jobs at once (it stores outcomes each second); clocked before `push`."""

import asyncio
import os
import time

from chancy import Chancy, Queue, Worker, job
from line import TEXT, Work, arguments, ids, tell

work = Work()
EXECUTOR = "chancy.executors.asyncex.AsyncExecutor"


@job(queue="noop")
async def noop(*, id: str | None = None, n: int = 0, text: str = "") -> None:
    work.started(id)


async def main() -> None:
    mode, url, count = arguments()
    async with Chancy(url) as chancy:
        if mode == "fill":
            await chancy.migrate()
            queue = Queue(
                "noop",
                concurrency=3_000,
                executor=EXECUTOR,
                polling_interval=1,
                eager_polling=True,
            )
            await chancy.declare(queue, upsert=True)
            jobs = [noop.job.with_kwargs(n=n, text=TEXT) for n in range(count)]
            async for _ in chancy.push_many(jobs):
                pass
        elif mode == "work":
            work.ready_and_go()
            async with Worker(chancy, register_signal_handlers=False):
                await asyncio.Event().wait()
        else:
            for job_id in ids():
                at_ns = time.time_ns()
                await chancy.push(noop.job.with_kwargs(id=job_id, text=TEXT))
                tell(id=job_id, at_ns=at_ns)
            os._exit(0)


if __name__ == "__main__":
    asyncio.run(main())
