import { v7 as uuidv7 } from "uuid";
import { type Command, ledgerDecider } from "../services/ledger/decider.ts";
import { type LedgerExecutor, STREAM_PREFIX } from "../services/ledger/revisions.ts";
import { type Rule, ruleId } from "../services/ledger/rules.ts";
import { Executor } from "../services/shared/executor.ts";
import type { Journal } from "../services/shared/journal/journal.ts";

/** The ledger's own side of its benchmark: budgets, and pairs of a reserve and its commit. */

export function executorOn(journal: Journal): LedgerExecutor {
  return new Executor({ journal, decider: ledgerDecider, now: Date.now, maxBatch: 512, snapshotEvery: 250_000 });
}

/** The first covers every spender; the others are each of one agent that never asks. */
export function rulesOf(count: number): Rule[] {
  return Array.from({ length: count }, (_, i) => {
    const scope = i === 0 ? [] : [{ dimension: "agent" as const, name: `agent-${i}` }];
    const parts = { name: `b${i}`, scope, unit: "usd_micros", window: { kind: "total" } as const };
    return { id: ruleId(parts), ...parts, limit: 10n ** 17n, alerts: [50, 80, 100] };
  });
}

const PART = 400;
const AUTHOR = { by: "bench", reason: "To measure.", atMs: 0 };

export async function define(executor: LedgerExecutor, tenant: string, rules: readonly Rule[]): Promise<void> {
  const parts = Math.max(1, Math.ceil(rules.length / PART));
  for (let part = 1; part <= parts; part++) {
    const of = { kind: "revise", revision: `r${rules.length}`, tenant, units: [], author: AUTHOR } as const;
    const some = rules.slice((part - 1) * PART, part * PART);
    await accepted(executor, tenant, { ...of, rules: some, part, parts, nowMs: Date.now() });
  }
}

const SPENDER = { agent: "a1", user: "", session: "s1", tool: "report.summarise", groups: [] };
const HELD = [{ unit: "usd_micros", value: 100_000n }];
const USED = [{ unit: "usd_micros", value: 90_000n }];

/** One reserve and its commit, each durable before it is answered. */
export async function pair(executor: LedgerExecutor, tenant: string): Promise<void> {
  const id = uuidv7();
  const nowMs = Date.now();
  const of = { kind: "reserve", id, spender: SPENDER, ancestors: [], amounts: HELD } as const;
  await accepted(executor, tenant, { ...of, expiresAtMs: nowMs + 60_000, nowMs });
  await accepted(executor, tenant, { kind: "commit", id, amounts: USED, late: false, nowMs: Date.now() });
}

async function accepted(executor: LedgerExecutor, tenant: string, command: Command): Promise<void> {
  const decided = await executor.execute(STREAM_PREFIX + tenant, command);
  if (decided.kind === "refused") throw new Error(`the ledger refused: ${decided.refusal.kind}`);
}
