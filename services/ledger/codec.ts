import { z } from "zod";
import { type Amount, isUnit, UNITS } from "./amounts.ts";
import type { Recent } from "./recent.ts";
import {
  addHold,
  type Counter,
  type CounterId,
  counterKey,
  type Ended,
  emptyLedger,
  type LedgerEvent,
  type LedgerState,
} from "./state.ts";

/** Events and snapshots as JSON. A counter is its key, `name scope subject unit`, which people can read in the journal. */

const integer = z
  .string()
  .regex(/^\d+$/)
  .transform((text) => BigInt(text));

const amounts = z
  .partialRecord(z.enum(UNITS), integer)
  .transform((values): readonly Amount[] => Object.entries(values).map(([unit, value]) => ({ unit, value })));

const SCOPES = ["tenant", "agent", "session", "tool"] as const;

const counterId = z.string().transform((text, context): CounterId => {
  const [budget, scopeText, subject, unit, ...rest] = text.split(" ");
  const scope = SCOPES.find((known) => known === scopeText);
  if (budget && scope && subject && unit !== undefined && isUnit(unit) && rest.length === 0) {
    return { budget, scope, subject, unit };
  }
  context.addIssue("no counter: name scope subject unit");
  return z.NEVER;
});

const event = z.discriminatedUnion("kind", [
  z.strictObject({
    kind: z.literal("reserved"),
    id: z.string(),
    amounts,
    counters: z.array(counterId),
    expiresAtMs: z.int(),
    atMs: z.int(),
  }),
  z
    .strictObject({
      kind: z.literal("committed"),
      id: z.string(),
      amounts,
      lateFor: z.array(counterId).optional(),
      atMs: z.int(),
    })
    .transform(({ lateFor, ...rest }) => ({ ...rest, lateFor })),
  z.strictObject({ kind: z.literal("released"), id: z.string(), atMs: z.int() }),
  z.strictObject({ kind: z.literal("extended"), id: z.string(), expiresAtMs: z.int(), atMs: z.int() }),
  z.strictObject({ kind: z.literal("expired"), ids: z.array(z.string()), atMs: z.int() }),
]);

export function eventToJson(of: LedgerEvent): unknown {
  switch (of.kind) {
    case "reserved":
      return { ...of, amounts: amountsToJson(of.amounts), counters: of.counters.map(counterKey) };
    case "committed":
      return { ...of, amounts: amountsToJson(of.amounts), lateFor: of.lateFor?.map(counterKey) };
    case "released":
    case "extended":
    case "expired":
      return of;
  }
}

/** @throws ZodError for what is no event of ours. */
export function eventFromJson(json: unknown): LedgerEvent {
  return event.parse(json);
}

function amountsToJson(of: readonly Amount[]): Record<string, string> {
  return Object.fromEntries(of.map(({ unit, value }) => [unit, value.toString()]));
}

function recent<S extends z.ZodType>(value: S) {
  const entries = z.array(z.tuple([z.string(), value]));
  return z.strictObject({ young: entries, old: entries, youngSinceMs: z.int() });
}

/** Holds and expired ids name their counters by place. What is held follows from the holds. */
const snapshot = z.strictObject({
  counters: z.array(z.tuple([counterId, integer])),
  holds: z.array(z.strictObject({ id: z.string(), amounts, counters: z.array(z.int()), expiresAtMs: z.int() })),
  /** The key of the amounts that were committed; null: released. */
  ended: recent(z.string().nullable()),
  expired: recent(z.array(z.int())),
});

export function stateToJson(state: LedgerState): unknown {
  const places = new Map<Counter, number>([...state.counters.values()].map((counter, i) => [counter, i]));
  const placesOf = (counters: readonly Counter[]) => counters.map((counter) => places.get(counter));
  return {
    counters: [...state.counters].map(([key, { spent }]) => [key, spent.toString()]),
    // In the heap's own order, so that the same heap comes back.
    holds: state.leases.map(({ id, amounts: held, counters, expiresAtMs }) => {
      return { id, amounts: amountsToJson(held), counters: placesOf(counters), expiresAtMs };
    }),
    ended: recentToJson(state.ended, (ended) => (ended.kind === "committed" ? ended.amountsKey : null)),
    expired: recentToJson(state.expired, placesOf),
  };
}

/** @throws ZodError or Error for what is no snapshot of ours. */
export function stateFromJson(json: unknown): LedgerState {
  const parsed = snapshot.parse(json);
  const state = emptyLedger();
  const counters = parsed.counters.map(([id, spent]): Counter => {
    const counter = { ...id, held: 0n, spent };
    state.counters.set(counterKey(id), counter);
    return counter;
  });
  const at = (place: number): Counter => {
    const counter = counters[place];
    if (counter === undefined) throw new Error(`the ledger's snapshot has no counter ${place}`);
    return counter;
  };
  for (const hold of parsed.holds) addHold(state, hold, hold.counters.map(at));
  const ended = recentFromJson(parsed.ended, (key): Ended => {
    return key === null ? { kind: "released" } : { kind: "committed", amountsKey: key };
  });
  return { ...state, ended, expired: recentFromJson(parsed.expired, (places) => places.map(at)) };
}

function recentToJson<T>({ young, old, youngSinceMs }: Recent<T>, toJson: (value: T) => unknown): unknown {
  const entries = (map: Map<string, T>) => [...map].map(([id, value]) => [id, toJson(value)]);
  return { young: entries(young), old: entries(old), youngSinceMs };
}

type RecentJson<J> = { young: [string, J][]; old: [string, J][]; youngSinceMs: number };

function recentFromJson<J, T>(json: RecentJson<J>, fromJson: (value: J) => T): Recent<T> {
  const map = (entries: [string, J][]) => new Map(entries.map(([id, value]) => [id, fromJson(value)]));
  return { young: map(json.young), old: map(json.old), youngSinceMs: json.youngSinceMs };
}
