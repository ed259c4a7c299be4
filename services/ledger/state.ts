import { type Amount, amountsKey, type Unit, valueIn } from "./amounts.ts";
import { addLease, type Lease, leaseGrew, removeLease } from "./due.ts";
import { forget, noneRecent, type Recent, recall, remember } from "./recent.ts";

/**
 * What a tenant has spent and what is held. Limits are not here: the file is their authority, and a command brings
 * those in scope. So available = limit - held - spent holds by construction, whatever the limit is today.
 */

export type Scope = "tenant" | "agent" | "session" | "tool";

/** One budget for one subject. All four parts count: an operator who changes a budget's unit or scope starts a new one. */
export type CounterId = {
  readonly budget: string;
  readonly scope: Scope;
  readonly subject: string;
  readonly unit: Unit;
};

export type Counter = CounterId & { held: bigint; spent: bigint };

export type Hold = Lease & {
  readonly id: string;
  /** As asked for, also in units that nothing caps. */
  readonly amounts: readonly Amount[];
  readonly counters: readonly Counter[];
};

export type Ended = { readonly kind: "committed"; readonly amountsKey: string } | { readonly kind: "released" };

export type LedgerState = {
  readonly counters: Map<string, Counter>;
  readonly holds: Map<string, Hold>;
  /** The same holds by the end of their lease; see due.ts. */
  readonly leases: Hold[];
  /** Committed or released. */
  readonly ended: Recent<Ended>;
  /** What their holds counted against: a run that outlives its lease still commits. */
  readonly expired: Recent<readonly Counter[]>;
};

export type LedgerEvent =
  | {
      readonly kind: "reserved";
      readonly id: string;
      readonly amounts: readonly Amount[];
      readonly counters: readonly CounterId[];
      readonly expiresAtMs: number;
      readonly atMs: number;
    }
  | {
      readonly kind: "committed";
      readonly id: string;
      readonly amounts: readonly Amount[];
      /** After the lease: where to count the spend, so that no memory of the hold is needed to rebuild it. */
      readonly lateFor: readonly CounterId[] | undefined;
      readonly atMs: number;
    }
  | { readonly kind: "released"; readonly id: string; readonly atMs: number }
  | { readonly kind: "extended"; readonly id: string; readonly expiresAtMs: number; readonly atMs: number }
  | { readonly kind: "expired"; readonly ids: readonly string[]; readonly atMs: number };

export function emptyLedger(): LedgerState {
  return { counters: new Map(), holds: new Map(), leases: [], ended: noneRecent(), expired: noneRecent() };
}

export type Standing =
  | { readonly kind: "held"; readonly hold: Hold }
  | { readonly kind: "expired"; readonly counters: readonly Counter[] }
  | Ended
  | { readonly kind: "unknown" };

/** Where a reservation stands. A lease that is over is expired, whether or not that was recorded yet. */
export function standingOf(state: LedgerState, id: string, nowMs: number): Standing {
  const hold = state.holds.get(id);
  if (hold !== undefined) {
    return hold.expiresAtMs > nowMs ? { kind: "held", hold } : { kind: "expired", counters: hold.counters };
  }
  const counters = recall(state.expired, id);
  if (counters !== undefined) return { kind: "expired", counters };
  return recall(state.ended, id) ?? { kind: "unknown" };
}

/** No name has a space. */
export function counterKey({ budget, scope, subject, unit }: CounterId): string {
  return `${budget} ${scope} ${subject} ${unit}`;
}

/** Only the id: events must not share what evolve changes. */
export function idOf({ budget, scope, subject, unit }: CounterId): CounterId {
  return { budget, scope, subject, unit };
}

/** Changes `state` in place. */
export function evolve(state: LedgerState, event: LedgerEvent): LedgerState {
  switch (event.kind) {
    case "reserved":
      addHold(state, event, event.counters);
      break;
    case "committed": {
      const hold = endHold(state, event.id);
      const counters = event.lateFor?.map((id) => counterOf(state, id)) ?? hold?.counters ?? [];
      for (const counter of counters) counter.spent += valueIn(event.amounts, counter.unit);
      forget(state.expired, event.id);
      remember(state.ended, event.id, { kind: "committed", amountsKey: amountsKey(event.amounts) }, event.atMs);
      break;
    }
    case "released":
      endHold(state, event.id);
      remember(state.ended, event.id, { kind: "released" }, event.atMs);
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
        if (hold !== undefined) remember(state.expired, id, hold.counters, event.atMs);
      }
      break;
  }
  return state;
}

export function addHold(
  state: LedgerState,
  { id, amounts, expiresAtMs }: Pick<Hold, "id" | "amounts" | "expiresAtMs">,
  counterIds: readonly CounterId[],
): void {
  const counters = counterIds.map((counterId) => counterOf(state, counterId));
  for (const counter of counters) counter.held += valueIn(amounts, counter.unit);
  const hold: Hold = { id, amounts, counters, expiresAtMs, heapIndex: 0 };
  state.holds.set(id, hold);
  addLease(state.leases, hold);
}

function endHold(state: LedgerState, id: string): Hold | undefined {
  const hold = state.holds.get(id);
  if (hold === undefined) return undefined;
  for (const counter of hold.counters) counter.held -= valueIn(hold.amounts, counter.unit);
  state.holds.delete(id);
  removeLease(state.leases, hold);
  return hold;
}

function counterOf(state: LedgerState, id: CounterId): Counter {
  const key = counterKey(id);
  const found = state.counters.get(key);
  if (found !== undefined) return found;
  const counter: Counter = { ...idOf(id), held: 0n, spent: 0n };
  state.counters.set(key, counter);
  return counter;
}
