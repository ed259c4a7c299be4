import { type Account, addGrant, addSpend, newAccount } from "./account.ts";
import { type Amount, amountsKey, valueIn } from "./amounts.ts";
import { addLease, type Lease, leaseGrew, removeLease } from "./due.ts";
import { noneRecent, type Recent, recall, remember } from "./recent.ts";
import { noRules, type Rule, Rules } from "./rules.ts";
import type { Spender } from "./scope.ts";
import { notePace, type Signal } from "./signals.ts";
import { addLine, type Days } from "./statement.ts";

/** A tenant's ledger: its budgets, what is held and spent of them, and what operators have changed. */

export type Hold = Lease & {
  readonly id: string;
  readonly spender: Spender;
  /** Calls it is part of, nearest first. */
  readonly ancestors: readonly string[];
  /** As asked for, also in units that nothing caps. */
  readonly amounts: readonly Amount[];
  readonly accounts: readonly Account[];
};

/** A hold whose lease is over: a run that outlived it still commits. */
export type Late = Pick<Hold, "spender" | "amounts" | "accounts">;

export type Ended =
  | { readonly kind: "committed"; readonly amountsKey: string }
  | { readonly kind: "released" }
  | { readonly kind: "expired"; readonly late: Late };

/** Who changed something and why. */
export type Author = { readonly by: string; readonly reason: string; readonly atMs: number };

export type Revision = Author & { readonly revision: string; readonly budgets: number };

export type LedgerState = {
  rules: Rules;
  /** Parts of a revision that is not whole yet. */
  staged: { readonly revision: string; readonly rules: Rule[]; parts: number } | undefined;
  /** The latest last. */
  readonly revisions: Revision[];
  /** Limits that operators have set over the file's, by the id of a rule or the key of one account. */
  readonly raised: Map<string, Author & { readonly limit: bigint }>;
  /** By selector, as `agent:a1`. */
  readonly frozen: Map<string, Author>;
  readonly accounts: Map<string, Account>;
  readonly holds: Map<string, Hold>;
  /** The same holds by the end of their lease; see due.ts. */
  readonly leases: Hold[];
  readonly ended: Recent<Ended>;
  /** What operators' commands said, by their keys. */
  readonly orders: Recent<string>;
  readonly days: Days;
};

/** What an operator changes besides the file. */
export type Order =
  /** `target`: a rule's id or an account's key. */
  | { readonly kind: "raise"; readonly target: string; readonly limit: bigint }
  | { readonly kind: "grant"; readonly account: string; readonly value: bigint; readonly startMs: number }
  | { readonly kind: "freeze"; readonly selector: string }
  | { readonly kind: "thaw"; readonly selector: string };

export type LedgerEvent =
  | {
      readonly kind: "reserved";
      readonly id: string;
      readonly spender: Spender;
      readonly ancestors: readonly string[];
      readonly amounts: readonly Amount[];
      readonly accounts: readonly string[];
      readonly expiresAtMs: number;
      readonly atMs: number;
    }
  | {
      readonly kind: "committed";
      readonly id: string;
      readonly amounts: readonly Amount[];
      /** Starts of the calendar windows it counts in, by account; empty where no window has one. */
      readonly starts: readonly number[];
      readonly signals: readonly Signal[];
      /** After the lease: what its hold was, so that no memory of it is needed to rebuild this. */
      readonly late: LateEvent | undefined;
      readonly atMs: number;
    }
  | { readonly kind: "released"; readonly id: string; readonly atMs: number }
  | { readonly kind: "extended"; readonly id: string; readonly expiresAtMs: number; readonly atMs: number }
  | { readonly kind: "expired"; readonly ids: readonly string[]; readonly atMs: number }
  | {
      readonly kind: "revised";
      readonly revision: string;
      readonly tenant: string;
      readonly units: readonly string[];
      readonly rules: readonly Rule[];
      /** Counted from 1. The revision is active once its last part is here. */
      readonly part: number;
      readonly parts: number;
      readonly author: Author;
    }
  | { readonly kind: "ordered"; readonly key: string; readonly order: Order; readonly author: Author };

export type LateEvent = {
  readonly spender: Spender;
  readonly amounts: readonly Amount[];
  readonly accounts: readonly string[];
};

/** Revisions that are listed; the journal has them all. */
const KEEP_REVISIONS = 100;

export function emptyLedger(): LedgerState {
  return {
    ...{ rules: noRules(), staged: undefined, revisions: [], raised: new Map(), frozen: new Map() },
    ...{ accounts: new Map(), holds: new Map(), leases: [], ended: noneRecent() },
    ...{ orders: noneRecent(), days: new Map() },
  };
}

export type Standing = { readonly kind: "held"; readonly hold: Hold } | Ended | { readonly kind: "unknown" };

/** Where a reservation stands. A lease that is over is expired, whether or not that was recorded yet. */
export function standingOf(state: LedgerState, id: string, nowMs: number): Standing {
  const hold = state.holds.get(id);
  if (hold !== undefined) return hold.expiresAtMs > nowMs ? { kind: "held", hold } : { kind: "expired", late: hold };
  return recall(state.ended, id) ?? { kind: "unknown" };
}

