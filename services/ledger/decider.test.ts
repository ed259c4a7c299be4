import { describe, expect, it } from "vitest";
import { figuresAt } from "./account.ts";
import { type Amount, INT64_MAX } from "./amounts.ts";
import { type Command, ledgerDecider, MAX_EXPIRED, type ReserveCommand } from "./decider.ts";
import { AUTHOR, ledgerOf as bareLedgerOf, outcome, refusalOf, reviseWith, ruleOf, run, SPENDER } from "./fixture.ts";
import type { Request } from "./orders.ts";
import { KEEP_ENTRIES } from "./recent.ts";
import { accountKey, type Rule } from "./rules.ts";
import type { LedgerEvent, LedgerState } from "./state.ts";

const { eventToJson, eventFromJson, stateToJson, stateFromJson } = ledgerDecider;

const LEASE_MS = 1000;
const USD = (limit: bigint): Rule => ruleOf("usd", { scope: "session", limit });
const CALLS = (limit: bigint): Rule => ruleOf("calls", { scope: "agent", unit: "calls", limit });
const RULES = [USD(100n), CALLS(3n)];
const of = (values: Record<string, bigint>): Amount[] => {
  return Object.entries(values).map(([unit, value]) => ({ unit, value }));
};
const PRICE = of({ calls: 1n, usd_micros: 40n });

const reserve = (id: string, change: Partial<ReserveCommand> = {}): ReserveCommand => {
  const base = { kind: "reserve", id, spender: SPENDER, ancestors: [], amounts: PRICE } as const;
  return { ...base, expiresAtMs: LEASE_MS, nowMs: 0, ...change };
};
const commit = (id: string, nowMs: number, amounts = PRICE, late = true): Command => {
  return { kind: "commit", id, amounts, late, nowMs };
};
const release = (id: string, nowMs: number): Command => ({ kind: "release", id, nowMs });
const extend = (id: string, nowMs: number, expiresAtMs: number): Command => {
  return { kind: "extend", id, expiresAtMs, nowMs };
};
const expire = (nowMs: number): Command => ({ kind: "expire", nowMs });
const order = (key: string, request: Request): Command => ({ kind: "order", key, request, author: AUTHOR, nowMs: 0 });

/** On the two budgets above. */
const ledgerOf = (...commands: readonly Command[]) => bareLedgerOf(reviseWith(RULES), ...commands);
const ledgerWith = (rules: readonly Rule[], ...commands: readonly Command[]) => {
  return bareLedgerOf(reviseWith(rules), ...commands);
};

function figures(state: LedgerState, rule: Rule, subject: string): readonly [held: bigint, spent: bigint] {
  const { held, spent } = figuresAt(state.accounts.get(accountKey(rule, subject)), 0);
  return [held, spent];
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
  "commit, not said to be late": (nowMs) => commit("r", nowMs, PRICE, false),
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
    committed: "commit_mismatch",
    "committed late": "commit_mismatch",
    released: "ended: released",
  },
  "commit, not said to be late": {
    unknown: "unknown",
    held: "committed",
    "lease over": "ended: expired",
    expired: "ended: expired",
    "expired, clock set back": "ended: expired",
    committed: "nothing",
    "committed late": "nothing",
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
    expect(figures(state, USD(0n), "s1")).toEqual(usd);
    expect(figures(state, CALLS(0n), "a1")).toEqual(perCall);
  });
});

