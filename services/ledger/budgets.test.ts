import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { FileProblems } from "../shared/yaml-file.ts";
import { loadBudgets } from "./budgets.ts";
import { windowText } from "./window.ts";

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "budgets-"));
});
afterAll(() => rmSync(folder, { recursive: true }));

function load(text: string) {
  const file = join(folder, "budgets.yaml");
  writeFileSync(file, text);
  return loadBudgets(file);
}

function problemsOf(text: string): string[] {
  try {
    load(text);
  } catch (error) {
    if (!(error instanceof FileProblems)) throw error;
    return error.problems.map(({ line, field, message }) => `${line} ${field}: ${message}`);
  }
  return [];
}

const entry = (fields: Record<string, unknown>): string => {
  const all = { name: "b", tenant: "shop", scope: "session", unit: "usd_micros", limit: 5, ...fields };
  return `  - ${Object.entries(all)
    .map(([key, value]) => `${key}: ${value}`)
    .join("\n    ")}\n`;
};
const file = (...entries: readonly Record<string, unknown>[]): string => `budgets:\n${entries.map(entry).join("")}`;

describe("a file", () => {
  it("is read by tenant, and its revision says what it says", () => {
    const loaded = load(file({ name: "a" }, { name: "b", scope: "agent & tool:pay.out" }, { tenant: "other" }));
    const { rules, revision } = loaded.ofTenant("shop");
    expect([loaded.size, loaded.tenants]).toEqual([3, ["shop", "other"]]);
    expect(rules.map(({ id, limit }) => `${id} ${limit}`)).toEqual([
      "a usd_micros total session 5",
      "b usd_micros total agent & tool:pay.out 5",
    ]);
    expect(load(file({ name: "a" }, { name: "b", scope: "tool:pay.out & agent:*" })).ofTenant("shop").revision).toBe(
      revision,
    );
    expect(load(file({ name: "a" })).ofTenant("shop").revision).not.toBe(revision);
    expect(loaded.ofTenant("nobody").rules).toEqual([]);
  });

  it.each([
    ["", "total", 5n],
    ["{ calendar: day }", "day@UTC", 5n],
    ["{ calendar: month, zone: Asia/Kolkata }", "month@Asia/Kolkata", 5n],
    ["{ rolling: 1m }", "rolling:5/60000", 5n],
    ["{ rolling: 500ms, burst: 2 }", "rolling:5/500", 2n],
  ])("window %s is %s and holds %d", (window, text, limit) => {
    const [rule] = load(file(window === "" ? {} : { window })).ofTenant("shop").rules;
    expect(rule && [windowText(rule.window), rule.limit]).toEqual([text, limit]);
  });

  it("may count units of its own", () => {
    const { units, rules } = load(`units:\n  gpu_ms: GPU time\n${file({ unit: "gpu_ms" })}`).ofTenant("shop");
    expect([units, rules[0]?.unit]).toEqual([["gpu_ms"], "gpu_ms"]);
  });
});

describe("limits", () => {
  it.each([
    ["0", 0n],
    ["1_000", 1000n],
    ["'9223372036854775807'", 9223372036854775807n],
    ["9_223_372_036_854_775_807", 9223372036854775807n],
  ])("%s", (limit, expected) => {
    expect(load(file({ limit })).ofTenant("shop").rules[0]?.limit).toBe(expected);
  });

  it("a number that a double cannot hold is refused, not rounded", () => {
    expect(problemsOf(file({ limit: "9223372036854775807" }))).toHaveLength(1);
  });

  it.each(["-1", "1.5", "1e3x", "1_00", "''", "9_223_372_036_854_775_808", "true"])("%s is refused", (limit) => {
    expect(problemsOf(file({ limit }))[0]).toMatch(/^6 budgets\.0\.limit: give (a whole number|at most)/);
  });
});

