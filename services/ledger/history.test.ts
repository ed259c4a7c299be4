import fc from "fast-check";
import { expect, it } from "vitest";
import { valueIn } from "./amounts.ts";
import { type Command, ledgerDecider } from "./decider.ts";
import { listBudgets } from "./listing.ts";
import { AUTHOR, commandOf, elapsed, OWN_UNITS, PlainLedger, RULES, ruleOf, type Timeless } from "./plain-fixture.ts";
import type { LedgerEvent, LedgerState } from "./state.ts";

/**
 * Generated histories against a ledger that adds everything up. Crashes rebuild the real one from what was written:
 * the events alone, or a snapshot and the events after it. Commands come twice, late and in another order than they
 * were sent, and clocks jump.
 */

const { decide, evolve, initial, eventToJson, eventFromJson, stateToJson, stateFromJson } = ledgerDecider;

/** At least so many commands in all; FULL=1 hunts longer. */
const COMMANDS = process.env["FULL"] === "1" ? 1_000_000 : 100_000;
const LENGTH = 250;
const START_MS = Date.UTC(2026, 0, 31, 20, 59, 30);

const REVISE: Command = {
  ...{ kind: "revise", revision: "r1", tenant: "shop", units: OWN_UNITS, rules: RULES.map(({ rule }) => rule) },
  ...{ part: 1, parts: 1, author: AUTHOR, nowMs: START_MS },
};