describe("want of budget", () => {
  it("names the first budget that lacks, and holds nothing against the others", () => {
    const state = ledgerOf(reserve("r1"), reserve("r2"));
    expect(refusalOf(state, reserve("r3"))).toEqual({
      ...{ kind: "exhausted", key: "usd usd_micros total session = s1", limit: 100n, granted: 0n },
      ...{ available: 20n, asked: 40n, refillsAtMs: undefined },
    });
    expect(figures(state, CALLS(3n), "a1")).toEqual([2n, 0n]);
  });

  it("an overrun budget refuses also what asks nothing of it", () => {
    const debt = ledgerOf(reserve("r"), commit("r", 1, of({ usd_micros: 101n })));
    expect(outcome(debt, reserve("next", { amounts: of({ calls: 1n }) }))).toBe("exhausted");
  });

  it("a budget that is used up exactly refuses nothing that asks nothing of it", () => {
    const state = ledgerOf(reserve("r"), commit("r", 1, of({ usd_micros: 100n })));
    expect(outcome(state, reserve("next", { amounts: of({ calls: 1n }) }))).toBe("reserved");
    expect(outcome(state, reserve("next", { amounts: of({ usd_micros: 1n }) }))).toBe("exhausted");
  });

  it("a hold whose lease is over makes room for the command that finds it", () => {
    const state = ledgerOf(reserve("r1"), reserve("r2"));
    const later = { nowMs: LEASE_MS, expiresAtMs: 9000 };
    expect(outcome(state, reserve("r3", { ...later, nowMs: LEASE_MS - 1 }))).toBe("exhausted");
    expect(outcome(state, reserve("r3", later))).toBe("expired+reserved");
  });

  it("the limit is that of the revision in force, and what was spent stays", () => {
    const state = ledgerOf(reserve("r"), commit("r", 1));
    run(state, reviseWith([USD(79n)], "r2"));
    expect(outcome(state, reserve("next"))).toBe("exhausted");
    run(state, reviseWith([USD(80n)], "r3"));
    expect(outcome(state, reserve("next"))).toBe("reserved");
  });

  it("subjects of one budget have accounts of their own, as have its other units, windows and scopes", () => {
    const state = ledgerWith([USD(40n)], reserve("r"));
    expect(outcome(state, reserve("next"))).toBe("exhausted");
    expect(outcome(state, reserve("next", { spender: { ...SPENDER, session: "s2" } }))).toBe("reserved");
    for (const change of [{ scope: "agent" }, { window: "day@UTC" }, { unit: "calls" }]) {
      const other = ledgerWith([USD(40n)], reserve("r"));
      run(other, reviseWith([ruleOf("usd", { scope: "session", limit: 40n, ...change })], "r2"));
      expect(outcome(other, reserve("next"))).toBe("reserved");
    }
  });

  it("zero is refused, and a hold for nothing is not made", () => {
    for (const amounts of [[], of({ calls: 0n })]) {
      expect(outcome(ledgerOf(), reserve("r", { amounts }))).toBe("nothing_asked");
    }
  });
});

describe("calls within calls", () => {
  const RULE = ruleOf("all", { unit: "calls", limit: 9n });
  const EACH = ruleOf("each", { scope: "agent", unit: "calls", limit: 2n });
  const nested = (id: string, agent: string, ...ancestors: readonly [string, string][]) => {
    const of = ancestors.map(([call, name]) => ({ id: call, spender: { ...SPENDER, agent: name } }));
    return reserve(id, { spender: { ...SPENDER, agent }, ancestors: of, amounts: [{ unit: "calls", value: 1n }] });
  };

  it("count against every ancestor, and where two have the same budget, once", () => {
    const state = ledgerWith([RULE, { ...EACH, limit: 3n }], nested("top", "a1"), nested("in", "a2", ["top", "a1"]));
    run(state, nested("deep", "a2", ["in", "a2"], ["top", "a1"]));
    expect(figures(state, RULE, "shop")).toEqual([3n, 0n]);
    expect(figures(state, EACH, "a2")).toEqual([2n, 0n]);
    expect(figures(state, EACH, "a1")).toEqual([3n, 0n]);
  });

  it("stop where an ancestor's budget is used up", () => {
    const state = ledgerWith([EACH], nested("top", "a1"), nested("one", "a2", ["top", "a1"]));
    const refusal = refusalOf(state, nested("two", "a3", ["top", "a1"]));
    expect(refusal).toMatchObject({ kind: "exhausted", key: "each calls total agent = a1" });
  });

  it("are of what the ancestor's own hold counts against, whatever is claimed of it", () => {
    const state = ledgerWith([EACH], nested("top", "a1"));
    run(state, nested("in", "a2", ["top", "someone-else"]));
    expect(figures(state, EACH, "a1")).toEqual([2n, 0n]);
    expect(figures(state, EACH, "someone-else")).toEqual([0n, 0n]);
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
    expect(outcome(ledgerOf(), reserve("r", { amounts }))).toBe(kind);
    expect(outcome(ledgerOf(reserve("r")), commit("r", 1, amounts))).toBe(kind);
  });

  it("a spend that passes int64 is refused, and one that reaches it is not", () => {
    const first = commit("r1", 1, of({ usd_micros: INT64_MAX - 40n }));
    const state = ledgerWith([USD(INT64_MAX)], reserve("r1"), first, reserve("r2"));
    expect(outcome(state, commit("r2", 2, of({ usd_micros: 41n })))).toBe("overflow");
    expect(outcome(state, commit("r2", 2))).toBe("committed");
  });

  it("what others hold counts too: it may be spent yet", () => {
    const state = ledgerWith([USD(INT64_MAX)], reserve("r1"), reserve("r2"));
    expect(outcome(state, commit("r1", 1, of({ usd_micros: INT64_MAX - 39n })))).toBe("overflow");
    expect(outcome(state, commit("r1", 1, of({ usd_micros: INT64_MAX - 40n })))).toBe("committed");
  });
});

