import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { decide, type Match, mergeObligations, type Obligations, OUTCOMES, type Outcome } from "./decide.ts";

const asked = { subject: "agent:a", tool: "t.x" };

function holds(order: number, outcome: Outcome, obligations: Obligations = {}): Match {
  return { kind: "holds", rule: { at: `p.csv:${order}`, order, outcome, reason: `Because ${order}.`, obligations } };
}

function broken(order: number, outcome: Outcome): Match {
  return { kind: "broken", rule: holds(order, outcome).rule, why: "it reads args.x, which this call does not have" };
}

describe("precedence", () => {
  const stricter = (a: Outcome, b: Outcome): Outcome =>
    OUTCOMES[Math.max(OUTCOMES.indexOf(a), OUTCOMES.indexOf(b))] ?? "deny";
  const pairs = OUTCOMES.flatMap((a) => OUTCOMES.map((b) => ({ a, b, want: stricter(a, b) })));

  test.each(pairs)("$a and $b make $want", ({ a, b, want }) => {
    const { outcome, reasons, matchedRules } = decide(asked, [holds(1, a), holds(2, b)]);
    expect(outcome).toBe(want);
    const deciding = [a, b].flatMap((one, i) => (one === want ? [i + 1] : []));
    expect(reasons).toEqual(deciding.map((order) => `Because ${order}.`));
    expect(matchedRules.slice(0, deciding.length)).toEqual(deciding.map((order) => `p.csv:${order}`));
    expect(matchedRules).toHaveLength(2);
  });

  test("the table itself: deny over require_approval over allow", () => {
    expect(pairs.map(({ want }) => want)).toEqual([
      ...["allow", "require_approval", "deny"],
      ...["require_approval", "require_approval", "deny"],
      ...["deny", "deny", "deny"],
    ]);
  });

  test("nothing matches: deny, naming agent and tool", () => {
    expect(decide(asked, [])).toEqual({
      outcome: "deny",
      reasons: ["No rule allows agent a to call t.x."],
      matchedRules: [],
      obligations: {},
    });
  });

  test.each(OUTCOMES)("an %s rule that cannot be evaluated denies and says so", (outcome) => {
    const decision = decide(asked, [holds(1, "allow"), broken(2, outcome)]);
    expect(decision.outcome).toBe("deny");
    expect(decision.reasons).toEqual([
      "Rule p.csv:2 could not be evaluated: it reads args.x, which this call does not have. A call is denied when that happens.",
    ]);
    expect(decision.matchedRules).toEqual(["p.csv:2", "p.csv:1"]);
  });

  test("two rules with one sentence say it once", () => {
    const twin = holds(2, "allow");
    const match: Match = { ...twin, rule: { ...twin.rule, reason: "Because 1." } };
    expect(decide(asked, [holds(1, "allow"), match]).reasons).toEqual(["Because 1."]);
  });
});

