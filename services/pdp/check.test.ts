import { describe, expect, test } from "vitest";
import { formatProblem } from "../shared/yaml-file.ts";
import { canBeChanged, checkPolicy } from "./check.ts";
import { policyOf } from "./fixture.ts";
import { TOOLS } from "./service-fixture.ts";

/** What a push says of rules that read well and are probably not meant. */

const G = "g, agent:a, role:clerk, t";
const lookup = "p, t, role:clerk, orders.lookup, allow, true, Clerks look up.";

async function findingsOf(...lines: string[]): Promise<string[]> {
  const found = await checkPolicy(await policyOf(...lines), TOOLS);
  return found.map((finding) => `${finding.severity} ${formatProblem(finding)}`);
}

test.each<[name: string, lines: string[], found: RegExp | undefined]>([
  ["a sound rule", [G, lookup], undefined],
  [
    "an unknown tool",
    [G, "p, t, role:clerk, orders.refnud, allow, true, X."],
    /^error policy\.csv:2: tool: There is no tool orders\.refnud; mend the name \(orders\.lookup, orders\.refund\)/,
  ],
  [
    "an unknown tool of another family",
    ["p, t, *, fax.send, deny, true, X."],
    /There is no tool fax\.send; mend the name \(orders\.lookup, orders\.refund, mail\.send\)/,
  ],
  [
    "an unknown tool in a group",
    ["g2, orders.eat, group:food, t", "p, t, *, group:food, deny, true, X."],
    /^error policy\.csv:1: tool: There is no tool orders\.eat/,
  ],
  [
    "a prefix that fits nothing",
    ["p, t, *, fax.*, deny, true, X."],
    /^warning policy\.csv:1: tool: fax\.\* fits no tool/,
  ],
  [
    "a group that no manifest has",
    ["p, t, *, group:food, deny, true, X."],
    /^warning policy\.csv:1: tool: group:food fits no tool/,
  ],
  ["a group of a manifest", ["p, t, *, group:money, deny, true, X."], undefined],
  ["changing the policy", ["p, t, *, policy.push, deny, true, X."], undefined],
  [
    "a condition that is never true",
    ["p, t, *, orders.lookup, deny, false, X."],
    /^warning policy\.csv:1: when: It never matches/,
  ],
  [
    "an allow under a deny of the same",
    [G, lookup, "p, t, role:clerk, orders.lookup, deny, true, No."],
    /^warning policy\.csv:2: It can never decide: policy\.csv:3 denies whenever it matches/,
  ],
  [
    "an allow under a deny for everybody",
    [G, lookup, "p, t, *, orders.*, deny, true, No."],
    /^warning policy\.csv:2: It can never decide: policy\.csv:3 denies/,
  ],
  [
    "an allow under a deny of an inherited role",
    [
      "g, agent:a, role:lead, t",
      "g, role:lead, role:clerk, t",
      "p, t, role:lead, orders.lookup, allow, true, X.",
      "p, t, role:clerk, *, deny, true, No.",
    ],
    /^warning policy\.csv:3: It can never decide/,
  ],
  [
    "an allow under a question",
    [G, lookup, "p, t, *, orders.lookup, require_approval, true, Ask."],
    /^warning policy\.csv:2: It can never decide: policy\.csv:3 asks for approval/,
  ],
  [
    "an allow under a question, with limits of its own",
    [G, `${lookup}, wall_ms=5`, "p, t, *, orders.lookup, require_approval, true, Ask."],
    undefined,
  ],
  [
    "an allow beside a deny that has a condition",
    [G, lookup, "p, t, *, orders.lookup, deny, r.loop == 'stopped', No."],
    undefined,
  ],
  ["an allow beside another tenant's deny", [G, lookup, "p, u, *, *, deny, true, No."], undefined],
  [
    "an allow of everything",
    [G, "p, t, role:clerk, *, allow, true, X."],
    /^warning policy\.csv:2: tool: It allows role:clerk every tool there is and will be, policy\.push among them/,
  ],
  [
    "an allow of a family to everybody",
    ["p, t, *, orders.*, allow, true, X."],
    /^warning policy\.csv:1: subject: It allows everybody of the tenant/,
  ],
  ["an allow of everything under a condition", [G, "p, t, role:clerk, *, allow, r.impact == 'low', X."], undefined],
])("%s", async (_name, lines, found) => {
  const findings = await findingsOf(...lines);
  if (found === undefined) expect(findings).toEqual([]);
  else expect(findings).toContainEqual(expect.stringMatching(found));
});

test("two rules that say different things of the same are named", async () => {
  const when = "r.args.amount > 5";
  const found = await findingsOf(
    `p, t, *, orders.refund, allow, ${when}, X.`,
    `p, t, *, orders.refund, deny, ${when}, X.`,
  );
  expect(found).toEqual([
    expect.stringMatching(/^warning policy\.csv:2: outcome: policy\.csv:1 says allow for the same/),
  ]);
});

describe("whether somebody could change the policy", () => {
  test.each<[lines: string[], want: boolean]>([
    [["p, t, *, policy.push, require_approval, true, X."], true],
    [["p, t, *, policy.*, allow, true, X."], true],
    [["p, t, *, group:policy, allow, true, X."], true],
    [["p, t, *, policy.push, deny, true, X."], false],
    [["p, t, *, orders.lookup, allow, true, X."], false],
    [["p, u, *, policy.*, allow, true, X."], false],
  ])("%j: %s", async (lines, want) => {
    expect(canBeChanged(await policyOf(...lines), "t")).toBe(want);
  });
});
