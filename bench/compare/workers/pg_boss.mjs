// pg-boss with LISTEN/NOTIFY, fetching the next batch at once while batches come back full.
import { PgBoss } from "pg-boss";
import pg from "pg";
import { TEXT, Work, ids, mode, count, nowNs, range, tell, url } from "./line.mjs";

const QUEUE = "noop";
const boss = new PgBoss({ connectionString: url, useListenNotify: true, max: 10 });
boss.on("error", (error) => console.error(error));

if (mode === "fill") {
  await boss.start();
  await boss.createQueue(QUEUE, { notify: true });
  for (const batch of range(count, 5000, (n) => ({ data: { n, text: TEXT } })))
    await boss.insert(QUEUE, batch);
  await boss.stop({ graceful: false });
  process.exit(0);
} else if (mode === "work") {
  const work = new Work();
  await boss.start();
  await work.readyAndGo();
  await boss.work(QUEUE, { batchSize: 3000, burstWhenBatchFull: true }, async (jobs) => {
    for (const job of jobs) work.started(job.data.id);
  });
} else {
  await boss.start();
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  const db = { executeSql: (text, values) => client.query(text, values) };
  for await (const id of ids()) {
    await client.query("begin");
    await boss.send(QUEUE, { id, text: TEXT }, { db });
    const at_ns = nowNs();
    await client.query("commit");
    tell({ id, at_ns });
  }
  process.exit(0);
}
