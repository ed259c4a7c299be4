import { describe, expect, it } from "vitest";
import { ledgerOf, reviseWith, ruleOf, run, SPENDER } from "./fixture.ts";
import { alarmOf, KEEP, MIN_PAST } from "./pace.ts";
import type { Rule } from "./rules.ts";
import type { Signal } from "./signals.ts";
import type { LedgerState } from "./state.ts";

const START_MS = Date.UTC(2026, 5, 1);
const HOUR = 3_600_000;
const QUARTER = 15 * 60_000;

let ids = 0;
function spend(state: LedgerState, value: bigint, nowMs: number, estimate = 1n): readonly Signal[] {
  const id = `r${ids++}`;
  const of = { id, spender: SPENDER, ancestors: [], amounts: [{ unit: "usd_micros", value: estimate }] };
  run(state, { kind: "reserve", ...of, expiresAtMs: nowMs + 1000, nowMs });
  const amounts = [{ unit: "usd_micros", value }];
  const events = run(state, { kind: "commit", id, amounts, late: false, nowMs });
  return events.flatMap((event) => (event.kind === "committed" ? event.signals : []));
}

const words = (signals: readonly Signal[]): string[] => {
  return signals.map((s) =>
    s.kind === "threshold" ? `${s.percent} %` : s.kind === "overrun" ? `over ${s.over}` : s.kind,
  );
};
const ledgerWith = (rule: Rule) => ledgerOf(reviseWith([rule]));

describe("thresholds", () => {
  it("are told once each, the highest that one spend crosses", () => {
    const state = ledgerWith(ruleOf("usd", { limit: 100n }));
    const told = [49n, 1n, 0n, 29n, 1n, 19n, 1n].map((value) => words(spend(state, value, START_MS)));
    expect(told).toEqual([[], ["50 %"], [], [], ["80 %"], [], ["100 %"]]);
    const other = ledgerWith(ruleOf("usd", { limit: 100n }));
    expect(words(spend(other, 85n, START_MS))).toEqual(["80 %"]);
  });

  it("are of limit and grants, and of those that the budget names", () => {
    const state = ledgerWith(ruleOf("usd", { limit: 50n, alerts: [90] }));
    const author = { by: "o", reason: "r", atMs: 0 };
    const grant = { kind: "grant", budget: "usd", subject: undefined, value: 50n } as const;
    run(state, { kind: "order", key: "k", request: grant, author, nowMs: START_MS });
    expect(words(spend(state, 89n, START_MS))).toEqual([]);
    expect(words(spend(state, 1n, START_MS))).toEqual(["90 %"]);
  });

  it("begin anew with each window", () => {
    const state = ledgerWith(ruleOf("usd", { limit: 100n, window: "day@UTC" }));
    expect(words(spend(state, 60n, START_MS))).toEqual(["50 %"]);
    expect(words(spend(state, 60n, START_MS + 24 * HOUR))).toEqual(["50 %"]);
  });

  it("are not told of a bucket, which is meant to be emptied; an overrun is", () => {
    const state = ledgerWith(ruleOf("usd", { limit: 5n, window: "rolling:5/1000" }));
    expect(words(spend(state, 5n, START_MS))).toEqual([]);
    expect(words(spend(state, 9n, START_MS + 1000))).toEqual(["over 4"]);
  });

  it("an overrun says by how much, each time it grows", () => {
    const state = ledgerWith(ruleOf("usd", { limit: 10n, alerts: [] }));
    expect(words(spend(state, 12n, START_MS))).toEqual(["over 2"]);
  });
});

