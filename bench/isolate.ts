import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { type IsolateRunner, type Signed, startIsolateRunner } from "../test/support/runner.ts";
import { runNestedCase } from "./isolate-nested.ts";
import { type Load, measure, medianOf } from "./load.ts";
import { plainRow, type Row, ratioRow, type Suite } from "./rows.ts";

/**
 * What a call in a fresh, fully confined isolate costs through the runner: permit checked, isolate never used before,
 * result parsed as hostile. The baseline is bare isolated-vm in one process, in the same run.
 */
export const runIsolateSuite: Suite = async ({ full, say }) => {
  await using runner = await startIsolateRunner();
  say(`confinement: ${runner.enforced.join(", ")}${runner.missing.length > 0 ? `; MISSING ${runner.missing}` : ""}`);
  const rounds = full ? 5 : 2;
  const durationMs = full ? 3000 : 1200;
  const rows: Row[] = [];
  for (const concurrency of [1, 16]) {
    const ours: Load[] = [];
    const bare: Load[] = [];
    // Interlaced, so that a neighbour's noise falls on both.
    for (let round = 0; round < rounds; round++) {
      bare.push(await measureBare(concurrency, durationMs));
      const requests = await signed(runner, Math.ceil((durationMs + 400) * 3));
      ours.push(await measure(() => call(runner, requests.pop()), { concurrency, durationMs, warmUpMs: 300 }));
    }
    const [mine, base] = [medianOf(ours), medianOf(bare)];
    const label = `fresh isolate c=${concurrency}`;
    say(`${label}: ${mine.count} calls, p50 ${mine.p50Ms.toFixed(2)} ms; bare ${base.p50Ms.toFixed(2)} ms`);
    rows.push(ratioRow(label, "p50 ms", mine.p50Ms, base.p50Ms, { at: "most", ratio: 1.5 }));
    rows.push(ratioRow(label, "p99 ms", mine.p99Ms, base.p99Ms));
    rows.push(ratioRow(label, "calls/s", mine.perSecond, base.perSecond, { at: "least", ratio: 0.8 }));
  }
  rows.push(plainRow("ready isolate", "resident MB, its process whole", residentPerWorker()));
  rows.push(...(await runNestedCase(full, say)));
  return rows;
};

const PROGRAM = "return input.map((x) => x * x)";
const OURS = { sandbox: { code: PROGRAM.replace("input", "input.numbers") } };
const run = promisify(execFile);

async function measureBare(concurrency: number, durationMs: number): Promise<Load> {
  const script = join(import.meta.dirname, "bare-isolate.ts");
  const args = ["--no-node-snapshot", "--no-warnings", script, PROGRAM, String(concurrency), String(durationMs)];
  const { stdout } = await run(process.execPath, args);
  return JSON.parse(stdout) as Load;
}

/** Permits are the broker's work: made before anything is measured. */
async function signed(runner: IsolateRunner, count: number): Promise<Signed[]> {
  return await Promise.all(Array.from({ length: count }, () => runner.sign(OURS, { numbers: [1, 2, 3] })));
}

async function call(runner: IsolateRunner, request: Signed | undefined): Promise<void> {
  if (request === undefined) throw new Error("more calls were made than permits were signed");
  const { resultJson, error } = await runner.run(request);
  if (resultJson !== "[1,4,9]") throw new Error(`a call gave ${resultJson || error}`);
}

function residentPerWorker(): number {
  const sizes = workersOf(process.pid).map(residentBytes);
  return sizes.reduce((sum, bytes) => sum + bytes, 0) / sizes.length / 1e6;
}

/** The processes below this one that hold isolates, whatever stands between. */
function workersOf(pid: number): number[] {
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8")
    .trim()
    .split(" ")
    .filter(Boolean)
    .map(Number);
  return children.flatMap((child) => (isWorker(child) ? [child] : workersOf(child)));
}

function isWorker(pid: number): boolean {
  const argv = readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0");
  return argv[0] === process.execPath && argv.includes("--permission");
}

function residentBytes(pid: number): number {
  const status = readFileSync(`/proc/${pid}/status`, "utf8");
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1] ?? 0) * 1024;
}
