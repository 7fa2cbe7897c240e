// BullMQ. There is no transaction to commit: a job's clock starts before `add` is called.
import { Queue, Worker } from "bullmq";
import { TEXT, Work, ids, mode, count, nowNs, range, tell, url } from "./line.mjs";

const NAME = "noop";
const { hostname: host, port } = new URL(url);
const connection = { host, port: Number(port), maxRetriesPerRequest: null };

if (mode === "fill") {
  const queue = new Queue(NAME, { connection });
  const opts = { removeOnComplete: true };
  for (const batch of range(count, 5000, (n) => ({ name: NAME, data: { n, text: TEXT }, opts })))
    await queue.addBulk(batch);
  await queue.close();
} else if (mode === "work") {
  const work = new Work();
  await work.readyAndGo();
  const worker = new Worker(
    NAME,
    async (job) => {
      if (job.data.id !== undefined) tell({ started: job.data.id, at_ns: nowNs() });
    },
    { connection, concurrency: 100 },
  );
  // Told when it is stored as completed.
  worker.on("completed", () => (work.handled += 1));
  worker.on("error", (error) => console.error(error));
} else {
  const queue = new Queue(NAME, { connection });
  await queue.waitUntilReady();
  for await (const id of ids()) {
    const at_ns = nowNs();
    await queue.add(NAME, { id, text: TEXT }, { removeOnComplete: true });
    tell({ id, at_ns });
  }
  await queue.close();
}
