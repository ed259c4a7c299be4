import fc from "fast-check";
import { type Amount, amountsKey, valueIn } from "./amounts.ts";
import type { Ancestor, Command } from "./decider.ts";
import { type Rule, ruleId } from "./rules.ts";
import { parseScope, type Spender } from "./scope.ts";
import { type Window, windowText } from "./window.ts";

/**
 * A ledger as plainly as it can be said: every reservation and every spend is kept for ever and added up anew for each
 * question. It shares nothing with the real one but the shapes of commands, and does its own arithmetic on windows.
 */

const HOUR = 3_600_000;
const DAY = 24 * HOUR;

type Covers = (of: Spender) => readonly string[];
export type PlainRule = { readonly rule: Rule; readonly covers: Covers; readonly start: (atMs: number) => number };

function rule(
  name: string,
  of: { scope: string; unit: string; limit: bigint; window?: Window },
  covers: Covers,
  start: (atMs: number) => number = () => 0,
): PlainRule {
  const scope = parseScope(of.scope);
  if (typeof scope === "string") throw new Error(scope);
  const parts = { name, scope, unit: of.unit, window: of.window ?? ({ kind: "total" } as const) };
  return { rule: { id: ruleId(parts), ...parts, limit: of.limit, alerts: [50, 80, 100] }, covers, start };
}

const calendar = (period: "hour" | "day" | "month", zone: string): Window => ({ kind: "calendar", period, zone });

export const RATE = { refill: 4n, everyMs: 10_000 };
export const RULES: readonly PlainRule[] = [
  rule("all-usd", { scope: "tenant", unit: "usd_micros", limit: 40n }, () => ["shop"]),
  rule(
    "agent-day",
    { scope: "agent", unit: "usd_micros", limit: 12n, window: calendar("day", "Etc/GMT-3") },
    ({ agent }) => [agent],
    (at) => Math.floor((at + 3 * HOUR) / DAY) * DAY - 3 * HOUR,
  ),
  rule(
    "session-hour",
    { scope: "session", unit: "calls", limit: 6n, window: calendar("hour", "UTC") },
    ({ session }) => [session],
    (at) => Math.floor(at / HOUR) * HOUR,
  ),
  rule("pay", { scope: "agent & tool:pay.out", unit: "usd_micros", limit: 9n }, ({ agent, tool }) =>
    tool === "pay.out" ? [`${agent} & pay.out`] : [],
  ),
  rule("rate", { scope: "agent", unit: "calls", limit: 5n, window: { kind: "rolling", ...RATE } }, ({ agent }) => [
    agent,
  ]),
  rule("pages", { scope: "user", unit: "pages", limit: 15n }, ({ user }) => (user === "" ? [] : [user])),
  rule(
    "group-month",
    { scope: "group", unit: "usd_micros", limit: 30n, window: calendar("month", "UTC") },
    ({ groups }) => groups,
    (at) => Date.UTC(new Date(at).getUTCFullYear(), new Date(at).getUTCMonth()),
  ),
];
export const OWN_UNITS = ["pages"];

type Reservation = {
  status: "held" | "expired" | "committed" | "released";
  readonly spender: Spender;
  readonly ancestors: readonly string[];
  readonly keys: readonly string[];
  readonly amounts: readonly Amount[];
  used: readonly Amount[];
  expiresAtMs: number;
};

type Entry = { readonly startMs: number; readonly atMs: number; readonly value: bigint; readonly isGrant: boolean };

export class PlainLedger {
  readonly reservations = new Map<string, Reservation>();
  readonly #entries = new Map<string, Entry[]>();
  readonly #limits = new Map<string, bigint>();
  readonly #frozen = new Set<string>();
  readonly #orders = new Map<string, string>();

  /** Whether the command has to be accepted, and if so what it does here. A refusal changes nothing. */
  apply(command: Command): boolean {
    const due = [...this.reservations.values()].filter((r) => r.status === "held" && r.expiresAtMs <= command.nowMs);
    for (const reservation of due) reservation.status = "expired";
    const accepted = this.#applyAlone(command);
    if (!accepted) for (const reservation of due) reservation.status = "held";
    return accepted;
  }

