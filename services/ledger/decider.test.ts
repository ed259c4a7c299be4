import { describe, expect, it } from "vitest";
import { type Amount, INT64_MAX, type Unit } from "./amounts.ts";
import { type BudgetInScope, type Command, ledgerDecider, MAX_EXPIRED } from "./decider.ts";
import { KEEP_MS } from "./recent.ts";
import { counterKey, type LedgerEvent, type LedgerState } from "./state.ts";

const { decide, evolve, initial, eventToJson, eventFromJson, stateToJson, stateFromJson } = ledgerDecider;

const LEASE_MS = 1000;
const money = (limit: bigint): BudgetInScope => {
  return { budget: "usd", scope: "session", subject: "s1", unit: "usd_micros", limit };
};
const calls = (limit: bigint): BudgetInScope => {
  return { budget: "calls", scope: "agent", subject: "a1", unit: "calls", limit };
};
const BUDGETS = [money(100n), calls(3n)];
const of = (values: Partial<Record<Unit, bigint>>): Amount[] => {
  return Object.entries(values).map(([unit, value]) => ({ unit, value }));
};
const PRICE = of({ calls: 1n, usd_micros: 40n });

type Reserve = Command & { kind: "reserve" };
const reserve = (id: string, change: Partial<Reserve> = {}): Reserve => {
  return { kind: "reserve", id, budgets: BUDGETS, amounts: PRICE, expiresAtMs: LEASE_MS, nowMs: 0, ...change };
};
const commit = (id: string, nowMs: number, amounts = PRICE): Command => ({ kind: "commit", id, amounts, nowMs });
const release = (id: string, nowMs: number): Command => ({ kind: "release", id, nowMs });
const extend = (id: string, nowMs: number, expiresAtMs: number): Command => {
  return { kind: "extend", id, expiresAtMs, nowMs };
};
const expire = (nowMs: number): Command => ({ kind: "expire", nowMs });

/** Runs commands that must all be accepted. */
function ledgerOf(...commands: readonly Command[]): LedgerState {
  return commands.reduce((state, command) => {
    const decided = decide(state, command);
    if (decided.kind === "refused") throw new Error(`refused: ${decided.refusal.kind}`);
    return decided.events.reduce(evolve, state);
  }, initial());
}

/** What the command would do, in a word or two: the kinds of its events, or its refusal. */
function outcome(state: LedgerState, command: Command): string {
  const decided = decide(state, command);
  if (decided.kind === "accepted") return decided.events.map(({ kind }) => kind).join("+") || "nothing";
  const { refusal } = decided;
  return refusal.kind === "ended" ? `ended: ${refusal.how}` : refusal.kind;
}

function figures(state: LedgerState, budget: BudgetInScope): readonly [held: bigint, spent: bigint] {
  const counter = state.counters.get(counterKey(budget));
  return [counter?.held ?? 0n, counter?.spent ?? 0n];
}

/** Every standing a reservation can have, as the commands that lead there. Each is then asked at `nowMs`. */
const STANDINGS = {
  unknown: { commands: [], nowMs: 10 },
  held: { commands: [reserve("r")], nowMs: 10 },
  "lease over": { commands: [reserve("r")], nowMs: LEASE_MS },
  expired: { commands: [reserve("r"), expire(LEASE_MS)], nowMs: LEASE_MS + 10 },
  "expired, clock set back": { commands: [reserve("r"), expire(LEASE_MS)], nowMs: 10 },
  committed: { commands: [reserve("r"), commit("r", 5)], nowMs: 10 },
  "committed late": { commands: [reserve("r"), commit("r", LEASE_MS + 5)], nowMs: LEASE_MS + 10 },
  released: { commands: [reserve("r"), release("r", 5)], nowMs: 10 },
} satisfies Record<string, { commands: readonly Command[]; nowMs: number }>;
type StandingName = keyof typeof STANDINGS;

const ASKED = {
  "reserve, same amounts": (nowMs) => reserve("r", { nowMs, expiresAtMs: nowMs + LEASE_MS }),
  "reserve, other amounts": (nowMs) => reserve("r", { nowMs, expiresAtMs: nowMs + 1, amounts: of({ calls: 1n }) }),
  "reserve, lease already over": (nowMs) => reserve("r", { nowMs, expiresAtMs: nowMs }),
  "commit, same amounts": (nowMs) => commit("r", nowMs),
  "commit, other amounts": (nowMs) => commit("r", nowMs, of({ calls: 1n, usd_micros: 7n })),
  release: (nowMs) => release("r", nowMs),
  "extend, later": (nowMs) => extend("r", nowMs, LEASE_MS + 1),
  "extend, not later": (nowMs) => extend("r", nowMs, LEASE_MS),
  expire,
} satisfies Record<string, (nowMs: number) => Command>;
type AskedName = keyof typeof ASKED;

