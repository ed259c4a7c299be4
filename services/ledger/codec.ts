import { type Account, newAccount } from "./account.ts";
import { type Amount, valueIn } from "./amounts.ts";
import { addLease } from "./due.ts";
import { array, bigint, field, integer, invalid, object, optional, text } from "./json-reader.ts";
import type { Recent } from "./recent.ts";
import { Rules } from "./rules.ts";
import { authorFromJson, orderFromJson, orderToJson, ruleFromJson, ruleToJson } from "./rules-codec.ts";
import type { Spender } from "./scope.ts";
import { SIGNAL_KINDS, type Signal } from "./signals.ts";
import {
  type Ended,
  emptyLedger,
  type Hold,
  type Late,
  type LateEvent,
  type LedgerEvent,
  type LedgerState,
} from "./state.ts";
import type { Line } from "./statement.ts";

/**
 * Events and snapshots as JSON, read by hand and not by a schema: a ledger is rebuilt from hundreds of thousands of
 * them. What is not as expected throws. Amounts are decimal texts; an account is its key, which people can read.
 */

export function eventToJson(of: LedgerEvent): unknown {
  switch (of.kind) {
    case "reserved": {
      const { id, spender, ancestors, amounts, accounts, expiresAtMs, atMs } = of;
      const by = spenderToJson(spender);
      const held = amountsToJson(amounts);
      const calls = ancestors.length === 0 ? undefined : ancestors; // JSON leaves out what is undefined
      return { kind: of.kind, id, spender: by, ancestors: calls, amounts: held, accounts, expiresAtMs, atMs };
    }
    case "committed": {
      const { id, amounts, starts, signals, late, atMs } = of;
      return {
        kind: of.kind,
        id,
        amounts: amountsToJson(amounts),
        starts: starts.length === 0 ? undefined : starts,
        signals: signals.length === 0 ? undefined : signals.map(signalToJson),
        late: late && lateToJson(late),
        atMs,
      };
    }
    case "revised":
      return { ...of, rules: of.rules.map(ruleToJson) };
    case "ordered":
      return { ...of, order: orderToJson(of.order) };
    case "released":
    case "extended":
    case "expired":
      return of;
  }
}

/** @throws Error for what is no event of ours. */
export function eventFromJson(json: unknown): LedgerEvent {
  const of = object(json);
  const kind = text(of["kind"]);
  switch (kind) {
    case "reserved":
      return {
        kind,
        id: text(of["id"]),
        spender: spenderFromJson(of["spender"]),
        ancestors: optional(of["ancestors"], (value) => array(value, text)) ?? [],
        amounts: amountsFromJson(of["amounts"]),
        accounts: array(of["accounts"], text),
        expiresAtMs: integer(of["expiresAtMs"]),
        atMs: integer(of["atMs"]),
      };
    case "committed":
      return {
        kind,
        id: text(of["id"]),
        amounts: amountsFromJson(of["amounts"]),
        starts: optional(of["starts"], (value) => array(value, integer)) ?? [],
        signals: optional(of["signals"], (value) => array(value, signalFromJson)) ?? [],
        late: optional(of["late"], lateFromJson),
        atMs: integer(of["atMs"]),
      };
    case "released":
      return { kind, id: text(of["id"]), atMs: integer(of["atMs"]) };
    case "extended":
      return { kind, id: text(of["id"]), expiresAtMs: integer(of["expiresAtMs"]), atMs: integer(of["atMs"]) };
    case "expired":
      return { kind, ids: array(of["ids"], text), atMs: integer(of["atMs"]) };
    case "revised":
      return {
        kind,
        revision: text(of["revision"]),
        tenant: text(of["tenant"]),
        units: array(of["units"], text),
        rules: array(of["rules"], ruleFromJson),
        part: integer(of["part"]),
        parts: integer(of["parts"]),
        author: authorFromJson(of["author"]),
      };
    case "ordered":
      return { kind, key: text(of["key"]), order: orderFromJson(of["order"]), author: authorFromJson(of["author"]) };
    default:
      throw invalid("an event's kind", kind);
  }
}

/** Of one record's body: the ledger's records hold all events of one append. @throws Error for what is none of ours. */
export function eventsOf(body: Uint8Array): LedgerEvent[] {
  return array(JSON.parse(Buffer.from(body).toString("utf8")), eventFromJson);
}

function amountsToJson(of: readonly Amount[]): Record<string, string> {
  const json: Record<string, string> = {};
  for (const { unit, value } of of) json[unit] = value.toString();
  return json;
}