  figures(key: string, nowMs: number): { held: bigint; spent: bigint; granted: bigint; limit: bigint } {
    const { rule: of } = ruleOf(key);
    let held = 0n;
    for (const { status, keys, amounts } of this.reservations.values()) {
      if (status === "held" && keys.includes(key)) held += valueIn(amounts, of.unit);
    }
    return { held, ...this.#used(key, nowMs), limit: this.#limits.get(key) ?? this.#limits.get(of.id) ?? of.limit };
  }

  keys(): string[] {
    return [...new Set([...this.reservations.values()].flatMap(({ keys }) => keys))];
  }

  #used(key: string, nowMs: number): { spent: bigint; granted: bigint } {
    const { rule: of, start } = ruleOf(key);
    const entries = this.#entries.get(key) ?? [];
    const sum = (isGrant: boolean, startMs: number) =>
      entries.reduce((total, e) => (e.isGrant === isGrant && e.startMs === startMs ? total + e.value : total), 0n);
    if (of.window.kind !== "rolling") {
      const startMs = Math.max(start(nowMs), ...entries.map((e) => e.startMs));
      return { spent: sum(false, startMs), granted: sum(true, startMs) };
    }
    // A bucket, in thousandths of what comes back in one millisecond: exact, as 4 in 10,000 ms is 0.4 thousandths.
    let owed = 0n;
    let granted = 0n;
    let sinceMs = 0;
    const flow = (atMs: number) => {
      if (atMs <= sinceMs) return;
      owed -= RATE.refill * BigInt(atMs - sinceMs);
      if (owed < 0n) owed = 0n;
      sinceMs = atMs;
    };
    for (const { isGrant, value, atMs } of entries) {
      if (isGrant) {
        granted += value;
        continue;
      }
      flow(atMs);
      const fromGrant = value < granted ? value : granted;
      granted -= fromGrant;
      owed += (value - fromGrant) * BigInt(RATE.everyMs);
    }
    flow(nowMs);
    const spent = owed / BigInt(RATE.everyMs) + (owed % BigInt(RATE.everyMs) > 0n ? 1n : 0n);
    return { spent, granted };
  }

  #applyAlone(command: Command): boolean {
    switch (command.kind) {
      case "expire":
      case "revise":
        return true;
      case "reserve":
        return this.#reserve(command);
      case "commit": {
        const known = this.reservations.get(command.id);
        if (known === undefined || known.status === "released") return false;
        if (known.status === "committed") return amountsKey(known.used) === amountsKey(command.amounts);
        if (known.status === "expired" && !command.late) return false;
        known.status = "committed";
        known.used = command.amounts;
        for (const key of known.keys) {
          this.#enter(key, valueIn(command.amounts, ruleOf(key).rule.unit), command.nowMs, false);
        }
        return true;
      }
      case "release": {
        const known = this.reservations.get(command.id);
        if (known?.status === "held") known.status = "released";
        return known?.status !== "committed";
      }
      case "extend": {
        const known = this.reservations.get(command.id);
        if (known?.status !== "held") return false;
        known.expiresAtMs = Math.max(known.expiresAtMs, command.expiresAtMs);
        return true;
      }
      case "order":
        return this.#order(command);
    }
  }

  #reserve(command: Extract<Command, { kind: "reserve" }>): boolean {
    const { id, spender, ancestors, amounts, expiresAtMs, nowMs } = command;
    if (amounts.every(({ value }) => value === 0n)) return false;
    const known = this.reservations.get(id);
    if (known) {
      const same =
        amountsKey(known.amounts) === amountsKey(amounts) &&
        JSON.stringify(known.spender) === JSON.stringify(spender) &&
        known.ancestors.join() === ancestors.map((a) => a.id).join();
      return known.status === "held" && same;
    }
    if (expiresAtMs <= nowMs || [spender, ...ancestors.map((a) => a.spender)].some((s) => this.#isFrozen(s)))
      return false;
    const keys = new Set(keysOf(spender));
    for (const ancestor of ancestors) {
      const own = this.reservations.get(ancestor.id);
      const knows = own?.status === "held" || own?.status === "expired";
      const itsKeys = knows ? own.keys : keysOf(ancestor.spender);
      for (const key of itsKeys) keys.add(key);
    }
    for (const key of keys) {
      const { held, spent, granted, limit } = this.figures(key, nowMs);
      if (limit + granted - held - spent < valueIn(amounts, ruleOf(key).rule.unit)) return false;
    }
    const of = { spender, ancestors: ancestors.map((a) => a.id), keys: [...keys], amounts, expiresAtMs };
    this.reservations.set(id, { status: "held", used: [], ...of });
    return true;
  }

  #order({ key, request, nowMs }: Extract<Command, { kind: "order" }>): boolean {
    const said = JSON.stringify(request, (_, value) => (typeof value === "bigint" ? String(value) : value));
    const before = this.#orders.get(key);
    if (before !== undefined) return before === said;
    switch (request.kind) {
      case "raise":
      case "grant": {
        const of = RULES.find(({ rule: { name } }) => name === request.budget);
        if (of === undefined) return false;
        const account = `${of.rule.id} = ${request.subject}`;
        if (request.kind === "raise")
          this.#limits.set(request.subject === undefined ? of.rule.id : account, request.limit);
        else this.#enter(account, request.value, nowMs, true);
        break;
      }
      case "freeze":
        if (this.#frozen.has(request.selector)) return true;
        this.#frozen.add(request.selector);
        break;
      case "thaw":
        if (!this.#frozen.delete(request.selector)) return false;
        break;
    }
    this.#orders.set(key, said);
    return true;
  }

  #isFrozen({ agent, user, session, tool }: Spender): boolean {
    const names = [`agent:${agent}`, `user:${user}`, `session:${session}`, `tool:${tool}`];
    return names.some((name) => this.#frozen.has(name));
  }

  #enter(key: string, value: bigint, atMs: number, isGrant: boolean): void {
    const entries = this.#entries.get(key) ?? [];
    const startMs = Math.max(ruleOf(key).start(atMs), ...entries.map((e) => e.startMs));
    entries.push({ startMs, atMs, value, isGrant });
    this.#entries.set(key, entries);
  }
}