const TABLE: Record<AskedName, Record<StandingName, string>> = {
  "reserve, same amounts": {
    unknown: "reserved",
    held: "nothing",
    "lease over": "ended: expired",
    expired: "ended: expired",
    "expired, clock set back": "ended: expired",
    committed: "ended: committed",
    "committed late": "ended: committed",
    released: "ended: released",
  },
  "reserve, other amounts": {
    unknown: "reserved",
    held: "mismatch",
    "lease over": "ended: expired",
    expired: "ended: expired",
    "expired, clock set back": "ended: expired",
    committed: "ended: committed",
    "committed late": "ended: committed",
    released: "ended: released",
  },
  "reserve, lease already over": {
    unknown: "lease_over",
    held: "nothing",
    "lease over": "ended: expired",
    expired: "ended: expired",
    "expired, clock set back": "ended: expired",
    committed: "ended: committed",
    "committed late": "ended: committed",
    released: "ended: released",
  },
  "commit, same amounts": {
    unknown: "unknown",
    held: "committed",
    "lease over": "expired+committed",
    expired: "committed",
    "expired, clock set back": "committed",
    committed: "nothing",
    "committed late": "nothing",
    released: "ended: released",
  },
  "commit, other amounts": {
    unknown: "unknown",
    held: "committed",
    "lease over": "expired+committed",
    expired: "committed",
    "expired, clock set back": "committed",
    committed: "ended: committed",
    "committed late": "ended: committed",
    released: "ended: released",
  },
  release: {
    unknown: "nothing",
    held: "released",
    "lease over": "expired",
    expired: "nothing",
    "expired, clock set back": "nothing",
    committed: "ended: committed",
    "committed late": "ended: committed",
    released: "nothing",
  },
  "extend, later": {
    unknown: "unknown",
    held: "extended",
    "lease over": "ended: expired",
    expired: "ended: expired",
    "expired, clock set back": "ended: expired",
    committed: "ended: committed",
    "committed late": "ended: committed",
    released: "ended: released",
  },
  "extend, not later": {
    unknown: "unknown",
    held: "nothing",
    "lease over": "ended: expired",
    expired: "ended: expired",
    "expired, clock set back": "ended: expired",
    committed: "ended: committed",
    "committed late": "ended: committed",
    released: "ended: released",
  },
  expire: {
    unknown: "nothing",
    held: "nothing",
    "lease over": "expired",
    expired: "nothing",
    "expired, clock set back": "nothing",
    committed: "nothing",
    "committed late": "nothing",
    released: "nothing",
  },
};

describe("every command in every standing", () => {
  const cases = Object.entries(TABLE).flatMap(([asked, row]) => {
    return Object.entries(row).map(([standing, expected]) => {
      return [asked as AskedName, standing as StandingName, expected] as const;
    });
  });
  it.each(cases)("%s when %s: %s", (asked, standing, expected) => {
    const { commands, nowMs } = STANDINGS[standing];
    expect(outcome(ledgerOf(...commands), ASKED[asked](nowMs))).toBe(expected);
  });
});

describe("what a command leaves", () => {
  const cases: readonly [string, readonly Command[], readonly [bigint, bigint], readonly [bigint, bigint]][] = [
    ["a reserve is held in every unit", [reserve("r")], [40n, 0n], [1n, 0n]],
    [
      "a commit spends what was used",
      [reserve("r"), commit("r", 1, of({ calls: 1n, usd_micros: 7n }))],
      [0n, 7n],
      [0n, 1n],
    ],
    [
      "a commit of a unit that was not held",
      [reserve("r", { amounts: of({ calls: 1n }) }), commit("r", 1)],
      [0n, 40n],
      [0n, 1n],
    ],
    ["a unit that is not committed was not used", [reserve("r"), commit("r", 1, [])], [0n, 0n], [0n, 0n]],
    ["a commit above the limit", [reserve("r"), commit("r", 1, of({ usd_micros: 900n }))], [0n, 900n], [0n, 0n]],
    ["a commit after the lease", [reserve("r"), commit("r", LEASE_MS)], [0n, 40n], [0n, 1n]],
    ["a commit long after the lease", [reserve("r"), expire(LEASE_MS), commit("r", 5000)], [0n, 40n], [0n, 1n]],
    ["a release gives all back", [reserve("r"), release("r", 1)], [0n, 0n], [0n, 0n]],
    ["a lease that is over gives all back", [reserve("r"), expire(LEASE_MS)], [0n, 0n], [0n, 0n]],
    ["an extended lease holds", [reserve("r"), extend("r", 1, 5000), expire(4999)], [40n, 0n], [1n, 0n]],
    ["and ends in its turn", [reserve("r"), extend("r", 1, 5000), expire(5000)], [0n, 0n], [0n, 0n]],
    ["a repeated reserve holds once", [reserve("r"), reserve("r")], [40n, 0n], [1n, 0n]],
    ["a repeated commit spends once", [reserve("r"), commit("r", 1), commit("r", 2)], [0n, 40n], [0n, 1n]],
    ["units that nothing caps", [reserve("r", { amounts: of({ tokens: 9n }) })], [0n, 0n], [0n, 0n]],
  ];
  it.each(cases)("%s", (_name, commands, usd, perCall) => {
    const state = ledgerOf(...commands);
    expect(figures(state, money(0n))).toEqual(usd);
    expect(figures(state, calls(0n))).toEqual(perCall);
  });
});

