import { readdirSync, readFileSync } from "node:fs";
import { expect, it } from "vitest";
import { RunEnd } from "../../proto/interlock/v1/types_pb.ts";
import { type IsolateRunner, startIsolateRunner } from "../support/runner.ts";

/** Honest and hostile calls, sixteen at a time, of four tenants: two thousand with FULL=1. */

const CALLS = process.env["FULL"] === "1" ? 2_000 : 300;
const AT_ONCE = 16;

const HOSTILE: readonly [code: string, ends: readonly RunEnd[]][] = [
  ["for (;;);", [RunEnd.CPU]],
  ["return [].constructor.constructor('return process')()", [RunEnd.EXITED]],
  ["const all = []; for (;;) all.push(new Uint8Array(1e7).fill(1))", [RunEnd.OOM, RunEnd.EXITED, RunEnd.CPU]],
  ["return 'x'.repeat(1e6)", [RunEnd.LIMIT]],
  ["for (;;) atob('')", [RunEnd.LIMIT, RunEnd.CPU]],
  ["throw { get message() { for (;;); }, toJSON() { throw 1 } }", [RunEnd.EXITED, RunEnd.CPU]],
  ["for (;;) await tools.t.echo({})", [RunEnd.LIMIT]],
  ["const f = () => f() + 1; return f()", [RunEnd.EXITED]],
];

it("every honest one is right, no process is left over, and the runner's memory stays flat", {
  timeout: 600_000,
}, async () => {
  const before = descendants(process.pid);
  const resident: number[] = [];
  {
    await using runner = await startIsolateRunner({ workers: 6 });
    let next = 0;
    const lane = async (): Promise<void> => {
      for (let i = next++; i < CALLS; i = next++) {
        await (i % 25 === 7 ? hostile(runner, i) : honest(runner, i));
        if (i % 50 === 0) resident.push(process.memoryUsage().rss / 1e6);
      }
    };
    await Promise.all(Array.from({ length: AT_ONCE }, lane));
  }
  console.log(`resident MB of the runner, every 50 calls: ${resident.map(Math.round).join(" ")}`);
  await expect.poll(() => descendants(process.pid).filter((pid) => !before.includes(pid))).toEqual([]);
  const settled = resident.slice(2).sort((a, b) => a - b);
  const [least = 0, most = 0] = [settled[0], settled.at(-1)];
  expect(most - least).toBeLessThan(150);
});

async function honest(runner: IsolateRunner, i: number): Promise<void> {
  const code = "const { n } = await tools.t.echo({ n: input.n }); console.log('n', n); return n * 2;";
  const tool = {
    sandbox: { code, calls: ["t.echo"] },
    limits: { wall_ms: 60_000, cpu_ms: 5_000, memory_bytes: 32 << 20 },
  };
  const request = await runner.sign(tool, { n: i }, { tenant: `tenant-${i % 4}` });
  const got = await runner.run(request, { answer: ({ argumentsJson }) => ({ json: argumentsJson }) });
  expect([got.end, got.error, got.resultJson, got.stdout]).toEqual([RunEnd.EXITED, "", `${i * 2}`, `n ${i}\n`]);
}

async function hostile(runner: IsolateRunner, i: number): Promise<void> {
  const [code = "", ends = []] = HOSTILE[Math.floor(i / 25) % HOSTILE.length] ?? [];
  const limits = { wall_ms: 60_000, cpu_ms: 100, memory_bytes: 32 << 20, output_bytes: 4096 };
  const request = await runner.sign(
    { sandbox: { code, calls: ["t.echo"] }, limits },
    {},
    { tenant: `tenant-${i % 4}` },
  );
  const got = await runner.run(request, { answer: () => ({ json: "{}" }) });
  expect(ends).toContain(got.end);
  expect(got.resultJson).toBe("");
}

/** Every process below this one. */
function descendants(pid: number): number[] {
  const children = readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((each) => parentOf(each) === pid);
  return children.flatMap((child) => [child, ...descendants(child)]);
}

function parentOf(pid: number): number {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    return Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[1]);
  } catch {
    return 0;
  }
}