function amountsFromJson(json: unknown): Amount[] {
  const amounts: Amount[] = [];
  const of = object(json);
  for (const unit in of) amounts.push({ unit, value: bigint(of[unit]) });
  return amounts;
}

function spenderToJson({ agent, user, session, tool, groups }: Spender): readonly string[] {
  return [agent, user, session, tool, ...groups];
}

function spenderFromJson(json: unknown): Spender {
  const [agent, user, session, tool, ...groups] = array(json, text);
  if (agent === undefined || user === undefined || session === undefined || tool === undefined) {
    throw invalid("a spender", json);
  }
  return { agent, user, session, tool, groups };
}

function lateToJson({ spender, amounts, accounts }: LateEvent): unknown {
  return { spender: spenderToJson(spender), amounts: amountsToJson(amounts), accounts };
}

function lateFromJson(json: unknown): LateEvent {
  return {
    spender: spenderFromJson(field(json, "spender")),
    amounts: amountsFromJson(field(json, "amounts")),
    accounts: array(field(json, "accounts"), text),
  };
}

export function signalToJson(of: Signal): unknown {
  switch (of.kind) {
    case "threshold":
    case "forecast":
      return of;
    case "overrun":
      return { ...of, over: of.over.toString() };
    case "anomaly":
      return { ...of, sum: of.sum.toString(), usual: of.usual.toString() };
  }
}

function signalFromJson(json: unknown): Signal {
  const of = object(json);
  const kind = SIGNAL_KINDS.find((known) => known === of["kind"]);
  const account = text(of["account"]);
  switch (kind) {
    case "threshold":
      return { kind, account, percent: integer(of["percent"]) };
    case "overrun":
      return { kind, account, over: bigint(of["over"]) };
    case "forecast":
      return { kind, account, emptyAtMs: integer(of["emptyAtMs"]) };
    case "anomaly":
      return { kind, account, sum: bigint(of["sum"]), usual: bigint(of["usual"]) };
    case undefined:
      throw invalid("a signal's kind", of["kind"]);
  }
}

/** Holds name their accounts by place. What is held follows from the holds. */
export function stateToJson(state: LedgerState): unknown {
  const { rules, staged } = state;
  const places = new Map<Account, number>([...state.accounts.values()].map((account, i) => [account, i]));
  const placesOf = (accounts: readonly Account[]) => accounts.map((account) => places.get(account));
  const late = ({ spender, amounts, accounts }: Late) => {
    return [spenderToJson(spender), amountsToJson(amounts), placesOf(accounts)];
  };
  return {
    rules: {
      ...{ revision: rules.revision, tenant: rules.tenant, units: [...rules.units] },
      rules: [...rules.byName.values()].map(ruleToJson),
    },
    ...(staged === undefined ? {} : { staged: { ...staged, rules: staged.rules.map(ruleToJson) } }),
    revisions: state.revisions,
    raised: [...state.raised].map(([target, { limit, ...author }]) => [target, limit.toString(), author]),
    frozen: [...state.frozen],
    accounts: [...state.accounts.values()].map(accountToJson),
    // In the heap's own order, so that the same heap comes back.
    holds: state.leases.map((hold) => [hold.id, hold.expiresAtMs, hold.ancestors, ...late(hold)]),
    ended: recentToJson(state.ended, (ended) => {
      return ended.kind === "committed" ? ended.amountsKey : ended.kind === "released" ? null : late(ended.late);
    }),
    orders: recentToJson(state.orders, (order) => order),
    days: [...state.days].map(([day, lines]) => [day, [...lines.values()].map(lineToJson)]),
  };
}

