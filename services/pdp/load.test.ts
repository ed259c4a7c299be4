import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { FileProblems } from "../shared/yaml-file.ts";
import { POLICIES, policyOf, withPolicyDir } from "./fixture.ts";
import { loadPolicy } from "./load.ts";

const GOOD = "p, t, *, *, allow, true, Because.";
const MODEL = readFileSync(join(POLICIES, "model.conf"), "utf8");

/** What is wrong with a directory, its own path left out. */
async function problemsOf(files: Record<string, string>): Promise<string[]> {
  return withPolicyDir(files, async (dir) => {
    const error = await loadPolicy(dir).then(
      () => undefined,
      (thrown: unknown) => thrown,
    );
    expect(error).toBeInstanceOf(FileProblems);
    return (error as FileProblems).message.replaceAll(`${dir}/`, "").split("\n");
  });
}

/** The second line of a file, and what is said of it. */
const BAD_LINES: [line: string, problem: string][] = [
  ["q, t", ":2: A line begins with p (a rule), g (a role) or g2 (a tool group), not with 'q'."],
  [
    "p, t, *, *, allow, true",
    ":2: A rule is p, tenant, subject, tool, outcome, when, reason, obligations; here are 5 columns after p.",
  ],
  ["p, t, *, *, allow, oneOf(r.impact, 'low'), Because.,,", ":2: Brackets do not pair in a field"],
  ["p, t, *, *, allow, true, Because, of that., wall_ms=1", ":2: A rule is p, tenant, subject"],
  ['p, t, *, *, allow, "true, Because.', ":2: A quoted field does not end"],
  ['p, t, *, *, allow, r.impact == "low", Because.', ":2: A quote stands in the middle of a field"],
  ["p, t, *, *, allow, true, Because\u0000.", ":2: It has a control character"],
  ["p, *, *, *, allow, true, Because.", ":2: tenant: Name one tenant"],
  ["p, t, clerk, *, allow, true, Because.", ":2: subject: Write agent:<name>, user:<name>, role:<name>, or *"],
  ["p, t, *, orders*, allow, true, Because.", ":2: tool: Write a tool's name"],
  ["p, t, *, *.lookup, allow, true, Because.", ":2: tool: Write a tool's name"],
  ["p, t, *, *, permit, true, Because.", ":2: outcome: 'permit' is no outcome; write allow, require_approval, deny."],
  ["p, t, *, *, ALLOW, true, Because.", ":2: outcome: 'ALLOW' is no outcome"],
  ["p, t, *, *, allow, , Because.", ":2: when: Write the condition"],
  ["p, t, *, *, allow, r.args.n >, Because.", ":2: when: It cannot be read"],
  ["p, t, *, *, allow, shout(r.user), Because.", ":2: when: shout() is no function of conditions"],
  ["p, t, *, *, allow, true, ", ":2: reason: Write one sentence"],
  [`p, t, *, *, allow, true, ${"x".repeat(301)}`, ":2: reason: Write one sentence of at most 300"],
  ["p, t, *, *, deny, true, Because., wall_ms=5", ":2: obligations: A deny rule imposes nothing"],
  [
    "p, t, *, *, allow, true, Because., color=red",
    ":2: obligations: color is no obligation; there are approver_group,",
  ],
  ["p, t, *, *, allow, true, Because., toString=1", ":2: obligations: toString is no obligation"],
  ["p, t, *, *, allow, true, Because., quorum=2", ":2: obligations: quorum is for require_approval rules"],
  ["p, t, *, *, allow, true, Because., wall_ms=0", ":2: obligations: wall_ms=0: give a whole number of at least 1."],
  ["p, t, *, *, allow, true, Because., wall_ms=1.5", ":2: obligations: wall_ms=1.5: give a whole number"],
  ["p, t, *, *, allow, true, Because., wall_ms=1;wall_ms=2", ":2: obligations: wall_ms is given twice; keep one."],
  ["p, t, *, *, allow, true, Because., wall_ms", ":2: obligations: Write 'wall_ms=' as name=value."],
  [
    "p, t, *, *, require_approval, true, Because., quorum=11",
    ":2: obligations: quorum=11: give a whole number from 1 to 10.",
  ],
  ["p, t, *, *, require_approval, true, Because., ttl=60", ":2: obligations: ttl=60: give a time such as 30s"],
  ["p, t, *, *, require_approval, true, Because., ttl=31d", ":2: obligations: ttl=31d: give a time"],
  [
    "p, t, *, *, require_approval, true, Because., approver_group=a b",
    ":2: obligations: approver_group=a b: use 1 to 64",
  ],
  ["g, agent:a, role:r", ":2: Write g, who, role, tenant; here are 2 columns after g."],
  ["g, agent:a, role:r, t, x", ":2: Write g, who, role, tenant; here are 4 columns after g."],
  ["g, a, role:r, t", ":2: who: Write agent:<name>, user:<name> or role:<name>."],
  ["g, agent:a, r, t", ":2: role: Write role:<name>."],
  ["g, agent:a, role:r, *", ":2: tenant: Name one tenant"],
  ["g2, orders.*, group:g, t", ":2: tool: Write one tool's name"],
  ["g2, orders.refund, money, t", ":2: group: Write group:<name>."],
  ["g2, orders.refund, group:g", ":2: Write g2, tool, group, tenant; here are 2"],
  [
    "p, t, role:clrk, *, deny, true, Because.",
    ":2: subject: Nobody in tenant t has role:clrk: mend the name, or grant it",
  ],
  [`p, t, *, *, deny, "!g(r.subject, 'role:clrk', r.tenant)", Because.`, ":2: when: Nobody in tenant t has role:clrk"],
  ["p, t, *, *, allow, true, Because.", ":2: It says the same as policy.csv:1; remove one of them."],
  ["g, role:r, role:r, t", ":2: role: Roles go round in a circle"],
];

