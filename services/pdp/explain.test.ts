import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { parseCondition } from "./condition.ts";
import { explain, printExpression } from "./explain.ts";
import { parseExpression } from "./expression.ts";
import { type FactsChange, factsOf, policyOf } from "./fixture.ts";
import { conditionArb } from "./generated.ts";
import { possibility, subjectsOf } from "./possible.ts";
import { TOOLS } from "./service-fixture.ts";

/** Why a call is decided as it is, in sentences that a person can act on. */

const RULES = [
  "g, agent:a, role:clerk, t",
  "g, user:olga, role:lead, t",
  "p, t, role:clerk, orders.refund, allow, r.args.amount <= 5 && r.user == 'olga', Small refunds for Olga.",
  "p, t, role:lead, orders.refund, allow, true, Leads refund., wall_ms=5",
  "p, t, *, *, deny, r.loop == 'stopped', Stopped.",
  "p, t, *, orders.*, deny, r.args.note == 'x', X.",
];

const ask = async (change: FactsChange = {}) =>
  explain(await policyOf(...RULES), factsOf({ args: { amount: 6, note: "" }, user: "paul", ...change }));

test("a denied call: nothing matches, and each rule that nearly did says what it lacked", async () => {
  const { sentences, nearMisses } = await ask();
  expect(sentences).toEqual([
    "Agent a may not call orders.refund.",
    "No rule matches this call, and what no rule allows is denied.",
  ]);
  expect(nearMisses.slice(0, 2)).toEqual([
    { rule: "policy.csv:4", outcome: "allow", missing: ["Agent a does not have role:lead."] },
    { rule: "policy.csv:5", outcome: "deny", missing: ["r.loop == 'stopped' does not hold: r.loop is \"clear\"."] },
  ]);
  expect(nearMisses.at(-1)).toEqual({
    rule: "policy.csv:3",
    outcome: "allow",
    missing: [
      "r.args.amount <= 5 does not hold: r.args.amount is 6.",
      "r.user == 'olga' does not hold: r.user is \"paul\".",
    ],
  });
});

test("an allowed call names the rule, what it imposes, and who was outranked", async () => {
  const person = await ask({ agent: "", user: "olga" });
  expect(person.sentences).toEqual([
    "User olga may call orders.refund.",
    "policy.csv:4 decides (allow): Leads refund.",
    "The rules that match impose wall_ms=5.",
  ]);
  const stopped = await ask({ agent: "", user: "olga", loop: "stopped" });
  expect(stopped.sentences).toContain("policy.csv:4 matches too (allow) and is outranked: Leads refund.");
});

test("a rule that cannot be evaluated is named as what denies", async () => {
  const { sentences } = await ask({ args: { amount: 1 } });
  expect(sentences).toContain(
    "policy.csv:6 could not be evaluated (it reads args.note, which this call does not have), and a rule that cannot be evaluated denies.",
  );
});

test("rules of other tenants and other tools are not near", async () => {
  const { nearMisses } = explain(
    await policyOf(...RULES, "p, u, *, orders.refund, allow, true, U.", "p, t, *, mail.send, allow, true, M."),
    factsOf({ args: { amount: 6, note: "" } }),
  );
  expect(nearMisses.map(({ rule }) => rule)).not.toEqual(expect.arrayContaining(["policy.csv:7"]));
  expect(nearMisses.map(({ rule }) => rule)).not.toEqual(expect.arrayContaining(["policy.csv:8"]));
});

test("a condition printed is the condition", () => {
  fc.assert(
    fc.property(conditionArb, (text) => {
      const [once, again] = [parseCondition(text), parseCondition(printExpression(parseExpression(text)))];
      expect(again.kind).toBe("ok");
      if (once.kind === "ok" && again.kind === "ok")
        expect(again.condition.expression).toEqual(once.condition.expression);
    }),
  );
});

describe("who can, what can", () => {
  const refund = TOOLS.find(({ name }) => name === "orders.refund");
  if (refund === undefined) throw new Error("no orders.refund");

  test("everybody who is named, and * for the others, each with the most that is possible", async () => {
    const policy = await policyOf(...RULES);
    const who = subjectsOf(policy, "t").map((subject) => possibility(policy, "t", subject, refund, 0));
    expect(who.map(({ subject, most }) => [subject, most])).toEqual([
      ["agent:a", "allow"],
      ["user:olga", "allow"],
      ["*", "deny"],
    ]);
    expect(who[0]?.conditions).toEqual([
      "if r.args.amount <= 5 && r.user == 'olga' (policy.csv:3)",
      "unless r.args.note == 'x' (policy.csv:6)",
    ]);
  });
});