describe("obligations", () => {
  test.each<{ name: string; all: Obligations[]; want: Obligations }>([
    { name: "none", all: [{}, {}], want: {} },
    {
      name: "limits: the smallest",
      all: [{ limits: { wallMs: 5 } }, { limits: { wallMs: 3 } }],
      want: { limits: { wallMs: 3 } },
    },
    {
      name: "different limits: each",
      all: [{ limits: { wallMs: 5 } }, { limits: { pids: 2, memoryBytes: 9 } }],
      want: { limits: { wallMs: 5, pids: 2, memoryBytes: 9 } },
    },
    { name: "quorum: the largest", all: [{ quorum: 1 }, { quorum: 3 }, {}], want: { quorum: 3 } },
    { name: "time: the shortest", all: [{ approvalTtlMs: 9 }, { approvalTtlMs: 4 }], want: { approvalTtlMs: 4 } },
    {
      name: "one group",
      all: [{}, { approverGroups: ["g"] }, { approverGroups: ["g"] }],
      want: { approverGroups: ["g"] },
    },
    {
      name: "groups: all of them",
      all: [{ approverGroups: ["leads"] }, { approverGroups: ["finance", "leads"] }],
      want: { approverGroups: ["finance", "leads"] },
    },
  ])("$name", ({ all, want }) => {
    expect(mergeObligations(all)).toEqual(want);
  });

  test("limits of an allow bind a call that is asked about", () => {
    const decision = decide(asked, [
      holds(1, "allow", { limits: { wallMs: 5 } }),
      holds(2, "require_approval", { quorum: 2 }),
    ]);
    expect(decision.obligations).toEqual({ limits: { wallMs: 5 }, quorum: 2 });
  });

  test("a deny imposes nothing", () => {
    expect(decide(asked, [holds(1, "allow", { limits: { wallMs: 5 } }), holds(2, "deny")]).obligations).toEqual({});
  });

  test("two rules that name two groups ask both", () => {
    const ask = (order: number, ...approverGroups: string[]) => holds(order, "require_approval", { approverGroups });
    const decision = decide(asked, [ask(1, "leads"), ask(2, "finance")]);
    expect(decision).toMatchObject({
      outcome: "require_approval",
      obligations: { approverGroups: ["finance", "leads"] },
      matchedRules: ["p.csv:1", "p.csv:2"],
    });
  });

  test.each<{ name: string; rules: Obligations[]; want: Obligations }>([
    {
      name: "a confirmation where every rule is content with one",
      rules: [{ confirm: true }],
      want: { confirm: true },
    },
    { name: "four eyes where one rule wants them", rules: [{ confirm: true }, {}], want: {} },
    {
      name: "the escalation that all name, after the longest time",
      rules: [
        { escalateGroup: "bosses", escalateAfterMs: 5 },
        { escalateGroup: "bosses", escalateAfterMs: 9 },
      ],
      want: { escalateGroup: "bosses", escalateAfterMs: 9 },
    },
    {
      name: "no escalation where one rule has none",
      rules: [{ escalateGroup: "bosses", escalateAfterMs: 5 }, {}],
      want: {},
    },
  ])("who else may answer: $name", ({ rules, want }) => {
    const matches = rules.map((rule, i) => holds(i, "require_approval", rule));
    expect(decide(asked, matches).obligations).toEqual(want);
  });
});

const obligationsArb = fc.record(
  {
    limits: fc.record(
      { wallMs: fc.integer({ min: 1, max: 9 }), pids: fc.integer({ min: 1, max: 9 }) },
      { requiredKeys: [] },
    ),
    approverGroups: fc.constantFrom(["g1"], ["g2"], ["g1", "g2"]),
    confirm: fc.boolean(),
    escalateGroup: fc.constantFrom("e1", "e2"),
    quorum: fc.integer({ min: 1, max: 5 }),
    approvalTtlMs: fc.integer({ min: 1, max: 99 }),
  },
  { requiredKeys: [] },
);
const matchesArb = fc
  .array(fc.tuple(fc.constantFrom(...OUTCOMES), obligationsArb, fc.boolean()), { maxLength: 8 })
  .map((all) => all.map(([outcome, duty, ok], i) => (ok ? holds(i, outcome, duty) : broken(i, outcome))));

describe("properties", () => {
  test("the order in which matches come never matters", () => {
    fc.assert(
      fc.property(
        matchesArb.chain((all) => fc.tuple(fc.constant(all), fc.shuffledSubarray(all, { minLength: all.length }))),
        ([all, shuffled]) => {
          expect(decide(asked, shuffled)).toEqual(decide(asked, all));
        },
      ),
    );
  });

  test("one more match never makes a decision with a match less strict", () => {
    fc.assert(
      fc.property(matchesArb, fc.constantFrom(...OUTCOMES), (all, outcome) => {
        fc.pre(all.length > 0);
        const rank = (matches: readonly Match[]) => OUTCOMES.indexOf(decide(asked, matches).outcome);
        expect(rank([...all, holds(99, outcome)])).toBeGreaterThanOrEqual(rank(all));
      }),
    );
  });
});
