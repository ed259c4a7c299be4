import type { Decided, Decider } from "../shared/decider.ts";
import { type Account, figuresAt, refillsAtMs, startAt } from "./account.ts";
import {
  type Amount,
  type AmountsRefusal,
  amountsKey,
  INT64_MAX,
  isNothing,
  refuseAmounts,
  valueIn,
} from "./amounts.ts";
import { eventFromJson, eventToJson, stateFromJson, stateToJson } from "./codec.ts";
import { dueLeases } from "./due.ts";
import { decideOrder, decideRevision, type OrderCommand, type OrderRefusal, type ReviseCommand } from "./orders.ts";
import type { InScope } from "./rules.ts";
import { type Spender, selectorsOf } from "./scope.ts";
import { type Signal, signalsOf } from "./signals.ts";
import {
  type Author,
  emptyLedger,
  evolve,
  type Hold,
  type Late,
  type LedgerEvent,
  type LedgerState,
  limitOf,
  standingOf,
} from "./state.ts";

/** The rules of a tenant's ledger. Time moves only by the commands, and each first ends the leases that are over. */

/** A call that this one is part of. Its own hold says what it counts against; without one, its names do. */
export type Ancestor = { readonly id: string; readonly spender: Spender };

export type ReserveCommand = {
  readonly kind: "reserve";
  readonly id: string;
  readonly spender: Spender;
  /** Nearest first. Every budget that covers one of them is held too, each once. */
  readonly ancestors: readonly Ancestor[];
  readonly amounts: readonly Amount[];
  readonly expiresAtMs: number;
  readonly nowMs: number;
};

export type CommitCommand = {
  readonly kind: "commit";
  readonly id: string;
  readonly amounts: readonly Amount[];
  /** The run outlived its lease: its spend is recorded all the same. */
  readonly late: boolean;
  readonly nowMs: number;
};

export type Command =
  | ReserveCommand
  | CommitCommand
  | { readonly kind: "release"; readonly id: string; readonly nowMs: number }
  | { readonly kind: "extend"; readonly id: string; readonly expiresAtMs: number; readonly nowMs: number }
  | { readonly kind: "expire"; readonly nowMs: number }
  | ReviseCommand
  | OrderCommand;

export type Exhausted = {
  readonly kind: "exhausted";
  readonly key: string;
  readonly limit: bigint;
  readonly granted: bigint;
  readonly available: bigint;
  readonly asked: bigint;
  /** When it may be had if nothing more is spent; undefined: not by waiting. */
  readonly refillsAtMs: number | undefined;
};

export type Refusal =
  | AmountsRefusal
  | Exhausted
  | { readonly kind: "frozen"; readonly selector: string; readonly author: Author }
  | { readonly kind: "nothing_asked" }
  | { readonly kind: "mismatch"; readonly id: string }
  | { readonly kind: "commit_mismatch"; readonly id: string }
  | { readonly kind: "ended"; readonly id: string; readonly how: "committed" | "released" | "expired" }
  | { readonly kind: "unknown"; readonly id: string }
  | { readonly kind: "lease_over"; readonly expiresAtMs: number }
  | OrderRefusal;

export type LedgerDecider = Decider<LedgerState, Command, LedgerEvent, Refusal>;
export type Decision = Decided<LedgerEvent, Refusal>;

/** Ended by one command at most, so that no event outgrows a journal's record; the next command takes the rest. */
export const MAX_EXPIRED = 1000;

export const ledgerDecider: LedgerDecider = {
  initial: emptyLedger,
  decide,
  evolve,
  packed: true,
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
    case "revise":
      return decideRevision(state, command);
    case "order":
      return decideOrder(state, command);
  }
}

function reserve(state: LedgerState, command: ReserveCommand, due: readonly Hold[]): Decision {
  const { id, spender, amounts, expiresAtMs, nowMs } = command;
  const wrong = refuseAmounts(amounts, state.rules.units);
  if (wrong !== undefined) return refuse(wrong);
  if (isNothing(amounts)) return refuse({ kind: "nothing_asked" });
  const standing = standingOf(state, id, nowMs);
  switch (standing.kind) {
    case "held":
      return isSame(standing.hold, command) ? accept() : refuse({ kind: "mismatch", id });
    case "expired":
    case "committed":
    case "released":
      return refuse({ kind: "ended", id, how: standing.kind });
    case "unknown":
      break;
  }
  if (expiresAtMs <= nowMs) return refuse({ kind: "lease_over", expiresAtMs });
  const stopped = frozenBy(state, command);
  if (stopped !== undefined) return refuse(stopped);
  const freed = due.length === 0 ? undefined : heldBy(due);
  const keys: string[] = [];
  for (const { key, rule } of inScopeOf(state, command)) {
    const account = state.accounts.get(key);
    const asked = valueIn(amounts, rule.unit);
    const room = roomOf(state, { key, rule }, account, (account && freed?.get(account)) ?? 0n, nowMs);
    // An overrun budget refuses zero too: it is in debt.
    if (room.available < asked) {
      const { limit, granted, available } = room;
      const refills = refillsAtMs(account, { window: rule.window, limit, asked }, nowMs);
      return refuse({ kind: "exhausted", key, limit, granted, available, asked, refillsAtMs: refills });
    }
    if (room.used + asked > INT64_MAX) return refuse({ kind: "overflow", unit: rule.unit });
    keys.push(key);
  }
  const ancestors = command.ancestors.map((ancestor) => ancestor.id);
  return accept({ kind: "reserved", id, spender, ancestors, amounts, accounts: keys, expiresAtMs, atMs: nowMs });
}

