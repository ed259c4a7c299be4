import { describe, expect, test } from "vitest";
import type { JsonObject } from "../shared/json.ts";
import { parseCondition } from "./condition.ts";
import { factsOf, policyOf } from "./fixture.ts";
import { glob } from "./glob.ts";

/** The outcome of one allow rule with this condition, and why. */
async function ask(when: string, args: JsonObject = {}, change = {}) {
  const policy = await policyOf("g, agent:a, role:clerk, t", `p, t, *, *, allow, "${when}", Because.`);
  const { outcome, reasons, matchedRules } = policy.decide(factsOf({ args, ...change }));
  return matchedRules.length === 0 ? "no match" : outcome === "allow" ? "holds" : (reasons[0] ?? "");
}

const high = { tool: { impact: "high", effects: ["writes", "spends"], groups: ["money"] } };

describe("a condition holds or does not", () => {
  test.each<[when: string, want: "holds" | "no match", args?: JsonObject, change?: object]>([
    ["true", "holds"],
    ["false", "no match"],
    ["r.args.n > 20", "holds", { n: 21 }],
    ["r.args.n > 20", "no match", { n: 20 }],
    ["r.args.n >= 20 && r.args.n <= 20", "holds", { n: 20 }],
    ["r.args.n * 2 - 1 + 0 == 5", "holds", { n: 3 }],
    ["r.args.n < -4", "holds", { n: -5 }],
    ["r.args.a.b[1]['c d'] == 'x'", "holds", { a: { b: [0, { "c d": "x" }] } }],
    ["r.args.x == null", "holds", { x: null }],
    ["r.args.x != null", "holds", { x: 0 }],
    ["r.args.day < '2026-02-01'", "holds", { day: "2026-01-31" }],
    ["r.args.yes", "holds", { yes: true }],
    ["!r.args.yes", "no match", { yes: true }],
    ["r.args.n == 1 || r.args.missing == 1", "holds", { n: 1 }],
    ["has(r.args, 'note') && r.args.note == 'x'", "no match", {}],
    ["has(r.args, 'note') && r.args.note == 'x'", "holds", { note: "x" }],
    ["has(r.args, 'toString')", "no match", {}],
    ["glob(r.args.path, '/data/*')", "holds", { path: "/data/a/b" }],
    ["glob(r.args.path, '/data/*')", "no match", { path: "/etc" }],
    ["between(r.args.n, 1, 3)", "holds", { n: 3 }],
    ["between(r.args.n, 1, 3)", "no match", { n: 4 }],
    ["oneOf(r.args.c, 'EUR', 'USD')", "holds", { c: "USD" }],
    ["oneOf(r.args.c, 'EUR', 'USD')", "no match", { c: "usd" }],
    ["contains(r.args.tags, 'vip')", "holds", { tags: ["new", "vip"] }],
    ["contains(r.labels, 'private-data')", "holds", {}, { labels: ["private-data"] }],
    ["contains(r.labels, 'private-data')", "no match"],
    ["r.impact == 'high' && contains(r.effects, 'spends') && contains(r.groups, 'money')", "holds", {}, high],
    ["r.impact == 'high'", "no match"],
    ["r.loop == 'repeating'", "holds", {}, { loop: "repeating" }],
    ["r.user == ''", "holds"],
    ["r.user == 'ada'", "holds", {}, { user: "ada" }],
    ["r.agent == 'a' && r.subject == 'agent:a' && r.session == 's' && r.tenant == 't'", "holds"],
    ["r.tool == 'orders.refund' && r.version == '1.0.0'", "holds"],
    ["r.time.hour == 10 && r.time.minute == 30 && r.time.weekday == 3 && r.time.date == '2026-03-04'", "holds"],
    ["g(r.subject, 'role:clerk', r.tenant)", "holds"],
    ["g(r.subject, 'role:clerk', r.tenant)", "no match", {}, { agent: "b" }],
    ["r.args.q == 'see r.args.x, p.y (and ) \\\\ #'", "holds", { q: "see r.args.x, p.y (and ) \\ #" }],
  ])("%s: %s with %j", async (when, want, args, change) => {
    expect(await ask(when, args, change)).toBe(want);
  });
});

describe("a condition without an answer denies, and says why", () => {
  test.each<[when: string, why: string, args?: JsonObject]>([
    ["r.args.n > 20", "it reads args.n, which this call does not have"],
    ["!(r.args.n > 20)", "it reads args.n, which this call does not have"],
    ["r.args.a.b == 1", "it reads args.a.b, which this call does not have", { a: {} }],
    ["r.args.a.b == 1", "it reads args.a.b, which this call does not have", { a: null }],
    ["r.args.list[3] == 1", "it reads args.list.3, which this call does not have", { list: [1] }],
    ["r.args.constructor == 1", "it reads args.constructor, which this call does not have"],
    ["r.args.s.length == 1", "it reads args.s.length, which this call does not have", { s: "x" }],
    ["r.args.n > 20", "it puts text and a number in order", { n: "30" }],
    ["r.args.n == 20", "it compares text with a number", { n: "20" }],
    ["r.args.n != 20", "it compares a list with a number", { n: [20] }],
    ["r.args.n + 1 > 2", "it wants a number and got text", { n: "9" }],
    ["r.args.n", "the condition is text, not true or false", { n: "yes" }],
    ["r.args.n && true", "what is left of && is a number, not true or false", { n: 1 }],
    ["contains(r.args.tags, 'x')", "contains() wants a list and got text", { tags: "xyz" }],
    ["has(r.args.o, 'x')", "has() wants an object and got a list", { o: [] }],
    ["glob(r.args.p, '*')", "it wants text and got null", { p: null }],
    ["oneOf(r.args.c, 'EUR')", "it compares a number with text", { c: 1 }],
  ])("%s: %s", async (when, why, args) => {
    expect(await ask(when, args)).toBe(
      `Rule policy.csv:2 could not be evaluated: ${why}. A call is denied when that happens.`,
    );
  });
});