export function keysOf(spender: Spender): string[] {
  return RULES.flatMap(({ rule: { id }, covers }) => covers(spender).map((subject) => `${id} = ${subject}`));
}

export function ruleOf(key: string): PlainRule {
  const found = RULES.find(({ rule: { id } }) => key.startsWith(`${id} = `));
  if (found === undefined) throw new Error(`no rule of ${key}; ${windowText({ kind: "total" })}`);
  return found;
}

const TOOLS = [
  { tool: "pay.out", groups: ["money"] },
  { tool: "read.it", groups: ["money", "look"] },
  { tool: "idle.wait", groups: [] },
];
export const spender: fc.Arbitrary<Spender> = fc
  .record({
    agent: fc.constantFrom("a1", "a2"),
    user: fc.constantFrom("", "u1"),
    session: fc.constantFrom("s1", "s2"),
    of: fc.constantFrom(...TOOLS),
  })
  .map(({ of, ...rest }) => ({ ...rest, ...of }));

export const amounts: fc.Arbitrary<Amount[]> = fc
  .record(
    {
      usd_micros: fc.bigInt(0n, 4n),
      calls: fc.bigInt(0n, 2n),
      pages: fc.bigInt(0n, 5n),
      tokens: fc.bigInt(0n, 9n),
    },
    { requiredKeys: [] },
  )
  .map((values) => Object.entries(values).map(([unit, value]) => ({ unit, value: value as bigint })));

const SELECTORS = ["agent:a1", "user:u1", "session:s2", "tool:pay.out"];
export const AUTHOR = { by: "olga", reason: "A test.", atMs: 1 };

/** A command without its time. */
export type Timeless = (nowMs: number) => Command;

/** Few ids, so that most commands meet a reservation that others have changed already. */
export function commandOf(ids: fc.Arbitrary<string>): fc.Arbitrary<Timeless> {
  const lease = fc.oneof(fc.integer({ min: -2, max: 4_000 }), fc.constantFrom(HOUR, 40 * DAY));
  const ancestors = fc.array(fc.record({ id: ids, spender }), { maxLength: 2 }) as fc.Arbitrary<Ancestor[]>;
  const order = fc.record({
    key: fc.constantFrom("k1", "k2", "k3", "k4", "k5", "k6"),
    which: fc.integer({ min: 0, max: 9 }),
  });
  return fc.oneof(
    {
      weight: 12,
      arbitrary: fc
        .record({
          id: ids,
          spender,
          ancestors: fc.oneof({ weight: 3, arbitrary: fc.constant([]) }, ancestors),
          amounts,
          lease,
        })
        .map(({ lease: ms, ...rest }): Timeless => {
          return (nowMs) => ({ kind: "reserve", ...rest, expiresAtMs: nowMs + ms, nowMs });
        }),
    },
    {
      weight: 7,
      arbitrary: fc.record({ id: ids, amounts, late: fc.boolean() }).map((of): Timeless => {
        return (nowMs) => ({ kind: "commit", ...of, nowMs });
      }),
    },
    {
      weight: 2,
      arbitrary: ids.map(
        (id): Timeless =>
          (nowMs) => ({ kind: "release", id, nowMs }),
      ),
    },
    {
      weight: 2,
      arbitrary: fc.tuple(ids, lease).map(([id, ms]): Timeless => {
        return (nowMs) => ({ kind: "extend", id, expiresAtMs: nowMs + ms, nowMs });
      }),
    },
    { weight: 1, arbitrary: fc.constant<Timeless>((nowMs) => ({ kind: "expire", nowMs })) },
    {
      weight: 1,
      arbitrary: order.map(({ key, which }): Timeless => {
        const selector = SELECTORS[which % SELECTORS.length] ?? "";
        const author = AUTHOR;
        return (nowMs) => {
          const of = { kind: "order", key, author, nowMs } as const;
          if (which < 3)
            return { ...of, request: { kind: "grant", budget: "agent-day", subject: "a1", value: BigInt(which + 1) } };
          if (which < 5) return { ...of, request: { kind: "grant", budget: "rate", subject: "a2", value: 3n } };
          if (which === 5)
            return { ...of, request: { kind: "raise", budget: "all-usd", subject: undefined, limit: 60n } };
          if (which === 6)
            return { ...of, request: { kind: "raise", budget: "pay", subject: "a1 & pay.out", limit: 2n } };
          return { ...of, request: { kind: which === 7 ? "freeze" : "thaw", selector } };
        };
      }),
    },
  );
}

/** Mostly forward by little; sometimes over the end of a window, sometimes back. */
export const elapsed: fc.Arbitrary<number> = fc.oneof(
  { weight: 20, arbitrary: fc.integer({ min: 0, max: 2_000 }) },
  { weight: 3, arbitrary: fc.integer({ min: -3_000, max: 0 }) },
  { weight: 2, arbitrary: fc.constantFrom(HOUR, -HOUR, DAY, 32 * DAY, -DAY) },
);
