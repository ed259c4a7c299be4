import { copyFileSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { type Facts, NOTHING_SPENT } from "../services/pdp/facts.ts";
import { POLICIES } from "../services/pdp/fixture.ts";
import { loadPolicy, type Policy } from "../services/pdp/load.ts";
import { stockCasbin } from "../services/pdp/stock-fixture.ts";
import { measureOverGrpc, measureSwitch } from "./policy-served.ts";
import { boundRow, plainRow, type Row, ratioRow, type Suite } from "./rows.ts";

/**
 * A decision in process, beside stock node-casbin's `enforceSync` with the same model and the same rules, as their
 * number grows; what a revision costs to build and to hold, and what decisions wait meanwhile; Decide over gRPC beside a
 * bare echo; and from a push to the last replica's switch. The answers are compared: rules that do not answer alike end
 * the run.
 */

const RULES_PER_TENANT = 100;
/** Stock Casbin is asked so often that the whole takes a second or two. */
const STOCK_BUDGET_MS = 1_500;
const STOCK_UP_TO = 10_000;

export const runPolicySuite: Suite = async ({ full, say }) => {
  const rows: Row[] = [];
  const p50s = new Map<number, number>();
  for (const count of full ? [10, 100, 1_000, 10_000, 100_000] : [10, 1_000, 10_000, 100_000]) {
    const label = `${count.toLocaleString("en")} rules`;
    const lines = rulesOf(count);
    const requests = Array.from({ length: 512 }, (_, i) => factsOf(i, count));
    const heapBefore = heapBytes();
    const { policy, buildMs } = await build(lines, { remembered: 0 });
    const megabytes = (heapBytes() - heapBefore) / 1e6;
    const ours = timed(requests, (facts) => policy.decide(facts), full ? 200_000 : 50_000);
    p50s.set(count, ours);
    say(`${label}: built in ${Math.round(buildMs)} ms, decided in ${ours.toFixed(2)} us`);
    if (count === 10_000) rows.push(boundRow(label, "uncached p50 us", ours, 15));
    if (count <= STOCK_UP_TO) rows.push(await besideStock(label, lines, requests, policy, ours, count === 10_000));
    else rows.push(plainRow(label, "uncached p50 us", ours));
    const { policy: remembering } = await build(lines, {});
    rows.push(
      plainRow(
        label,
        "cached p50 us",
        timed(requests, (facts) => remembering.decide(facts), full ? 200_000 : 50_000),
      ),
    );
    rows.push(count === 100_000 ? boundRow(label, "build ms", buildMs, 3_000) : plainRow(label, "build ms", buildMs));
    rows.push(plainRow(label, "memory MB", megabytes));
    if (count === 100_000)
      rows.push(
        boundRow(`${label} built`, "longest wait of a decision ms", await longestWait(policy, requests, lines), 20),
      );
  }
  const few = p50s.get(1_000) ?? Number.NaN;
  rows.push(
    ratioRow("100,000 rules to 1,000", "uncached p50 us", p50s.get(100_000) ?? Number.NaN, few, {
      at: "most",
      ratio: 1.5,
    }),
  );
  rows.push(...(await measureOverGrpc({ full, say })), ...(await measureSwitch({ say })));
  return rows;
};

async function besideStock(
  label: string,
  lines: readonly string[],
  requests: readonly Facts[],
  policy: Policy,
  ours: number,
  isGoal: boolean,
): Promise<Row> {
  const stock = await stockCasbin(lines);
  for (const facts of requests.slice(0, 32)) {
    const [one, other] = [policy.decide(facts).outcome, stock(facts)];
    if (one !== other)
      throw new Error(`${label}: ours says ${one}, stock Casbin ${other}, to ${JSON.stringify(facts)}`);
  }
  const perAsk = timed(requests.slice(0, 8), stock, 8);
  const baseline = timed(requests, stock, Math.max(8, Math.floor((STOCK_BUDGET_MS * 1000) / perAsk)));
  return ratioRow(label, "uncached p50 us", ours, baseline, isGoal ? { at: "most", ratio: 1 / 1500 } : undefined);
}

/** Decisions go on, one a turn of the event loop, while another revision is built: the longest that one had to wait. */
async function longestWait(policy: Policy, requests: readonly Facts[], lines: readonly string[]): Promise<number> {
  let building = true;
  const built = build([...lines, "# another revision"], {}).finally(() => (building = false));
  let longest = 0;
  let wantedAt = performance.now();
  for (let i = 0; building; i++) {
    await new Promise<void>((resolve) => setImmediate(resolve));
    const facts = requests[i % requests.length];
    if (facts !== undefined) policy.decide(facts);
    longest = Math.max(longest, performance.now() - wantedAt);
    wantedAt = performance.now();
  }
  await built;
  return longest;
}

/** A hundred rules a tenant: twenty roles of five rules, a third of them with a condition over arguments. */
function rulesOf(count: number): string[] {
  const lines: string[] = [];
  for (let i = 0; i < count; i++) {
    const tenant = `t${Math.floor(i / RULES_PER_TENANT)}`;
    const n = i % RULES_PER_TENANT;
    const role = `role:r${n % 20}`;
    if (n < 20)
      lines.push(
        `g, agent:a${n}, ${role}, ${tenant}`,
        `g, agent:a${n}, role:r${(n + 1) % Math.min(20, count)}, ${tenant}`,
      );
    const tool = n % 7 === 0 ? `svc${n % 10}.*` : `svc${n % 10}.op${n % 5}`;
    const outcome = n % 11 === 0 ? "deny" : n % 5 === 0 ? "require_approval" : "allow";
    const when = n % 3 === 0 ? `r.args.amount <= ${(n + 1) * 10}` : "true";
    lines.push(`p, ${tenant}, ${role}, ${tool}, ${outcome}, ${when}, "Rule ${i}."`);
  }
  return lines;
}

function factsOf(i: number, count: number): Facts {
  const tenants = Math.max(1, Math.floor(count / RULES_PER_TENANT));
  return {
    tenant: `t${(i * 7919) % tenants}`,
    agent: `a${i % 20}`,
    session: "s",
    user: "",
    tool: { name: `svc${i % 10}.op${i % 5}`, version: "1.0.0", impact: "low", effects: [], groups: [] },
    args: { amount: (i * 37) % 1000 },
    labels: [],
    loop: "clear",
    chain: [],
    spent: NOTHING_SPENT,
    timeMs: 1_795_000_000_000,
  };
}

async function build(lines: readonly string[], options: Parameters<typeof loadPolicy>[1]) {
  const folder = mkdtempSync(join(tmpdir(), "interlock-bench-"));
  try {
    copyFileSync(join(POLICIES, "model.conf"), join(folder, "model.conf"));
    writeFileSync(join(folder, "policy.csv"), lines.join("\n"));
    const started = performance.now();
    const policy = await loadPolicy(folder, options);
    return { policy, buildMs: performance.now() - started };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** What is held after everything that can go has gone. */
function heapBytes(): number {
  setFlagsFromString("--expose-gc");
  (runInNewContext("gc") as () => void)();
  return process.memoryUsage().heapUsed;
}

/** Median microseconds of one answer, taken over batches: one alone is shorter than the clock can tell. */
function timed(requests: readonly Facts[], ask: (facts: Facts) => unknown, times: number): number {
  const batch = Math.max(1, Math.min(32, Math.floor(times / 16)));
  const samples: number[] = [];
  for (let i = 0; i < times; i += batch) {
    const started = performance.now();
    for (let j = i; j < i + batch; j++) {
      const facts = requests[j % requests.length];
      if (facts !== undefined) ask(facts);
    }
    samples.push(((performance.now() - started) * 1000) / batch);
  }
  const kept = samples.slice(Math.floor(samples.length / 4)).toSorted((a, b) => a - b); // the first quarter warms up
  return kept[Math.floor(kept.length / 2)] ?? Number.NaN;
}
