import { readFileSync } from "node:fs";
import { join } from "node:path";
import { type Enforcer, newEnforcer, newModelFromString, StringAdapter } from "casbin";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { toolFunctions } from "./casbin.ts";
import { OUTCOMES, type Outcome } from "./decide.ts";
import { type Facts, toRequest } from "./facts.ts";
import { type FactsChange, factsOf, POLICIES, policyOf } from "./fixture.ts";
import { FUNCTIONS } from "./functions.ts";

const rule = (tenant: string, subject: string, tool: string, outcome: Outcome, when = "true") =>
  `p, ${tenant}, ${subject}, ${tool}, ${outcome}, "${when}", ${outcome} by ${subject} for ${tool}.`;

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

const CONDITIONS = [
  "true",
  "r.args.n > 2",
  "r.args.n <= 2 || r.impact == 'high'",
  "contains(r.labels, 'private-data')",
  "!g(r.subject, 'role:r1', r.tenant)",
];
const tenantArb = fc.constantFrom("t", "u");
const agentArb = fc.constantFrom("a", "b", "c");
const roleArb = fc.constantFrom("role:r1", "role:r2");
const ruleArb = fc
  .tuple(
    tenantArb,
    fc.oneof(
      fc.constant("*"),
      roleArb,
      agentArb.map((name) => `agent:${name}`),
    ),
    fc.constantFrom("*", "x.*", "x.y", "x.y.*", "x.y.z", "group:m", "group:p"),
    fc.constantFrom(...OUTCOMES),
    fc.constantFrom(...CONDITIONS),
  )
  .map((columns) => rule(...columns));
/** Every tenant grants both roles to somebody, so that a generated rule is never refused. */
const GRANTS = ["t", "u"].flatMap((tenant) => ["r1", "r2"].map((role) => `g, agent:nobody, role:${role}, ${tenant}`));
const linkArb = fc.oneof(
  fc.tuple(agentArb, roleArb, tenantArb).map(([agent, role, tenant]) => `g, agent:${agent}, ${role}, ${tenant}`),
  tenantArb.map((tenant) => `g, role:r1, role:r2, ${tenant}`),
  tenantArb.map((tenant) => `g2, x.y, group:p, ${tenant}`),
);
const linesArb = fc
  .tuple(fc.uniqueArray(ruleArb, { maxLength: 10 }), fc.array(linkArb, { maxLength: 4 }))
  .map(([rules, links]) => [...GRANTS, ...links, ...rules]);
const factsArb: fc.Arbitrary<Facts> = fc
  .record({
    tenant: tenantArb,
    agent: agentArb,
    name: fc.constantFrom("x", "x.y", "x.y.z", "w.y"),
    impact: fc.constantFrom("low" as const, "high" as const),
    groups: fc.subarray(["m", "p"]),
    labels: fc.subarray(["private-data" as const]),
    n: fc.integer({ min: 1, max: 4 }),
  })
  .map(({ tenant, agent, labels, n, ...tool }) => factsOf({ tenant, agent, labels, args: { n }, tool }));

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

  test("stock Casbin, with the same model and rules and no index, gives the same outcome", async () => {
    await fc.assert(
      fc.asyncProperty(linesArb, fc.array(factsArb, { minLength: 10, maxLength: 10 }), async (lines, all) => {
        const policy = await policyOf(...lines);
        const stock = await stockCasbin(lines);
        for (const facts of all) expect(policy.decide(facts).outcome).toBe(stock(facts));
      }),
      { numRuns: 80 },
    );
  });
});

/** One enforcer for each outcome, asked from the strictest: what the model means in Casbin alone. */
async function stockCasbin(lines: readonly string[]): Promise<(facts: Facts) => Outcome> {
  const modelText = readFileSync(join(POLICIES, "model.conf"), "utf8");
  const enforcers = new Map<Outcome, Enforcer>();
  for (const outcome of OUTCOMES) {
    const kept = lines.filter((line) => !line.startsWith("p,") || line.includes(`, ${outcome}, "`));
    const enforcer = await newEnforcer(newModelFromString(modelText), new StringAdapter(kept.join("\n")));
    for (const [name, call] of Object.entries(toolFunctions())) await enforcer.addFunction(name, call);
    for (const [name, { call }] of Object.entries(FUNCTIONS)) await enforcer.addFunction(name, call);
    enforcers.set(outcome, enforcer);
  }
  return (facts) => {
    const request = Object.values(toRequest(facts));
    const strictest = OUTCOMES.toReversed().find((outcome) => enforcers.get(outcome)?.enforceSync(...request));
    return strictest ?? "deny";
  };
}
