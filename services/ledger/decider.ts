import type { Decided, Decider } from "../shared/decider.ts";
import { type Amount, type AmountsRefusal, amountsKey, INT64_MAX, refuseAmounts, valueIn } from "./amounts.ts";
import { eventFromJson, eventToJson, stateFromJson, stateToJson } from "./codec.ts";
import { dueLeases } from "./due.ts";
import {
  type Counter,
  type CounterId,
  counterKey,
  emptyLedger,
  evolve,
  type Hold,
  idOf,
  type LedgerEvent,
  type LedgerState,
  standingOf,
} from "./state.ts";

/** The rules of a tenant's ledger. Time moves only by the commands, and each first ends the leases that are over. */

/** A budget that covers what is asked, with its limit as the file has it now. */
export type BudgetInScope = CounterId & { readonly limit: bigint };

export type Command =
  | {
      readonly kind: "reserve";
      readonly id: string;
      /** Every one of them is held, or none. */
      readonly budgets: readonly BudgetInScope[];
      readonly amounts: readonly Amount[];
      readonly expiresAtMs: number;
      readonly nowMs: number;
    }
  | { readonly kind: "commit"; readonly id: string; readonly amounts: readonly Amount[]; readonly nowMs: number }
  | { readonly kind: "release"; readonly id: string; readonly nowMs: number }
  | { readonly kind: "extend"; readonly id: string; readonly expiresAtMs: number; readonly nowMs: number }
  | { readonly kind: "expire"; readonly nowMs: number };

export type Refusal =
  | AmountsRefusal
  | {
      readonly kind: "exhausted";
      readonly budget: BudgetInScope;
      readonly available: bigint;
      readonly asked: bigint;
    }
  | { readonly kind: "mismatch"; readonly id: string }
  | { readonly kind: "ended"; readonly id: string; readonly how: "committed" | "released" | "expired" }
  | { readonly kind: "unknown"; readonly id: string }
  | { readonly kind: "lease_over"; readonly expiresAtMs: number };

export type LedgerDecider = Decider<LedgerState, Command, LedgerEvent, Refusal>;
type Decision = Decided<LedgerEvent, Refusal>;

/** Ended by one command at most, so that no event outgrows a journal's record; the next command takes the rest. */
export const MAX_EXPIRED = 1000;

export const ledgerDecider: LedgerDecider = {
  initial: emptyLedger,
  decide,
  evolve,
  eventToJson,
  eventFromJson,
  stateToJson,
  stateFromJson,
};

function decide(state: LedgerState, command: Command): Decision {
  const due = dueLeases(state.leases, command.nowMs, MAX_EXPIRED);
  const decision = decideAlone(state, command, due);
  if (decision.kind === "refused" || due.length === 0) return decision;
  const expired: LedgerEvent = { kind: "expired", ids: due.map(({ id }) => id), atMs: command.nowMs };
  return { kind: "accepted", events: [expired, ...decision.events] };
}

function decideAlone(state: LedgerState, command: Command, due: readonly Hold[]): Decision {
  switch (command.kind) {
    case "reserve":
      return reserve(state, command, due);
    case "commit":
      return commit(state, command);
    case "release":
      return release(state, command);
    case "extend":
      return extend(state, command);
    case "expire":
      return accept();
  }
}

function reserve(state: LedgerState, command: Command & { kind: "reserve" }, due: readonly Hold[]): Decision {
  const { id, budgets, amounts, expiresAtMs, nowMs } = command;
  const wrong = refuseAmounts(amounts);
  if (wrong !== undefined) return refuse(wrong);
  const standing = standingOf(state, id, nowMs);
  switch (standing.kind) {
    case "held":
      return amountsKey(standing.hold.amounts) === amountsKey(amounts) ? accept() : refuse({ kind: "mismatch", id });
    case "expired":
    case "committed":
    case "released":
      return refuse({ kind: "ended", id, how: standing.kind });
    case "unknown":
      break;
  }
  if (expiresAtMs <= nowMs) return refuse({ kind: "lease_over", expiresAtMs });
  const freed = heldBy(due);
  for (const budget of budgets) {
    const counter = state.counters.get(counterKey(budget));
    const used = counter === undefined ? 0n : counter.held - (freed.get(counter) ?? 0n) + counter.spent;
    const available = budget.limit - used;
    const asked = valueIn(amounts, budget.unit);
    // An overrun budget refuses zero too: it is in debt.
    if (available < asked) return refuse({ kind: "exhausted", budget, available, asked });
  }
  return accept({ kind: "reserved", id, amounts, counters: budgets.map(idOf), expiresAtMs, atMs: nowMs });
}

function heldBy(holds: readonly Hold[]): Map<Counter, bigint> {
  const held = new Map<Counter, bigint>();
  for (const { counters, amounts } of holds) {
    for (const counter of counters) held.set(counter, (held.get(counter) ?? 0n) + valueIn(amounts, counter.unit));
  }
  return held;
}

/** What was used is recorded, however much it was and however late it comes. */
function commit(state: LedgerState, { id, amounts, nowMs }: Command & { kind: "commit" }): Decision {
  const wrong = refuseAmounts(amounts);
  if (wrong !== undefined) return refuse(wrong);
  const standing = standingOf(state, id, nowMs);
  switch (standing.kind) {
    case "held":
    case "expired": {
      const counters = standing.kind === "held" ? standing.hold.counters : standing.counters;
      const lateFor = standing.kind === "held" ? undefined : counters.map(idOf);
      const own = state.holds.get(id)?.amounts ?? [];
      const over = counters.find(({ unit, held, spent }) => {
        return held - valueIn(own, unit) + spent + valueIn(amounts, unit) > INT64_MAX;
      });
      if (over !== undefined) return refuse({ kind: "overflow", unit: over.unit });
      return accept({ kind: "committed", id, amounts, lateFor, atMs: nowMs });
    }
    case "committed":
      if (standing.amountsKey === amountsKey(amounts)) return accept();
      return refuse({ kind: "ended", id, how: standing.kind });
    case "released":
      return refuse({ kind: "ended", id, how: standing.kind });
    case "unknown":
      return refuse({ kind: "unknown", id });
  }
}

/** Accepted wherever nothing is held, also for what was never reserved: a caller that is unsure may always release. */
function release(state: LedgerState, { id, nowMs }: Command & { kind: "release" }): Decision {
  const standing = standingOf(state, id, nowMs);
  switch (standing.kind) {
    case "held":
      return accept({ kind: "released", id, atMs: nowMs });
    case "expired":
    case "released":
    case "unknown":
      return accept();
    case "committed":
      return refuse({ kind: "ended", id, how: standing.kind });
  }
}

/** A lease never gets shorter: an end that is not later is met already. */
function extend(state: LedgerState, { id, expiresAtMs, nowMs }: Command & { kind: "extend" }): Decision {
  const standing = standingOf(state, id, nowMs);
  switch (standing.kind) {
    case "held":
      if (expiresAtMs <= standing.hold.expiresAtMs) return accept();
      return accept({ kind: "extended", id, expiresAtMs, atMs: nowMs });
    case "expired":
    case "committed":
    case "released":
      return refuse({ kind: "ended", id, how: standing.kind });
    case "unknown":
      return refuse({ kind: "unknown", id });
  }
}

function accept(...events: readonly LedgerEvent[]): Decision {
  return { kind: "accepted", events };
}

function refuse(refusal: Refusal): Decision {
  return { kind: "refused", refusal };
}
