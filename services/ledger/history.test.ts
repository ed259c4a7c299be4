import fc from "fast-check";
import { expect, it } from "vitest";
import { type Amount, amountsKey, UNITS, type Unit, valueIn } from "./amounts.ts";
import { type BudgetInScope, type Command, ledgerDecider } from "./decider.ts";
import { counterKey, type LedgerEvent, type LedgerState } from "./state.ts";

/**
 * Generated histories against a model that keeps every reservation and adds up. Crashes rebuild the ledger from what
 * was written: the events alone, or a snapshot and the events after it.
 */

const { decide, evolve, initial, eventToJson, eventFromJson, stateToJson, stateFromJson } = ledgerDecider;

const BUDGETS: readonly BudgetInScope[] = [
  { budget: "tenant-usd", scope: "tenant", subject: "t", unit: "usd_micros", limit: 12n },
  { budget: "agent-calls", scope: "agent", subject: "a1", unit: "calls", limit: 5n },
  { budget: "session-usd", scope: "session", subject: "s1", unit: "usd_micros", limit: 7n },
  { budget: "session-usd", scope: "session", subject: "s2", unit: "usd_micros", limit: 7n },
  { budget: "tool-calls", scope: "tool", subject: "x.y", unit: "calls", limit: 0n },
];

type Reservation = {
  status: "held" | "expired" | "committed" | "released";
  readonly budgets: readonly BudgetInScope[];
  readonly amounts: readonly Amount[];
  used: readonly Amount[];
  expiresAtMs: number;
};

class Model {
  readonly reservations = new Map<string, Reservation>();

  held(budget: BudgetInScope): bigint {
    return this.#sum(budget, (r) => (r.status === "held" ? r.amounts : []));
  }

  spent(budget: BudgetInScope): bigint {
    return this.#sum(budget, (r) => r.used);
  }

  /** Whether the command has to be accepted, and if so what it does here. */
  apply(command: Command): boolean {
    const due = [...this.reservations.values()].filter((r) => r.status === "held" && r.expiresAtMs <= command.nowMs);
    for (const reservation of due) reservation.status = "expired";
    const accepted = this.#applyAlone(command);
    // A refusal changes nothing.
    if (!accepted) for (const reservation of due) reservation.status = "held";
    return accepted;
  }

  #applyAlone(command: Command): boolean {
    const known = command.kind === "expire" ? undefined : this.reservations.get(command.id);
    switch (command.kind) {
      case "expire":
        return true;
      case "reserve": {
        const { id, budgets, amounts, expiresAtMs, nowMs } = command;
        if (known) return known.status === "held" && amountsKey(known.amounts) === amountsKey(amounts);
        const room = budgets.every((b) => this.held(b) + this.spent(b) + valueIn(amounts, b.unit) <= b.limit);
        if (!room || expiresAtMs <= nowMs) return false;
        this.reservations.set(id, { status: "held", budgets, amounts, used: [], expiresAtMs });
        return true;
      }
      case "commit":
        if (known === undefined || known.status === "released") return false;
        if (known.status === "committed") return amountsKey(known.used) === amountsKey(command.amounts);
        known.status = "committed";
        known.used = command.amounts;
        return true;
      case "release":
        if (known?.status === "held") known.status = "released";
        return known?.status !== "committed";
      case "extend":
        if (known?.status !== "held") return false;
        known.expiresAtMs = Math.max(known.expiresAtMs, command.expiresAtMs);
        return true;
    }
  }

  #sum({ budget, subject, unit }: BudgetInScope, amountsOf: (r: Reservation) => readonly Amount[]): bigint {
    let sum = 0n;
    for (const reservation of this.reservations.values()) {
      const counts = reservation.budgets.some((b) => b.budget === budget && b.subject === subject);
      if (counts) sum += valueIn(amountsOf(reservation), unit);
    }
    return sum;
  }
}

/** The ledger with what it has written: all that survives a crash. */
class Ledger {
  state: LedgerState = initial();
  readonly #log: string[] = [];
  #snapshot = { length: 0, text: "" };

  write(events: readonly LedgerEvent[]): void {
    for (const event of events) {
      this.#log.push(JSON.stringify(eventToJson(event)));
      this.state = evolve(this.state, event);
    }
  }

  writeSnapshot(): void {
    this.#snapshot = { length: this.#log.length, text: JSON.stringify(stateToJson(this.state)) };
  }

