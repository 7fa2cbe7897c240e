// What line.py is for Python: see there.
import { writeSync } from "node:fs";
import { createInterface } from "node:readline";

export const TEXT = "x".repeat(400);
export const nowNs = () => Math.round((performance.timeOrigin + performance.now()) * 1e6);
export const tell = (told) => writeSync(1, JSON.stringify(told) + "\n");
console.log = console.info = console.debug = console.error;

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

export class Work {
  handled = 0;
  async readyAndGo() {
    tell({ ready: true });
    if ((await lines.next()).done) process.exit(0);
    let told = 0;
    setInterval(() => {
      if (this.handled !== told) tell({ handled: (told = this.handled) });
    }, 20);
    lines.next().then(() => process.exit(0));
  }
  started(id) {
    if (id !== undefined) tell({ started: id, at_ns: nowNs() });
    this.handled += 1;
  }
}

export async function* ids() {
  tell({ ready: true });
  for (let line = await lines.next(); !line.done; line = await lines.next()) yield line.value;
}

export function range(n, batch, of) {
  const batches = [];
  for (let from = 0; from < n; from += batch) {
    const size = Math.min(batch, n - from);
    batches.push(Array.from({ length: size }, (_, i) => of(from + i)));
  }
  return batches;
}

export const [mode, url, count] = [process.argv[2], process.argv[3], Number(process.argv[4] ?? 0)];