describe("many leases at once", () => {
  const ids = Array.from({ length: MAX_EXPIRED + 5 }, (_, i) => `r${i}`);
  const rules = [CALLS(BigInt(ids.length))];
  const full = () => ledgerWith(rules, ...ids.map((id) => reserve(id)));

  it("one command ends so many, the next the rest", () => {
    const state = full();
    const ended = [1, 2, 3].map(() => {
      return run(state, expire(LEASE_MS)).flatMap((event) => (event.kind === "expired" ? event.ids : [])).length;
    });
    expect(ended).toEqual([MAX_EXPIRED, 5, 0]);
    expect(figures(state, CALLS(0n), "a1")).toEqual([0n, 0n]);
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
  const key = accountKey(USD(0n), "s1");
  const late = { spender: SPENDER, amounts: PRICE, accounts: [key] };
  const events: readonly [LedgerEvent, unknown][] = [
    [
      {
        ...{ kind: "reserved", id: "r", spender: { ...SPENDER, groups: ["g"] }, ancestors: ["q"] },
        ...{ amounts: PRICE, accounts: [key], expiresAtMs: 9, atMs: 1 },
      },
      {
        ...{ kind: "reserved", id: "r", spender: ["a1", "", "s1", "x.y", "g"], ancestors: ["q"] },
        ...{ amounts: { calls: "1", usd_micros: "40" }, accounts: ["usd usd_micros total session = s1"] },
        ...{ expiresAtMs: 9, atMs: 1 },
      },
    ],
    [
      {
        ...{ kind: "committed", id: "r", amounts: of({ usd_micros: INT64_MAX }), starts: [], signals: [] },
        ...{ late: undefined, atMs: 1 },
      },
      { kind: "committed", id: "r", amounts: { usd_micros: "9223372036854775807" }, atMs: 1 },
    ],
    [
      {
        ...{ kind: "committed", id: "r", amounts: [], starts: [5], late, atMs: 1 },
        signals: [
          { kind: "threshold", account: key, percent: 80 },
          { kind: "overrun", account: key, over: 3n },
          { kind: "forecast", account: key, emptyAtMs: 7 },
          { kind: "anomaly", account: key, sum: 9n, usual: 2n },
        ],
      },
      {
        ...{ kind: "committed", id: "r", amounts: {}, starts: [5], atMs: 1 },
        signals: [
          { kind: "threshold", account: key, percent: 80 },
          { kind: "overrun", account: key, over: "3" },
          { kind: "forecast", account: key, emptyAtMs: 7 },
          { kind: "anomaly", account: key, sum: "9", usual: "2" },
        ],
        late: {
          ...{ spender: ["a1", "", "s1", "x.y"], amounts: { calls: "1", usd_micros: "40" }, accounts: [key] },
        },
      },
    ],
    [
      { kind: "ordered", key: "k", order: { kind: "raise", target: key, limit: 5n }, author: AUTHOR },
      { kind: "ordered", key: "k", order: { kind: "raise", target: key, limit: "5" }, author: AUTHOR },
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

  const reserved = events[0]?.[1] as object;
  it.each([
    ["another kind", { kind: "refunded", id: "r", atMs: 1 }],
    ["no time", { kind: "released", id: "r" }],
    ["a time that is no integer", { kind: "released", id: "r", atMs: 1.5 }],
    ["a spender without a tool", { ...reserved, spender: ["a1", "", "s1"] }],
    ["an amount below zero", { ...reserved, amounts: { calls: "-1" } }],
    ["an amount that is a number", { ...reserved, amounts: { calls: 1 } }],
    ["accounts that are no list", { ...reserved, accounts: key }],
    ["an order of no kind", { kind: "ordered", key: "k", order: { kind: "spend" }, author: AUTHOR }],
    ["null", null],
  ])("%s is refused", (_name, json) => {
    expect(() => eventFromJson(json)).toThrow();
  });

  it("a snapshot keeps both generations of what ended, and all that operators did", () => {
    const state = ledgerOf(reserve("c1"), commit("c1", 1), reserve("e1"), expire(LEASE_MS));
    for (let i = state.ended.young.size; i < KEEP_ENTRIES; i++)
      state.ended.young.set(`filler${i}`, { kind: "released" });
    const later = { nowMs: 2000, expiresAtMs: 2001 };
    for (const command of [
      ...[reserve("c2", later), release("c2", later.nowMs), reserve("e2", later), expire(later.expiresAtMs)],
      reserve("open", { nowMs: 3000, expiresAtMs: 9000 }),
      order("k1", { kind: "freeze", selector: "agent:a9" }),
      order("k2", { kind: "raise", budget: "usd", subject: "s1", limit: 900n }),
      order("k3", { kind: "grant", budget: "usd", subject: "s1", value: 7n }),
      { ...reviseWith(RULES, "r2"), parts: 2 } as Command,
    ]) {
      run(state, command);
    }
    expect([state.ended.old.size, state.ended.young.size]).toEqual([KEEP_ENTRIES, 2]);
    expect(stateFromJson(JSON.parse(JSON.stringify(stateToJson(state))))).toEqual(state);
  });

  it("a snapshot that points past its accounts is refused", () => {
    const json = stateToJson(ledgerOf(reserve("r"))) as Record<string, unknown>;
    expect(() => stateFromJson(JSON.parse(JSON.stringify({ ...json, accounts: [] })))).toThrow("an account's place");
  });
});

describe("what operators order", () => {
  const ASK: Record<string, [Request, string]> = {
    "a budget that is not there": [{ kind: "raise", budget: "eur", subject: undefined, limit: 1n }, "no_budget"],
    "a grant to a budget that is not there": [{ kind: "grant", budget: "eur", subject: "s1", value: 1n }, "no_budget"],
    "a grant to nobody": [{ kind: "grant", budget: "usd", subject: undefined, value: 1n }, "wrong_subject"],
    "a grant of nothing": [{ kind: "grant", budget: "usd", subject: "s1", value: 0n }, "wrong_value"],
    "a grant past counting": [{ kind: "grant", budget: "usd", subject: "s1", value: INT64_MAX }, "wrong_value"],
    "a subject of another shape": [{ kind: "raise", budget: "usd", subject: "s1 & a1", limit: 1n }, "wrong_subject"],
    "a limit below zero": [{ kind: "raise", budget: "usd", subject: "s1", limit: -1n }, "wrong_value"],
    "a freeze of what is no scope": [{ kind: "freeze", selector: "planet:earth" }, "wrong_selector"],
    "a freeze of no budget": [{ kind: "freeze", selector: "budget:eur" }, "no_budget"],
    "a thaw of what is not frozen": [{ kind: "thaw", selector: "agent:a1" }, "not_frozen"],
    "a freeze": [{ kind: "freeze", selector: "agent:a1" }, "ordered"],
    "a raise of one": [{ kind: "raise", budget: "usd", subject: "s1", limit: 1n }, "ordered"],
  };
  it.each(Object.entries(ASK))("%s", (_name, [request, expected]) => {
    expect(outcome(ledgerOf(), order("k", request))).toBe(expected);
  });

  it("the same key and request is done once; the same key for another request is refused", () => {
    const grant = (value: bigint): Request => ({ kind: "grant", budget: "usd", subject: "s1", value });
    const state = ledgerOf(order("k", grant(5n)));
    expect(outcome(state, order("k", grant(5n)))).toBe("nothing");
    expect(outcome(state, order("k", grant(6n)))).toBe("order_mismatch");
    expect(figuresAt(state.accounts.get(accountKey(USD(0n), "s1")), 0).granted).toBe(5n);
  });

  it("a raise is for one subject or for all, and lasts until the file says something new of that budget", () => {
    const state = ledgerOf(order("k1", { kind: "raise", budget: "usd", subject: undefined, limit: 39n }));
    expect(outcome(state, reserve("r"))).toBe("exhausted");
    run(state, order("k2", { kind: "raise", budget: "usd", subject: "s1", limit: 40n }));
    expect(outcome(state, reserve("r"))).toBe("reserved");
    expect(outcome(state, reserve("r", { spender: { ...SPENDER, session: "s2" } }))).toBe("exhausted");
    run(state, reviseWith([USD(100n), CALLS(9n)], "r2"));
    expect(outcome(state, reserve("r", { spender: { ...SPENDER, session: "s2" } }))).toBe("exhausted");
    run(state, reviseWith([USD(99n), CALLS(9n)], "r3"));
    expect(outcome(state, reserve("r", { spender: { ...SPENDER, session: "s2" } }))).toBe("reserved");
  });

  it.each(["agent:a1", "session:s1", "tool:x.y", "user:u1", "group:g", "budget:usd", "tenant"])(
    "%s frozen lets nothing more be held, of a call within its calls neither, and what is held be settled",
    (selector) => {
      const spender = { ...SPENDER, user: "u1", groups: ["g"] };
      const state = ledgerOf(reserve("r", { spender }), order("k", { kind: "freeze", selector }));
      expect(refusalOf(state, reserve("n", { spender }))).toMatchObject({ kind: "frozen", selector, author: AUTHOR });
      const other = { agent: "a2", user: "", session: "s2", tool: "p.q", groups: [] };
      const within = reserve("n", { spender: other, ancestors: [{ id: "gone", spender }] });
      expect(outcome(state, within)).toBe("frozen");
      expect(outcome(state, commit("r", 1))).toBe("committed");
      run(state, order("k2", { kind: "thaw", selector }));
      expect(outcome(state, reserve("n", { spender }))).toBe("reserved");
    },
  );
});

describe("revisions", () => {
  const part = (n: number, rules: readonly Rule[], revision = "r2"): Command => {
    return { ...reviseWith(rules, revision), part: n, parts: 2 } as Command;
  };

  it("are in force whole, with their last part", () => {
    const state = ledgerOf(part(1, [USD(1n)]));
    expect([state.rules.revision, outcome(state, reserve("r"))]).toEqual(["r1", "reserved"]);
    run(state, part(2, [CALLS(9n)]));
    expect([state.rules.revision, outcome(state, reserve("r"))]).toEqual(["r2", "exhausted"]);
  });

  it("may be sent again in any part, and not with a part missing", () => {
    const state = ledgerOf(part(1, [USD(1n)]));
    expect(outcome(state, part(1, [USD(1n)]))).toBe("nothing");
    run(state, part(1, [USD(2n)], "r3"));
    expect(refusalOf(state, part(2, []))).toEqual({ kind: "part_missing", revision: "r2", part: 1 });
    run(state, part(2, [], "r3"));
    expect(outcome(state, part(2, [], "r3"))).toBe("nothing");
  });
});
