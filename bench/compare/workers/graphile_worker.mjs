// graphile-worker as its own performance guide sets it up: a local queue, completions in batches.
import { Logger, makeWorkerUtils, run } from "graphile-worker";
import pg from "pg";
import { TEXT, Work, ids, mode, count, nowNs, range, tell, url } from "./line.mjs";

const logger = new Logger(() => () => {});

if (mode === "fill") {
  const utils = await makeWorkerUtils({ connectionString: url, logger });
  await utils.migrate();
  for (const batch of range(count, 5000, (n) => ({ identifier: "noop", payload: { n, text: TEXT } })))
    await utils.addJobs(batch);
  await utils.release();
} else if (mode === "work") {
  const work = new Work();
  await work.readyAndGo();
  await run({
    connectionString: url,
    noHandleSignals: true,
    taskList: { noop: async (payload) => work.started(payload.id) },
    preset: {
      worker: {
        concurrentJobs: 24,
        maxPoolSize: 10,
        logger,
        completeJobBatchDelay: 0,
        failJobBatchDelay: 0,
        localQueue: { size: 2000 },
      },
    },
  });
} else {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  for await (const id of ids()) {
    await client.query("begin");
    await client.query("select graphile_worker.add_job('noop', $1::json)", [{ id, text: TEXT }]);
    const at_ns = nowNs();
    await client.query("commit");
    tell({ id, at_ns });
  }
  await client.end();
}
