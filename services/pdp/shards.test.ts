import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { Outcome } from "./decide.ts";
import { type FactsChange, factsOf, policyOf } from "./fixture.ts";
import { factsArb, linesArb, rule, ruleArb } from "./generated.ts";

type Case = { name: string; lines: string[]; facts?: FactsChange; want: Outcome; rules: string[] };

const MATCHING: Case[] = [
  {
    name: "the literal tool",
    lines: [rule("t", "*", "orders.refund", "allow")],
    want: "allow",
    rules: ["policy.csv:1"],
  },
  { name: "another tool", lines: [rule("t", "*", "orders.lookup", "allow")], want: "deny", rules: [] },
  { name: "a literal is no prefix", lines: [rule("t", "*", "orders", "allow")], want: "deny", rules: [] },
  { name: "a prefix", lines: [rule("t", "*", "orders.*", "allow")], want: "allow", rules: ["policy.csv:1"] },
  {
    name: "a prefix of a longer name",
    lines: [rule("t", "*", "a.*", "allow"), rule("t", "*", "a.b.*", "require_approval")],
    facts: { tool: { name: "a.b.c" } },
    want: "require_approval",
    rules: ["policy.csv:2", "policy.csv:1"],
  },
  {
    name: "a prefix ends at a dot",
    lines: [rule("t", "*", "orders.*", "allow")],
    facts: { tool: { name: "orders-old.refund" } },
    want: "deny",
    rules: [],
  },
  {
    name: "a prefix is not the tool of that name",
    lines: [rule("t", "*", "orders.*", "allow")],
    facts: { tool: { name: "orders" } },
    want: "deny",
    rules: [],
  },
  { name: "every tool", lines: [rule("t", "*", "*", "allow")], want: "allow", rules: ["policy.csv:1"] },
  {
    name: "a group of the manifest",
    lines: [rule("t", "*", "group:money", "allow")],
    facts: { tool: { groups: ["x", "money"] } },
    want: "allow",
    rules: ["policy.csv:1"],
  },
  {
    name: "a group of the policy",
    lines: ["g2, orders.refund, group:money, t", rule("t", "*", "group:money", "allow")],
    want: "allow",
    rules: ["policy.csv:2"],
  },
  {
    name: "a group of another tenant's policy",
    lines: ["g2, orders.refund, group:money, u", rule("t", "*", "group:money", "allow")],
    want: "deny",
    rules: [],
  },
  { name: "the agent by name", lines: [rule("t", "agent:a", "*", "allow")], want: "allow", rules: ["policy.csv:1"] },
  { name: "another agent", lines: [rule("t", "agent:b", "*", "allow")], want: "deny", rules: [] },
  {
    name: "a role",
    lines: ["g, agent:a, role:clerk, t", rule("t", "role:clerk", "*", "allow")],
    want: "allow",
    rules: ["policy.csv:2"],
  },
  {
    name: "an inherited role",
    lines: ["g, agent:a, role:lead, t", "g, role:lead, role:clerk, t", rule("t", "role:clerk", "*", "allow")],
    want: "allow",
    rules: ["policy.csv:3"],
  },
  {
    name: "inheritance goes one way",
    lines: [
      ...["g, agent:a, role:clerk, t", "g, agent:z, role:lead, t", "g, role:lead, role:clerk, t"],
      rule("t", "role:lead", "*", "allow"),
    ],
    want: "deny",
    rules: [],
  },
  {
    name: "roles ten deep",
    lines: [
      "g, agent:a, role:r1, t",
      ...Array.from({ length: 9 }, (_, i) => `g, role:r${i + 1}, role:r${i + 2}, t`),
      rule("t", "role:r10", "*", "allow"),
    ],
    want: "allow",
    rules: ["policy.csv:11"],
  },
  {
    name: "a role held in another tenant",
    lines: ["g, agent:a, role:clerk, u", "g, agent:z, role:clerk, t", rule("t", "role:clerk", "*", "allow")],
    want: "deny",
    rules: [],
  },
  { name: "a rule of another tenant", lines: [rule("u", "*", "*", "allow")], want: "deny", rules: [] },
  {
    name: "a tenant without rules",
    lines: [rule("t", "*", "*", "allow")],
    facts: { tenant: "nobody" },
    want: "deny",
    rules: [],
  },
  {
    name: "an agent named like a role has not the role",
    lines: ["g, agent:z, role:a, t", rule("t", "role:a", "*", "allow")],
    want: "deny",
    rules: [],
  },
  {
    name: "deny over ask over allow, whatever their width",
    lines: [
      rule("t", "agent:a", "orders.refund", "allow"),
      rule("t", "*", "orders.*", "require_approval"),
      rule("t", "*", "*", "deny", "r.impact == 'high'"),
    ],
    facts: { tool: { impact: "high" } },
    want: "deny",
    rules: ["policy.csv:3", "policy.csv:1", "policy.csv:2"],
  },
  {
    name: "a broken condition of a rule for another tool is not asked",
    lines: [rule("t", "*", "orders.refund", "allow"), rule("t", "*", "orders.lookup", "deny", "r.args.no == 1")],
    want: "allow",
    rules: ["policy.csv:1"],
  },
  {
    name: "a broken allow beside a good one denies",
    lines: [rule("t", "*", "orders.refund", "allow"), rule("t", "*", "*", "allow", "r.args.no == 1")],
    want: "deny",
    rules: ["policy.csv:2", "policy.csv:1"],
  },
];

test.each(MATCHING)("$name: $want", async ({ lines, facts, want, rules }) => {
  const policy = await policyOf(...lines);
  const first = policy.decide(factsOf(facts));
  expect([first.outcome, first.matchedRules]).toEqual([want, rules]);
  expect(policy.decide(factsOf(facts))).toEqual(first);
});

describe("properties", () => {
  test("the order of the rules never matters", async () => {
    const withShuffle = linesArb.chain((lines) =>
      fc.tuple(fc.constant(lines), fc.shuffledSubarray(lines, { minLength: lines.length })),
    );
    await fc.assert(
      fc.asyncProperty(withShuffle, factsArb, async ([lines, shuffled], facts) => {
        const [one, other] = [(await policyOf(...lines)).decide(facts), (await policyOf(...shuffled)).decide(facts)];
        expect(other.outcome).toBe(one.outcome);
        expect(other.reasons.toSorted()).toEqual(one.reasons.toSorted());
        expect(other.obligations).toEqual(one.obligations);
      }),
      { numRuns: 60 },
    );
  });

  test("one more deny rule never turns a decision into allow", async () => {
    await fc.assert(
      fc.asyncProperty(linesArb, ruleArb, factsArb, async (lines, extra, facts) => {
        const deny = extra.replace(/, (allow|require_approval|deny), "/, ', deny, "');
        fc.pre(!lines.includes(deny));
        const before = (await policyOf(...lines)).decide(facts).outcome;
        const after = (await policyOf(...lines, deny)).decide(facts).outcome;
        expect(after).toSatisfy((outcome: Outcome) => outcome === before || outcome === "deny");
      }),
      { numRuns: 60 },
    );
  });
});
