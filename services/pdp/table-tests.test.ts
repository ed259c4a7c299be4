import { describe, expect, test } from "vitest";
import { FileProblems } from "../shared/yaml-file.ts";
import { coverageOf } from "./coverage.ts";
import { policyOf } from "./fixture.ts";
import { TOOLS } from "./service-fixture.ts";
import { parseTests, runTests } from "./table-tests.ts";

/** Table tests: what they may say, what is said of one that fails, and whether they hold the rules in place. */

const RULES = [
  "g, agent:a, role:clerk, t",
  "p, t, role:clerk, orders.lookup, allow, true, Clerks look up., wall_ms=5",
  "p, t, role:clerk, orders.refund, allow, r.args.amount <= 5, Small refunds.",
  "p, t, role:clerk, orders.refund, require_approval, r.args.amount > 5, Large ones are asked about., quorum=2;ttl=1m",
  "p, t, *, *, deny, r.loop == 'stopped', Stopped.",
];
const HEAD = "defaults: { tenant: t, agent: a, tool: orders.refund, args: { amount: 5, currency: usd } }\ntests:\n";

const parse = (yaml: string) => parseTests(new Map([["tests/a.yaml", yaml]]), TOOLS);

async function failuresOf(...lines: string[]) {
  const tests = await parse(HEAD + lines.map((line) => `  - { ${line} }\n`).join(""));
  const results = await runTests(await policyOf(...RULES), tests);
  return results.map(({ failure }) => failure);
}

test("every fact can be stated, and what is not is as the defaults have it", async () => {
  const facts =
    "labels: [private-data], loop: repeating, user: olga, session: s, chain: [orders.lookup], spent: { usd_micros: 7 }, time: 2026-11-24T22:00:00+01:00";
  const [stated, plain] = await parse(
    `${HEAD}  - { name: A, args: { amount: 6 }, ${facts}, expect: allow }\n  - { name: B, expect: deny }\n`,
  );
  expect(stated?.facts).toMatchObject({
    ...{ tenant: "t", agent: "a", user: "olga", session: "s", labels: ["private-data"], loop: "repeating" },
    ...{ args: { amount: 6, currency: "usd" }, chain: ["orders.lookup"], timeMs: Date.UTC(2026, 10, 24, 21) },
    spent: { usd_micros: 7, calls: 0 },
    tool: { name: "orders.refund", impact: "high", groups: ["money"] },
  });
  expect(plain).toMatchObject({ file: "tests/a.yaml", line: 4, name: "B", facts: { args: { amount: 5 }, labels: [] } });
});

test.each<[test: string, failure: RegExp | undefined]>([
  ["name: A, expect: allow", undefined],
  ["name: A, expect: allow, rule: 'policy.csv:3'", undefined],
  ["name: A, expect: allow, reason: Small refunds.", undefined],
  ["name: A, expect: allow, obligations: ''", undefined],
  ["name: A, tool: orders.lookup, expect: allow, obligations: wall_ms=5", undefined],
  ["name: A, args: { amount: 6 }, expect: require_approval, obligations: 'ttl=60s;quorum=2'", undefined],
  ["name: A, expect: deny", /^expected deny, decided allow: Small refunds\. \(policy\.csv:3\)$/],
  [
    "name: A, tool: mail.send, expect: allow",
    /^expected allow, decided deny: No rule allows agent a to call mail\.send\.$/,
  ],
  ["name: A, expect: allow, rule: 'policy.csv:2'", /^expected policy\.csv:2 to decide; it was policy\.csv:3$/],
  ["name: A, expect: allow, reason: Because.", /^expected the reason "Because\."; it was "Small refunds\."$/],
  [
    "name: A, tool: orders.lookup, expect: allow, obligations: ''",
    /^expected the obligations \{\}; they were \{"limits":\{"wallMs":5\}\}$/,
  ],
])("%s", async (line, failure) => {
  const [found] = await failuresOf(line);
  expect(found).toEqual(failure === undefined ? undefined : expect.stringMatching(failure));
});

describe("a malformed test is named by file, line, field and mend", () => {
  test.each<[line: string, problem: RegExp]>([
    ["name: A, expect: maybe", /^tests\/a\.yaml:3: tests\.0\.expect: write allow, require_approval, deny\.$/],
    ["expect: allow", /^tests\/a\.yaml:3: tests\.0\.name: /],
    ["name: A, expect: allow, colour: red", /^tests\/a\.yaml:3: tests\.0: .*colour/],
    [
      "name: A, tool: orders.eat, expect: allow",
      /^tests\/a\.yaml:3: tests\.0\.tool: There is no tool orders\.eat; mend the name, or describe it/,
    ],
    ["name: A, agent: '', expect: allow", /^tests\/a\.yaml:3: tests\.0\.agent: Name the agent, or the user/],
    [
      "name: A, expect: allow, obligations: color=red",
      /^tests\/a\.yaml:3: tests\.0\.obligations: color is no obligation/,
    ],
    ["name: A, expect: allow, time: noon", /^tests\/a\.yaml:3: tests\.0\.time: write a time such as/],
    ["name: A, expect: allow, labels: [wet]", /^tests\/a\.yaml:3: tests\.0\.labels\.0: /],
  ])("%s", async (line, problem) => {
    const parsed = parse(`${HEAD}  - { ${line} }\n`);
    await expect(parsed).rejects.toBeInstanceOf(FileProblems);
    await expect(parsed).rejects.toThrow(problem);
  });

  test("a file too long to be read in one go", async () => {
    await expect(parse(`${HEAD}#${"x".repeat(256 << 10)}`)).rejects.toThrow(
      /^tests\/a\.yaml: It is longer than 262144 characters/,
    );
  });
});

describe("coverage and mutation", () => {
  const cover = async (...lines: string[]) => {
    const policy = await policyOf(...RULES);
    const tests = await parse(HEAD + lines.map((line) => `  - { ${line} }\n`).join(""));
    const results = await runTests(policy, tests);
    const { uncovered, mutants, survivors } = coverageOf(policy, results);
    return { uncovered, mutants, survivors: survivors.map(({ at, change }) => `${at} ${change}`) };
  };
  const WHOLE = [
    "name: A, tool: orders.lookup, expect: allow",
    "name: B, expect: allow, obligations: ''",
    "name: C, args: { amount: 6 }, expect: require_approval",
    "name: D, loop: stopped, expect: deny, reason: Stopped.",
  ];

  test("a rule that matches in no test is uncovered, and nothing notices its loss", async () => {
    const { uncovered, survivors } = await cover("name: A, tool: orders.lookup, expect: allow");
    expect(uncovered).toEqual(["policy.csv:3", "policy.csv:4", "policy.csv:5"]);
    expect(survivors).toEqual(expect.arrayContaining(["policy.csv:3 drop", "policy.csv:3 flip", "policy.csv:4 drop"]));
    expect(survivors).not.toContain("policy.csv:2 drop");
  });

  test("tests that hold every rule leave only a mutant that decides alike", async () => {
    // Where more than 5 is asked about whatever the small refund says, its condition may as well be true.
    expect(await cover(...WHOLE)).toEqual({ uncovered: [], mutants: 11, survivors: ["policy.csv:3 widen"] });
  });

  test("a test that fails anyway notices nothing", async () => {
    const { survivors } = await cover("name: A, tool: orders.lookup, expect: deny");
    expect(survivors).toContain("policy.csv:2 drop");
  });
});
