import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Enforcer, newEnforcer, newModelFromString, StringAdapter } from "casbin";
import { toolFunctions } from "../services/pdp/casbin.ts";
import { OUTCOMES, type Outcome } from "../services/pdp/decide.ts";
import { type Facts, NOTHING_SPENT, toRequest } from "../services/pdp/facts.ts";
import { FUNCTIONS } from "../services/pdp/functions.ts";
import { loadPolicy } from "../services/pdp/load.ts";
import { plainRow, type Row, ratioRow, type Suite } from "./rows.ts";

/**
 * A decision in process, beside stock node-casbin's `enforceSync` with the same model and the same rules, as their
 * number grows. The answers are compared; rules that do not answer alike end the run.
 */

const MODEL = join(import.meta.dirname, "../policies/model.conf");
const RULES_PER_TENANT = 100;
/** Stock Casbin is asked so often that the whole takes a second or two. */
const STOCK_BUDGET_MS = 1_500;
const STOCK_UP_TO = 10_000;

export const runPolicySuite: Suite = async ({ full, say }) => {
  const rows: Row[] = [];
  const p50s = new Map<number, number>();
  for (const count of full ? [10, 100, 1_000, 10_000, 100_000] : [10, 1_000, 10_000, 100_000]) {
    const lines = rulesOf(count);
    const { policy, buildMs } = await build(lines);
    const requests = Array.from({ length: 512 }, (_, i) => factsOf(i, count));
    const ours = timed(requests, (facts) => policy.decide(facts), full ? 200_000 : 50_000);
    p50s.set(count, ours);
    const label = `${count.toLocaleString("en")} rules`;
    say(`${label}: built in ${Math.round(buildMs)} ms, decided in ${ours.toFixed(2)} us`);
    if (count <= STOCK_UP_TO) {
      const stock = await stockCasbin(lines);
      for (const facts of requests.slice(0, 32)) {
        const [one, other] = [policy.decide(facts).outcome, stock(facts)];
        if (one !== other)
          throw new Error(`${label}: ours says ${one}, stock Casbin ${other}, to ${JSON.stringify(facts)}`);
      }
      const perAsk = timed(requests.slice(0, 8), stock, 8);
      const baseline = timed(requests, stock, Math.max(8, Math.floor((STOCK_BUDGET_MS * 1000) / perAsk)));
      const goal = count === 10_000 ? { at: "most" as const, ratio: 1 / 1500 } : undefined;
      rows.push(ratioRow(label, "p50 us", ours, baseline, goal));
    } else rows.push(plainRow(label, "p50 us", ours));
    rows.push(plainRow(label, "build ms", buildMs));
  }
  const few = p50s.get(1_000) ?? Number.NaN;
  rows.push(
    ratioRow("100,000 rules to 1,000", "p50 us", p50s.get(100_000) ?? Number.NaN, few, { at: "most", ratio: 1.5 }),
  );
  return rows;
};

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

async function build(lines: readonly string[]) {
  const folder = mkdtempSync(join(tmpdir(), "interlock-bench-"));
  try {
    copyFileSync(MODEL, join(folder, "model.conf"));
    writeFileSync(join(folder, "policy.csv"), lines.join("\n"));
    const started = performance.now();
    const policy = await loadPolicy(folder);
    return { policy, buildMs: performance.now() - started };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
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

/** One enforcer for each outcome, asked from the strictest: what the model means in Casbin alone. */
async function stockCasbin(lines: readonly string[]): Promise<(facts: Facts) => Outcome> {
  const enforcers = new Map<Outcome, Enforcer>();
  for (const outcome of OUTCOMES) {
    const kept = lines.filter((line) => !line.startsWith("p,") || line.includes(`, ${outcome}, `));
    const enforcer = await newEnforcer(
      newModelFromString(readFileSync(MODEL, "utf8")),
      new StringAdapter(kept.join("\n")),
    );
    for (const [name, call] of Object.entries(toolFunctions())) await enforcer.addFunction(name, call);
    for (const [name, { call }] of Object.entries(FUNCTIONS)) await enforcer.addFunction(name, call);
    enforcers.set(outcome, enforcer);
  }
  return (facts) => {
    const request = Object.values(toRequest(facts));
    return OUTCOMES.toReversed().find((outcome) => enforcers.get(outcome)?.enforceSync(...request)) ?? "deny";
  };
}