describe("forecasts", () => {
  it("say when a day's budget will be empty at the pace of the last slots, once a day", () => {
    const state = ledgerWith(ruleOf("usd", { limit: 1000n, alerts: [], window: "day@UTC" }));
    const told = Array.from({ length: 12 }, (_, i) => spend(state, 20n, START_MS + i * QUARTER));
    const forecasts = told.flatMap((signals, i) =>
      signals.filter((s) => s.kind === "forecast").map((s) => [i, s.emptyAtMs]),
    );
    // 20 in a quarter of an hour; after the second spend 960 are left: 48 quarters from then.
    expect(forecasts).toEqual([[1, START_MS + QUARTER + 48 * QUARTER]]);
  });

  it("say nothing of a pace that the window outlasts", () => {
    const state = ledgerWith(ruleOf("usd", { limit: 100_000n, alerts: [], window: "day@UTC" }));
    for (let i = 0; i < 12; i++) expect(spend(state, 20n, START_MS + i * QUARTER)).toEqual([]);
  });

  it("of a total look a day ahead, and repeat themselves a day later", () => {
    const state = ledgerWith(ruleOf("usd", { limit: 10_000n, alerts: [] }));
    const told: number[] = [];
    for (let i = 0; i < 60; i++) {
      for (const { kind } of spend(state, 120n, START_MS + i * HOUR)) if (kind === "forecast") told.push(i);
    }
    expect(told[0]).toBe(59 - (59 - (told[0] ?? 0)));
    expect(told.length).toBeGreaterThan(0);
    const [first = 0, second] = told;
    expect(10_000 - 120 * (first + 1)).toBeLessThan(24 * 120);
    if (second !== undefined) expect(second - first).toBeGreaterThan(24);
  });
});

/** Repeatable: mulberry32. */
function random(seed: number): () => number {
  let a = seed;
  return () => {
    a = (a + 0x6d2b79f5) | 0;
    let t = Math.imul(a ^ (a >>> 15), 1 | a);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296;
  };
}

function poisson(mean: number, next: () => number): number {
  let product = next();
  let n = 0;
  for (const limit = Math.exp(-mean); product > limit; n++) product *= next();
  return n;
}

const SERIES: Readonly<Record<string, (i: number, next: () => number) => number>> = {
  steady: (_, next) => 100 * poisson(30, next),
  constant: () => 500,
  idle: (_, next) => (next() < 0.2 ? 100 : 0),
  "by day and night": (i, next) => 100 * poisson(20 + 15 * Math.sin((2 * Math.PI * i) / 24), next),
  heavy: (_, next) => Math.round(1000 * Math.exp(0.5 * (next() + next() + next() + next() - 2))),
};

/** Of each series, what is spent in a slot that has its mean or more. */
const USUAL: Readonly<Record<string, number>> = {
  ...{ steady: 3_000, constant: 500, idle: 100, heavy: 1_000 },
  "by day and night": 2_000,
};

describe("what is unusual", () => {
  /** Slots, of the series, that pass the alarm of those before them. */
  const alarms = (name: string, seed: number, change: (x: number, i: number) => number): number[] => {
    const next = random(seed);
    const past: bigint[] = [];
    const found: number[] = [];
    for (let i = 0; i < 400; i++) {
      const x = BigInt(Math.round(change(SERIES[name]?.(i, next) ?? 0, i)));
      const alarm = alarmOf(past.slice(-KEEP));
      if (alarm !== undefined && x > alarm) found.push(i);
      past.push(x);
    }
    return found;
  };

  it.each(Object.keys(SERIES))("%s: hardly a false word in 20 series of 400 slots", (name) => {
    const all = Array.from({ length: 20 }, (_, seed) => alarms(name, seed, (x) => x).length);
    const sum = all.reduce((a, b) => a + b, 0);
    expect(sum / (20 * 400)).toBeLessThanOrEqual(0.002);
  });

  it.each(Object.keys(SERIES))("%s: ten times as much in one slot is told, in 20 of 20 series", (name) => {
    const told = Array.from({ length: 20 }, (_, seed) => {
      return alarms(name, seed, (x, i) => (i === 300 ? 10 * Math.max(x, USUAL[name] ?? 0) : x)).includes(300);
    });
    expect(told.filter(Boolean)).toHaveLength(20);
  });

  it("one outlier does not hide the next", () => {
    const found = alarms("steady", 1, (x, i) => (i === 300 || i === 303 ? 20 * x : x));
    expect(found).toEqual(expect.arrayContaining([300, 303]));
  });

  it("is told by the ledger once in a slot, while the slot lasts, and not before there is a past", () => {
    const state = ledgerWith(ruleOf("usd", { limit: 10n ** 12n, alerts: [] }));
    for (let i = 0; i < MIN_PAST; i++) expect(words(spend(state, 100n + BigInt(i), START_MS + i * HOUR))).toEqual([]);
    const now = START_MS + MIN_PAST * HOUR;
    const told = [110n, 10n, 5_000n, 5_000n].map((value, i) => words(spend(state, value, now + i)));
    expect(told).toEqual([[], [], ["anomaly"], []]);
  });
});