/** Every budget of the call and of those it is part of, each once. */
function inScopeOf(state: LedgerState, command: ReserveCommand): readonly Pick<InScope, "key" | "rule">[] {
  const { rules } = state;
  const { spender, ancestors, nowMs } = command;
  if (ancestors.length === 0) return rules.inScope([spender]);
  const named = [spender];
  const held: Account[] = [];
  for (const ancestor of ancestors) {
    const standing = standingOf(state, ancestor.id, nowMs);
    if (standing.kind === "held") held.push(...standing.hold.accounts);
    else if (standing.kind === "expired") held.push(...standing.late.accounts);
    else named.push(ancestor.spender);
  }
  const found = new Map<string, Pick<InScope, "key" | "rule">>();
  for (const one of rules.inScope(named)) found.set(one.key, one);
  for (const { key, ruleId } of held) {
    const rule = rules.byId.get(ruleId);
    if (rule !== undefined) found.set(key, { key, rule });
  }
  return [...found.values()];
}

type Room = { readonly limit: bigint; readonly granted: bigint; readonly available: bigint; readonly used: bigint };

function roomOf(
  state: LedgerState,
  { key, rule }: Pick<InScope, "key" | "rule">,
  account: Account | undefined,
  freed: bigint,
  nowMs: number,
): Room {
  const { held, spent, granted } = figuresAt(account, nowMs);
  const limit = limitOf(state, key, rule.id) ?? rule.limit;
  const used = held - freed + spent;
  return { limit, granted, available: limit + granted - used, used };
}

function frozenBy({ frozen, rules }: LedgerState, command: ReserveCommand): Refusal | undefined {
  if (frozen.size === 0) return undefined;
  const spenders = [command.spender, ...command.ancestors.map(({ spender }) => spender)];
  const selectors = spenders.flatMap((spender) => [...selectorsOf(spender)]);
  for (const { rule } of rules.inScope(spenders)) selectors.push(`budget:${rule.name}`);
  for (const selector of selectors) {
    const author = frozen.get(selector);
    if (author !== undefined) return { kind: "frozen", selector, author };
  }
  return undefined;
}

function isSame({ spender, ancestors, amounts }: Hold, command: ReserveCommand): boolean {
  return (
    amountsKey(amounts) === amountsKey(command.amounts) &&
    spenderText(spender) === spenderText(command.spender) &&
    ancestors.join(" ") === command.ancestors.map(({ id }) => id).join(" ")
  );
}

/** No name has a space. */
function spenderText({ agent, user, session, tool, groups }: Spender): string {
  return `${agent} ${user} ${session} ${tool} ${groups.join(" ")}`;
}

function heldBy(holds: readonly Hold[]): Map<Account, bigint> {
  const held = new Map<Account, bigint>();
  for (const { accounts, amounts } of holds) {
    for (const account of accounts) held.set(account, (held.get(account) ?? 0n) + valueIn(amounts, account.unit));
  }
  return held;
}

/** What was used is recorded, however much it was. After the lease its sender has to say that it knows. */
function commit(state: LedgerState, { id, amounts, late, nowMs }: CommitCommand): Decision {
  const wrong = refuseAmounts(amounts, state.rules.units);
  if (wrong !== undefined) return refuse(wrong);
  const standing = standingOf(state, id, nowMs);
  switch (standing.kind) {
    case "held":
      return spend(state, standing.hold, { id, amounts, late: undefined, nowMs });
    case "expired":
      if (!late) return refuse({ kind: "ended", id, how: "expired" });
      return spend(state, standing.late, { id, amounts, late: standing.late, nowMs });
    case "committed":
      return standing.amountsKey === amountsKey(amounts) ? accept() : refuse({ kind: "commit_mismatch", id });
    case "released":
      return refuse({ kind: "ended", id, how: standing.kind });
    case "unknown":
      return refuse({ kind: "unknown", id });
  }
}

type Spend = {
  readonly id: string;
  readonly amounts: readonly Amount[];
  readonly late: Late | undefined;
  nowMs: number;
};

function spend(state: LedgerState, { accounts, amounts: own }: Late, { id, amounts, late, nowMs }: Spend): Decision {
  const held = state.holds.has(id) ? own : [];
  const signals: Signal[] = [];
  let starts: number[] | undefined;
  for (let i = 0; i < accounts.length; i++) {
    const account = accounts[i];
    if (account === undefined) continue;
    const value = valueIn(amounts, account.unit);
    const { spent } = figuresAt(account, nowMs);
    const others = account.held - valueIn(held, account.unit);
    if (others + spent + value > INT64_MAX) {
      return refuse({ kind: "overflow", unit: account.unit });
    }
    if (account.window.kind === "calendar") {
      starts ??= accounts.map(() => 0);
      starts[i] = startAt(account.window, nowMs);
    }
    const rule = state.rules.byId.get(account.ruleId);
    if (value === 0n || rule === undefined) continue;
    const limit = limitOf(state, account.key, account.ruleId) ?? rule.limit;
    for (const signal of signalsOf(account, rule, { limit, held: others, value, nowMs })) signals.push(signal);
  }
  const of = late && { spender: late.spender, amounts: late.amounts, accounts: late.accounts.map(({ key }) => key) };
  return accept({ kind: "committed", id, amounts, starts: starts ?? NONE, signals, late: of, atMs: nowMs });
}

const NONE: readonly number[] = [];

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