describe("a malformed line is named by file, line and field", () => {
  test.each(BAD_LINES)("%s", async (line, problem) => {
    const [first, ...others] = await problemsOf({ "policy.csv": `${GOOD}\n${line}\n` });
    expect(first).toMatch(/^policy\.csv:2: /);
    expect(
      problem.startsWith(":") ? first?.includes(`policy.csv${problem}`) : new RegExp(problem).test(first ?? ""),
    ).toBe(true);
    expect(others).toEqual([]);
  });

  test("all of them at once, over all files", async () => {
    const problems = await problemsOf({
      "a.csv": "p, t, clerk, orders*, permit, oops, \n",
      "b.csv": `# fine\r\n\r\n${GOOD}\r\nx, y\r\n`,
      "model.conf": MODEL.replace("g2 = _, _, _", "g2 = _, _"),
    });
    expect(problems.map((line) => line.split(": ").slice(0, 2).join(": "))).toEqual([
      expect.stringMatching(/^model\.conf:\d+: g2$/),
      "a.csv:1: subject",
      "a.csv:1: tool",
      "a.csv:1: outcome",
      "a.csv:1: reason",
      "a.csv:1: when",
      expect.stringMatching(/^b\.csv:4: A line begins with p/),
    ]);
  });

  test("roles in a circle, and deeper than Casbin follows", async () => {
    const circle = ["g, role:a, role:b, t", "g, role:b, role:a, t", GOOD].join("\n");
    expect(await problemsOf({ "policy.csv": circle })).toEqual([
      expect.stringMatching(/^policy\.csv:1: role: Roles go round in a circle/),
      expect.stringMatching(/^policy\.csv:2: role: Roles go round in a circle/),
    ]);
    const deep = Array.from({ length: 11 }, (_, i) => `g, role:r${i}, role:r${i + 1}, t`);
    expect((await problemsOf({ "policy.csv": [...deep, GOOD].join("\n") }))[0]).toMatch(
      /^policy\.csv:1: role: .*deeper than 10/,
    );
    await expect(policyOf(...deep.slice(1), GOOD)).resolves.toBeDefined();
  });
});

describe("a directory that is not whole", () => {
  test.each<[name: string, files: Record<string, string>, problem: RegExp]>([
    ["no rules", {}, /: There is no \*\.csv file with rules here; write policy\.csv\.$/],
    [
      "a model that is no model",
      { "policy.csv": GOOD, "model.conf": "hello" },
      /^model\.conf: Casbin cannot read it: /,
    ],
    [
      "a model without a section",
      { "policy.csv": GOOD, "model.conf": MODEL.replace(/\[matchers\][\s\S]*/, "") },
      /^model\.conf: Casbin cannot read it: missing required sections: matchers/,
    ],
    [
      "a matcher that forgets the tenant",
      { "policy.csv": GOOD, "model.conf": MODEL.replace("m = r.tenant == p.tenant && ", "m = ") },
      /^model\.conf:\d+: m: Write m = r\.tenant == p\.tenant && .*: the index relies on it\.$/,
    ],
    [
      "an effect that allows by default",
      {
        "policy.csv": GOOD,
        "model.conf": MODEL.replace("e = some(where (p.eft == allow))", "e = !some(where (p.eft == deny))"),
      },
      /^model\.conf:\d+: e: Write e = /,
    ],
  ])("%s", async (_name, files, problem) => {
    const problems = await problemsOf(files);
    expect(problems).toHaveLength(1);
    expect(problems[0]).toMatch(problem);
  });

  test("no directory", async () => {
    const missing = join(POLICIES, "no-such-directory");
    await expect(loadPolicy(missing)).rejects.toThrow(
      /no-such-directory\/model\.conf: The file cannot be read as UTF-8 text \(ENOENT\)/,
    );
    await expect(loadPolicy(missing)).rejects.toThrow(/no-such-directory: The directory cannot be read \(ENOENT\)/);
  });
});

describe("the revision", () => {
  test("is the same for the same content, wherever it lies", async () => {
    const [one, other] = [await policyOf(GOOD), await policyOf(GOOD)];
    expect(one.revision).toMatch(/^[0-9a-f]{64}$/);
    expect(other.revision).toBe(one.revision);
  });

  test("does not change with a comment's words", async () => {
    const of = async (comment: string) => (await policyOf(comment, GOOD)).revision;
    expect(await of("# one")).toBe(await of("# two words"));
  });

  test.each<[name: string, lines: string[]]>([
    ["another reason", ["p, t, *, *, allow, true, Because!"]],
    ["another line, which policy.csv:1 would now name", ["", GOOD]],
    ["one more rule", [GOOD, "p, t, *, x.y, deny, true, No."]],
    ["one more role", [GOOD, "g, agent:a, role:r, t"]],
  ])("changes with %s", async (_name, lines) => {
    expect((await policyOf(...lines)).revision).not.toBe((await policyOf(GOOD)).revision);
  });
});

test("the rules of all files are counted", async () => {
  const files = { "a.csv": GOOD, "b.csv": "p, u, *, *, deny, true, No.\ng, agent:a, role:r, u" };
  const policy = await withPolicyDir(files, loadPolicy);
  expect([policy.countRules(), policy.countRules("u"), policy.countRules("nobody")]).toEqual([2, 1, 0]);
});