describe("what could be misread is refused when the policy is loaded", () => {
  test.each<[when: string, message: string | RegExp]>([
    ["", "Write the condition, or true for a rule that always applies."],
    ["x".repeat(1001), /^Shorten it to 1000 characters/],
    ["r.args.n >", /^It cannot be read: Expected expression after >/],
    ["r.args.n = 1", /^It cannot be read: Unexpected "="/],
    ["'x' in r.labels", /^Join the parts .* contains\(list, 'a'\)/],
    ["amount > 3", /^Replace amount: facts are read as r\.<fact>/],
    ["undefined", /^Replace undefined/],
    ["this", /^Remove this/],
    ["r.args.a ? true : false", /^Use && and \|\|/],
    ["oneOf(1, [1])", /^Lists cannot be written/],
    ["r.amount > 3", /^r\.amount is no fact; there are r\.tenant, /],
    ["p.tool == 'x'", /^p\.tool is no fact/],
    ["r.__proto__ == 1", /^r\.__proto__ is no fact/],
    ["r.constructor == 1", /^r\.constructor is no fact/],
    ["r['args'].x == 1", /is no fact/],
    ["r.args[r.user] == 1", /^Between \[ and \]/],
    ["r.time.year == 2026", /^r\.time\.year is no fact; there are r\.time\.unix_ms/],
    ["r.labels.length > 0", "r.labels.length: this is a list; use contains(list, value)."],
    ["r.user.name == 'x'", "r.user.name: text has no fields."],
    ["regexMatch(r.user, '.*')", /^regexMatch\(\) is no function of conditions; there are glob,/],
    ["eval(r.user)", /^eval\(\) is no function/],
    ["$field(r.args, 'x', 'x')", /is no function/],
    ["r.args.x.includes('y')", /^A method is no function/],
    ["toString()", /^toString\(\) is no function/],
    ["glob(r.user)", "glob() has 1 arguments; write it as glob(r.args.path, '/data/*')."],
    ["glob(r.args, 'x')", /^Argument 1 of glob\(\) is object, not text/],
    ["between(r.args.n, '1', 3)", /^Argument 2 of between\(\) is text, not number/],
    ["r.impact == 'hihg'", "'hihg' can never be there; there are low, medium, high."],
    ["oneOf(r.impact, 'low', 'none')", /^'none' can never be there/],
    ["contains(r.labels, 'private')", /^'private' can never be there/],
    ["r.impact == 3", /^== compares text with number/],
    ["r.labels == 'x'", /^== compares list with text/],
    ["r.args == r.args", /^== cannot compare a whole object/],
    ["r.impact", "the condition is text, not true or false; compare it with something."],
    ["1 && true", /^what is left of && is number/],
    ["!r.user", /^what follows ! is text/],
    ["r.args.a === 1", /^The operator === is not known/],
    ["r.args.a / 2 == 1", /^The operator \/ is not known/],
    ["'a' + 'b' == 'ab'", /^\+ is for numbers, and one side is text/],
    ["-r.args.a == 1", /^The operator - is only for numbers written out/],
    ["r.args.a == 9007199254740993", /^The number 9007199254740993 cannot be held exactly/],
    [
      "g(r.agent, 'role:clerk', r.tenant)",
      /^Ask for a role as g\(r\.subject, 'role:name', r\.tenant\), or of the user/,
    ],
    ["g(r.subject, r.user, r.tenant)", /^Ask for a role/],
  ])("%s", (when, message) => {
    const result = parseCondition(when);
    expect(result.kind === "refused" ? result.message : "accepted").toEqual(
      typeof message === "string" ? message : expect.stringMatching(message),
    );
  });
});

test.each<[text: string, pattern: string, want: boolean]>([
  ["", "", true],
  ["", "*", true],
  ["abc", "abc", true],
  ["abc", "ab", false],
  ["abc", "a*", true],
  ["abc", "*c", true],
  ["abcabc", "a*bc", true],
  ["aXbYc", "a*b*c", true],
  ["aXbY", "a*b*c", false],
  ["a.c", "a.c", true],
  ["abc", "a.c", false],
  ["a*c", "a*c", true],
  ["ABC", "abc", false],
  ["a".repeat(20_000), `${"a*".repeat(50)}b`, false],
])("glob(%.20s, %.20s) is %s", (text, pattern, want) => {
  expect(glob(text, pattern)).toBe(want);
});