/** @throws Error for what is no snapshot of ours. */
export function stateFromJson(json: unknown): LedgerState {
  const of = object(json);
  const state = emptyLedger();
  state.rules = new Rules({
    revision: text(field(of["rules"], "revision")),
    tenant: text(field(of["rules"], "tenant")),
    units: array(field(of["rules"], "units"), text),
    rules: array(field(of["rules"], "rules"), ruleFromJson),
  });
  state.staged = optional(of["staged"], (staged) => ({
    revision: text(field(staged, "revision")),
    rules: array(field(staged, "rules"), ruleFromJson),
    parts: integer(field(staged, "parts")),
  }));
  for (const revision of array(of["revisions"], object)) {
    const { revision: id, budgets } = revision;
    state.revisions.push({ revision: text(id), budgets: integer(budgets), ...authorFromJson(revision) });
  }
  for (const [target, limit, author] of array(of["raised"], tuple)) {
    state.raised.set(text(target), { limit: bigint(limit), ...authorFromJson(author) });
  }
  for (const [selector, author] of array(of["frozen"], tuple)) state.frozen.set(text(selector), authorFromJson(author));
  const accounts = array(of["accounts"], accountFromJson);
  for (const account of accounts) state.accounts.set(account.key, account);
  const late = (parts: readonly unknown[]): Late => {
    const [spender, amounts, places] = parts;
    return {
      spender: spenderFromJson(spender),
      amounts: amountsFromJson(amounts),
      accounts: array(places, (place) => accounts[integer(place)] ?? fail("an account's place", place)),
    };
  };
  for (const [id, expiresAtMs, ancestors, ...rest] of array(of["holds"], tuple)) {
    addAgain(state, {
      id: text(id),
      expiresAtMs: integer(expiresAtMs),
      ancestors: array(ancestors, text),
      ...late(rest),
    });
  }
  const days = array(of["days"], tuple).map(([day, lines]): [number, Map<string, Line>] => {
    const list = array(lines, lineFromJson);
    return [integer(day), new Map(list.map((line) => [`${line.agent} ${line.user} ${line.tool}`, line]))];
  });
  return {
    ...state,
    ended: recentFromJson(of["ended"], (json): Ended => {
      if (json === null) return { kind: "released" };
      if (typeof json === "string") return { kind: "committed", amountsKey: json };
      return { kind: "expired", late: late(tuple(json)) };
    }),
    orders: recentFromJson(of["orders"], text),
    days: new Map(days),
  };
}

function addAgain(state: LedgerState, of: Omit<Hold, "heapIndex">): void {
  const hold: Hold = { ...of, heapIndex: 0 };
  for (const account of hold.accounts) account.held += valueIn(hold.amounts, account.unit);
  state.holds.set(hold.id, hold);
  addLease(state.leases, hold);
}

function accountToJson({ key, used, granted, sinceMs, forecastAtMs, pace }: Account): unknown {
  const { slot, sum, past, alarmAt, alarmed } = pace;
  return [
    ...[key, used.toString(), granted.toString(), sinceMs, forecastAtMs],
    [slot, sum.toString(), past.map(String), alarmAt === undefined ? null : alarmAt.toString(), alarmed],
  ];
}

function accountFromJson(json: unknown): Account {
  const [key, used, granted, sinceMs, forecastAtMs, paced] = tuple(json);
  const [slot, sum, past, alarmAt, alarmed] = tuple(paced);
  return {
    ...newAccount(text(key)),
    ...{ used: bigint(used), granted: bigint(granted), sinceMs: integer(sinceMs), forecastAtMs: integer(forecastAtMs) },
    pace: {
      ...{ slot: integer(slot), sum: bigint(sum), past: array(past, bigint) },
      alarmAt: alarmAt === null ? undefined : bigint(alarmAt),
      alarmed: alarmed === true,
    },
  };
}

function lineToJson({ agent, user, tool, commits, units }: Line): unknown {
  const sums = [...units].map(([unit, { estimated, actual }]) => [unit, estimated.toString(), actual.toString()]);
  return [agent, user, tool, commits, sums];
}

function lineFromJson(json: unknown): Line {
  const [agent, user, tool, commits, sums] = tuple(json);
  const units = array(sums, tuple).map(([unit, estimated, actual]): [string, { estimated: bigint; actual: bigint }] => {
    return [text(unit), { estimated: bigint(estimated), actual: bigint(actual) }];
  });
  return { agent: text(agent), user: text(user), tool: text(tool), commits: integer(commits), units: new Map(units) };
}

function recentToJson<T>({ young, old }: Recent<T>, toJson: (value: T) => unknown): unknown {
  const entries = (map: Map<string, T>) => [...map].map(([id, value]) => [id, toJson(value)]);
  return { young: entries(young), old: entries(old) };
}

function recentFromJson<T>(json: unknown, fromJson: (value: unknown) => T): Recent<T> {
  const map = (entries: unknown) =>
    new Map(array(entries, tuple).map(([id, value]): [string, T] => [text(id), fromJson(value)]));
  return { young: map(field(json, "young")), old: map(field(json, "old")) };
}

function tuple(json: unknown): readonly unknown[] {
  return Array.isArray(json) ? (json as readonly unknown[]) : fail("a list", json);
}

function fail(what: string, found: unknown): never {
  throw invalid(what, found);
}
