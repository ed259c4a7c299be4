import { type Command, type LedgerDecider, ledgerDecider, type Refusal } from "./decider.ts";
import { type Rule, ruleId } from "./rules.ts";
import { parseScope } from "./scope.ts";
import type { LedgerEvent, LedgerState } from "./state.ts";
import { type Window, windowFromText } from "./window.ts";

/** What tests of the ledger share. */

export type RuleOf = { scope?: string; unit?: string; limit: bigint; window?: string; alerts?: readonly number[] };

export function ruleOf(name: string, of: RuleOf): Rule {
  const scope = parseScope(of.scope ?? "tenant");
  if (typeof scope === "string") throw new Error(scope);
  const window: Window = windowFromText(of.window ?? "total");
  const parts = { name, scope, unit: of.unit ?? "usd_micros", window };
  return { id: ruleId(parts), ...parts, limit: of.limit, alerts: of.alerts ?? [50, 80, 100] };
}

export const SPENDER = { agent: "a1", user: "", session: "s1", tool: "x.y", groups: [] };
export const AUTHOR = { by: "olga", reason: "A test.", atMs: 0 };

export function reviseWith(rules: readonly Rule[], revision = "r1", nowMs = 0): Command {
  const of = { kind: "revise", revision, tenant: "shop", units: ["pages"], rules } as const;
  return { ...of, part: 1, parts: 1, author: AUTHOR, nowMs };
}

const { decide, evolve, initial }: LedgerDecider = ledgerDecider;

/** Runs commands that must all be accepted. */
export function ledgerOf(...commands: readonly Command[]): LedgerState {
  const state = initial();
  for (const command of commands) run(state, command);
  return state;
}

/** @throws Error when it is refused. */
export function run(state: LedgerState, command: Command): readonly LedgerEvent[] {
  const decided = decide(state, command);
  if (decided.kind === "refused") throw new Error(`refused: ${decided.refusal.kind}`);
  decided.events.reduce(evolve, state);
  return decided.events;
}

/** What the command would do, in a word or two: the kinds of its events, or its refusal. */
export function outcome(state: LedgerState, command: Command): string {
  const decided = decide(state, command);
  if (decided.kind === "accepted") return decided.events.map(({ kind }) => kind).join("+") || "nothing";
  const { refusal } = decided;
  return refusal.kind === "ended" ? `ended: ${refusal.how}` : refusal.kind;
}

export function refusalOf(state: LedgerState, command: Command): Refusal {
  const decided = decide(state, command);
  if (decided.kind === "refused") return decided.refusal;
  throw new Error("it was accepted");
}