const PROBLEMS: readonly [string, string, readonly (string | RegExp)[]][] = [
  ["no budgets", "{}", [/^1 budgets: /]],
  ["another key", `${file({})}extra: 1\n`, [/Unrecognized key: "extra"/]],
  ["no YAML", "budgets: [", [/^1? ?\d* : /]],
  ["a field missing", "budgets:\n  - name: b\n", [/tenant/, /scope/, /unit/, /limit/]],
  ["a name", file({ name: "'a b'" }), [/^2 budgets\.0\.name: use 1 to 64 letters/]],
  ["a scope", file({ scope: "planet" }), [/^4 budgets\.0\.scope: "planet" is no scope; use tenant, or agent, user/]],
  ["a scope twice", file({ scope: "agent & agent" }), ["4 budgets.0.scope: agent stands there twice; name it once."]],
  ["a session's name", file({ scope: "session:a b" }), [/^4 budgets\.0\.scope: "a b" is no session; name one/]],
  ["a tool's name", file({ scope: "tool:Pay" }), [/^4 budgets\.0\.scope: "Pay" is no tool; name one/]],
  ["a unit", file({ unit: "eur" }), [/^5 budgets\.0\.unit: eur is no unit; use usd_micros, calls/]],
  ["a unit that is there", `units:\n  calls: calls\n${file({})}`, ["2 units.calls: calls is there already."]],
  ["a period", file({ window: "{ calendar: year }" }), [/^7 budgets\.0\.window: write \{ calendar/]],
  ["a zone", file({ window: "{ calendar: day, zone: Mars/Base }" }), [/window.*: .*(time zone|write \{)/]],
  ["an offset for a zone", file({ window: "{ calendar: day, zone: '+02:00' }" }), [/window/]],
  ["a time", file({ window: "{ rolling: 5 minutes }" }), [/window/]],
  ["two windows", file({ window: "{ rolling: 5m, calendar: day }" }), [/window/]],
  ["an alert", file({ alerts: "[150]" }), [/^7 budgets\.0\.alerts\.0: /]],
  [
    "a day above its month",
    file({ window: "{ calendar: day }", limit: 9 }, { name: "m", window: "{ calendar: month }", limit: 8 }),
    [
      "6 budgets.0.limit: 9 can never be used: m on line 12 lets no more than 8 through in longer; lower this or raise that.",
    ],
  ],
  [
    "an hour above all time",
    file({ window: "{ calendar: hour }", limit: 9 }, { name: "t", limit: 8 }),
    [/^6 .*never be used: t/],
  ],
  [
    "a name twice",
    file({}, { scope: "agent" }),
    ["7 budgets.1.name: Tenant shop has a budget b already, on line 2; rename one."],
  ],
  [
    "a cap twice",
    file({}, { name: "c", scope: "session:*" }),
    ["11 budgets.1.limit: It caps the usd_micros of session, as b on line 6 does; keep the one that you mean."],
  ],
];

describe("problems", () => {
  it.each(PROBLEMS)("%s", (_name, text, expected) => {
    const found = problemsOf(text);
    expect(found).toHaveLength(expected.length);
    for (const [i, part] of expected.entries()) {
      if (typeof part === "string") expect(found[i]).toBe(part);
      else expect(found[i]).toMatch(part);
    }
  });

  it.each([
    [
      "a day below its month",
      [
        { window: "{ calendar: day }", limit: 8 },
        { name: "m", window: "{ calendar: month }", limit: 9 },
      ],
    ],
    [
      "a week may lie in two months",
      [
        { window: "{ calendar: week }", limit: 9 },
        { name: "m", window: "{ calendar: month }", limit: 8 },
      ],
    ],
    [
      "a day there may lie in two here",
      [
        { window: "{ calendar: day, zone: Asia/Tokyo }", limit: 9 },
        { name: "m", window: "{ calendar: month }", limit: 8 },
      ],
    ],
    [
      "a rate beside a total",
      [
        { window: "{ rolling: 1m }", limit: 9 },
        { name: "t", limit: 8 },
      ],
    ],
    ["all and one", [{}, { name: "one", scope: "session:s1" }]],
  ])("no problem: %s", (_name, entries) => {
    expect(problemsOf(file(...entries))).toEqual([]);
  });

  it("the same name is free in another tenant", () => {
    expect(problemsOf(file({}, { tenant: "other" }))).toEqual([]);
  });

  it("a file that is not there", () => {
    expect(() => loadBudgets(join(folder, "none.yaml"))).toThrow("cannot be read (ENOENT)");
  });
});

describe("our own files", () => {
  const policies = join(import.meta.dirname, "../../policies");
  it.each(["budgets.yaml", "airline/budgets.yaml", "bench/budgets.yaml"])("%s is sound", (path) => {
    expect(loadBudgets(join(policies, path)).size).toBeGreaterThan(0);
  });
});