/** What the account may spend in its window, grants aside; undefined when its budget is in the file no more. */
export function limitOf({ rules, raised }: LedgerState, key: string, ruleId: string): bigint | undefined {
  const rule = rules.byId.get(ruleId);
  if (rule === undefined || raised.size === 0) return rule?.limit;
  return (raised.get(key) ?? raised.get(ruleId) ?? rule).limit;
}

/** Changes `state` in place. */
export function evolve(state: LedgerState, event: LedgerEvent): LedgerState {
  switch (event.kind) {
    case "reserved":
      addHold(state, event, event.accounts);
      break;
    case "committed":
      commit(state, event);
      break;
    case "released":
      endHold(state, event.id);
      remember(state.ended, event.id, { kind: "released" });
      break;
    case "extended": {
      const hold = state.holds.get(event.id);
      if (hold === undefined) break;
      hold.expiresAtMs = event.expiresAtMs;
      leaseGrew(state.leases, hold);
      break;
    }
    case "expired":
      for (const id of event.ids) {
        const hold = endHold(state, id);
        if (hold !== undefined) remember(state.ended, id, { kind: "expired", late: lateOf(hold) });
      }
      break;
    case "revised":
      revise(state, event);
      break;
    case "ordered":
      remember(state.orders, event.key, orderText(event.order));
      carryOut(state, event.order, event.author);
      break;
  }
  return state;
}

function commit(state: LedgerState, event: LedgerEvent & { kind: "committed" }): void {
  const { id, amounts, starts, signals, late, atMs } = event;
  const hold = endHold(state, id);
  const accounts = late?.accounts.map((key) => accountOf(state, key)) ?? hold?.accounts ?? [];
  for (let i = 0; i < accounts.length; i++) {
    const account = accounts[i];
    if (account === undefined) continue;
    const value = valueIn(amounts, account.unit);
    addSpend(account, value, starts[i] ?? 0, atMs);
    notePace(account, value, signals, atMs);
  }
  const of = late ?? hold;
  if (of !== undefined) addLine(state.days, of.spender, { estimated: of.amounts, actual: amounts, atMs });
  remember(state.ended, id, { kind: "committed", amountsKey: amountsKey(amounts) });
}

function revise(state: LedgerState, event: LedgerEvent & { kind: "revised" }): void {
  const { revision, tenant, units, part, parts, author } = event;
  if (state.staged?.revision !== revision) state.staged = { revision, rules: [], parts: 0 };
  state.staged.rules.push(...event.rules);
  state.staged.parts = part;
  if (part < parts) return;
  const rules = new Rules({ revision, tenant, units, rules: state.staged.rules });
  for (const target of state.raised.keys()) {
    const id = target.split(" = ")[0] ?? "";
    // What an operator set holds until the file says something else of the same budget.
    if (rules.byId.get(id)?.limit !== state.rules.byId.get(id)?.limit) state.raised.delete(target);
  }
  state.rules = rules;
  state.staged = undefined;
  state.revisions.push({ revision, budgets: rules.byName.size, ...author });
  if (state.revisions.length > KEEP_REVISIONS) state.revisions.shift();
}

function carryOut(state: LedgerState, order: Order, author: Author): void {
  switch (order.kind) {
    case "raise":
      state.raised.set(order.target, { ...author, limit: order.limit });
      break;
    case "grant":
      addGrant(accountOf(state, order.account), order.value, order.startMs);
      break;
    case "freeze":
      state.frozen.set(order.selector, author);
      break;
    case "thaw":
      state.frozen.delete(order.selector);
      break;
  }
}

/** Equal for equal orders: a key that comes again must come with the same. */
export function orderText(order: Order): string {
  switch (order.kind) {
    case "raise":
      return `raise ${order.limit} ${order.target}`;
    case "grant":
      return `grant ${order.value} ${order.account}`;
    case "freeze":
    case "thaw":
      return `${order.kind} ${order.selector}`;
  }
}

export function addHold(
  state: LedgerState,
  of: Pick<Hold, "id" | "spender" | "ancestors" | "amounts" | "expiresAtMs">,
  keys: readonly string[],
): void {
  const { id, spender, ancestors, amounts, expiresAtMs } = of;
  const accounts = keys.map((key) => accountOf(state, key));
  for (const account of accounts) account.held += valueIn(amounts, account.unit);
  const hold: Hold = { id, spender, ancestors, amounts, accounts, expiresAtMs, heapIndex: 0 };
  state.holds.set(id, hold);
  addLease(state.leases, hold);
}

function endHold(state: LedgerState, id: string): Hold | undefined {
  const hold = state.holds.get(id);
  if (hold === undefined) return undefined;
  for (const account of hold.accounts) account.held -= valueIn(hold.amounts, account.unit);
  state.holds.delete(id);
  removeLease(state.leases, hold);
  return hold;
}

export function lateOf({ spender, amounts, accounts }: Hold): Late {
  return { spender, amounts, accounts };
}

export function accountOf(state: LedgerState, key: string): Account {
  const found = state.accounts.get(key);
  if (found !== undefined) return found;
  const account = newAccount(key);
  state.accounts.set(key, account);
  return account;
}