describe("want of budget", () => {
  it("names the first budget that lacks, and holds nothing against the others", () => {
    const state = ledgerOf(reserve("r1"), reserve("r2"));
    expect(decide(state, reserve("r3"))).toEqual({
      kind: "refused",
      refusal: { kind: "exhausted", budget: money(100n), available: 20n, asked: 40n },
    });
    expect(figures(state, calls(3n))).toEqual([2n, 0n]);
  });

  const debt = ledgerOf(reserve("r"), commit("r", 1, of({ usd_micros: 101n })));
  it.each([
    ["zero", of({ usd_micros: 0n })],
    ["another unit", of({ calls: 1n })],
    ["nothing", []],
  ])("an overrun budget refuses %s", (_name, amounts) => {
    expect(outcome(debt, reserve("next", { amounts }))).toBe("exhausted");
  });

  it("a budget that is used up exactly refuses no zero", () => {
    const state = ledgerOf(reserve("r"), commit("r", 1, of({ usd_micros: 100n })));
    expect(outcome(state, reserve("next", { amounts: of({ usd_micros: 0n }) }))).toBe("reserved");
    expect(outcome(state, reserve("next", { amounts: of({ usd_micros: 1n }) }))).toBe("exhausted");
  });

  it("a hold whose lease is over makes room for the command that finds it", () => {
    const state = ledgerOf(reserve("r1"), reserve("r2"));
    const later = { nowMs: LEASE_MS, expiresAtMs: 9000 };
    expect(outcome(state, reserve("r3", { ...later, nowMs: LEASE_MS - 1 }))).toBe("exhausted");
    expect(outcome(state, reserve("r3", later))).toBe("expired+reserved");
  });

  it("the limit is the one that the command brings", () => {
    const state = ledgerOf(reserve("r"), commit("r", 1));
    expect(outcome(state, reserve("next", { budgets: [money(79n)] }))).toBe("exhausted");
    expect(outcome(state, reserve("next", { budgets: [money(80n)] }))).toBe("reserved");
    expect(outcome(state, reserve("next", { budgets: [money(39n)], amounts: [] }))).toBe("exhausted");
  });

  it("subjects of one budget have counters of their own, as have its other units and scopes", () => {
    const state = ledgerOf(reserve("r", { budgets: [money(40n)] }));
    for (const change of [{ subject: "s2" }, { scope: "agent" }, { budget: "usd2" }] as const) {
      expect(outcome(state, reserve("next", { budgets: [{ ...money(40n), ...change }] }))).toBe("reserved");
    }
    expect(outcome(state, reserve("next", { budgets: [money(40n)] }))).toBe("exhausted");
  });
});

describe("amounts", () => {
  const wrong: readonly [string, Amount[]][] = [
    ["unknown_unit", [{ unit: "dollars", value: 1n }]],
    ["repeated_unit", [...of({ calls: 1n }), ...of({ calls: 1n })]],
    ["negative_amount", of({ calls: -1n })],
    ["overflow", of({ calls: INT64_MAX + 1n })],
  ];
  it.each(wrong)("%s is refused by reserve and commit", (kind, amounts) => {
    expect(outcome(initial(), reserve("r", { amounts }))).toBe(kind);
    expect(outcome(ledgerOf(reserve("r")), commit("r", 1, amounts))).toBe(kind);
  });

  it("a spend that passes int64 is refused, and one that reaches it is not", () => {
    const budgets = [money(INT64_MAX)];
    const first = commit("r1", 1, of({ usd_micros: INT64_MAX - 40n }));
    const state = ledgerOf(reserve("r1", { budgets }), first, reserve("r2", { budgets }));
    expect(outcome(state, commit("r2", 2, of({ usd_micros: 41n })))).toBe("overflow");
    expect(outcome(state, commit("r2", 2))).toBe("committed");
  });

  it("what others hold counts too: it may be spent yet", () => {
    const budgets = [money(INT64_MAX)];
    const state = ledgerOf(reserve("r1", { budgets }), reserve("r2", { budgets }));
    expect(outcome(state, commit("r1", 1, of({ usd_micros: INT64_MAX - 39n })))).toBe("overflow");
    expect(outcome(state, commit("r1", 1, of({ usd_micros: INT64_MAX - 40n })))).toBe("committed");
  });
});