  crash(): void {
    const { length, text } = this.#snapshot;
    const start = length === 0 ? initial() : stateFromJson(JSON.parse(text));
    const fromSnapshot = replay(start, this.#log.slice(length));
    const fromEvents = replay(initial(), this.#log);
    expect(fromSnapshot).toEqual(this.state);
    expect(fromEvents).toEqual(this.state);
    this.state = fromSnapshot;
  }
}

function replay(state: LedgerState, log: readonly string[]): LedgerState {
  return log.reduce((at, line) => evolve(at, eventFromJson(JSON.parse(line))), state);
}

const id = fc.constantFrom("r1", "r2", "r3", "r4", "r5", "r6", "r7", "r8");
const amounts = fc
  .record(Object.fromEntries(UNITS.map((unit): [Unit, fc.Arbitrary<bigint>] => [unit, fc.bigInt(0n, 4n)])), {
    requiredKeys: [],
  })
  .map((values): Amount[] => Object.entries(values).map(([unit, value]) => ({ unit, value: value ?? 0n })));
const lease = fc.integer({ min: -2, max: 12 });

type Step = { readonly elapsedMs: number; readonly make: ((nowMs: number) => Command) | "crash" | "snapshot" };

const make: fc.Arbitrary<Step["make"]> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc
      .record({ id, amounts, budgets: fc.subarray([...BUDGETS]), lease })
      .map(({ lease: ms, ...rest }) => (nowMs: number): Command => {
        return { kind: "reserve", ...rest, expiresAtMs: nowMs + ms, nowMs };
      }),
  },
  {
    weight: 3,
    arbitrary: fc.record({ id, amounts }).map(
      (of) =>
        (nowMs: number): Command => ({ kind: "commit", ...of, nowMs }),
    ),
  },
  {
    weight: 1,
    arbitrary: id.map(
      (of) =>
        (nowMs: number): Command => ({ kind: "release", id: of, nowMs }),
    ),
  },
  {
    weight: 1,
    arbitrary: fc.tuple(id, lease).map(([of, ms]) => (nowMs: number): Command => {
      return { kind: "extend", id: of, expiresAtMs: nowMs + ms, nowMs };
    }),
  },
  { weight: 1, arbitrary: fc.constant((nowMs: number): Command => ({ kind: "expire", nowMs })) },
  { weight: 1, arbitrary: fc.constant("crash" as const) },
  { weight: 1, arbitrary: fc.constant("snapshot" as const) },
);

/** Mostly forward; a clock that is set back must not give back what is gone. */
const step: fc.Arbitrary<Step> = fc.record({ elapsedMs: fc.integer({ min: -3, max: 6 }), make });

it("available + held + spent = limit, and no reserve passes a limit, in every history", () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60, size: "max" }), (steps) => {
      const model = new Model();
      const ledger = new Ledger();
      let nowMs = 1000;
      for (const { elapsedMs, make: next } of steps) {
        nowMs += elapsedMs;
        if (next === "crash") ledger.crash();
        else if (next === "snapshot") ledger.writeSnapshot();
        else play(next(nowMs), ledger, model);
        checkFigures(ledger.state, model);
      }
      ledger.crash();
    }),
    { numRuns: 500 },
  );
});

function play(command: Command, ledger: Ledger, model: Model): void {
  const decided = decide(ledger.state, command);
  const isNew = command.kind === "reserve" && !model.reservations.has(command.id);
  expect(decided.kind).toBe(model.apply(command) ? "accepted" : "refused");
  if (decided.kind === "refused") return;
  ledger.write(decided.events);
  // Sent twice, as after an answer that was lost: nothing more happens.
  const again = decide(ledger.state, command);
  expect(again).toEqual({ kind: "accepted", events: [] });
  if (!isNew) return;
  for (const budget of command.budgets) expect(model.held(budget) + model.spent(budget) <= budget.limit).toBe(true);
}

function checkFigures(state: LedgerState, model: Model): void {
  const open = [...model.reservations].filter(([, r]) => r.status === "held").map(([key]) => key);
  expect(new Set(state.holds.keys())).toEqual(new Set(open));
  for (const budget of BUDGETS) {
    const { held, spent } = state.counters.get(counterKey(budget)) ?? { held: 0n, spent: 0n };
    expect([held, spent]).toEqual([model.held(budget), model.spent(budget)]);
  }
}
