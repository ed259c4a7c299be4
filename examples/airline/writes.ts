import { join } from "node:path";
import { parseArgs } from "node:util";
import { loadCatalog } from "../../services/broker/catalog.ts";
import { printable, table } from "../../services/cli/print.ts";
import type { Outcome } from "../../services/pdp/decide.ts";
import { NOTHING_SPENT } from "../../services/pdp/facts.ts";
import { loadPolicy } from "../../services/pdp/load.ts";
import { canonicalJson, type JsonObject } from "../../services/shared/json.ts";
import { PREFIX } from "./catalog.ts";
import { type RecordedRun, readRuns } from "./runs.ts";

/**
 * What the airline's policy says of every recorded write: `node examples/airline/writes.ts [--json] [--runs FILE]`. In runs
 * that succeeded a write is what the user was to have, so a denial is a cost; in runs that failed, one that is not among
 * the right actions is a mistake, so a denial or a question to a person is a gain.
 */

export type Judged = {
  readonly task: number;
  readonly trial: number;
  readonly tool: string;
  readonly succeeded: boolean;
  /** It is one of the actions that the task asks for. */
  readonly gold: boolean;
  readonly outcome: Outcome;
  readonly reasons: readonly string[];
};

const POLICIES = join(import.meta.dirname, "../../policies/airline");
const RUNS = join(import.meta.dirname, "../../test/data/tau-airline/runs.jsonl");
const OUTCOMES = ["allow", "require_approval", "deny"] as const;

export async function judgeWrites(runs: readonly RecordedRun[]): Promise<readonly Judged[]> {
  const policy = await loadPolicy(POLICIES);
  const catalog = loadCatalog(join(POLICIES, "tools"));
  return runs.flatMap(({ task, trial, succeeded, calls, gold }) =>
    calls.flatMap((call) => {
      const tool = catalog.find(PREFIX + call.tool)?.manifest;
      if (tool === undefined) throw new Error(`the policies have no tool ${PREFIX}${call.tool}`);
      if (!tool.effects.includes("writes")) return [];
      const { outcome, reasons } = policy.decide({
        ...{ tenant: "airline", agent: "airline-agent", session: "", user: "", tool, args: call.args as JsonObject },
        ...{ labels: [], loop: "clear", chain: [], spent: NOTHING_SPENT, timeMs: 0 },
      });
      const isGold = gold.some(
        ({ name, args }) => name === call.tool && canonicalJson(args) === canonicalJson(call.args),
      );
      return [{ task, trial, tool: call.tool, succeeded, gold: isGold, outcome, reasons }];
    }),
  );
}

function counts(writes: readonly Judged[]): Readonly<Record<Outcome | "writes", number>> {
  const of = (outcome: Outcome) => writes.filter((write) => write.outcome === outcome).length;
  return { writes: writes.length, allow: of("allow"), require_approval: of("require_approval"), deny: of("deny") };
}

export function summaryOf(writes: readonly Judged[]) {
  return {
    succeeded: counts(writes.filter(({ succeeded }) => succeeded)),
    failedNotGold: counts(writes.filter(({ succeeded, gold }) => !succeeded && !gold)),
    failedGold: counts(writes.filter(({ succeeded, gold }) => !succeeded && gold)),
  };
}

function summaryText(writes: readonly Judged[]): string {
  const { succeeded, failedNotGold, failedGold } = summaryOf(writes);
  const row = (name: string, found: ReturnType<typeof counts>) => [
    name,
    `${found.writes}`,
    ...OUTCOMES.map(
      (outcome) => `${found[outcome]} (${Math.round((100 * found[outcome]) / Math.max(1, found.writes))} %)`,
    ),
  ];
  const byReason = [
    ...Map.groupBy(writes, ({ tool, outcome, reasons }) => `${outcome}  ${tool}: ${reasons.join(" ")}`),
  ];
  return [
    table([
      ["writes", "all", "allowed", "sent to a person", "denied"],
      row("in runs that succeeded", succeeded),
      row("in runs that failed, not among the right actions", failedNotGold),
      row("in runs that failed, among them", failedGold),
    ]),
    "",
    ...byReason
      .toSorted(([a], [b]) => (a < b ? -1 : 1))
      .map(([reason, members]) => printable(`${String(members.length).padStart(4)} x ${reason}`)),
  ].join("\n");
}

if (import.meta.main) {
  const { values } = parseArgs({
    options: { json: { type: "boolean", default: false }, runs: { type: "string", default: RUNS } },
  });
  const writes = await judgeWrites(readRuns(values.runs));
  console.log(values.json ? JSON.stringify({ summary: summaryOf(writes), writes }) : summaryText(writes));
}