describe("many leases at once", () => {
  const ids = Array.from({ length: MAX_EXPIRED + 5 }, (_, i) => `r${i}`);
  const budgets = [calls(BigInt(ids.length))];
  const full = () => ledgerOf(...ids.map((id) => reserve(id, { budgets })));

  it("one command ends so many, the next the rest", () => {
    const state = full();
    const ended = [1, 2, 3].map(() => {
      const decided = decide(state, expire(LEASE_MS));
      if (decided.kind === "refused") throw new Error("expire is never refused");
      decided.events.reduce(evolve, state);
      return decided.events.flatMap((event) => (event.kind === "expired" ? event.ids : [])).length;
    });
    expect(ended).toEqual([MAX_EXPIRED, 5, 0]);
    expect(figures(state, calls(0n))).toEqual([0n, 0n]);
  });

  it("one that is over counts as expired though its turn has not come", () => {
    const state = full();
    for (const id of ids) {
      expect(outcome(state, extend(id, LEASE_MS, 5000))).toBe("ended: expired");
      expect(outcome(state, commit(id, LEASE_MS))).toBe("expired+committed");
    }
  });
});

describe("journal form", () => {
  const events: readonly [LedgerEvent, unknown][] = [
    [
      { kind: "reserved", id: "r", amounts: PRICE, counters: [counterIdOf(money(0n))], expiresAtMs: 9, atMs: 1 },
      {
        kind: "reserved",
        id: "r",
        amounts: { calls: "1", usd_micros: "40" },
        counters: ["usd session s1 usd_micros"],
        expiresAtMs: 9,
        atMs: 1,
      },
    ],
    [
      { kind: "committed", id: "r", amounts: of({ usd_micros: INT64_MAX }), lateFor: undefined, atMs: 1 },
      { kind: "committed", id: "r", amounts: { usd_micros: "9223372036854775807" }, atMs: 1 },
    ],
    [
      { kind: "committed", id: "r", amounts: [], lateFor: [counterIdOf(calls(0n))], atMs: 1 },
      { kind: "committed", id: "r", amounts: {}, lateFor: ["calls agent a1 calls"], atMs: 1 },
    ],
    [
      { kind: "released", id: "r", atMs: 1 },
      { kind: "released", id: "r", atMs: 1 },
    ],
    [
      { kind: "extended", id: "r", expiresAtMs: 9, atMs: 1 },
      { kind: "extended", id: "r", expiresAtMs: 9, atMs: 1 },
    ],
    [
      { kind: "expired", ids: ["r", "q"], atMs: 1 },
      { kind: "expired", ids: ["r", "q"], atMs: 1 },
    ],
  ];
  it.each(events)("%o", (event, json) => {
    const written = JSON.parse(JSON.stringify(eventToJson(event)));
    expect(written).toEqual(json);
    expect(eventFromJson(written)).toEqual(event);
  });

  it.each([
    ["another kind", { kind: "refunded", id: "r", atMs: 1 }],
    ["a field too many", { kind: "released", id: "r", atMs: 1, why: "x" }],
    ["a counter without a unit", { ...(events[0]?.[1] as object), counters: ["usd session s1"] }],
    ["a counter of no scope", { ...(events[0]?.[1] as object), counters: ["usd planet s1 usd_micros"] }],
    ["a unit of no kind", { ...(events[0]?.[1] as object), amounts: { dollars: "1" } }],
    ["an amount below zero", { ...(events[0]?.[1] as object), amounts: { calls: "-1" } }],
    ["null", null],
  ])("%s is refused", (_name, json) => {
    expect(() => eventFromJson(json)).toThrow();
  });

  it("a snapshot keeps both generations of what ended and what expired", () => {
    const later = { nowMs: 2 * KEEP_MS, expiresAtMs: 2 * KEEP_MS + 1 };
    const state = ledgerOf(
      ...[reserve("c1"), commit("c1", 1), reserve("e1"), expire(LEASE_MS)],
      ...[reserve("c2", later), release("c2", later.nowMs), reserve("e2", later), expire(later.expiresAtMs)],
    );
    for (const recent of [state.ended, state.expired]) expect([recent.old.size, recent.young.size]).toEqual([1, 1]);
    expect(stateFromJson(JSON.parse(JSON.stringify(stateToJson(state))))).toEqual(state);
  });

  it("a snapshot that points past its counters is refused", () => {
    const json = stateToJson(ledgerOf(reserve("r"))) as Record<string, unknown>;
    expect(() => stateFromJson(JSON.parse(JSON.stringify({ ...json, counters: [] })))).toThrow("no counter 0");
  });
});

function counterIdOf({ limit: _limit, ...id }: BudgetInScope) {
  return id;
}