/** The ledger with what it has written: all that survives a crash. */
class Real {
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
    expect(fromSnapshot).toEqual(this.state);
    this.state = fromSnapshot;
  }

  rebuildFromEvents(): void {
    expect(replay(initial(), this.#log)).toEqual(this.state);
  }
}

function replay(state: LedgerState, log: readonly string[]): LedgerState {
  return log.reduce((at, line) => evolve(at, eventFromJson(JSON.parse(line))), state);
}

type Step = {
  readonly elapsedMs: number;
  readonly make: Timeless | "crash" | "snapshot";
  /** How the command travels: at once, twice, or after so many others. */
  readonly travel: "once" | "twice" | number;
};

const ids = fc.constantFrom(...Array.from({ length: 24 }, (_, i) => `r${i}`));
const step: fc.Arbitrary<Step> = fc.record({
  elapsedMs: elapsed,
  make: fc.oneof(
    { weight: 40, arbitrary: commandOf(ids) },
    { weight: 1, arbitrary: fc.constant("snapshot" as const) },
    { weight: 1, arbitrary: fc.constant("crash" as const) },
  ),
  travel: fc.oneof(
    { weight: 6, arbitrary: fc.constant("once" as const) },
    { weight: 2, arbitrary: fc.constant("twice" as const) },
    { weight: 2, arbitrary: fc.integer({ min: 1, max: 9 }) },
  ),
});

let played = 0;

it(`the ledger does what adding up says, in ${COMMANDS.toLocaleString("en")} generated commands`, {
  timeout: 900_000,
}, () => {
  fc.assert(
    fc.property(fc.array(step, { minLength: LENGTH, maxLength: LENGTH + 50, size: "max" }), (steps) => {
      const plain = new PlainLedger();
      const real = new Real();
      play(REVISE, real, plain);
      let nowMs = START_MS;
      const underWay: { command: Command; in: number }[] = [];
      for (const { elapsedMs, make, travel } of steps) {
        nowMs += elapsedMs;
        if (make === "crash") real.crash();
        else if (make === "snapshot") real.writeSnapshot();
        else if (typeof travel === "number") underWay.push({ command: make(nowMs), in: travel });
        else for (let i = travel === "twice" ? 2 : 1; i > 0; i--) play(make(nowMs), real, plain);
        for (const late of underWay) late.in -= 1;
        for (const { command } of take(underWay, (late) => late.in <= 0)) play(command, real, plain);
      }
      real.crash();
      real.rebuildFromEvents();
    }),
    { numRuns: Math.ceil(COMMANDS / LENGTH), endOnFailure: true },
  );
  expect(played).toBeGreaterThanOrEqual(COMMANDS);
});

function take<T>(list: T[], which: (item: T) => boolean): T[] {
  const taken = list.filter(which);
  for (const item of taken) list.splice(list.indexOf(item), 1);
  return taken;
}

function play(command: Command, real: Real, plain: PlainLedger): void {
  played++;
  const decided = decide(real.state, command);
  const isNew = command.kind === "reserve" && !plain.reservations.has(command.id);
  expect(decided.kind, wordsOf(command)).toBe(plain.apply(command) ? "accepted" : "refused");
  if (decided.kind === "accepted") {
    real.write(decided.events);
    // Sent twice, as after an answer that was lost: nothing more happens.
    const again = decide(real.state, command);
    if (command.kind !== "order" || command.request.kind !== "thaw")
      expect(again).toEqual({ kind: "accepted", events: [] });
    for (const event of decided.events) checkOverruns(event, plain, command.nowMs);
  }
  checkFigures(real.state, plain, command.nowMs);
  checkLeases(real.state, plain, decided.kind === "accepted" ? command.nowMs : Number.NEGATIVE_INFINITY);
  if (isNew && decided.kind === "accepted") checkNothingPassed(plain, command);
}

function wordsOf(command: Command): string {
  return JSON.stringify(command, (_, value) => (typeof value === "bigint" ? String(value) : value));
}

/** available + held + spent = limit + granted, as operators are shown it, and each figure is what adding up gives. */
function checkFigures(state: LedgerState, plain: PlainLedger, nowMs: number): void {
  const lines = new Map(listBudgets(state, nowMs).map((line) => [`${line.name} ${line.subject}`, line]));
  for (const key of plain.keys()) {
    const { name } = ruleOf(key).rule;
    const line = lines.get(`${name} ${key.slice(key.indexOf(" = ") + 3)}`);
    const { held, spent, granted, limit } = plain.figures(key, nowMs);
    const available = limit + granted - held - spent;
    expect(line && [line.held, line.spent, line.granted, line.limit, line.available]).toEqual([
      ...[held, spent, granted, limit, available],
    ]);
  }
}

/** What is held is what the plain ledger holds, and no hold is older than its lease. */
function checkLeases(state: LedgerState, plain: PlainLedger, nowMs: number): void {
  const open = [...plain.reservations].filter(([, r]) => r.status === "held").map(([id]) => id);
  expect(new Set(state.holds.keys())).toEqual(new Set(open));
  for (const { expiresAtMs } of state.holds.values()) expect(expiresAtMs).toBeGreaterThan(nowMs);
}

/** No new hold passes what its budgets have. */
function checkNothingPassed(plain: PlainLedger, { id, nowMs }: Extract<Command, { kind: "reserve" }>): void {
  for (const key of plain.reservations.get(id)?.keys ?? []) {
    const { held, spent, granted, limit } = plain.figures(key, nowMs);
    expect(held + spent <= limit + granted, key).toBe(true);
  }
}

/** What was spent beyond limit and grants is recorded as overrun, and nothing else is. */
function checkOverruns(event: LedgerEvent, plain: PlainLedger, nowMs: number): void {
  if (event.kind !== "committed") return;
  const recorded = event.signals.filter(({ kind }) => kind === "overrun").map(({ account }) => account);
  const over = (plain.reservations.get(event.id)?.keys ?? []).filter((key) => {
    const { spent, granted, limit } = plain.figures(key, nowMs);
    const { unit, window } = ruleOf(key).rule;
    if (window.kind === "rolling") return recorded.includes(key); // a grant is used up as it is spent
    return valueIn(event.amounts, unit) > 0n && spent > limit + granted;
  });
  expect(new Set(recorded)).toEqual(new Set(over));
}
