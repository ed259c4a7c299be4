import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { FileProblems } from "../shared/yaml-file.ts";
import { loadBudgets } from "./budgets.ts";

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

describe("in scope", () => {
  const budgets = () => {
    return load(
      file(
        { name: "each-tool", scope: "tool", unit: "calls", limit: 9 },
        { name: "pay", scope: "tool", subject: "payroll.pay" },
        { name: "each-session", limit: "2_000_000" },
        { name: "s1", subject: "s1", unit: "calls" },
        { name: "each-agent", scope: "agent" },
        { name: "all", scope: "tenant" },
        { name: "elsewhere", tenant: "other", scope: "tenant" },
      ),
    );
  };
  const spender = { tenant: "shop", agent: "a1", session: "s1", tool: "payroll.pay" };
  const names = (change: Partial<typeof spender>) => {
    return budgets()
      .inScope({ ...spender, ...change })
      .map(({ budget, subject }) => `${budget} ${subject}`);
  };

  it.each([
    [
      "everything",
      {},
      ["all shop", "each-agent a1", "s1 s1", "each-session s1", "pay payroll.pay", "each-tool payroll.pay"],
    ],
    [
      "another session",
      { session: "s2" },
      ["all shop", "each-agent a1", "each-session s2", "pay payroll.pay", "each-tool payroll.pay"],
    ],
    ["another tool", { tool: "x.y" }, ["all shop", "each-agent a1", "s1 s1", "each-session s1", "each-tool x.y"]],
    ["another tenant", { tenant: "other" }, ["elsewhere other"]],
    ["an unknown tenant", { tenant: "nobody" }, []],
  ])("%s", (_name, change, expected) => {
    expect(names(change)).toEqual(expected);
  });

  it("brings scope, unit and limit, and counts the file", () => {
    const loaded = budgets();
    expect(loaded.inScope({ ...spender, agent: "x", tool: "x", session: "s9" })[2]).toEqual({
      budget: "each-session",
      scope: "session",
      subject: "s9",
      unit: "usd_micros",
      limit: 2_000_000n,
    });
    expect(loaded.size).toBe(7);
    expect(loaded.ofTenant("shop")).toHaveLength(6);
    expect(loaded.ofTenant("nobody")).toEqual([]);
  });
});

describe("limits", () => {
  it.each([
    ["0", 0n],
    ["1_000", 1000n],
    ["'9223372036854775807'", 9223372036854775807n],
    ["9_223_372_036_854_775_807", 9223372036854775807n],
  ])("%s", (limit, expected) => {
    expect(load(file({ limit })).ofTenant("shop")[0]?.limit).toBe(expected);
  });

  it("a number that a double cannot hold is refused, not rounded", () => {
    expect(problemsOf(file({ limit: "9223372036854775807" }))).toHaveLength(1);
  });

  it.each(["-1", "1.5", "1e3x", "1_00", "''", "9_223_372_036_854_775_808", "true"])("%s is refused", (limit) => {
    expect(problemsOf(file({ limit }))[0]).toMatch(/^6 budgets\.0\.limit: give (a whole number|at most)/);
  });
});

describe("problems", () => {
  const cases: readonly [string, string, readonly (string | RegExp)[]][] = [
    ["no budgets", "{}", [/^1 budgets: /]],
    ["another key", `${file({})}extra: 1\n`, [/Unrecognized key: "extra"/]],
    ["no YAML", "budgets: [", [/^1? ?\d* : /]],
    ["a field missing", "budgets:\n  - name: b\n", [/tenant/, /scope/, /unit/, /limit/]],
    ["a name", file({ name: "'a b'" }), [/^2 budgets\.0\.name: use 1 to 64 letters/]],
    ["a scope", file({ scope: "planet" }), ["4 budgets.0.scope: use tenant, agent, session or tool."]],
    ["a unit", file({ unit: "tokens" }), ["5 budgets.0.unit: use usd_micros or calls."]],
    ["a tenant's subject", file({ scope: "tenant", subject: "shop" }), [/^7 budgets\.0\.subject: Leave subject out/]],
    ["a session's subject", file({ subject: "'a b'" }), [/^7 budgets\.0\.subject: Name one session, or write '\*'/]],
    ["a tool's subject", file({ scope: "tool", subject: "Pay" }), [/^7 budgets\.0\.subject: Name one tool, as/]],
    [
      "a name twice",
      file({}, { scope: "agent" }),
      ["7 budgets.1.name: Tenant shop has a budget b already, on line 2; rename one."],
    ],
    [
      "a cap twice",
      file({}, { name: "c", subject: "'*'" }),
      ["11 budgets.1.limit: It caps the usd_micros of session *, as b on line 6 does; keep the one that you mean."],
    ],
  ];
  it.each(cases)("%s", (_name, text, expected) => {
    const found = problemsOf(text);
    expect(found).toHaveLength(expected.length);
    for (const [i, part] of expected.entries()) {
      if (typeof part === "string") expect(found[i]).toBe(part);
      else expect(found[i]).toMatch(part);
    }
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
